"""What was placed is read back, whole and in part, on both sides of every threshold."""

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ostraka.chunks import Entry, Kind
from ostraka.chunks.rows import chunk_key, decode_chunk
from ostraka.errors import Invalid, TooLarge
from ostraka.limits import KIB

AROUND = [1, 511, 512, 513]
AROUND += [n + d for n in (4 * KIB, 8 * KIB, 16 * KIB, 24 * KIB, 64 * KIB) for d in (-1, 0, 1) if n + d <= 64 * KIB]


@pytest.mark.parametrize("size", AROUND)
@pytest.mark.parametrize("kind", ["noise", "text", "mixed"])
async def test_a_body_of_any_size_comes_back(rig, size: int, kind: str) -> None:
    body = rig.noise(size) if kind == "noise" else rig.text(size)
    if kind == "mixed":
        body = (rig.noise(size // 3) + rig.text(size) + rig.noise(size // 3))[:size]
    entry = await rig.store(body)
    assert entry.kind == (Kind.SLOT if size <= rig.limits.pack_size_max else Kind.CHUNK)
    assert entry.length == size
    assert await rig.read(entry) == body
    assert rig.chunks.read_now(entry, 0, size) == body
    for offset in {0, 1, size // 2, size - 1}:
        assert await rig.read(entry, offset, size - offset) == body[offset:]
        assert rig.chunks.read_now(entry, offset, size - offset) == body[offset:]
    assert await rig.read(entry, size, 0) == b""


def test_any_range_of_any_slice_of_a_chunk_is_those_bytes(rig) -> None:
    body = b"".join(rig.noise(5000) + rig.text(9000) for _ in range(4))
    assert len(body) <= rig.limits.chunk_size

    with asyncio.Runner() as runner:
        whole = runner.run(rig.store(body))

        @settings(max_examples=150, deadline=None, derandomize=True)
        @given(
            st.integers(0, len(body)), st.integers(0, len(body)), st.integers(0, len(body)), st.integers(0, len(body))
        )
        @example(0, len(body), 8 * KIB, 16 * KIB)
        def check(a: int, b: int, c: int, d: int) -> None:
            start, end = min(a, b), max(a, b)
            entry = Entry(whole.kind, whole.id, start, end - start)
            offset, stop = sorted((c % (end - start + 1), d % (end - start + 1)))
            wanted = body[start + offset : start + stop]
            assert runner.run(rig.read(entry, offset, stop - offset)) == wanted
            assert rig.chunks.read_now(entry, offset, stop - offset) == wanted

        check()
        runner.run(rig.chunks.close())


async def test_a_small_range_reads_only_the_frames_it_touches(rig) -> None:
    entry = await rig.store(rig.noise(64 * KIB))
    await rig.read(entry, 0, 1)  # the table is known from here on
    rig.pool.reads.clear()
    await rig.read(entry, 20 * KIB, 8 * KIB)
    assert [length for _, _, length in rig.pool.reads] == [16 * KIB]  # two frames of 8 KiB


async def test_a_slot_is_read_with_one_read_of_exactly_its_bytes(rig) -> None:
    bodies = [rig.noise(1000 + n) for n in range(8)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    assert len({entry.id for entry in entries}) == 1
    for entry, body in zip(entries, bodies, strict=True):
        rig.pool.reads.clear()
        assert await rig.read(entry) == body
        assert [length for _, _, length in rig.pool.reads] == [len(body)]


async def test_what_does_not_compress_is_written_from_the_memory_it_was_received_into(rig) -> None:
    await rig.store(rig.noise(50 * KIB))
    assert (rig.pool.writes, rig.pool.without_copy) == (1, 1)
    (body,) = rig.pool.bodies().values()
    assert 50 * KIB < len(body) <= 50 * KIB + 256


async def test_what_compresses_is_stored_small_and_its_plaintext_left_alone(rig) -> None:
    body = rig.text(60 * KIB)
    buffer = await rig.chunks.buffer()
    buffer.view[: len(body)] = body
    placed = await rig.chunks.place(buffer, len(body))
    assert bytes(buffer.view[: len(body)]) == body  # a digest may still be reading it
    await rig.commit(placed)
    (stored,) = rig.pool.bodies().values()
    assert len(stored) < 40 * KIB
    assert rig.chunks.counters.totals()["compressed_in_bytes"] == len(body)
    assert await rig.read(placed.entry) == body


async def test_frames_that_do_not_shrink_stay_raw_beside_those_that_do(rig) -> None:
    body = rig.text(24 * KIB) + rig.noise(24 * KIB)
    entry = await rig.store(body)
    row = decode_chunk(rig.state.get(chunk_key(entry.id)))
    assert 24 * KIB < row.stripe.length < 44 * KIB
    assert await rig.read(entry) == body


async def test_a_buffer_may_be_asked_for_no_larger_than_needed(rig) -> None:
    buffer = await rig.chunks.buffer(10_000)
    assert len(buffer.view) == 10_000
    assert rig.pool.buffers_bytes < 11_000
    body = rig.noise(10_000)
    buffer.view[:] = body
    placed = await rig.chunks.place(buffer, 10_000)
    await rig.commit(placed)
    assert await rig.read(placed.entry) == body
    assert rig.pool.buffers_bytes == 0


async def test_what_cannot_be_a_body_is_refused_and_holds_nothing(rig) -> None:
    for length in (0, -1, rig.limits.chunk_size + 1):
        with pytest.raises(Invalid):
            await rig.chunks.place(await rig.chunks.buffer(), length)
    assert rig.pool.buffers_bytes == 0
    with pytest.raises(Invalid):
        await rig.chunks.place_small(b"")
    with pytest.raises(TooLarge):
        await rig.chunks.place_small(bytes(rig.limits.pack_size_max + 1))
    assert rig.pool.writes == 0


async def test_a_range_outside_of_an_entry_is_invalid(rig) -> None:
    entry = await rig.store(rig.noise(100))
    for offset, length in ((-1, 5), (0, 101), (100, 1), (0, -1)):
        with pytest.raises(Invalid):
            rig.chunks.read(entry, offset, length)
        with pytest.raises(Invalid):
            rig.chunks.read_now(entry, offset, length)


async def test_a_chunk_is_read_with_its_table_at_once_when_most_of_it_is_wanted(rig) -> None:
    body = rig.noise(12 * KIB)
    entry = await rig.store(body)
    fresh = rig.another()
    rig.pool.reads.clear()
    assert b"".join([bytes(piece) async for piece in fresh.read(entry, 100, 11 * KIB)]) == body[100 : 100 + 11 * KIB]
    assert len(rig.pool.reads) == 1
    assert b"".join([bytes(piece) async for piece in fresh.read(entry, 0, 12 * KIB)]) == body
    assert len(rig.pool.reads) == 2, "the table is known by now"
    few = rig.another()
    rig.pool.reads.clear()
    assert b"".join([bytes(piece) async for piece in few.read(entry, 9 * KIB, 10)]) == body[9 * KIB : 9 * KIB + 10]
    assert sum(length for _, _, length in rig.pool.reads) < 10 * KIB, "a table, and a frame"
    for each in (fresh, few):
        await each.close()
