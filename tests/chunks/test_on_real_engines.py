"""The same promises on the embedded state and on erasure-coded disks, and across a reopening of both."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.chunks import ChunkStore, Entry
from ostraka.chunks.rows import TABLES
from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Disk
from ostraka.pools.pool import ErasurePool
from ostraka.state import Copy, Mutation, Rejected, open_owner, rows_under

STORE = b"a store of tests"
SEED = 20261120
LIMITS_HERE = replace(LIMITS, state_index_size_max=256 * MIB, collect_grace_seconds=0.0)


class AllUp:
    """A membership that does not change."""

    def __init__(self, disks: list[LocalDisk], k: int, m: int) -> None:
        self.disks, self.k, self.m = disks, k, m

    def up(self) -> list[Disk]:
        return list(self.disks)

    def disk(self, number: int) -> Disk | None:
        return self.disks[number] if number < len(self.disks) else None

    def gone(self, number: int) -> bool:
        return False

    async def failed(self, number: int, error: BaseException) -> None:
        raise error


class RealStore:
    """State and pool over directories; entered as a process would open them, left as it would close."""

    def __init__(self, directory: Path, k: int, m: int) -> None:
        self.paths = [directory / f"disk{n}" for n in range(k + m)]
        self.k, self.m = k, m
        self.host = Host()
        for path in self.paths:
            (path / "state").mkdir(parents=True, exist_ok=True)

    async def __aenter__(self) -> "RealStore":
        create = not any((self.paths[0] / "state").iterdir())
        copies = [Copy(bytes([n]) * 16, path / "state") for n, path in enumerate(self.paths[: self.m + 1])]
        index = self.paths[0] / "index"
        index.mkdir(exist_ok=True)
        self.state = open_owner(self.host, STORE, copies, index, create=create, limits=LIMITS_HERE)
        incarnation = self.host.random(16)
        self.disks = [
            LocalDisk.open_owner(path, n, STORE, incarnation, self.host, LIMITS_HERE)
            for n, path in enumerate(self.paths)
        ]
        self.pool = ErasurePool(AllUp(self.disks, self.k, self.m), self.host, LIMITS_HERE)
        self.chunks = ChunkStore(self.pool, self.state, b"k" * 32, host=self.host, limits=LIMITS_HERE)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.chunks.close()
        await self.pool.close()
        await self.state.close()
        for disk in self.disks:
            disk.close()

    async def store(self, body: bytes) -> Entry:
        if len(body) <= LIMITS_HERE.pack_size_max:
            placed = await self.chunks.place_small(body)
        else:
            buffer = await self.chunks.buffer(len(body))
            buffer.view[:] = body
            placed = await self.chunks.place(buffer, len(body))
        while True:
            try:
                await self.state.commit(Mutation(placed.preconditions, placed.operations))
                break
            except Rejected:
                placed = await placed.again()
        placed.release()
        return placed.entry

    async def read(self, entry: Entry, offset: int, length: int) -> bytes:
        return b"".join([bytes(piece) async for piece in self.chunks.read(entry, offset, length)])

    async def drop(self, entry: Entry) -> None:
        while True:
            try:
                await self.state.commit(Mutation(*await self.chunks.dismantle([entry])))
                return
            except Rejected:
                continue


def bodies() -> list[bytes]:
    """Random and compressible, on both sides of every threshold."""
    rng = random.Random(SEED)
    sizes = [1, 4 * KIB, 100 * KIB]
    sizes += [
        n + d for n in (LIMITS.inline_size_max, LIMITS.pack_size_max, LIMITS.chunk_size - 700) for d in (-1, 0, 1)
    ]
    sizes += [LIMITS.chunk_size - 1, LIMITS.chunk_size]
    block = b"".join(b"%d," % rng.randrange(99) for _ in range(20_000))
    return [rng.randbytes(size) for size in sizes] + [(block * (size // len(block) + 1))[:size] for size in sizes]


@pytest.fixture(params=[(1, 0), (2, 1), (4, 2)], ids=["1+0", "2+1", "4+2"])
def geometry(request) -> tuple[int, int]:
    return request.param


async def test_bodies_of_every_size_come_back_before_and_after_a_reopening(tmp_path: Path, geometry) -> None:
    wanted = bodies()
    async with RealStore(tmp_path, *geometry) as store:
        entries = await asyncio.gather(*(store.store(body) for body in wanted))
        for entry, body in zip(entries, wanted, strict=True):
            assert await store.read(entry, 0, entry.length) == body
    async with RealStore(tmp_path, *geometry) as store:
        rng = random.Random(SEED)
        for entry, body in zip(entries, wanted, strict=True):
            start = rng.randrange(len(body))
            length = rng.randrange(len(body) - start + 1)
            assert await store.read(entry, start, length) == body[start : start + length]
            now = store.chunks.read_now(entry, start, length)
            assert now is None or bytes(now) == body[start : start + length]


async def test_a_chunk_larger_than_a_piece_is_read_with_m_disks_away(tmp_path: Path) -> None:
    body = random.Random(SEED).randbytes(LIMITS.chunk_size)
    async with RealStore(tmp_path, 4, 2) as store:
        entry = await store.store(body)
        members = store.pool._members
        members.disk = lambda number: None if number in (0, 3) else store.disks[number]
        assert await store.read(entry, 0, len(body)) == body
        assert await store.read(entry, 1_234_567, 300_000) == body[1_234_567:1_534_567]
        members.disk = lambda number: None if number in (0, 3, 4) else store.disks[number]
        with pytest.raises(OstrakaError):
            await store.read(entry, 0, len(body))


async def test_a_history_of_storing_and_dropping_leaves_no_row_and_no_shard(tmp_path: Path, geometry) -> None:
    rng = random.Random(SEED)
    shared = [rng.randbytes(200 * KIB) for _ in range(3)]
    held: list[tuple[Entry, bytes]] = []
    async with RealStore(tmp_path, *geometry) as store:

        async def put() -> None:
            body = rng.choice(shared) if rng.random() < 0.4 else rng.randbytes(rng.randrange(1, 20_000))
            held.append((await store.store(body), body))

        async def drop() -> None:
            if held:
                await store.drop(held.pop(rng.randrange(len(held)))[0])

        for _ in range(12):
            await asyncio.gather(*(rng.choice([put, put, drop])() for _ in range(12)), store.chunks.sweep(50))
            for entry, body in held:
                assert await store.read(entry, 0, entry.length) == body
        while held:
            await drop()
        await store.chunks.settled()
        for _ in range(20):
            await store.chunks.sweep(1000)
        for table in TABLES:
            assert list(rows_under(store.state, table)) == []
        for disk in store.disks:
            assert live_shards(disk) == 0


def live_shards(disk: LocalDisk) -> int:
    """Shards that the disk still holds for somebody."""
    return sum(found.named for found in disk.iterate())
