"""Every sync that the source asks for is needed: without it, a power cut loses something that was acknowledged.

The call sites are found in the source; each is left out in turn, and the loop of test_power.py must notice.
"""

import ast
from pathlib import Path

import pytest
from tests.crash.test_power import Lost, Machine, machine

import ostraka
from ostraka.testing.powercut import missing

SOURCE = Path(ostraka.__file__).parent
SYNCS = ("sync_data", "sync_directory")
TRIES = 12

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "FUSE is here")


def sites() -> list[str]:
    """FILE:LINE of every call of a sync, but for those that the seams themselves make."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.is_relative_to(SOURCE / "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SYNCS:
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    return found


def loses(computer: Machine, seed: int) -> bool:
    """Whether a power cut in this run lost something."""
    try:
        computer.write(seed, 100, 400)
        computer.verify()
    except Lost:
        return True
    return False


@pytest.mark.timeout(200)
@pytest.mark.parametrize("site", sites())
def test_without_this_sync_a_power_cut_loses_something(tmp_path: Path, seed: int, site: str) -> None:
    for attempt in range(TRIES):
        with machine(tmp_path / str(attempt), 1, site) as computer:
            computer.hits = attempt // 2 + 1
            if loses(computer, seed + attempt):
                return
    pytest.fail(f"{TRIES} power cuts right after the sync at {site} was left out, and nothing was lost: is it needed?")
