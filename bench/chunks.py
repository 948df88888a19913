"""What chunks cost by themselves: MB/s of placing and reading, small bodies a second, beside their single stages.

    python bench/chunks.py [--seconds 1.0]

The pool keeps what it is given and does nothing else, the state is the one in memory: what remains is hashing,
lookup, compression, checksums, packing, and Python.
"""

import argparse
import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import uvloop
import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from ostraka.chunks import ChunkStore, Entry
from ostraka.host import Buffer
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.pools.types import Owner, ShardHealth, Stripe, StripeBuffer
from ostraka.state import Mutation
from ostraka.state.memory import MemoryState

CHUNK = LIMITS.chunk_size


class Kept:
    """A buffer out of a list that is used again, as a real pool has them: warm pages."""

    def __init__(self, pool: "QuietPool", view: memoryview) -> None:
        self._pool = pool
        self.view = view
        self.whole = view

    def release(self) -> None:
        self._pool.free.append(self.whole)


class QuietPool:
    """Keeps the last body of each write id for reading, copies nothing, waits for nothing."""

    def __init__(self) -> None:
        self.free: list[memoryview] = []
        self.bodies: dict[bytes, memoryview] = {}
        self.keep = False

    async def buffer(self, size: int) -> StripeBuffer:
        for at, view in enumerate(self.free):
            if len(view) >= size:
                kept = Kept(self, self.free.pop(at))
                kept.view = kept.whole[:size]
                return kept
        return Kept(self, memoryview(bytearray(size)))

    async def write(self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int) -> Stripe:
        stripe = Stripe(os.urandom(16), 1, 0, length, length, (0,))
        await asyncio.sleep(0)
        if self.keep:
            self.bodies[stripe.write_id] = memoryview(
                bytes(body.view[:length]) if isinstance(body, Kept) else body  # type: ignore[arg-type]
            )
        return stripe

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        return self.bodies[stripe.write_id][offset : offset + length]

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        return self.bodies[stripe.write_id][offset : offset + length]

    def settle(self, stripes: Iterable[Stripe]) -> None:
        pass

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        for _, _, stripe in stripes:
            self.bodies.pop(stripe.write_id, None)

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        return []

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        return None


def compressible(size: int) -> bytes:
    """Text that Zstandard's level 1 about halves."""
    rng = random.Random(1)
    words = [os.urandom(3).hex() for _ in range(2000)]
    return " ".join(rng.choice(words) for _ in range(size // 7 + 1)).encode()[:size]


def stages(seconds: float) -> None:
    """Each stage alone, on one thread."""
    compress = zstandard.ZstdCompressor(level=1).compress
    for name, body in (("random", os.urandom(CHUNK)), ("text", compressible(CHUNK))):
        frames = [memoryview(body)[at : at + LIMITS.frame_size] for at in range(0, CHUNK, LIMITS.frame_size)]

        def hashed(body: bytes = body) -> object:
            return blake3(body, key=b"k" * 32).digest()

        def checked(frames: list[memoryview] = frames) -> object:
            return [xxh3_64_intdigest(frame) for frame in frames]

        def packed(frames: list[memoryview] = frames) -> object:
            return [compress(frame) for frame in frames]

        for stage, work in (("blake3", hashed), ("xxh3 of frames", checked), ("zstd of frames", packed)):
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / 2:
                work()
                count += 1
            print(f"  {stage:16} {name:7} {count * CHUNK / (time.perf_counter() - began) / 1e6:8.0f} MB/s")


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


def fresh() -> tuple[ChunkStore, QuietPool, MemoryState]:
    pool, state = QuietPool(), MemoryState()
    return ChunkStore(pool, state, bytes(32)), pool, state


async def chunks(seconds: float) -> None:
    for name, body in (("random", os.urandom(CHUNK)), ("text", compressible(CHUNK))):
        for clients in (1, 4):
            store, _, state = fresh()
            number = 0

            async def put(store: ChunkStore = store, state: MemoryState = state, body: bytes = body) -> None:
                nonlocal number
                buffer = await store.buffer()
                buffer.view[:] = body  # as if it had been received: one copy, counted against us
                number += 1
                buffer.view[:8] = number.to_bytes(8, "big")
                placed = await store.place(buffer, CHUNK)
                placed.release()

            per_second, cpu = await rate(put, clients, seconds)
            print(f"  place {name:7} {clients} at once {per_second * CHUNK / 1e6:8.0f} MB/s {cpu:8.0f} us CPU")
            await store.close()
        store, pool, state = fresh()
        pool.keep = True
        buffer = await store.buffer()
        buffer.view[:] = body
        placed = await store.place(buffer, CHUNK)
        await state.commit(Mutation(placed.preconditions, placed.operations))
        placed.release()

        async def again(store: ChunkStore = store, body: bytes = body) -> None:
            buffer = await store.buffer()
            buffer.view[:] = body
            (await store.place(buffer, CHUNK)).release()

        async def get(store: ChunkStore = store, entry: Entry = placed.entry) -> None:
            async for _ in store.read(entry, 0, CHUNK):
                pass

        per_second, cpu = await rate(again, 1, seconds)
        print(f"  place again {name:7}     {per_second * CHUNK / 1e6:8.0f} MB/s {cpu:8.0f} us CPU")
        per_second, cpu = await rate(get, 1, seconds)
        print(f"  read {name:7}            {per_second * CHUNK / 1e6:8.0f} MB/s {cpu:8.0f} us CPU")
        await store.close()


async def small(seconds: float) -> None:
    for size in (4 * KIB, 100 * KIB):
        for name, body in (("random", os.urandom(size)), ("text", compressible(size))):
            for clients in (1, 32, 128):
                store, _, _ = fresh()

                async def put(store: ChunkStore = store, body: bytes = body) -> None:
                    (await store.place_small(body)).release()

                per_second, cpu = await rate(put, clients, seconds)
                totals = store.counters.totals()
                slots = totals["pack_slots"] / totals["packs"]
                print(
                    f"  place_small {size // KIB:3} KiB {name:7} {clients:4} at once {per_second:9.0f}/s"
                    f" {cpu:7.1f} us CPU, {slots:5.1f} a pack"
                )
                await store.close()
            store, pool, state = fresh()
            pool.keep = True
            placements = await asyncio.gather(*(store.place_small(body) for _ in range(32)))
            for placed in placements:
                await state.commit(Mutation(placed.preconditions, placed.operations))
            entry = placements[7].entry
            count, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / 2:
                assert store.read_now(entry, 0, size) is not None
                count += 1
            print(f"  read_now    {size // KIB:3} KiB {name:7} {'':13} {count / (time.perf_counter() - began):9.0f}/s")
            await store.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=1.0)
    seconds = arguments.parse_args().seconds
    print(f"single stages, one thread, {CHUNK // MIB} MiB")
    stages(seconds)
    print("chunks of 4 MiB")
    uvloop.run(chunks(seconds))
    print("small bodies")
    uvloop.run(small(seconds))


if __name__ == "__main__":
    main()
