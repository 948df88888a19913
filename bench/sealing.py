"""What encryption at rest costs: the same work with a bucket that encrypts and with one that does not, in turns.

    python bench/sealing.py [--seconds 3.0] [--rounds 5] [--disks 1 6]

Bodies go into an encrypted and a plain bucket of one store by turns, so that what the machine does meanwhile falls on
both; the medians' ratio is what counts. Beside them the ciphers alone, over frames as the store seals them.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable

import uvloop
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

import ostraka
from ostraka.library import AsyncBucket
from ostraka.limits import KIB, LIMITS, MIB

LARGE = 64 * MIB


def ciphers(seconds: float) -> None:
    """Each alone, on one thread, over frames."""
    frame, out = os.urandom(LIMITS.frame_size), bytearray(LIMITS.frame_size + 16)
    plain = memoryview(bytearray(LIMITS.frame_size))
    for kind in (AESGCM, ChaCha20Poly1305, AESGCMSIV):
        cipher = kind(os.urandom(32))
        sealed = cipher.encrypt(bytes(12), frame, None)
        for what, work in (
            ("seals", lambda c=cipher: c.encrypt_into(bytes(12), frame, None, out)),
            ("opens", lambda c=cipher, s=sealed: c.decrypt_into(bytes(12), s, None, plain)),
        ):
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / 8:
                work()
                count += 1
            rate = count * len(frame) / (time.perf_counter() - began) / 1e6
            print(f"  {kind.__name__:18} {what} {rate:8.0f} MB/s")


async def rate(work: Callable[[], Awaitable[object]], clients: int, seconds: float) -> tuple[float, float]:
    """(calls a second, CPU microseconds a call) of so many at once."""
    done, stop = 0, time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < stop:
            await work()
            done += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began), (time.process_time() - cpu) / done * 1e6


async def compare(disks: int, seconds: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("OSTRAKA_BENCH_DIR")) as place:
        paths = [os.path.join(place, str(n)) for n in range(disks)]
        async with ostraka.open_async(*paths) as store:
            await store.create_bucket("plain")
        async with ostraka.open_async(*paths, master_key=os.urandom(32)) as store:
            buckets = {"plain": await store.bucket("plain"), "sealed": await store.create_bucket("sealed")}
            for size, clients in ((4 * KIB, 32), (100 * KIB, 32), (LARGE, 1)):
                for what, work in (("PUT", put), ("GET", get)):
                    found: dict[str, list[tuple[float, float]]] = {name: [] for name in buckets}
                    for _ in range(rounds):
                        for name, bucket in buckets.items():
                            found[name].append(await rate(work(bucket, size), clients, seconds))
                    tell(what, size, found)


def put(bucket: AsyncBucket, size: int) -> Callable[[], Awaitable[object]]:
    body, number = bytearray(os.urandom(size)), 0

    async def once() -> None:
        nonlocal number
        number += 1
        for at in range(0, size, LIMITS.chunk_size):  # no chunk is one that is there
            body[at : at + 8] = number.to_bytes(8, "big")
        await bucket.put(f"{size}/{number % 16}", bytes(body))

    return once


def get(bucket: AsyncBucket, size: int) -> Callable[[], Awaitable[object]]:
    async def once() -> None:
        async with await bucket.open(f"{size}/1") as reader:
            async for _ in reader.pieces():
                pass

    return once


def tell(what: str, size: int, found: dict[str, list[tuple[float, float]]]) -> None:
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    (plain, plain_cpu), (sealed, sealed_cpu) = medians["plain"], medians["sealed"]
    unit, factor = ("MB/s", size / 1e6) if size >= MIB else ("/s", 1.0)
    print(
        f"  {what} {size // KIB:6} KiB  plain {plain * factor:8.0f} {unit:4} {plain_cpu:8.0f} us CPU   "
        f"sealed {sealed * factor:8.0f} {unit:4} {sealed_cpu:8.0f} us CPU   {sealed / plain:5.2f}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=3.0)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--disks", type=int, nargs="+", default=[1, 6])
    chosen = arguments.parse_args()
    print(f"ciphers alone, one thread, frames of {LIMITS.frame_size // KIB} KiB")
    ciphers(chosen.seconds)
    for disks in chosen.disks:
        print(f"a store of {disks} disk{'s' if disks > 1 else ''}, in process; medians of {chosen.rounds} turns")
        uvloop.run(compare(disks, chosen.seconds, chosen.rounds))


if __name__ == "__main__":
    main()
