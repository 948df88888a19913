"""What people install is what we test: the wheel is whole, needs no compiler, and runs far from this checkout.

Asks the package index, as scripts/install does.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = Path(sys.base_prefix) / "bin/python3"  # has pip, which our own environment has not
PIP = [BASE, "-m", "pip", "--disable-pip-version-check"]
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("OSTRAKA_", "PYTHON", "VIRTUAL_ENV"))
}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def files_in(package: Path) -> set[Path]:
    return {p.relative_to(package) for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


@pytest.mark.timeout(300)
def test_the_wheel_installs_from_wheels_alone_and_serves_outside_the_checkout(tmp_path: Path) -> None:
    run(*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("ostraka-*-py3-none-any.whl")
    env = tmp_path / "env"
    run(BASE, "-m", "venv", "--without-pip", env, cwd=tmp_path)
    python = env / "bin/python"
    run(*PIP, "--python", python, "install", "--quiet", "--only-binary=:all:", wheel, cwd=tmp_path)

    (installed,) = env.glob("lib/python3*/site-packages/ostraka")
    source = ROOT / "src/ostraka"
    assert files_in(installed) == files_in(source)

    command = [str(env / "bin/ostraka"), "serve", "./data", "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, env=CLEAN, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}/-/health/ready", timeout=30) as answer:
                assert answer.status == 200
        finally:
            server.terminate()
        assert server.wait(60) == 0
