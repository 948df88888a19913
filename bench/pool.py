"""What the erasure pool does on this machine, disk by disk and stripe by stripe. `python bench/pool.py [DIR]`

Every write is durable when it is counted. Each figure stands beside what bounds it, measured in the same run.
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Disk
from ostraka.pools.erasure import codec
from ostraka.pools.pool import ErasurePool
from ostraka.pools.types import Owner, Stripe


class AllUp:
    """Members that never fail: a bench has no epochs."""

    def __init__(self, k: int, m: int, disks: Sequence[LocalDisk]) -> None:
        self.k, self.m = k, m
        self._disks = {disk.number: disk for disk in disks}

    def up(self) -> Sequence[Disk]:
        return list(self._disks.values())

    def disk(self, number: int) -> Disk | None:
        return self._disks.get(number)

    def gone(self, number: int) -> bool:
        return False

    async def failed(self, number: int, error: BaseException) -> None:
        raise error


def line(name: str, value: float, unit: str, note: str = "") -> None:
    print(f"  {name:<44} {value:>12,.0f} {unit:<10} {note}", flush=True)


async def many(count: int, clients: int, work: Callable[[int], Awaitable[object]]) -> float:
    """Run work(0..count) with that many at a time; the seconds it took."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            await work(number)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - began


def bounds(directory: Path) -> None:
    print("bounds")
    path = directory / "bound"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    block = os.urandom(4096)
    began = time.perf_counter()
    for i in range(500):
        os.pwrite(fd, block, i * 4096)
        os.fdatasync(fd)
    line("4 KiB append + fdatasync", 500 / (time.perf_counter() - began), "/s")
    os.close(fd)
    path.unlink()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    import mmap

    page = mmap.mmap(-1, 4 << 20)
    page.write(os.urandom(4 << 20))
    began = time.perf_counter()
    for i in range(64):
        os.pwritev(fd, [page], i * (4 << 20))
    os.fdatasync(fd)
    line("O_DIRECT writes of 4 MiB", 256 / (time.perf_counter() - began) * 1.048576, "MB/s")
    os.close(fd)
    path.unlink()
    for k, m in ((2, 1), (4, 2), (12, 4)):
        size = (4 << 20) // k
        data = [memoryview(bytearray(os.urandom(size))) for _ in range(k)]
        parity = [memoryview(bytearray(size)) for _ in range(m)]
        began = time.perf_counter()
        for _ in range(50):
            codec(k, m).encode(data, parity)
        line(f"encode {k}+{m}, 4 MiB bodies", 50 * k * size / (time.perf_counter() - began) / 1e6, "MB/s")


async def geometry(directory: Path, k: int, m: int, total: int) -> None:
    count = 6 if m else 1
    host = Host()
    disks = []
    for number in range(count):
        path = directory / f"{k}+{m}-{number}"
        path.mkdir()
        disks.append(LocalDisk.open_owner(path, number, b"s" * 16, host.random(16), host, LIMITS))
    pool = ErasurePool(AllUp(k, m, disks), host, LIMITS)
    print(f"{k}+{m} on {count} {'directories' if m else 'directory'}")
    stripes: list[Stripe] = []
    body = os.urandom(4 << 20)

    async def large(number: int) -> None:
        buffer = await pool.buffer(len(body))
        buffer.view[:] = body
        stripes.append(await pool.write(Owner.CHUNK, b"c" * 32, buffer, len(body)))
        buffer.release()

    for clients in (1, 3):
        await many(6, clients, large)
        took = await many(total >> 22, clients, large)
        line(f"write 4 MiB bodies, {clients} at a time", total / took / 1e6, "MB/s")

    async def read_large(number: int) -> None:
        assert len(await pool.read(stripes[number % len(stripes)], 0, len(body))) == len(body)

    await many(len(stripes), 1, read_large)
    for clients in (1, 3):
        took = await many(total >> 22, clients, read_large)
        line(f"read 4 MiB bodies, cached, {clients} at a time", total / took / 1e6, "MB/s")
    for size in (4 << 10, 16 << 10, 64 << 10, 128 << 10):
        await small(pool, size)
    await pool.close()
    for disk in disks:
        disk.close()


async def small(pool: ErasurePool, size: int) -> None:
    body = os.urandom(size)
    stripes: list[Stripe] = []

    async def write(number: int) -> None:
        stripes.append(await pool.write(Owner.PACK, b"p" * 16, body, size))

    for clients in (1, 32):
        count = 300 if clients == 1 else 3000
        cpu = time.process_time()
        took = await many(count, clients, write)
        cpu = time.process_time() - cpu
        line(
            f"write {size >> 10} KiB bodies, {clients} at a time", count / took, "/s", f"{cpu / count * 1e6:.0f} us CPU"
        )
    for stripe in stripes[:64]:
        await pool.read(stripe, 0, size)
    piece = min(4096, size // max(1, stripes[0].k))
    hits = 0
    began = time.perf_counter()
    for i in range(20000):
        hits += pool.read_now(stripes[i % 64], 0, piece) is not None
    took = time.perf_counter() - began
    line(
        f"  cached read_now of {piece} bytes",
        20000 / took,
        "/s",
        f"{hits / 200:.0f} % hits, {took / 20000 * 1e6:.1f} us",
    )


async def run(directory: Path, total: int) -> None:
    bounds(directory)
    await geometry(directory, 1, 0, total)
    await geometry(directory, 4, 2, total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--total-mib", type=int, default=512)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ostraka-bench-", dir=options.directory))
    try:
        uvloop.run(run(directory, options.total_mib << 20))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
