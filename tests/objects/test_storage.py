"""What a bucket says of its storage: words, what they do to what is written, and what they leave alone."""

import asyncio
import hashlib
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objects_rig import REAL, Body, Md5, Rig, TurnedClock, md5

from ostraka.chunks import ChunkStore
from ostraka.chunks.types import RECIPE, Codec, Cut, Recipe
from ostraka.errors import Invalid, Overloaded
from ostraka.host import Buffer, Host
from ostraka.limits import KIB, MIB, Limits
from ostraka.objects import rows
from ostraka.objects.manifest import leaves
from ostraka.objects.recipes import changed, described, recipe_of
from ostraka.objects.types import Attributes, CompletePart, Storage
from ostraka.state import Mutation, Put
from ostraka.state.memory import MemoryState
from ostraka.testing.memory_pool import MemoryPool

WORDS = [{"compression": c, "cut": k} for c, k in product(["none", "zstd", "zstd:9", "lz4", "lz4:9"], ["fixed", "cdc"])]


async def say(rig: Rig, bucket: str, compression: str = "", cut: str = "") -> None:
    await rig.objects.update_bucket(bucket, lambda b: replace(b, storage=changed(b.storage, compression, cut)))


def slices(rig: Rig, bucket: str, key: str) -> list[tuple[bytes, int]]:
    """(id, length) of what holds an object's bytes."""
    opened = rig.objects.open(bucket, key)
    record = opened._record  # type: ignore[attr-defined]
    opened.close()
    return [(e.id, e.length) for e in leaves(rig.state, record.entries, 0, record.size)]


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# -- words


def test_words_say_what_recipes_are_made_of() -> None:
    assert recipe_of(Storage()) == RECIPE
    assert recipe_of(changed(Storage(), "zstd:9")) == Recipe(Codec.ZSTD, 9)
    assert recipe_of(changed(Storage(), "lz4", "fixed:1MiB")) == Recipe(Codec.LZ4, 1, Cut(1 * MIB))
    assert recipe_of(changed(Storage(), "none", "cdc:512KiB")).cut == Cut(512 * KIB, True)
    assert (
        changed(Storage(), cut="cdc:512k")
        == changed(Storage(), cut="cdc:524288")
        == Storage(cut="cdc", chunk_size=512 * KIB)
    )
    one = changed(changed(Storage(), "lz4:9", "cdc"), "none")
    assert (one.compression, one.level, one.cut) == ("none", 0, "cdc")
    assert described(one)["level"] is None


@pytest.mark.parametrize(
    ("compression", "cut", "told"),
    [
        ("gzip", "", "'gzip'"),
        ("ZSTD", "", "'ZSTD'"),
        ("zstd:", "", "'zstd:'"),
        ("zstd:0", "", "begin at 1"),
        ("zstd:23", "", "1 to 22"),
        ("zstd:-1", "", "number"),
        ("zstd:" + "9" * 5000, "", "no level"),
        ("lz4:13", "", "1 to 12"),
        ("none:1", "", "no levels"),
        ("", "rabin", "'rabin'"),
        ("", "cdc:0", "size"),
        ("", "cdc:64KiB", "128 KiB"),
        ("", "cdc:4MiB", "2 MiB"),
        ("", "cdc:1000000", "1000000 bytes"),
        ("", "fixed:8MiB", "4 MiB"),
        ("", "fixed:\u0664MiB", "size"),
        ("", "fixed:1GiB", "size"),
        ("", ":", "write"),
    ],
)
def test_words_that_mean_nothing_are_named(compression: str, cut: str, told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        changed(Storage(), compression, cut)
    assert caught.value.reason == "storage"
    assert "\n" not in caught.value.message


async def test_a_bucket_whose_words_are_of_a_later_version_is_read_and_not_written() -> None:
    rig = await Rig().start("b")
    await rig.put("b", "k", b"1" * 100)
    row = rows.BUCKET + b"b"
    record = rows.bucket_of(rig.state.get(row))
    later = rows.BucketRecord(
        record.id, record.owner, record.created, record.region, record.gate, storage=Storage("brotli")
    )
    await rig.state.commit(Mutation((), [Put(row, rows.encode(later))]))
    assert await rig.get("b", "k") == b"1" * 100
    assert rig.keys("b") == ["k"]
    with pytest.raises(Invalid, match="brotli"):
        await rig.put("b", "k2", b"2")
    await say(rig, "b", "zstd")
    await rig.put("b", "k2", b"2")


async def test_a_row_from_before_these_words_is_what_it_was() -> None:
    rig = await Rig().start("b")
    old = rows.encode([b"\0" * 8, "alice", 1.0, "us-east-1", b"gate"])
    assert recipe_of(rows.bucket_of(old).storage) == RECIPE
    assert rig.objects.bucket("b").storage == rows.bucket_of(rig.state.get(rows.BUCKET + b"b")).storage


# -- what they do


@asynccontextmanager
async def over_real_chunks(*buckets: str, limits: Limits = REAL) -> AsyncIterator[Rig]:
    clock = TurnedClock()
    state, host = MemoryState(limits), Host(clock=clock)
    chunks = ChunkStore(MemoryPool(limits, host), state, b"k" * 32, host=host, limits=limits)
    rig = await Rig(limits, state, chunks, clock).start(*buckets)
    yield rig
    await rig.collect_all()
    rig.verify()
    await chunks.close()


async def test_every_recipe_gives_every_range_back(seed: int) -> None:
    dice = random.Random(seed)
    text = b"".join(b"%d %s\n" % (n, b"amphora" * (n % 5)) for n in range(3000))
    sizes = [64, 65, 511, 512, 1024, 1025, 2048, 4096, 4097, 8191, 20_000]
    async with over_real_chunks("b") as rig:
        for number, words in enumerate(WORDS):
            await say(rig, "b", **words)
            for size in sizes:
                for body in (dice.randbytes(size), text[:size], text[: size // 2] + dice.randbytes(size - size // 2)):
                    key = f"{number}-{size}"
                    await rig.put("b", key, body, known=dice.random() < 0.5, here=dice.random() < 0.3, piece=777)
                    assert await rig.get("b", key) == body
                    start = dice.randrange(size)
                    length = dice.randrange(size - start + 1)
                    pieces, at_once = await rig.get_range("b", key, None, start, length)
                    assert pieces == body[start : start + length]
                    assert at_once is None or at_once == pieces


async def test_content_is_cut_alike_however_it_arrives(seed: int) -> None:
    """In pieces of any size, at once, of known and of unknown length, and as a part."""
    dice = random.Random(seed)
    body = dice.randbytes(60_000)
    async with over_real_chunks("b") as rig:
        await say(rig, "b", cut="cdc")
        await rig.put("b", "here", body, here=True)
        expected = slices(rig, "b", "here")
        assert len({length for _, length in expected}) > 5
        assert max(length for _, length in expected) <= rig.limits.chunk_size
        for piece in (1, 63, 1000, 4096, 4097, 60_000, dice.randrange(1, 9000)):
            for known in (True, False):
                await rig.put("b", "k", body, known=known, piece=piece)
                assert slices(rig, "b", "k") == expected, (piece, known)
        upload = (await rig.objects.create_upload("b", "parts", Attributes(), owner="alice")).upload_id
        cut = dice.randrange(10_000, 50_000)
        asked = []
        for number, part in enumerate((body[:cut], body[cut:]), 1):
            done = await rig.objects.put_part("b", "parts", upload, number, Body(part, piece=1234), Md5())
            asked.append(CompletePart(number, done.etag))
        await rig.objects.complete_upload("b", "parts", upload, asked, lambda parts: Md5().finish())
        assert await rig.get("b", "parts") == body
        shared = {chunk for chunk, _ in expected} & {chunk for chunk, _ in slices(rig, "b", "parts")}
        assert len(shared) >= len(expected) - 4, "cuts come together again after a part's border"


async def test_equal_content_is_kept_once_across_buckets_put_copy_and_parts(seed: int) -> None:
    body = noise(seed, 40_000)
    async with over_real_chunks("a", "b") as rig:
        for bucket in "ab":
            await say(rig, bucket, cut="cdc")
        await rig.put("a", "k", body)
        written = rig.chunks.counters.totals()["chunks"]
        await rig.put("b", "k", body, piece=333)
        await rig.multipart("b", "parts", body)
        await rig.objects.copy(rig.objects.lookup("a", "k"), "b", "copy", Attributes(), owner="alice")
        await rig.put("b", "shifted", b"one more line\n" + body)
        totals = rig.chunks.counters.totals()
        assert totals["chunks"] - written <= written // 2  # of the shifted one, until its cuts are the same again
        assert totals["dedup_saved_bytes"] >= 2 * len(body) + len(body) // 2
        assert await rig.get("b", "shifted") == b"one more line\n" + body


async def test_a_change_is_for_what_comes_and_leaves_what_is_there() -> None:
    text = b"".join(b"clay %d and fire, " % n for n in range(3000))
    async with over_real_chunks("b") as rig:
        await say(rig, "b", "none", "fixed")
        await rig.put("b", "before", text)
        before = slices(rig, "b", "before")
        assert rig.chunks.counters.totals()["compressed_in_bytes"] == 0
        await say(rig, "b", "lz4", "cdc")
        assert slices(rig, "b", "before") == before
        await rig.put("b", "after", text)
        assert slices(rig, "b", "after") != before
        totals = rig.chunks.counters.totals()
        assert 0 < totals["compressed_out_bytes"] < totals["compressed_in_bytes"] // 2
        assert await rig.get("b", "before") == await rig.get("b", "after") == text


async def test_a_copy_to_a_bucket_that_keeps_otherwise_is_metadata_only(seed: int) -> None:
    body = noise(seed, 30_000)
    async with over_real_chunks("a", "b") as rig:
        await say(rig, "b", "none", "cdc")
        await rig.put("a", "k", body)
        writes = rig.chunks._ground.pool.writes
        await rig.objects.copy(rig.objects.lookup("a", "k"), "b", "k", Attributes(), owner="alice")
        assert rig.chunks._ground.pool.writes == writes
        assert slices(rig, "b", "k") == slices(rig, "a", "k")
        await rig.objects.delete("a", "k")
        assert await rig.get("b", "k") == body


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 20_000), st.integers(0, len(WORDS) - 1), st.integers(1, 6000))
def test_bodies_on_either_side_of_every_threshold_come_back(seed: int, size: int, words: int, piece: int) -> None:
    body = random.Random(seed).choices([b"potter ", noise(seed, 7), bytes(7)], k=size // 7 + 1)

    async def run() -> None:
        async with over_real_chunks("b") as rig:
            await say(rig, "b", **WORDS[words])
            await rig.put("b", "k", b"".join(body)[:size], piece=piece, known=bool(seed % 2))
            assert await rig.get("b", "k") == b"".join(body)[:size]

    asyncio.run(run())


class Late(Md5):
    """Hashes nothing before a chunk was stored."""

    def __init__(self, stored: threading.Event) -> None:
        super().__init__()
        self._stored = stored

    def update(self, data: Buffer) -> None:
        assert self._stored.wait(10)
        super().update(data)


async def test_what_lies_behind_a_cut_is_hashed_and_kept_as_it_came(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool pads and encodes behind the chunk that it stores, where the next chunk's bytes waited to be hashed."""
    body, stored = noise(seed, 30_000), threading.Event()
    async with over_real_chunks("b") as rig:
        await say(rig, "b", cut="cdc")
        pool = rig.chunks._ground.pool
        right = pool.write

        async def write(*words: Any) -> Any:
            stripe = await right(*words)
            stored.set()
            return stripe

        monkeypatch.setattr(pool, "write", write)
        assert (await rig.put("b", "k", body, digest=Late(stored))).etag == md5(body)
        assert await rig.get("b", "k") == body


# -- memory


async def test_streams_that_find_no_room_for_the_next_chunk_hold_none_while_they_wait(seed: int) -> None:
    """More bodies at once than buffers: none waits while it holds one, and all are cut as with plenty."""
    limits = replace(REAL, buffers_bytes_max=5 * (REAL.chunk_size + KIB), buffers_wait_seconds_max=20.0)
    bodies = [noise(seed + n, 30_000) for n in range(12)]
    async with over_real_chunks("b", limits=limits) as rig:
        await say(rig, "b", cut="cdc")
        await asyncio.gather(*(rig.put("b", f"k{n}", body, piece=500) for n, body in enumerate(bodies)))
        pool = rig.chunks._ground.pool
        assert pool.buffers_bytes_peak <= limits.buffers_bytes_max
        for n, body in enumerate(bodies):
            assert await rig.get("b", f"k{n}") == body
        await rig.objects.settle()
        assert pool.buffers_bytes == rig.objects.core.aside_bytes == 0
    async with over_real_chunks("b") as roomy:
        await say(roomy, "b", cut="cdc")
        await roomy.put("b", "k0", bodies[0])
        assert slices(roomy, "b", "k0") == slices(rig, "b", "k0")


async def test_what_is_set_aside_is_bounded_and_its_want_is_overload(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with over_real_chunks("b", limits=replace(REAL, aside_bytes_max=100)) as rig:
        await say(rig, "b", cut="cdc")
        monkeypatch.setattr(type(rig.chunks), "scarce", lambda self, size=None: True)
        with pytest.raises(Overloaded, match="aside_bytes_max"):
            await rig.put("b", "k", noise(seed, 30_000))
        await rig.objects.settle()
        await rig.chunks.settled()
        assert rig.chunks._ground.pool.buffers_bytes == rig.objects.core.aside_bytes == 0


async def test_a_stream_that_fails_with_bytes_set_aside_gives_all_back(seed: int) -> None:
    limits = replace(REAL, buffers_bytes_max=2 * (REAL.chunk_size + KIB))
    for at in range(1000, 20_000, 2500):
        async with over_real_chunks("b", limits=limits) as rig:
            await say(rig, "b", cut="cdc")
            source = Body(noise(seed, at), piece=700)
            source.length = 30_000  # and then it ends: the client went away
            with pytest.raises(Exception, match="ended after"):
                await rig.objects.put("b", "k", source, Md5(), Attributes(), owner="alice")
            await rig.objects.settle()
            await rig.chunks.settled()
            assert rig.chunks._ground.pool.buffers_bytes == 0
            assert rig.keys("b") == []


async def test_commits_stay_bounded_when_chunks_are_small() -> None:
    limits = replace(REAL, chunks_per_commit_max=8, slices_embedded_max=6, chunks_in_flight_max=4)
    largest = 0
    async with over_real_chunks("b", limits=limits) as rig:
        right = rig.state.commit

        async def counted(mutation: Mutation) -> Any:
            nonlocal largest
            largest = max(largest, len(mutation.operations) + len(mutation.preconditions))
            return await right(mutation)

        rig.state.commit = counted
        await say(rig, "b", cut="cdc")
        body = bytes(1000).join(hashlib.sha256(b"%d" % n).digest() for n in range(200))
        await rig.put("b", "k", body)
        assert await rig.get("b", "k") == body
        assert largest <= 6 * limits.chunks_per_commit_max


async def test_counters_tell_what_came_what_was_kept_and_what_each_codec_saved() -> None:
    text = b"".join(b"%d amphorae, " % n for n in range(3000))
    async with over_real_chunks("b") as rig:
        counters = rig.chunks.counters
        await say(rig, "b", "lz4")
        await rig.put("b", "k", text)
        await rig.put("b", "again", text)
        await rig.put("b", "small", text[:1000])
        await say(rig, "b", "zstd")
        await rig.put("b", "other", text[::-1])
        totals = counters.totals()
        assert totals["placed_bytes"] == 3 * len(text) + 1000
        assert totals["chunk_bytes"] == 2 * len(text)
        assert totals["dedup_saved_bytes"] == len(text)
        board = counters._board
        for codec, size in (("lz4", len(text) + 1000), ("zstd", len(text))):
            before = board.total("ostraka_compressed_in_bytes_total", codec)
            after = board.total("ostraka_compressed_out_bytes_total", codec)
            assert 0 < after < before == size
        out = totals["compressed_out_bytes"]
        assert out - 1000 < totals["chunk_stored_bytes"] < out


@pytest.mark.parametrize("cut", ["fixed", "cdc"])
async def test_what_waits_for_a_commit_is_bounded_in_bytes(cut: str, seed: int) -> None:
    """However small or large chunks are: memory of a request, and the body whose slices ride in its version."""
    size = REAL.chunk_size
    limits = replace(REAL, in_flight_bytes_max=2 * size, increment_bytes_max=2 * size, embedded_bytes_max=3 * size)
    limits = replace(limits, chunks_in_flight_max=1000, chunks_per_commit_max=1000, slices_embedded_max=1000)
    async with over_real_chunks("b", limits=limits) as rig:
        await say(rig, "b", "none", cut)
        for length, paged in ((3 * size, False), (3 * size + 1, True), (20 * size, True)):
            for known in (True, False):
                await rig.put("b", "k", noise(seed, length), known=known)
                assert bool(rig.rows(rows.PAGE)) == paged
                await rig.objects.delete("b", "k")
                await rig.collect_all()
        pool = rig.chunks._ground.pool
        assert pool.buffers_bytes_peak <= 9 * (size + KIB)
