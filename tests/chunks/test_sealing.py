"""Encryption at rest: what is sealed comes back to who has the key, tells others nothing, and no change passes."""

import asyncio
import random
import re
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from ostraka.chunks import Entry, Kind, frames, packs, sealing
from ostraka.chunks.rows import CHUNKS, PACKS, ZERO, chunk_key, decode_chunk, decode_pack, encode, pack_key, slots_of
from ostraka.chunks.sealing import AES_256_GCM, CHACHA20_POLY1305, DataKey, Domain
from ostraka.chunks.types import Codec, Recipe
from ostraka.errors import Corrupt, Forbidden, Refused, Unavailable
from ostraka.limits import KIB
from ostraka.state import Mutation, Put

SEED = 5
FRAME = 1000
LENGTH = 5 * FRAME + 300
CUSTOMER = b"c" * 32


async def seal(rig: Any, name: str = "default") -> Recipe:
    """From now on the rig seals under a key of the store's."""
    await rig.keyring.prepare()
    if name != "default":
        await rig.keyring.create(name)
    rig.recipe = Recipe(domain=rig.keyring.domain(name))
    return rig.recipe


async def read(rig: Any, entry: Entry, domain: Domain | None = None, keyring: Any = None) -> bytes:
    chunks = rig.chunks if keyring is None else rig.another(keyring)
    return b"".join([bytes(p) async for p in chunks.read(entry, 0, entry.length, domain)])


# -- round trips


def test_any_body_and_any_range_of_it_comes_back_under_every_kind_of_key(rig) -> None:
    around = [n + d for n in (512, 4 * KIB, 8 * KIB, 16 * KIB, 64 * KIB) for d in (-1, 0, 1) if n + d <= 64 * KIB]
    with asyncio.Runner() as runner:
        stored = runner.run(seal(rig))
        recipes = [stored, Recipe(Codec.RAW, domain=stored.domain), Recipe(domain=rig.keyring.customer(CUSTOMER))]

        @settings(max_examples=80, deadline=None, derandomize=True)
        @given(
            st.sampled_from(around) | st.integers(1, 64 * KIB),
            st.sampled_from(["noise", "text"]),
            st.sampled_from(recipes),
            st.integers(0, 64 * KIB),
            st.integers(0, 64 * KIB),
        )
        def check(size: int, kind: str, recipe: Recipe, a: int, b: int) -> None:
            rig.recipe = recipe
            body = getattr(rig, kind)(size)
            entry = runner.run(rig.store(body))
            start, end = sorted((a % (size + 1), b % (size + 1)))
            domain = recipe.domain if recipe is recipes[2] else None
            assert rig.chunks.read_now(entry, start, end - start, domain) == body[start:end]
            pieces = rig.chunks.read(entry, start, end - start, domain)
            assert runner.run(_joined(pieces)) == body[start:end]
            if domain is not None:
                with pytest.raises(Forbidden):
                    runner.run(rig.read(entry))

        check()
        runner.run(rig.chunks.close())
        assert not rig.damage


async def _joined(pieces: Any) -> bytes:
    return b"".join([bytes(piece) async for piece in pieces])


# -- what it tells


async def test_neither_plaintext_nor_any_hash_of_it_is_stored(rig) -> None:
    await seal(rig)
    marker = b"the potter's mark "
    for body in (marker * 20, marker * 3500, rig.noise(5000), rig.noise(50 * KIB), marker * 30 + rig.noise(30 * KIB)):
        await rig.store(body)
        pieces = [body[at : at + rig.limits.frame_size] for at in range(0, len(body), rig.limits.frame_size)]
        tells = [marker, body[:16], *(xxh3_64_intdigest(p).to_bytes(8, "big") for p in (body, *pieces))]
        tells += [blake3(body).digest(), blake3(body, key=b"k" * 32).digest()]
        kept = [*rig.pool.bodies().values(), *rig.rows().values(), *rig.rows()]
        assert not [tell for tell in tells if any(tell in place for place in kept)]


async def test_keys_show_in_no_repr_and_no_row(rig) -> None:
    recipe = await seal(rig)
    await rig.store(rig.noise(20 * KIB))
    domain = recipe.domain
    secrets = [b"m" * 32, domain.secret]
    assert not [s for s in secrets if any(s in value for value in rig.rows().values())]
    said = repr((recipe, domain, rig.keyring.masters, DataKey(b"d" * 32, AES_256_GCM)))
    assert not [s for s in secrets if s.hex() in said or str(s)[2:-1] in said]


# -- deduplication


async def test_equal_bodies_are_one_within_a_key_and_none_across_keys(rig) -> None:
    body = rig.noise(30 * KIB)
    plain = await rig.store(body)
    ids = {plain.id}
    for recipe in (await seal(rig), await seal(rig, "kleio"), Recipe(domain=rig.keyring.customer(CUSTOMER))):
        rig.recipe = recipe
        first, again = await rig.store(body), await rig.store(body)
        assert first == again
        ids.add(first.id)
    assert len(ids) == 4
    assert rig.chunks.counters.totals()["dedup_hits"] == 3
    await rig.keyring.rotate("kleio")  # a key that is rotated is the same domain
    rig.recipe = Recipe(domain=rig.keyring.domain("kleio"))
    assert (await rig.store(body)).id in ids


async def test_bodies_that_arrive_together_share_a_pack_only_with_their_own_key(rig) -> None:
    recipes = [Recipe(), await seal(rig), await seal(rig, "kleio"), Recipe(domain=rig.keyring.customer(CUSTOMER))]
    bodies = [rig.noise(200) for _ in range(32)]
    placed = await asyncio.gather(*(rig.chunks.place_small(body, recipes[n % 4]) for n, body in enumerate(bodies)))
    await rig.commit(*placed)
    packs_of = [{p.entry.id for p in placed[n::4]} for n in range(4)]
    assert not set.intersection(*packs_of)
    for number, body in enumerate(bodies):
        domain = recipes[3].domain if number % 4 == 3 else None
        assert await read(rig, placed[number].entry, domain) == body


# -- changes do not pass


def key_of(number: int = 0, cipher: int = AES_256_GCM) -> DataKey:
    return DataKey(bytes([number]) * 32, cipher)


def built(plain: bytes, chunk: bytes = b"i" * 32, key: DataKey | None = None) -> tuple[bytearray, frames.FrameTable]:
    table = frames.table_size(len(plain), FRAME)
    into = memoryview(bytearray(frames.sealed_size(table, len(plain), FRAME)))
    room = memoryview(bytearray(table) + plain)
    length = frames.build_sealed(room, table, len(plain), FRAME, Recipe(), key or key_of(), chunk, into)
    assert bytes(room[table:]) == plain, "digests may still be reading it"
    body = bytearray(into[:length])
    return body, frames.parse(memoryview(body)[:table], len(plain), length)


def opened(body: bytearray, table: frames.FrameTable, chunk: bytes = b"i" * 32, key: DataKey | None = None) -> bytes:
    data = memoryview(body)[table.table_size :]
    pieces = frames.open_sealed(key or key_of(), chunk, data, table, 0, len(table.codecs), None)
    return b"".join(pieces)


def mixed() -> bytes:
    dice = random.Random(SEED)
    return b"".join(dice.randbytes(FRAME) if n % 2 else dice.randbytes(10) * (FRAME // 10) for n in range(6))[:LENGTH]


@pytest.mark.parametrize("cipher", [AES_256_GCM, CHACHA20_POLY1305])
def test_frames_open_in_every_range_and_only_with_their_key_and_chunk(cipher: int) -> None:
    plain, key = mixed(), key_of(1, cipher)
    body, table = built(plain, key=key)
    assert table.cipher == cipher
    for first in range(6):
        for last in range(first + 1, 7):
            data = memoryview(body)[table.start(first) : table.ends[last - 1]]
            whole = b"".join(frames.open_sealed(key, b"i" * 32, data, table, first, last, None))
            assert whole == plain[first * FRAME : last * FRAME]
    for wrong in ({"key": key_of(2, cipher)}, {"chunk": b"j" * 32, "key": key}):
        with pytest.raises(Corrupt):
            opened(body, table, **wrong)


def test_a_chunk_of_which_any_bit_is_flipped_does_not_open() -> None:
    plain = mixed()
    body, table = built(plain)
    dice = random.Random(SEED)
    for at in {
        *(table.start(n) for n in range(6)),
        *(end - 1 for end in table.ends),
        *dice.sample(range(len(body)), 40),
    }:
        changed = bytearray(body)
        changed[at] ^= 1 << dice.randrange(8)
        with pytest.raises((Corrupt, Refused)):
            opened(changed, frames.parse(memoryview(changed)[: table.table_size], LENGTH, len(changed)))


def test_frames_that_change_places_or_chunks_do_not_open() -> None:
    dice = random.Random(SEED)
    body, table = built(dice.randbytes(3 * FRAME))
    size = FRAME + sealing.TAG_SIZE
    start = table.table_size
    swapped = bytearray(body)
    swapped[start : start + size], swapped[start + size : start + 2 * size] = (
        body[start + size : start + 2 * size],
        body[start : start + size],
    )
    with pytest.raises(Corrupt):
        opened(swapped, table)
    other, other_table = built(dice.randbytes(3 * FRAME), b"o" * 32)  # another chunk, were it under the same key
    with pytest.raises(Corrupt):
        opened(other, other_table)
    shorter, short_table = built(dice.randbytes(2 * FRAME))
    shorter[start:] = body[start : start + 2 * size]  # the first two of three frames as if they were all
    with pytest.raises(Corrupt):
        opened(shorter, short_table)


def test_slots_open_only_in_their_pack_and_at_their_number() -> None:
    pack, key = b"p" * 16, key_of()
    bodies = [(bytes([n]) * 700, Recipe(Codec.RAW)) for n in range(3)] + [(b"text " * 200, Recipe())]
    made = packs.build(bodies, pack, key)
    slots = packs.parse(made.body)
    data = [memoryview(made.body)[s.offset : s.offset + s.stored] for s in slots]
    for number, (body, _) in enumerate(bodies):
        assert packs.open_sealed(data[number], slots[number], number, key, pack) == body
    for wrong in (
        (data[1], slots[0], 0, key, pack),
        (data[0], slots[0], 1, key, pack),
        (data[0], slots[0], 0, key, b"q" * 16),
        (data[0], slots[0], 0, key_of(1), pack),
        (data[0], slots[0]._replace(length=699), 0, key, pack),
        (data[0], slots[0]._replace(checksum=slots[0].checksum ^ 1), 0, key, pack),
        (data[0], slots[0]._replace(flags=Codec.ZSTD), 0, key, pack),
        (data[0][:-1], slots[0]._replace(stored=slots[0].stored - 1), 0, key, pack),
        (data[0][:3], slots[0]._replace(stored=3), 0, key, pack),
    ):
        with pytest.raises(Corrupt):
            packs.open_sealed(*wrong)


async def test_a_seal_opens_nothing_but_what_it_was_made_for(rig) -> None:
    await seal(rig)
    one, other = await rig.store(rig.noise(30 * KIB)), await rig.store(rig.noise(30 * KIB))
    value = rig.rows(CHUNKS)[chunk_key(one.id)]
    foreign = decode_chunk(rig.rows(CHUNKS)[chunk_key(other.id)]).seal
    for wrong in (foreign, bytes([foreign[0] ^ 1]) + foreign[1:], foreign[:-1] + bytes([foreign[-1] ^ 1]), None):
        await put(rig, chunk_key(one.id), msgspec.structs.replace(decode_chunk(value), seal=wrong))
        with pytest.raises((Corrupt, Forbidden)):
            await read(rig, one)
    await put(rig, chunk_key(one.id), decode_chunk(value))
    await read(rig, one)


async def put(rig: Any, key: bytes, row: Any) -> None:
    await rig.state.commit(Mutation((), [Put(key, encode(row))]))


# -- without the key


async def test_a_pack_is_compacted_without_any_key_and_opens_afterwards(rig) -> None:
    await seal(rig)
    bodies = [rig.noise(500 + n) for n in range(8)]
    entries = await asyncio.gather(*(rig.store(body) for body in bodies))
    pack = entries[0].id
    before = decode_pack(rig.rows(PACKS)[pack_key(pack)])
    keyless = rig.another(rig.ring())
    await rig.drop(*entries[:6])
    rig.chunks, known = keyless, rig.chunks
    await rig.sweep_all()
    rig.chunks = known
    after = decode_pack(rig.rows(PACKS)[pack_key(pack)])
    assert after.stripe != before.stripe
    assert after.seal == before.seal
    assert packs.parse(rig.pool.bodies()[after.stripe.write_id]) == slots_of(after)
    assert not rig.rows(ZERO)
    for entry, body in zip(entries[6:], bodies[6:], strict=True):
        assert await read(rig, entry) == body
    with pytest.raises(Unavailable) as refused:
        await read(rig, entries[7], keyring=rig.ring())
    assert refused.value.reason == "master-key"
    assert not rig.damage, "that a key is not here is no damage"
    await keyless.close()


async def test_without_the_master_key_or_with_another_the_rest_of_the_store_goes_on(rig) -> None:
    plain = await rig.store(rig.noise(20 * KIB))
    await seal(rig)
    secret = await rig.store(rig.noise(20 * KIB))
    assert secret.kind == Kind.CHUNK
    for keyring, says in ((rig.ring(), "none was given"), (rig.ring(b"x" * 32), "another one was given")):
        assert await read(rig, plain, keyring=keyring)
        with pytest.raises(Unavailable, match=says) as refused:
            await read(rig, secret, keyring=keyring)
        assert refused.value.reason == "master-key"
        assert rig.keyring.masters[0].fingerprint.hex() in refused.value.message
        assert re.search("OSTRAKA_MASTER_KEY", refused.value.message)
        assert says in keyring.complaint()
    assert not rig.keyring.complaint()
    assert not rig.damage
