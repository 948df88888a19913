"""A store with very many keys, made without HTTP: the same core, the same commits, only nobody signs or parses."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import uvloop

from load.signing import ACCESS, SECRET
from load.target import BUCKET
from ostraka.host import Buffer
from ostraka.objects.types import Attributes, Digested
from ostraka.store.store import open_here

WRITERS = 512  # puts at once; their commits share syncs
_EMPTY = Digested(hashlib.md5(b"", usedforsecurity=False).hexdigest())


class _Nothing:
    """An empty body, and its digest."""

    length: int | None = 0

    async def read_into(self, view: memoryview) -> int:
        return 0

    def read_now(self) -> Buffer | None:
        return b""

    def update(self, data: Buffer) -> None:
        pass

    def finish(self) -> Digested:
        return _EMPTY


def key(number: int) -> str:
    """As real keys are: a few levels, some length, about 40 bytes."""
    return f"logs/2026/{number // 10000:04d}/service-{number:09d}.json"


def fill(directories: list[Path], count: int) -> None:
    """Make a store there, with one bucket of ``count`` empty objects."""
    uvloop.run(_fill(directories, count))


async def _fill(directories: list[Path], count: int) -> None:
    async with open_here(directories, root=(ACCESS, SECRET)) as store:
        await store.objects.start()
        await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        numbers = iter(range(count))

        async def write(numbers: Iterator[int]) -> None:
            body, attributes = _Nothing(), Attributes()
            for number in numbers:
                await store.objects.put(BUCKET, key(number), body, body, attributes, owner="root")

        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(write(numbers))
