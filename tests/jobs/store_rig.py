"""A real store in temporary directories, for the tests of jobs and of the store: small bounds, real files."""

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostraka.errors import Absent
from ostraka.host import Buffer, Host
from ostraka.limits import KIB, LIMITS, Limits
from ostraka.objects.types import Attributes, Digested
from ostraka.store.operations import OPERATIONS
from ostraka.store.store import Store, open_here

SMALL = replace(
    LIMITS,
    inline_size_max=200,
    pack_size_max=4 * KIB,
    chunk_size=64 * KIB,
    frame_size=16 * KIB,
    pack_bytes_max=32 * KIB,
    pack_slots_max=16,
    segment_size_max=256 * KIB,
    collect_grace_seconds=0.0,
    jobs_piece_rows=50,
)
SIZES = (0, 100, 1000, 3000, 20_000, 150_000)  # inline, packed, one chunk, several
BUCKET = "bucket"


class Turned:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1.7e9 + self.now

    def monotonic(self) -> float:
        return self.now


class Body:
    """A body that is here already."""

    def __init__(self, body: bytes) -> None:
        self.length: int | None = len(body)
        self._left = memoryview(body)

    async def read_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def read_now(self) -> Buffer | None:
        body, self._left = bytes(self._left), memoryview(b"")
        return body


class Md5:
    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, data: Buffer) -> None:
        self._md5.update(data)

    def finish(self) -> Digested:
        return Digested(self._md5.hexdigest())


class Contents:
    """What was acknowledged: keys and bodies, and how they are made. Bodies come from the seed, so none is kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.keys: dict[str, tuple[int, int]] = {}  # key -> (generation, size)

    def body(self, key: str) -> bytes:
        generation, size = self.keys[key]
        return random.Random(f"{self._seed}/{key}/{generation}").randbytes(size)

    async def put(self, store: Store, key: str, size: int) -> None:
        generation = self.keys.get(key, (0, 0))[0] + 1
        before = self.keys.get(key)
        self.keys[key] = generation, size
        try:
            await store.objects.put(BUCKET, key, Body(self.body(key)), Md5(), Attributes(), owner="root")
        except BaseException:
            if before is None:
                del self.keys[key]
            else:
                self.keys[key] = before
            raise

    async def delete(self, store: Store, key: str) -> None:
        await store.objects.delete(BUCKET, key, owner="root")
        del self.keys[key]

    async def fill(self, store: Store, count: int, prefix: str = "k") -> None:
        """``count`` keys of every size, several at a time."""
        names = [(f"{prefix}{i:03}-{size}", size) for i in range(count) for size in SIZES]
        for start in range(0, len(names), 8):
            await asyncio.gather(*(self.put(store, key, size) for key, size in names[start : start + 8]))

    async def check(self, store: Store) -> None:
        """Everything acknowledged reads back byte for byte, and nothing else is there."""
        for key in self.keys:
            assert await read(store, key) == self.body(key), key
        listed: list[str] = []
        after = ""
        while True:
            page = store.objects.list(BUCKET, "", "", after, 1000)
            listed += [entry.key for entry in page.entries]
            if not page.truncated:
                break
            after = page.next
        assert listed == sorted(self.keys)


async def read(store: Store, key: str) -> bytes:
    reader = store.objects.open(BUCKET, key)
    try:
        return b"".join([bytes(piece) async for piece in reader.read()])
    finally:
        reader.close()


@asynccontextmanager
async def opened(
    paths: Sequence[Path],
    limits: Limits = SMALL,
    *,
    ec: tuple[int, int] | None = None,
    host: Host | None = None,
    masters: Sequence[bytes] = (),
) -> AsyncIterator[Store]:
    """The store in these directories, for this process alone, with a bucket in it."""
    async with open_here(paths, ec=ec, host=host, limits=limits, masters=masters) as store:
        try:
            if not store.membership.read_only:
                try:
                    store.objects.bucket(BUCKET)
                except Absent:
                    await store.objects.create_bucket(BUCKET, "root", "us-east-1")
            yield store
        finally:
            store.held.close()


class Steps:
    """A progress callback that can be told to fail at a step."""

    def __init__(self, fail_at: Callable[[str, int], bool] | None = None) -> None:
        self.seen: list[tuple[str, int, int | None]] = []
        self._fail_at = fail_at

    def __call__(self, step: str, done: int, total: int | None) -> None:
        self.seen.append((step, done, total))
        if self._fail_at is not None and self._fail_at(step, done):
            raise Stop(f"{step} {done}")


class Stop(Exception):
    """The test ends a command in its middle."""


async def operate(store: Store, command: str, progress: Steps | None = None, **arguments: Any) -> dict[str, Any]:
    return await OPERATIONS[command](store, progress or Steps(), **arguments)


async def fsck(store: Store, *, repair: bool = False) -> dict[str, Any]:
    return await operate(store, "fsck", repair=repair)


def directories(where: Path, count: int) -> list[Path]:
    return [where / f"disk{i}" for i in range(count)]


def wipe(path: Path) -> None:
    shutil.rmtree(path)


def segment_bytes(store: Store) -> int:
    """Bytes of all segment files."""
    return sum(
        file.stat().st_size for disk in store.disks.values() for file in (disk.path / "segments").glob("*.segment")
    )


def flip(path: Path, at: int) -> None:
    """One bit of a file, at rest."""
    fd = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, at)[0]
        os.pwrite(fd, bytes([byte ^ 0x10]), at)
    finally:
        os.close(fd)
