"""The chunk store by itself: written and held by id, read by ranges, seen where it lies, given up, counted."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostraka
from ostraka.chunks.rows import Health
from ostraka.errors import Absent, Conflict, Invalid, TooLarge
from ostraka.library import Chunks, Store
from ostraka.limits import LIMITS, MIB
from ostraka.store import fsck

SIZES = [1, 1000, 131_072, 131_073, 4 * MIB]


@pytest.fixture
def store() -> Iterator[Store]:
    with ostraka.open(memory=True, ec="2+1") as store:
        yield store


@pytest.fixture
def chunks(store: Store) -> Chunks:
    return store.chunks


def text(rng: random.Random, size: int) -> bytes:
    """Compresses well."""
    return (b"%d," % rng.getrandbits(30) * (size // 8 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["noise", "text"])
def test_a_chunk_comes_back_whole_and_in_exact_ranges(chunks: Chunks, seed: int, size: int, kind: str) -> None:
    rng = random.Random(seed)
    body = rng.randbytes(size) if kind == "noise" else text(rng, size)
    info = chunks.write(body)
    assert (info.length, info.references, info.held, info.health) == (size, 1, 1, "good")
    assert kind == "noise" or size < 1000 or info.stored_length < size
    assert chunks.get(info.id) == body
    assert b"".join(chunks.pieces(info.id)) == body
    for _ in range(20):
        offset = rng.randrange(size + 1)
        length = rng.randrange(size - offset + 10)
        assert chunks.get(info.id, offset=offset, length=length) == body[offset : offset + length]
    assert chunks.info(info.id) == info
    assert chunks.exists(info.id)


def test_the_stripe_of_a_chunk_says_where_each_shard_is(chunks: Chunks) -> None:
    info = chunks.write(bytes(range(256)) * 1000)
    stripe = chunks.stripe(info.id)
    assert (stripe.k, stripe.m, stripe.length) == (2, 1, info.stored_length)
    assert [shard.parity for shard in stripe.shards] == [False, False, True]
    assert len({shard.disk for shard in stripe.shards}) == 3
    assert all(Path(shard.path, "superblock").exists() for shard in stripe.shards)


def test_writing_what_is_there_stores_nothing_and_holds_it_once_more(chunks: Chunks, seed: int) -> None:
    body = random.Random(seed).randbytes(200_000)
    first, second = chunks.write(body), chunks.write(body)
    assert second.id == first.id
    assert (second.references, second.held) == (2, 2)
    told = chunks.statistics()
    assert (told.count, told.bytes, told.stored_bytes) == (1, 200_000, first.stored_length)
    chunks.delete(first.id)
    assert chunks.info(first.id).held == 1
    assert chunks.get(first.id) == body


def test_a_chunk_whose_id_is_known_is_verified_before_anything_is_stored(chunks: Chunks, seed: int) -> None:
    body = random.Random(seed).randbytes(200_000)
    known = chunks.write(body).id
    with pytest.raises(Invalid, match="not " + known):
        chunks.write(body[:-1], id=known)
    assert chunks.statistics().count == 1
    assert chunks.info(known).held == 1
    assert chunks.write(body, id=known).held == 2


def test_a_damaged_chunk_is_made_whole_by_who_brings_it_back(store: Store, seed: int) -> None:
    body = random.Random(seed).randbytes(200_000)
    info = store.chunks.write(body)
    before = store.chunks.stripe(info.id).write_id
    inner = store._store._store
    store._loop.run(inner.chunks.mark(bytes.fromhex(info.id), Health.DAMAGED))
    assert store.chunks.info(info.id).health == "damaged"
    assert store.chunks.write(body, id=info.id).health == "good"
    assert store.chunks.stripe(info.id).write_id != before


def test_a_chunk_goes_only_when_nobody_holds_it_and_no_object_refers_to_it(store: Store, seed: int) -> None:
    body = random.Random(seed).randbytes(200_000)
    bucket = store.create_bucket("photos")
    bucket.put("amphora", body)
    (piece,) = store.chunks.slices("photos", "amphora")
    assert (piece.offset, piece.length) == (0, len(body))
    with pytest.raises(Conflict, match="not held"):
        store.chunks.delete(piece.chunk)
    assert store.chunks.write(body).id == piece.chunk
    bucket.delete("amphora")
    inner = store._store._store
    collector = inner.objects.collector(lambda incarnation: True)
    store._loop.run(collector.collect(100))
    assert store.chunks.get(piece.chunk) == body
    assert store._loop.run(fsck.run(inner, lambda *_: None, repair=False))["clean"]
    store.chunks.delete(piece.chunk)
    assert store.chunks.info(piece.chunk).references == 0
    with pytest.raises(Conflict, match="not held"):
        store.chunks.delete(piece.chunk)


def test_every_chunk_is_listed_once_in_order_and_from_a_place_on(chunks: Chunks, seed: int) -> None:
    rng = random.Random(seed)
    written = sorted(chunks.write(rng.randbytes(100)).id for _ in range(20))
    assert [info.id for info in chunks.list()] == written
    assert [info.id for info in chunks.list(start_after=written[7])] == written[8:]
    assert chunks.statistics().count == 20


def test_small_bodies_are_slices_of_packs_and_tiny_ones_have_none(store: Store) -> None:
    bucket = store.create_bucket("photos")
    bucket.put("tiny", b"x")
    bucket.put("small", bytes(10_000))
    assert list(store.chunks.slices("photos", "tiny")) == []
    (piece,) = store.chunks.slices("photos", "small")
    assert (piece.chunk, piece.length, len(piece.pack)) == ("", 10_000, 32)


@pytest.mark.parametrize("id", ["", "abc", "G" * 64, "A" * 64, "00" * 31])
def test_what_is_no_id_is_said_so(chunks: Chunks, id: str) -> None:
    for call in (chunks.get, chunks.info, chunks.delete, chunks.stripe, chunks.exists):
        with pytest.raises(Invalid, match="64 hexadecimal digits"):
            call(id)


def test_bad_calls_get_one_line_and_do_nothing(chunks: Chunks) -> None:
    nobody = "0" * 64
    for call in (chunks.get, chunks.info, chunks.delete, chunks.stripe):
        with pytest.raises(Absent, match=nobody):
            call(nobody)
    with pytest.raises(Invalid, match="without bytes"):
        chunks.write(b"")
    with pytest.raises(TooLarge, match="at most"):
        chunks.write(bytes(LIMITS.chunk_size + 1))
    with pytest.raises(Invalid, match="bytes, not str"):
        chunks.write("text")  # type: ignore[arg-type]
    info = chunks.write(b"abc")
    with pytest.raises(Invalid, match="none at 4"):
        chunks.get(info.id, offset=4)
    assert chunks.statistics().count == 1


def test_a_store_in_memory_is_new_and_gone_when_it_is_closed(tmp_path: Path) -> None:
    with ostraka.open(memory=True) as store:
        info = store.chunks.write(b"clay")
        place = Path(store.chunks.stripe(info.id).shards[0].path)
        assert place.is_dir()
    assert not place.exists()
    with ostraka.open(memory=True) as store:
        assert store.chunks.statistics().count == 0
    for wrong in ({"directories": [tmp_path]}, {"existing": True}):
        with (
            pytest.raises(Invalid, match="name none"),
            ostraka.open(*wrong.pop("directories", []), memory=True, **wrong),  # type: ignore[arg-type]
        ):
            pass


def test_holds_live_on_in_the_next_process(tmp_path: Path, seed: int) -> None:
    body = random.Random(seed).randbytes(50_000)
    with ostraka.open(tmp_path / "store") as store:
        info = store.chunks.write(body)
    with ostraka.open(tmp_path / "store") as store:
        assert store.chunks.get(info.id) == body
        assert store.chunks.info(info.id) == info
