"""Which sizes ride inline, are packed, or are cut into chunks: what each way costs, end to end below the doors.

    python bench/thresholds.py [--rounds 5] [--dir DIR] [--disks 1|6]

For bodies around each threshold the same objects are stored and read with the threshold above and below their size, in
interleaved rounds, on a real store of a real disk, 32 at a time. Told are the medians: operations a second,
microseconds of CPU of the whole process for each, and how many bytes of files one object adds. What rides inline is
written m+1 times in full and again with every snapshot of the state; what is packed is written (k+m)/k times.
"""

import argparse
import asyncio
import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from ostraka.host import Buffer
from ostraka.limits import KIB, LIMITS, Limits
from ostraka.objects.types import Attributes, Digested
from ostraka.store.store import Store, open_here

BUCKET, CLIENTS = "thresholds", 32
INLINE_SIZES = [256, 512, KIB, 2 * KIB, 4 * KIB, 8 * KIB]
PACK_SIZES = [32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB]


class Body:
    """A body that is all here, and its digest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)
        self._hash = hashlib.md5(usedforsecurity=False)

    async def read_into(self, view: memoryview) -> int:
        return 0

    def read_now(self) -> Buffer | None:
        return self._data

    def update(self, data: Buffer) -> None:
        self._hash.update(data)

    def finish(self) -> Digested:
        return Digested(self._hash.hexdigest())


class Way:
    """One store with one setting, and what its rounds came to."""

    def __init__(self, name: str, size: int, store: Store, where: Path) -> None:
        self.name, self.size, self.store, self.where = name, size, store, where
        self.puts: list[tuple[float, float]] = []
        self.gets: list[tuple[float, float]] = []
        self.bytes_each = 0.0
        self._made = 0

    async def round(self, count: int) -> None:
        before, first = _allocated(self.where), self._made
        bodies = [random.randbytes(self.size) for _ in range(16)]
        numbers = iter(range(first, first + count))
        self._made += count

        async def write() -> None:
            for n in numbers:
                body = Body(bodies[n % 16][8:] + n.to_bytes(8, "big"))  # no two alike: chunks would be deduplicated
                await self.store.objects.put(BUCKET, f"k{n:08d}", body, body, Attributes(), owner="root")

        async def read() -> None:
            for n in numbers:
                reader = self.store.objects.open(BUCKET, f"k{n:08d}")
                try:
                    data = reader.read_now(0, self.size)
                    size = len(data) if data is not None else sum([len(p) async for p in reader.read(0, self.size)])
                finally:
                    reader.close()
                assert size == self.size

        self.puts.append(await _timed(write, count))
        self.bytes_each = (_allocated(self.where) - before) / count
        numbers = iter(range(first, first + count))
        await read()  # from the disk into the page cache
        numbers = iter(range(first, first + count))
        self.gets.append(await _timed(read, count))


async def _timed(work: Callable[[], Coroutine[None, None, None]], count: int) -> tuple[float, float]:
    """(operations a second, microseconds of CPU each)."""
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[work() for _ in range(CLIENTS)])
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6


def _allocated(where: Path) -> int:
    """Bytes of segments and logs; what is derived from them (indexes) is left out."""
    found = [*where.rglob("segments/*"), *where.rglob("state/*")]
    return sum(path.stat().st_size for path in found if path.is_file())


@asynccontextmanager
async def opened(where: Path, disks: int, limits: Limits) -> AsyncIterator[Store]:
    async with open_here([where / f"disk{n}" for n in range(disks)], limits=limits) as store:
        await store.objects.start()
        await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        yield store


async def compare(size: int, ways: dict[str, Limits], disks: int, rounds: int, where: Path) -> None:
    count = max(64, min(2000, (32 << 20) // size))
    with tempfile.TemporaryDirectory(prefix="ostraka-thresholds-", dir=where) as made:
        stores = {name: opened(Path(made) / name, disks, limits) for name, limits in ways.items()}
        running = [Way(name, size, await store.__aenter__(), Path(made) / name) for name, store in stores.items()]
        for _ in range(rounds):
            for way in running:
                await way.round(count)
        for way in running:
            put, put_cpu = (statistics.median(column) for column in zip(*way.puts, strict=True))
            get, get_cpu = (statistics.median(column) for column in zip(*way.gets, strict=True))
            print(
                f"{disks} disks {size:>8} B {way.name:7} PUT {put:8,.0f}/s {put_cpu:7.1f} us CPU   "
                f"GET {get:8,.0f}/s {get_cpu:7.1f} us CPU   {way.bytes_each:10,.0f} B stored",
                flush=True,
            )
        for store in stores.values():
            await store.__aexit__(None, None, None)


async def run(rounds: int, where: Path, disks: int) -> None:
    for size in INLINE_SIZES:
        ways = {"inline": replace(LIMITS, inline_size_max=size), "packed": replace(LIMITS, inline_size_max=size - 1)}
        await compare(size, ways, disks, rounds, where)
    for size in PACK_SIZES:
        ways = {"packed": replace(LIMITS, pack_size_max=size), "chunk": replace(LIMITS, pack_size_max=size - 1)}
        await compare(size, ways, disks, rounds, where)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--disks", type=int, choices=(1, 6), help="one directory, or 4+2 on six; both by default")
    options.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="a directory on a real disk")
    chosen = options.parse_args()
    for disks in [chosen.disks] if chosen.disks else [1, 6]:
        uvloop.run(run(chosen.rounds, chosen.dir, disks))


if __name__ == "__main__":
    main()
