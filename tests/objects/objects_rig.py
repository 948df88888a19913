"""A rig for the tests of this room: the object core over a state in memory and chunks with honest counts."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ostraka.chunks import ChunkStore, Kind
from ostraka.chunks import rows as chunk_rows
from ostraka.chunks.rows import CHUNK_COUNTERS, chunk_counter_key, slot_counter_key
from ostraka.errors import Truncated
from ostraka.host import Buffer, Host
from ostraka.limits import KIB, LIMITS, MIB, Limits
from ostraka.objects import rows as object_rows
from ostraka.objects.check import check, chunk_references
from ostraka.objects.store import ObjectStore
from ostraka.objects.types import Attributes, CompletePart, Digested, ObjectInfo, PartInfo
from ostraka.state import Mutation, State, counter, rows_under, totals
from ostraka.state.memory import MemoryState
from ostraka.testing.memory_chunks import MemoryChunks, target
from ostraka.testing.memory_pool import MemoryPool

# every threshold is a few bytes apart, so that small bodies cross all of them
SMALL = replace(
    LIMITS,
    inline_size_max=16,
    pack_size_max=64,
    chunk_size=128,
    chunks_in_flight_max=2,
    chunks_per_commit_max=2,
    slices_embedded_max=3,
    manifest_page_entries_max=4,
    part_size_min=20,
    collect_batch_rows_max=7,
    collect_grace_seconds=0.0,
)
# for real chunks: the same, as small as their frames allow
REAL = replace(
    SMALL,
    inline_size_max=64,
    pack_size_max=1 * KIB,
    chunk_size=4 * KIB,
    frame_size=1 * KIB,
    pack_bytes_max=8 * KIB,
    pack_slots_max=16,
    read_piece_max=2 * KIB,
    buffers_bytes_max=1 * MIB,
)
WEIGHED = {**chunk_rows.WEIGHED, **object_rows.WEIGHED}
SIZES = (0, 1, 16, 17, 64, 65, 128, 129, 384, 385, 700, 1500)  # of SMALL: on both sides of every threshold


class TurnedClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        self.now += 0.001
        return 1.7e9 + self.now

    def monotonic(self) -> float:
        return self.now


class Body:
    """A body that arrives in pieces; ``here``: all at once. ``lie``: declared longer than it is."""

    def __init__(self, body: bytes, *, known: bool = True, here: bool = False, piece: int = 50, lie: int = 0) -> None:
        self.length: int | None = len(body) + lie if known else None
        self._left = memoryview(body)
        self._here = here
        self._piece = piece

    async def read_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._left), self._piece)
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def read_now(self) -> Buffer | None:
        if not self._here:
            return None
        body, self._left = bytes(self._left), memoryview(b"")
        return body


class Md5:
    """The ETag; ``declared`` is what the sender says it is."""

    def __init__(self, declared: str | None = None) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._declared = declared

    def update(self, data: Buffer) -> None:
        self._md5.update(data)

    def finish(self) -> Digested:
        etag = self._md5.hexdigest()
        if self._declared not in (None, etag):
            raise Truncated("another body than declared", reason="digest")
        return Digested(etag, {"MD5": etag})


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def assemble(parts: Sequence[PartInfo]) -> Digested:
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return Digested(f"{md5(joined)}-{len(parts)}")


class Rig:
    """One process of a store; `another` is the next one, after or beside it."""

    _incarnations = itertools.count(1)

    def __init__(
        self,
        limits: Limits = SMALL,
        state: State | None = None,
        chunks: Any = None,
        clock: TurnedClock | None = None,
        pins: Any = None,
    ) -> None:
        self.limits = limits
        self.clock = clock or TurnedClock()
        self.host = Host(clock=self.clock)
        self.state: Any = state if state is not None else MemoryState(limits, WEIGHED)
        self.chunks: Any = chunks if chunks is not None else MemoryChunks(self.state, self.host, limits)
        self.incarnation = next(self._incarnations).to_bytes(16, "big")
        self.dead: set[bytes] = set()
        self.objects = ObjectStore(
            self.state,
            self.chunks,
            secret=b"s" * 32,
            incarnation=self.incarnation,
            limits=limits,
            host=self.host,
            pins=pins,
        )
        self.collector = self.objects.collector(lambda incarnation: incarnation not in self.dead)

    async def start(self, *buckets: str) -> "Rig":
        await self.objects.start()
        for bucket in buckets:
            await self.objects.create_bucket(bucket, "alice", "us-east-1")
        return self

    async def another(self) -> "Rig":
        """A new incarnation over the same state, chunks and pins."""
        rig = Rig(self.limits, self.state, self.chunks, self.clock, self.objects.core.pins)
        return await rig.start()

    # -- what tests do most

    async def put(self, bucket: str, key: str, body: bytes, **more: Any) -> ObjectInfo:
        source = {name: more.pop(name) for name in ("known", "here", "piece", "lie") if name in more}
        attributes = more.pop("attributes", Attributes())
        digest = more.pop("digest", None) or Md5()
        return await self.objects.put(bucket, key, Body(body, **source), digest, attributes, owner="alice", **more)

    async def get(self, bucket: str, key: str, version: str | None = None) -> bytes:
        reader = self.objects.open(bucket, key, version)
        try:
            return b"".join([bytes(piece) async for piece in reader.read()])
        finally:
            reader.close()

    async def get_range(
        self, bucket: str, key: str, version: str | None, offset: int, length: int
    ) -> tuple[bytes, bytes | None]:
        """In pieces, and at once, if that can be."""
        return await get_range(self.objects, bucket, key, version, offset, length)

    async def parts(self, bucket: str, key: str, count: int) -> list[tuple[int, int]]:
        """(offset, length) of each."""
        return await parts(self.objects, bucket, key, count)

    async def set_versioning(self, bucket: str, status: Any) -> None:
        await self.objects.update_bucket(bucket, lambda b: replace(b, versioning=status))

    async def multipart(self, bucket: str, key: str, *bodies: bytes) -> ObjectInfo:
        upload = await self.objects.create_upload(bucket, key, Attributes(), owner="alice")
        done = []
        for number, body in enumerate(bodies, 1):
            part = await self.objects.put_part(bucket, key, upload.upload_id, number, Body(body), Md5())
            done.append(CompletePart(number, part.etag))
        return await self.objects.complete_upload(bucket, key, upload.upload_id, done, assemble)

    def keys(self, bucket: str, prefix: str = "", delimiter: str = "") -> list[str]:
        page = self.objects.list(bucket, prefix, delimiter, "", 1000)
        assert not page.truncated
        return [entry.key for entry in page.entries]

    # -- what must hold

    async def collect_all(self) -> None:
        """Until nothing is left to settle."""
        await self.objects.settle()
        for _ in range(1000):
            if not await self.collector.collect(100):
                return
        raise AssertionError("the collector never comes to an end")

    def verify(self) -> None:
        """The tables agree, and chunks count exactly what is referenced."""
        assert check(self.state) == []
        assert totals.recounted(self.state, self.state.weighed) == dict(rows_under(self.state, totals.TOTALS))
        if isinstance(self.chunks, MemoryChunks):
            assert self.chunks.counts() == Counter(map(target, chunk_references(self.state)))
        else:
            self._verify_real_counts()

    def _verify_real_counts(self) -> None:
        """A chunk counts its references; a slot only what it has beyond the first."""
        counted: Counter[bytes] = Counter()
        for entry in chunk_references(self.state):
            chunk = entry.kind == Kind.CHUNK
            counted[chunk_counter_key(entry.id) if chunk else slot_counter_key(entry.id, entry.slot)] += 1
        for key, number in counted.items():
            value = self.state.get(key)
            floor = 0 if key[:1] == CHUNK_COUNTERS else 1
            assert (floor if value is None else counter(value)) == number
        for key, value in self.state.scan(CHUNK_COUNTERS, bytes([CHUNK_COUNTERS[0] + 1]), 10_000):
            assert counter(value) == counted[key]

    async def verify_settled(self) -> None:
        """And after collection nothing is kept that nobody names."""
        await self.collect_all()
        self.verify()
        if isinstance(self.chunks, MemoryChunks):
            assert set(self.chunks.bodies) >= set(map(target, chunk_references(self.state)))
            assert set(self.chunks.counts()) == {key_target(key) for key in self.rows(b"c")}
            assert not self.rows(b"z")
            assert self.chunks.buffers_out == 0

    def rows(self, table: bytes) -> list[bytes]:
        return [key for key, _ in self.state.scan(table, bytes([table[0] + 1]), 10_000)]


async def get_range(
    objects: ObjectStore, bucket: str, key: str, version: str | None, offset: int, length: int
) -> tuple[bytes, bytes | None]:
    reader = objects.open(bucket, key, version)
    try:
        in_pieces = b"".join([bytes(piece) async for piece in reader.read(offset, length)])
        at_once = reader.read_now(offset, length)
        return in_pieces, None if at_once is None else bytes(at_once)
    finally:
        reader.close()


async def parts(objects: ObjectStore, bucket: str, key: str, count: int) -> list[tuple[int, int]]:
    reader = objects.open(bucket, key)
    try:
        return [await reader.part(number) for number in range(1, count + 1)]
    finally:
        reader.close()


def key_target(key: bytes) -> tuple[int, bytes]:
    return key[1], key[2:]


async def real_rig(*buckets: str) -> tuple[Rig, ChunkStore]:
    """The same over real chunks, on a pool in memory."""
    clock = TurnedClock()
    state = MemoryState(REAL, WEIGHED)
    host = Host(clock=clock)
    chunks = ChunkStore(MemoryPool(REAL, host), state, b"k" * 32, host=host, limits=REAL)
    return await Rig(REAL, state, chunks, clock).start(*buckets), chunks


class Fault(Exception):
    """What a faulty state raises, besides our own kinds."""


class FaultyState:
    """A state whose commits fail: ``before`` they have effect, or ``after``. Everything else is the real one's."""

    def __init__(self, inner: State) -> None:
        self.inner = inner
        self.commits = 0
        self.fail_at: dict[int, tuple[str, Exception]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, mutation: Mutation) -> Any:
        self.commits += 1
        when, error = self.fail_at.get(self.commits, ("", None))
        if when == "before" and error is not None:
            raise error
        outcome = await self.inner.commit(mutation)
        if error is not None:
            raise error
        return outcome

    async def commit_many(self, mutations: Sequence[Mutation]) -> Any:
        return await self.inner.commit_many(mutations)
