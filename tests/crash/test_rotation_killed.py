"""kill -9 amid rotations: what was acknowledged is read, whatever version of the key it was sealed under."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.rotator import BUCKET, MASTER, SMALL, body_of

from ostraka.chunks.keyring import DEFAULT
from ostraka.jobs.ground import Budget
from ostraka.jobs.rewrap import Rewrap
from ostraka.store.operations import OPERATIONS
from ostraka.store.store import Store, open_here

ROTATOR = Path(__file__).with_name("rotator.py")


def killed(seed: int, paths: list[Path], first: int, after: int) -> dict[str, int]:
    """What the program acknowledged before it was killed."""
    command = [sys.executable, str(ROTATOR), str(seed), str(first), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found: dict[str, int] = {}
        for line in process.stdout:
            if not line.endswith("\n"):
                break
            key, size = line.split()
            found[key] = int(size)
            if len(found) == after:
                process.kill()
        assert len(found) >= after, f"it ended by itself: {process.wait()}"
    return found


async def all_read(store: Store, seed: int, acknowledged: dict[str, int]) -> None:
    for key, size in acknowledged.items():
        reader = store.objects.open(BUCKET, key)
        try:
            body = b"".join([bytes(piece) async for piece in reader.read()])
        finally:
            reader.close()
        assert body == body_of(seed, key, size), key


def rounds_of(paths: list[Path], seed: int, rounds: int) -> int:
    """Kill the program so many times; the number of versions that its key came to."""
    dice, acknowledged = random.Random(seed), dict[str, int]()
    for turn in range(rounds):
        acknowledged |= killed(seed, paths, turn * 100_000, dice.randrange(20, 120))

    async def look() -> int:
        async with open_here(paths, existing=True, limits=SMALL, masters=[MASTER]) as store:
            await all_read(store, seed, acknowledged)
            job = Rewrap(store)
            while (await job.run_once(Budget(store.host.clock, 60.0, 10_000))).more:
                pass
            (version,) = store.keyring.find(DEFAULT).row.versions
            await all_read(store, seed, acknowledged)
        async with open_here(paths, existing=True, limits=SMALL) as store:  # without the key
            findings = (await OPERATIONS["fsck"](store, lambda *_: None, repair=False))["findings"]
            assert not [f for f in findings if f["kind"] != "orphan-slot"]
        async with open_here(paths, existing=True, limits=SMALL, masters=[MASTER]) as store:
            await all_read(store, seed, acknowledged)
        return version.number

    return asyncio.run(look())


@pytest.mark.timeout(300)
def test_kill_9_while_a_key_is_rotated_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    assert rounds_of([tmp_path / "a", tmp_path / "b"], seed, 2) > 3


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_kill_9_while_a_key_is_rotated_again_and_again(tmp_path: Path, seed: int) -> None:
    assert rounds_of([tmp_path / "a", tmp_path / "b"], seed, 60) > 60
