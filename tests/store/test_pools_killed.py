"""Bodies on their way between pools, killed at whatever step: none is lost, and what is left behind is swept."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import Contents, directories, fsck, opened, read
from tests.store.test_pools import COLD, collect, kept, objects_in, put, set_class, tier, with_pool

RIG = str(Path(__file__).parents[1] / "jobs")
ROOT = str(Path(__file__).parents[2])
DYING = """
import asyncio, os, signal, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from pathlib import Path
from store_rig import opened
from tests.store.test_pools import tier

calls = 0

def die():
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name):
    real = getattr(owner, name)
    async def call(*arguments, **named):
        die()
        result = await real(*arguments, **named)
        die()
        return result
    setattr(owner, name, call)

async def main():
    async with opened([Path(p) for p in sys.argv[4:]]) as store:
        # what a crash can fall between: the body in its new place, the row that names it, the old place given up
        backend = store.pools.backend(1).backend
        for owner, name in ((backend, "write"), (backend, "delete_batch"), (backend, "delete"), (store.pool, "write"),
                            (store.pool, "release"), (store.state, "commit"), (store.state, "commit_many")):
            if hasattr(owner, name):
                dying(owner, name)
        await tier(store)
        collector = store.objects.collector(lambda incarnation: True)
        while await collector.collect(2):
            pass

asyncio.run(main())
"""


def die_at(call: int, paths: list[Path]) -> bool:
    """Have a process move what belongs elsewhere, and killed at its n-th step; False if it ended before."""
    words = [sys.executable, "-c", DYING, RIG, ROOT, str(call), *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


SLOW = pytest.mark.slow
STEPS = [
    (1, 3, 6, 10),
    *(pytest.param(calls, marks=SLOW) for calls in ((2, 4, 5, 7), (8, 9, 11, 12), (13, 17, 21, 30))),
]


@pytest.mark.parametrize("calls", STEPS)
@pytest.mark.parametrize("way", ["out", "back"])
def test_whatever_step_it_dies_at_nothing_is_lost_and_nothing_is_left_behind(
    tmp_path: Path, seed: int, calls: tuple[int, ...], way: str
) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 3)
    before, after = ("STANDARD", COLD) if way == "out" else (COLD, "STANDARD")

    async def begin() -> None:
        async with with_pool(tmp_path) as store:
            for size in (3000, 20_000, 150_000):
                await put(store, contents, f"k{size}", size, before)
                await set_class(store, f"k{size}", after)

    async def end() -> None:
        async with opened(paths) as store:
            for key in contents.keys:
                assert await read(store, key) == contents.body(key)
            await tier(store)
            await collect(store)
            await tier(store)
            for key in contents.keys:
                assert await read(store, key) == contents.body(key)
            found = kept(store)
            assert list(found) == [1 if way == "out" else 0]
            assert len(objects_in(tmp_path / "cold")) == found.get(1, 0)
            result = await fsck(store)
            assert result["clean"], result["findings"]

    asyncio.run(begin())
    assert sum(die_at(call, paths) for call in calls) > 1
    asyncio.run(end())
