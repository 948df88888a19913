"""Building and installing as people do, from the package index that scripts/install asks too."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = Path(sys.base_prefix) / "bin/python3"  # has pip, which our own environment has not
PIP = (BASE, "-m", "pip", "--disable-pip-version-check")
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("OSTRAKA_", "PYTHON", "VIRTUAL_ENV"))
}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty directory to work in."""

    python: Path
    here: Path

    @property
    def ostraka(self) -> Path:
        return self.python.with_name("ostraka")


def run(*command: str | Path, cwd: Path, environment: dict[str, str] = CLEAN) -> str:
    words = list(map(str, command))
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def build(into: Path, source: Path = ROOT) -> Path:
    """Make the sdist and the wheel of a source tree; the same backend that pip would fetch."""
    run(sys.executable, "-m", "hatchling", "build", "-d", into, cwd=source)
    return into


def wheel_in(directory: Path) -> Path:
    (wheel,) = directory.glob("ostraka-*-py3-none-any.whl")
    return wheel


def members(wheel: Path) -> dict[str, int]:
    """Names and checksums of what a wheel brings."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def install_wheel(built: Path, where: Path) -> Installed:
    environment, here = where / "env", where / "here"
    here.mkdir()
    run(BASE, "-m", "venv", "--without-pip", environment, cwd=here)
    python = environment / "bin/python"
    run(*PIP, "--python", python, "install", "--quiet", "--only-binary=:all:", wheel_in(built), cwd=here)
    return Installed(python, here)
