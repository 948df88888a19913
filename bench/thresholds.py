"""Where "tiny" and "small" end: what a PUT and a GET cost inline, packed and chunked, from 1 to 256 KiB.

    python bench/thresholds.py [--seconds 1.0] [--directory DIR] [--disks 1] [--clients 32] [--rounds 3]

A whole store in this process, without HTTP, every acknowledgement durable. Bodies are random: what compresses is
smaller wherever it is put. Written bytes are counted by the kernel (/proc/self/io), so the state's log and copies
are in them. The three ways take turns within each round, so that a busy machine is busy for all of them; the median of
the rounds is printed. limits.inline_size_max and limits.pack_size_max are chosen from what this prints.
"""

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import uvloop

from ostraka.host import Buffer
from ostraka.limits import KIB, LIMITS, MIB, Limits
from ostraka.objects.types import Attributes, Digested
from ostraka.store.store import open_here

WAYS = {
    "inline": replace(LIMITS, inline_size_max=512 * KIB, pack_size_max=512 * KIB),
    "packed": replace(LIMITS, inline_size_max=0, pack_size_max=512 * KIB),
    "chunked": replace(LIMITS, inline_size_max=0, pack_size_max=0),
}
SIZES = [n * KIB for n in (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)]


class Here:
    """A body that is here already."""

    def __init__(self, body: bytes) -> None:
        self.length: int | None = len(body)
        self._body: bytes | None = body

    def read_now(self) -> Buffer | None:
        body, self._body = self._body, None
        return body

    async def read_into(self, view: memoryview) -> int:
        return 0


class Md5:
    """What every PUT has to compute."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)

    def update(self, data: Buffer) -> None:
        self._hash.update(data)

    def finish(self) -> Digested:
        return Digested(self._hash.hexdigest())


def written() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


async def measure(
    directory: Path, disks: int, limits: Limits, size: int, clients: int, seconds: float
) -> tuple[float, ...]:
    """(PUT/s, CPU us a PUT, written bytes a body byte, GET/s, CPU us a GET) in a fresh store."""
    paths = [directory / f"disk{n}" for n in range(disks)]
    async with open_here(paths, limits=limits) as store:
        objects = store.objects
        await objects.start()
        await objects.create_bucket("bench", "root", "us-east-1")
        attributes, body = Attributes(), bytearray(os.urandom(size))
        keys: list[str] = []

        async def put() -> None:
            key = f"object-{len(keys):08}"
            keys.append(key)
            content = key.encode() + body[len(key) :]  # no two alike
            await objects.put("bench", key, Here(bytes(content)), Md5(), attributes, owner="root")

        async def get() -> None:
            reader = objects.open("bench", keys[hash(time.perf_counter()) % len(keys)])
            found = reader.read_now(0, size)
            if found is None:
                async for _ in reader.read():
                    pass
            reader.close()

        results: list[float] = []
        for work in (put, get):
            done, before = 0, written()
            began, cpu = time.perf_counter(), time.process_time()
            stop = began + seconds

            async def client() -> None:
                nonlocal done
                while time.perf_counter() < stop:  # noqa: B023
                    await work()  # noqa: B023
                    done += 1
                    if done % 64 == 0:
                        await asyncio.sleep(0)

            await asyncio.gather(*(client() for _ in range(clients)))
            elapsed, used = time.perf_counter() - began, time.process_time() - cpu
            results += [done / elapsed, used / done * 1e6]
            if work is put:
                results.append((written() - before) / (done * size))
        return tuple(results)


async def run(arguments: argparse.Namespace) -> None:
    print(f"{'':9}{'':>9}{'PUT/s':>9}{'us CPU':>8}{'MB/s':>7}{'written':>9}{'GET/s':>9}{'us CPU':>8}")
    for size in SIZES:
        rounds: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way, limits in WAYS.items():
                with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
                    found = await measure(
                        Path(directory), arguments.disks, limits, size, arguments.clients, arguments.seconds
                    )
                    rounds[way].append(found)
        for way, found_all in rounds.items():
            puts, put_cpu, amplified, gets, get_cpu = (
                statistics.median(column) for column in zip(*found_all, strict=True)
            )
            print(
                f"{size // KIB:4} KiB {way:>9}{puts:9.0f}{put_cpu:8.0f}{puts * size / MIB:7.0f}"
                f"{amplified:8.2f}x{gets:9.0f}{get_cpu:8.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--directory", default=None, help="where stores are made; a disk, not a tmpfs")
    parser.add_argument("--disks", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
