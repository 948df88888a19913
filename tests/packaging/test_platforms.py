"""Where Ostraka does not run, its doors say so in a sentence: no traceback for want of a module that only Linux has."""

import subprocess
import sys

import pytest

ELSEWHERE = {
    "darwin": "sys.platform = 'darwin'",
    "win32": "sys.platform = 'win32'",
    "Linux on riscv64": "import os, types; os.uname = lambda: types.SimpleNamespace(machine='riscv64')",
    "Linux on x86_64 with a 32-bit Python": (
        "import os, types; os.uname = lambda: types.SimpleNamespace(machine='x86_64'); sys.maxsize = 2**31 - 1"
    ),
}
# what the wheel leaves out there, or Python itself has not
MISSING = "for name in ('awscrt', 'blake3', 'cffi', 'cryptography', 'fcntl', 'httptools', 'isal', 'lmdb', 'pyeclib', "
MISSING += "'resource', 'uvloop', 'xxhash', 'zstandard'): sys.modules[name] = None"


def elsewhere(place: str, door: str, program: str) -> subprocess.CompletedProcess[str]:
    """Import the door where those modules are missing, then go through it on that platform (which other people's
    modules would not survive to be told at their import)."""
    code = f"import sys\n{MISSING}\n{door}\n{ELSEWHERE[place]}\n{program}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_the_command_says_in_a_sentence_where_it_runs(place: str) -> None:
    done = elsewhere(place, "from ostraka.cli import main", "main(['serve', 'data'])")
    assert done.returncode == 1
    assert done.stderr == (
        f"ostraka: Ostraka runs on Linux, on x86-64 and arm64, and not on {place}: take a Linux machine or container\n"
    )


@pytest.mark.parametrize("place", ELSEWHERE)
@pytest.mark.parametrize("door", ["open", "open_async"])
def test_the_library_refuses_with_the_same_sentence_and_importing_the_package_is_harmless(
    place: str, door: str
) -> None:
    program = f"try:\n    ostraka.{door}('data')\nexcept NotSupported as error:\n    print(error)"
    imports = "import ostraka\nfrom ostraka.errors import NotSupported\nprint(ostraka.__version__)"
    done = elsewhere(place, imports, program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].endswith(f"not on {place}: take a Linux machine or container")
