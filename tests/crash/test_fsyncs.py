"""Every sync that the source asks for is needed: without it, a power cut loses something that was acknowledged.

The call sites are found in the source; each is left out in turn, and the loop of test_power.py must notice.
"""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.test_power import Lost, Machine, machine

import ostraka
from ostraka.testing.ledger import Content, Key
from ostraka.testing.powercut import missing

SOURCE = Path(ostraka.__file__).parent
SYNCS = ("sync_data", "sync_directory")
TRIES = 12

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "FUSE is here")


ELSEWHERE = ("testing", "backends", "client")  # no store's; tests/backends/test_local_powercut.py has those of backends


# A module to the file and the test that show that its one sync is needed: it matters only when the power goes between
# two writes of an epoch, and a disk is lost besides.
SHOWN_ELSEWHERE = {
    "state/seed.py": (
        "state/test_recovery.py",
        "test_the_directory_of_a_new_copy_is_durable_before_the_copy_counts",
    ),
}


def sites() -> list[str]:
    """FILE:LINE of every call of a sync that a store makes, but for those that the seams themselves make."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SYNCS:
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    return [site for site in found if site.split(":")[0] not in SHOWN_ELSEWHERE]


def test_what_is_shown_elsewhere_is_one_sync_and_is_shown() -> None:
    for module, (file, test) in SHOWN_ELSEWHERE.items():
        calls = [line for line in (SOURCE / module).read_text().splitlines() if any(f".{s}(" in line for s in SYNCS)]
        assert len(calls) == 1
        assert f"def {test}(" in (Path(__file__).parents[1] / file).read_text()


def loses(computer: Machine, seed: int) -> bool:
    """Whether a power cut while a store is written lost something."""
    try:
        computer.write(seed, 100, 400)
        computer.verify()
    except Lost:
        return True
    return False


def loses_a_published_file(computer: Machine, seed: int) -> bool:
    """Whether a power cut lost a file that was said to be published."""
    process = computer.start("publish")
    out, _ = process.communicate()
    computer.cut(seed)
    directory = computer.disks[0].path / "store"
    done = [json.loads(line)["done"] for line in out.splitlines()]
    assert done
    return any(not (directory / n).is_file() or (directory / n).read_bytes() != b"published " * 100 for n in done)


def loses_a_replacement(computer: Machine, seed: int) -> bool:
    """Whether a power cut lost a disk that was said to have replaced another."""
    disk = computer.disks[0]
    first, second = (disk.backing.parent / name for name in ("first", "second"))
    words = (str(first), str(second), str(disk.path / "store"))
    process = computer.start("replace", *words[:2])
    out, err = process.communicate()
    assert "replaced" in out, err[-1500:]
    computer.cut(seed)
    shutil.rmtree(first)  # any one may vanish: the new disk alone has to have everything
    shutil.rmtree(second, ignore_errors=True)
    try:
        computer.keys = {"kept": Key(Content(7, 300_000))}
        computer.verify()
    except Lost:
        return True
    return False


def scenario(site: str) -> Callable[[Machine, int], bool]:
    """What shows that the sync at this site is needed."""
    if site.startswith(("host.py", "state/snapshot.py")):
        return loses_a_published_file
    return loses_a_replacement if site.startswith("store/adoption.py") else loses


@pytest.mark.timeout(200)
@pytest.mark.parametrize("site", sites())
def test_without_this_sync_a_power_cut_loses_something(tmp_path: Path, seed: int, site: str) -> None:
    for attempt in range(TRIES):
        with machine(tmp_path / str(attempt), 1, site) as computer:
            computer.forget_all = attempt % 2 == 0  # what was reordered shows only when some of it survives
            computer.hits = attempt // 2 % 3 + 1
            if scenario(site)(computer, seed + attempt):
                return
    pytest.fail(f"{TRIES} power cuts right after the sync at {site} was left out, and nothing was lost: is it needed?")


@pytest.mark.parametrize("shown", [loses, loses_a_published_file, loses_a_replacement])
def test_with_all_syncs_power_cuts_lose_nothing(
    tmp_path: Path, seed: int, shown: Callable[[Machine, int], bool]
) -> None:
    for attempt in range(3):
        with machine(tmp_path / str(attempt), 1) as computer:
            assert not shown(computer, seed + attempt)
