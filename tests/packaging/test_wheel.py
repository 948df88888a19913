"""What people install is what we test: the wheel is whole, needs no compiler, and works far from this checkout.

Asks the package index, as scripts/install does.
"""

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from installing import CLEAN, PIP, ROOT, Installed, build, members, run, wheel_in

from ostraka.testing.processes import ServerProcess

pytestmark = pytest.mark.timeout(300)

LIBRARY = """
import asyncio, sys
from pathlib import Path
import ostraka

with ostraka.open("library") as store:
    photos = store.create_bucket("photos")
    photos.put("amphora.jpg", Path(sys.executable))
    assert photos.get("amphora.jpg") == Path(sys.executable).read_bytes()

async def again():
    async with ostraka.open_async("library") as store:
        photos = await store.bucket("photos")
        return [entry.key async for entry in photos.list()]

print(asyncio.run(again()))
"""

TYPED = """
import ostraka
from ostraka import StoreInUse

def main() -> bytes:
    try:
        with ostraka.open("here", ec="2+1") as store:
            reveal_type(store.bucket("b").get("k"))
            return store.bucket("b").get("k", offset=1)
    except StoreInUse as error:
        return error.message.encode()
"""


def files_in(package: Path) -> set[Path]:
    return {p.relative_to(package) for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_brings_every_file_of_the_package_and_nothing_else(installed: Installed) -> None:
    (package,) = installed.python.parents[1].glob("lib/python3*/site-packages/ostraka")
    assert files_in(package) == files_in(ROOT / "src/ostraka")
    assert (package / "py.typed").exists()


def test_the_sdist_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("ostraka-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11.2 has none yet
        archive.extractall(tmp_path)
    (source,) = tmp_path.glob("ostraka-*")
    again = build(tmp_path / "again", source)
    assert members(wheel_in(again)) == members(wheel_in(built))


def test_the_installed_server_takes_and_gives_far_from_the_checkout(installed: Installed) -> None:
    server = ServerProcess([installed.here / "data"])
    server.command[:4] = [str(installed.ostraka)]  # in place of this checkout's python -P -m ostraka
    server.environment = {**server.environment, "PYTHONPATH": ""}
    with server:
        client = server.client()
        client.create_bucket(Bucket="photos")
        body = Path(sys.executable).read_bytes()
        client.put_object(Bucket="photos", Key="amphora.jpg", Body=body)
        assert client.get_object(Bucket="photos", Key="amphora.jpg")["Body"].read() == body
    assert "Traceback" not in server.log_text()


def test_the_installed_library_takes_and_gives(installed: Installed) -> None:
    assert run(installed.python, "-c", LIBRARY, cwd=installed.here) == "['amphora.jpg']\n"


def test_there_is_one_version_and_every_way_in_tells_it(installed: Installed, built: Path) -> None:
    ask = "import ostraka, importlib.metadata as m; print(ostraka.__version__, m.version('ostraka'))"
    version, listed = run(installed.python, "-c", ask, cwd=installed.here).split()
    assert version == listed
    assert wheel_in(built).name == f"ostraka-{version}-py3-none-any.whl"
    for command in ([installed.ostraka], [installed.python, "-m", "ostraka"]):
        assert run(*command, "--version", cwd=installed.here).split()[-1] == version


def test_what_the_package_exports_is_a_list_and_all_of_it_is_there(installed: Installed) -> None:
    ask = "import ostraka; print(*(n for n in ostraka.__all__ if getattr(ostraka, n) is not None))"
    assert run(installed.python, "-c", ask, cwd=installed.here).split() == [
        "StoreInUse",
        "__version__",
        "open",
        "open_async",
    ]
    assert run(
        installed.python, "-c", "import ostraka; print(dir(ostraka) == ostraka.__all__)", cwd=installed.here
    ) == ("True\n")


def test_a_program_that_uses_the_installed_package_is_type_checked_strictly(installed: Installed) -> None:
    program = installed.here / "program.py"
    program.write_text(TYPED)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python, program]
    done = subprocess.run(mypy, cwd=installed.here, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "bytes"' in done.stdout.replace("builtins.", "")


def test_every_extra_installs_from_wheels_alone(installed: Installed, built: Path) -> None:
    wanted = f"ostraka[all] @ {wheel_in(built).as_uri()}"
    dry = ["install", "--dry-run", "--quiet", "--only-binary=:all:", "--report", "-", wanted]
    told = run(*PIP, "--python", installed.python, *dry, cwd=installed.here)
    assert '"install"' in told


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_it_installs_from_wheels_alone_on_arm64_too(built: Path, tmp_path: Path, python: str) -> None:
    wanted = f"ostraka[all] @ {wheel_in(built).as_uri()}"
    there = [word for tag in ("manylinux2014", "manylinux_2_28") for word in ("--platform", f"{tag}_aarch64")]
    there += ["--python-version", python, "--implementation", "cp", "--target", str(tmp_path / "there")]
    told = run(
        *PIP, "install", "--dry-run", "--quiet", "--only-binary=:all:", *there, "--report", "-", wanted, cwd=tmp_path
    )
    assert "aarch64.whl" in told
    assert "x86_64.whl" not in told


@pytest.mark.parametrize("builder", [SdistBuilder, WheelBuilder])
def test_a_build_does_not_look_into_what_git_ignores_where_another_test_may_have_mounted_a_debian(builder: Any) -> None:
    made = builder(str(ROOT))
    ignored = [ROOT / name for name in ("build", ".venv", ".venv-moto", "dist")]
    walked = {Path(found.path).parent for found in made.recurse_project_files()}
    assert ROOT / "src/ostraka" in walked
    assert made.config.skip_excluded_dirs
    assert all(made.config.directory_is_excluded(path.name, "") for path in ignored)
