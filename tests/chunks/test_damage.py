"""What is damaged is an error, never wrong bytes, never zeros, never absence (laws 3 and 14)."""

import asyncio

import lz4.block
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ostraka.chunks import frames, packs
from ostraka.chunks.rows import TABLES, chunk_key, decode, decode_chunk, decode_pack, encode, pack_key
from ostraka.chunks.types import Codec
from ostraka.errors import Corrupt, OstrakaError, Refused, Unavailable
from ostraka.limits import KIB
from ostraka.state import Delete, Mutation, Put


async def stripe_of(rig, entry):
    value = rig.state.get(chunk_key(entry.id)) or rig.state.get(pack_key(entry.id))
    return (decode_chunk(value) if len(entry.id) == 32 else decode_pack(value)).stripe


@pytest.mark.parametrize("body", ["noise", "text"])
@pytest.mark.parametrize("size", [3 * KIB, 40 * KIB])
async def test_no_bit_of_a_body_may_flip_even_if_the_pool_finds_it_good(rig, body: str, size: int) -> None:
    plain = rig.noise(size) if body == "noise" else rig.text(size)
    entry = await rig.store(plain)
    stripe = await stripe_of(rig, entry)
    good = rig.pool.bodies()[stripe.write_id]
    for _ in range(150):
        at = rig.random.randrange(stripe.length)
        rig.pool.damage_unseen(stripe.write_id, at)
        rig.chunks = rig.another()  # with no table remembered
        now = rig.chunks.read_now(entry, 0, size)
        assert now is None or bytes(now) == plain
        try:
            assert await rig.read(entry) == plain  # a bit that no reader needs: padding, or a pack's own head
        except Corrupt:
            assert rig.damage.pop()[0] == entry
        rig.pool.damage_unseen(stripe.write_id, at)
        assert rig.pool.bodies()[stripe.write_id] == good
        await rig.chunks.close()


async def test_a_row_that_is_missing_is_damage_and_not_absence(rig) -> None:
    for size, key in ((20 * KIB, chunk_key), (100, pack_key)):
        entry = await rig.store(rig.noise(size))
        await rig.state.commit(Mutation((), [Delete(key(entry.id))]))
        with pytest.raises(Corrupt, match="not there"):
            await rig.read(entry)
        assert rig.damage.pop()[0] == entry


async def test_a_body_that_the_pool_lost_is_damage(rig) -> None:
    for size in (20 * KIB, 100):
        entry = await rig.store(rig.noise(size))
        rig.pool.lose((await stripe_of(rig, entry)).write_id)
        assert rig.chunks.read_now(entry, 0, 50) is None
        with pytest.raises(Corrupt):
            await rig.read(entry)
        assert rig.damage.pop()[0] == entry


async def test_disks_that_are_away_are_not_damage(rig) -> None:
    entry = await rig.store(rig.noise(20 * KIB))

    async def away(stripe, offset, length):
        raise Unavailable("two disks are away")

    rig.pool.read = away
    with pytest.raises(Unavailable):
        await rig.read(entry)
    assert rig.damage == []


@pytest.mark.parametrize("size", [60 * KIB, 2 * KIB])
async def test_a_read_goes_on_where_repair_has_moved_the_stripe(rig, size: int) -> None:
    body = rig.noise(size)
    entry = await rig.store(body)
    key = chunk_key(entry.id) if len(entry.id) == 32 else pack_key(entry.id)
    got, moves = b"", 0
    read = rig.pool.read

    async def moving(stripe, offset, length):
        nonlocal moves
        if moves < 2 and offset >= moves * 20 * KIB:  # before the table is read, and in the middle
            moves += 1
            row = decode(key, rig.state.get(key)).row
            fresh = rig.pool.move(row.stripe)
            await rig.state.commit(Mutation((), [Put(key, encode(msgspec.structs.replace(row, stripe=fresh)))]))
        return await read(stripe, offset, length)

    rig.pool.read = moving
    async for piece in rig.chunks.read(entry, 0, size):
        got += bytes(piece)
    assert got == body
    assert moves > 0
    assert rig.damage == []


async def test_a_reader_that_stops_early_leaves_no_task(rig) -> None:
    entry = await rig.store(rig.noise(64 * KIB))
    pieces = rig.chunks.read(entry, 0, 64 * KIB)
    assert len(await anext(pieces))
    await pieces.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reader_that_leaves_does_not_wait_for_a_disk_that_hangs(rig) -> None:
    entry = await rig.store(rig.noise(64 * KIB))
    read, hung = rig.pool.read, asyncio.Event()

    async def hanging(stripe, offset, length):
        if offset > 10 * KIB:
            hung.set()
            await asyncio.get_running_loop().create_future()
        return await read(stripe, offset, length)

    rig.pool.read = hanging
    pieces = rig.chunks.read(entry, 0, 64 * KIB)
    assert len(await anext(pieces))
    await hung.wait()
    await pieces.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_in_the_middle_comes_after_good_bytes_and_never_after_wrong_ones(rig) -> None:
    body = rig.noise(64 * KIB)
    entry = await rig.store(body)
    stripe = await stripe_of(rig, entry)
    rig.pool.damage_unseen(stripe.write_id, stripe.length - 1)
    got = b""
    with pytest.raises(Corrupt):
        async for piece in rig.chunks.read(entry, 0, 64 * KIB):
            got += bytes(piece)
    assert body.startswith(got)
    assert len(got) >= 32 * KIB


def test_compressed_bytes_that_unfold_to_something_else_take_no_memory() -> None:
    bomb = zstandard.compress(bytes(100 << 20))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    for hostile in (bomb, unsized, b"", b"\0" * 20, bomb[:10]):
        with pytest.raises(Corrupt):
            frames.inflate(Codec.ZSTD, hostile, 100)
    # a block of LZ4 says nothing of its length: no more is unfolded than was recorded
    bomb = lz4.block.compress(bytes(100 << 20), store_size=False)
    for hostile in (bomb, b"", b"\0" * 20, b"\x1fa\x00\x00", b"\x1fa\xff\xff\xff", bomb[:10]):
        with pytest.raises(Corrupt):
            frames.inflate(Codec.LZ4, hostile, 100)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from(list(TABLES)), st.binary(max_size=60))
def test_hostile_rows_and_heads_are_errors_that_end(data: bytes, table: bytes, key: bytes) -> None:
    for attempt in (
        lambda: frames.parse(data, 1000, 2000),
        lambda: frames.parse(frames.MAGIC + data, 1000, 2000),
        lambda: packs.parse(packs.MAGIC + data),
        lambda: packs.parse(data),
        lambda: decode_pack(data),
        lambda: decode_chunk(data),
        lambda: decode(table + key, data),
    ):
        try:
            attempt()
        except OstrakaError as error:
            assert isinstance(error, (Corrupt, Refused))


async def test_what_a_newer_program_wrote_is_refused_with_its_version(rig) -> None:
    entry = await rig.store(rig.noise(100))
    value = rig.state.get(pack_key(entry.id))
    newer = value[:1] + b"\x02" + value[2:]
    await rig.state.commit(Mutation((), [Put(pack_key(entry.id), newer)]))
    with pytest.raises(Refused, match="version 2"):
        await rig.read(entry)
