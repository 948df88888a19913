"""`disk add`, `drain`, `geometry` under kill -9 at whatever step; and writes that began before a disk was drained."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from store_rig import SMALL, Body, Contents, directories, fsck, opened, operate
from tests.store.test_layout import assert_where_the_ring_wants, stripes

from ostraka.host import Buffer, Host
from ostraka.jobs.collect import Collect
from ostraka.jobs.ground import Budget
from ostraka.jobs.rebalance import Rebalance
from ostraka.shared import Shared
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import Store, new_shared, open_owner, open_worker

RIG = str(Path(__file__).parents[1] / "jobs")
DYING = """
import asyncio, json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from store_rig import opened, operate
from ostraka.host import SystemFiles

calls = 0

def die():
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

class Counting:
    def __init__(self, real):
        self.real = real

    def __call__(self, *arguments, **named):
        die()
        return self.real(*arguments, **named)

import ostraka.nodes.local, ostraka.nodes.superblock, ostraka.state.embedded, ostraka.nodes.shard_index
local = ostraka.nodes.local.LocalDisk

async def main():
    async with opened([Path(p) for p in sys.argv[5:]]) as store:
        # each epoch on each disk, each append and release of shards, each commit: what a crash can fall between
        ostraka.nodes.superblock.write = Counting(ostraka.nodes.superblock.write)
        for name in ("write", "release"):
            real = getattr(local, name)
            setattr(local, name, lambda self, *a, real=real: (die(), real(self, *a))[1])
        commit = store.state.commit
        async def dying(mutation):
            die()
            result = await commit(mutation)
            die()
            return result
        store.state.commit = dying
        await operate(store, sys.argv[3], **json.loads(sys.argv[4]))

asyncio.run(main())
"""


def die_at(call: int, command: str, arguments: dict[str, object], paths: Sequence[Path]) -> bool:
    """Carry the command out in a process that is killed at its n-th step; False if it ended before."""
    words = [sys.executable, "-c", DYING, RIG, str(call), command, msgspec.json.encode(arguments).decode()]
    done = subprocess.run(
        [*words, *map(str, paths)], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""}
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def killed_again_and_again(
    tmp_path: Path,
    seed: int,
    disks: int,
    command: str,
    arguments: dict[str, object],
    calls: Sequence[int],
    done: Callable[[Store], None],
    new: Sequence[Path] = (),
) -> None:
    """The command dies at each of these steps, one after the other on the same store; then it is given once more."""
    contents = Contents(seed)
    paths = directories(tmp_path, disks)

    async def before() -> None:
        async with opened(paths, ec=(2, 1)) as store:
            await contents.fill(store, 2)

    async def between() -> None:
        async with opened(there()) as store:
            await contents.check(store)

    async def after() -> None:
        async with opened(there()) as store:
            await operate(store, command, **arguments)
            done(store)
            await contents.check(store)
            found = await fsck(store)
            assert found["clean"], found["findings"]

    def there() -> list[Path]:
        return [*paths, *(path for path in new if (path / "superblock").exists())]

    asyncio.run(before())
    killed = sum(die_at(call, command, arguments, there()) for call in calls)
    assert killed > 0
    asyncio.run(between())
    asyncio.run(after())


SLOW = pytest.mark.slow
STEPS = [(1, 4, 9), *(pytest.param(calls, marks=SLOW) for calls in ((2, 3, 5), (6, 7, 8), (11, 21, 34), (13, 16, 19)))]


@pytest.mark.parametrize("calls", STEPS)
def test_an_add_that_is_killed_is_finished_by_the_same_command(tmp_path: Path, seed: int, calls: Sequence[int]) -> None:
    new = tmp_path / "new"

    def done(store: Store) -> None:
        up = [d.path for d in store.membership.epoch.members if d.up]
        assert len(up) == len(store.membership.epoch.members) == 5
        assert str(new) in up
        assert_where_the_ring_wants(store)

    killed_again_and_again(tmp_path, seed, 4, "disk-add", {"new": str(new)}, calls, done, [new])


@pytest.mark.parametrize("calls", STEPS)
def test_a_drain_that_is_killed_is_finished_by_the_same_command(
    tmp_path: Path, seed: int, calls: Sequence[int]
) -> None:
    def done(store: Store) -> None:
        assert [d.number for d in store.membership.epoch.members] == [1, 2, 3]
        assert {(s.k, s.m) for s in stripes(store)} == {(2, 1)}
        assert not any(0 in stripe.disks for stripe in stripes(store))

    killed_again_and_again(tmp_path, seed, 4, "disk-drain", {"disk": "0"}, calls, done)


@pytest.mark.parametrize("calls", STEPS)
def test_a_conversion_that_is_killed_is_finished_by_the_same_command(
    tmp_path: Path, seed: int, calls: Sequence[int]
) -> None:
    def done(store: Store) -> None:
        assert {(s.k, s.m) for s in stripes(store)} == {(2, 2)}
        assert sum(d.state for d in store.membership.epoch.members) == 3

    arguments: dict[str, object] = {"k": 2, "m": 2, "convert": True}
    killed_again_and_again(tmp_path, seed, 4, "disk-geometry", arguments, calls, done)


# -- writes in flight


class Slow(Body):
    """A body whose second half comes when it is told to."""

    def __init__(self, body: bytes, half: asyncio.Event, go_on: asyncio.Event) -> None:
        super().__init__(body)
        self._at = len(body) // 2
        self._half, self._go_on, self._given = half, go_on, 0

    async def read_into(self, view: memoryview) -> int:
        if self._given < self._at:
            view = view[: self._at - self._given]
        else:
            self._half.set()
            await self._go_on.wait()
        count = await super().read_into(view)
        self._given += count
        return count

    def read_now(self) -> Buffer | None:
        return None


def work(conn: Connection, shared: Shared, contents: Contents) -> None:
    """Another process of the store: a client sends it half of a body before a disk is drained, and the rest after."""

    async def run() -> None:
        from store_rig import BUCKET, Md5

        from ostraka.objects.types import Attributes

        recovered = msgspec.msgpack.decode(await asyncio.to_thread(conn.recv_bytes), type=Recovered)
        store = open_worker(recovered, shared, 1, Host(), SMALL)
        half, go_on = asyncio.Event(), asyncio.Event()
        contents.keys["slow"] = 1, 400_000
        body = Slow(contents.body("slow"), half, go_on)
        put = asyncio.ensure_future(store.objects.put(BUCKET, "slow", body, Md5(), Attributes(), owner="root"))
        await half.wait()
        await store.chunks.settled()
        conn.send("half")
        await asyncio.to_thread(conn.recv)
        go_on.set()
        await put
        conn.send("put")
        await asyncio.to_thread(conn.recv)
        await store.close()

    asyncio.run(run())


def test_a_disk_does_not_leave_before_writes_that_chose_it_have_ended(tmp_path: Path, seed: int) -> None:
    contents = Contents(seed)
    paths = directories(tmp_path, 4)

    async def before() -> None:
        async with opened(paths, ec=(2, 1)) as store:
            await contents.fill(store, 1)

    async def serve() -> None:
        with hold(paths, Host(), make=False):
            owner = open_owner(paths, shared, 0, host=Host(), limits=SMALL)
            ours.send_bytes(msgspec.msgpack.encode(owner.recovered))
            assert await asyncio.to_thread(ours.recv) == "half"
            job, collect = Rebalance(owner), Collect(owner)  # which fences the process of before

            async def work_off() -> str:
                while True:
                    await collect.run_once(Budget(owner.host.clock, 1.0, 1000))
                    result = await job.run_once(Budget(owner.host.clock, 1.0, 1000))
                    if not result.more:
                        return result.note

            class Running:
                """Somebody runs jobs: the command only marks the disk."""

                def wake(self) -> None:
                    pass

            owner.jobs = Running()  # type: ignore[assignment]
            await operate(owner, "disk-drain", disk="3")
            owner.jobs = None
            assert "writes that had begun before" in await work_off()
            assert owner.membership.epoch.member(3) is not None
            ours.send("go on")
            assert await asyncio.to_thread(ours.recv) == "put"
            contents.keys["slow"] = 1, 400_000
            while owner.membership.epoch.member(3) is not None:
                await work_off()
                await asyncio.sleep(0.05)
            assert not any(3 in stripe.disks for stripe in stripes(owner))
            await contents.check(owner)
            ours.send("end")
            await asyncio.to_thread(process.join)
            owner.held.close()
            await owner.close()

    asyncio.run(before())
    shared = new_shared(2)
    ours, theirs = Pipe()
    process = get_context("fork").Process(target=work, args=(theirs, shared, contents))
    process.start()
    try:
        asyncio.run(serve())
    finally:
        process.kill()
        process.join()
