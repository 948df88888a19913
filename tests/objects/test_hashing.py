"""The lane on which a body is hashed: every byte once, in order, however its pieces meet the thread."""

import asyncio
import hashlib
import random
import threading
from typing import Any

import pytest

from ostraka.objects.hashing import Lane, Stopped
from ostraka.objects.types import Digested

SEED = 31


class Sha:
    """A digest whose first call waits until it is told to go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.calls: list[int] = []
        self.sha = hashlib.sha256()

    def update(self, data: Any) -> None:
        self.begun.set()
        assert self.go.wait(20)
        self.calls.append(len(data))
        self.sha.update(data)

    def finish(self) -> Digested:
        return Digested(self.sha.hexdigest())


def test_what_waits_of_one_buffer_is_hashed_in_one_call_and_never_across_buffers() -> None:
    dice = random.Random(SEED)
    buffers = [memoryview(dice.randbytes(1000)) for _ in range(3)]

    async def run() -> None:
        digest = Sha()
        lane = Lane(digest, None)
        lane.feed(buffers[0], 0, 10)
        await asyncio.to_thread(digest.begun.wait, 20)
        for buffer, start in ((buffers[0], 10), (buffers[1], 0), (buffers[2], 0)):
            for at in range(start, 1000, 90):
                lane.feed(buffer, at, min(1000, at + 90))
        digest.go.set()
        await lane.drained()
        assert digest.calls == [10, 990, 1000, 1000]
        assert digest.finish().etag == hashlib.sha256(b"".join(buffers)).hexdigest()

    asyncio.run(run())


def test_a_lane_that_is_stopped_lets_go_of_what_waits() -> None:
    async def run() -> None:
        digest = Sha()
        lane = Lane(digest, None)
        buffer = memoryview(bytes(100))
        lane.feed(buffer, 0, 10)
        await asyncio.to_thread(digest.begun.wait, 20)
        lane.feed(buffer, 10, 100)
        waiting = asyncio.ensure_future(lane.reached(100))
        stopping = asyncio.ensure_future(lane.stop())
        with pytest.raises(Stopped):
            await waiting
        digest.go.set()
        await stopping
        assert digest.calls == [10]

    asyncio.run(run())
