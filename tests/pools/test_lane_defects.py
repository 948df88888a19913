"""Defects of the threads that wait for disks, found by reviewing them, each by its name."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest

from ostraka.host import Host, SystemClock
from ostraka.limits import LIMITS
from ostraka.nodes.types import Disk, Owner, ShardWrite
from ostraka.pools.lanes import Hung, Lane, Lanes


class Memory(bytearray):
    """What a call holds, so that a test sees when it is let go."""


def test_calls_behind_a_disk_that_hangs_hold_no_memory_and_new_ones_are_answered_at_once() -> None:
    """They kept their buffers for ever: once limits.buffers_bytes_max hung there, every request was refused."""

    async def run() -> None:
        lane = Lane("hanging", None, 2, SystemClock(), 0.2)
        go = threading.Event()
        back = [asyncio.Event(), asyncio.Event()]
        hanging = [lane.call(go.wait, event.set) for event in back]
        let_go: list[int] = []
        memories: list[weakref.ref[Memory]] = []

        def behind(number: int) -> "asyncio.Future[None]":
            memory = Memory(100)
            memories.append(weakref.ref(memory))
            return lane.call(lambda: memory.clear(), lambda: let_go.append(number))

        waiting = [behind(i) for i in range(5)]
        for call in [*waiting, *hanging]:
            with pytest.raises(TimeoutError):
                await call
        del waiting, call
        gc.collect()
        assert sorted(let_go) == list(range(5))
        assert [ref() for ref in memories] == [None] * 5
        answered = behind(5)
        assert answered.done()
        with pytest.raises(TimeoutError):
            await answered
        assert 5 in let_go
        go.set()  # it comes back, and so does the lane
        await asyncio.gather(*(event.wait() for event in back))
        assert await lane.call(lambda: True)
        lane.close()

    asyncio.run(run())


@pytest.mark.parametrize("answers", [False, True], ids=["nothing else is answered", "others are answered"])
def test_a_call_that_takes_too_long_tells_a_disk_that_hangs_from_one_bad_place(answers: bool) -> None:
    """The word for it was there, and nobody said it: reads waited for a disk that hung, again and again."""

    async def run() -> None:
        lane = Lane("slow", None, 2, SystemClock(), 0.4)
        go = threading.Event()
        slow = lane.call(go.wait)
        while answers and not slow.done():
            await lane.call(lambda: None)
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError) as caught:
            await slow
        assert isinstance(caught.value, Hung) is not answers
        go.set()
        lane.close()

    asyncio.run(run())


class Recorder:
    """A disk that notes what it was told, in order."""

    number = 0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def write(self, shards: Sequence[ShardWrite]) -> None:
        self.seen += [shard.owner_id.decode() for shard in shards]


def test_what_is_released_is_not_passed_by_for_ever_by_writes_that_keep_coming() -> None:
    """A call that met a batch went to the end of the queue, again and again."""

    async def run() -> None:
        disk = Recorder()
        lane = Lane("busy", cast(Disk, disk), 1, SystemClock(), 30.0)
        go = threading.Event()
        waits: list[asyncio.Future[Any]] = [lane.call(go.wait)]
        for name in ("a", "b", "release", "c", "d"):
            if name == "release":
                waits.append(lane.call(lambda: disk.seen.append("release")))
            else:
                shard = ShardWrite(b"w" * 16, 0, 1, 0, Owner.PACK, name.encode(), 1, [b"x"])
                waits.append(lane.write(shard, 1))
        go.set()
        await asyncio.gather(*waits)
        assert disk.seen == ["a", "b", "release", "c", "d"]
        lane.close()

    asyncio.run(run())


class Jumping:
    """A clock of a machine that may be stopped for a while."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.asked: asyncio.Queue[None] = asyncio.Queue()

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        self.asked.put_nowait(None)
        return time.monotonic() + self.ahead


def test_a_process_that_was_stopped_does_not_take_its_disks_for_failed() -> None:
    """After a pause of half a minute every disk with a call under way was taken out of service."""

    async def run() -> None:
        clock = Jumping()
        lane = Lane("paused", None, 1, clock, 0.8)
        go = threading.Event()
        call = lane.call(go.wait)
        while not clock.asked.empty():
            clock.asked.get_nowait()
        clock.ahead += 1000.0
        for _ in range(2):
            await clock.asked.get()
        assert not call.done()
        go.set()
        assert await call
        lane.close()

    asyncio.run(run())


def test_a_disk_that_is_first_called_while_the_lanes_close_does_not_end_the_closing() -> None:
    """What was given up meanwhile began the threads of its disk, and `close` ended by "dictionary changed size": the
    state was left open, and no disk was closed."""

    async def run() -> None:
        lanes = Lanes(Host(), LIMITS, None)
        late: list[asyncio.Future[None]] = []

        class First(Recorder):
            number = 1

        second = First()
        second.number = 2

        def slowly() -> None:
            loop.call_soon_threadsafe(lambda: late.append(lanes.of(cast(Disk, second)).writes.call(lambda: None)))
            time.sleep(0)
            began.set()

        loop, began = asyncio.get_running_loop(), threading.Event()
        lanes.of(cast(Disk, First())).writes.call(slowly)
        began.wait()  # the loop has the other disk's call in its queue now, behind what `close` does first
        await lanes.close()
        assert len(late) == 1
        await late[0]

    asyncio.run(run())
