"""Seeded damage at rest in every file: the right rows or a typed error, never wrong rows."""

import asyncio
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.limits import LIMITS, MIB
from ostraka.state import Delete, Mutation, Put, salvage_from_index, verify_copies
from ostraka.state.verify import check_index

SEED = 4711
SMALL_LIMITS = replace(LIMITS, state_index_size_max=256 * MIB)
LONG = b"long" * 200


def put(key: bytes, value: bytes) -> Mutation:
    return Mutation((), (Put(key, value),))


def fill(store: Any) -> list[tuple[bytes, bytes]]:
    """Snapshot and log, with rows in the one, in the other and in both."""
    state = store.create()
    state.apply([put(b"%03d" % n, b"old" * n) for n in range(40)] + [put(LONG, b"1")])
    state.checkpoint_now()
    state.apply([put(b"%03d" % n, b"new" * n) for n in range(0, 60, 3)] + [Mutation((), (Delete(b"001"),))])
    state.apply([put(LONG + b"2", b"2")])
    state.apply([put(b"last", b"acknowledged")])
    rows: list[tuple[bytes, bytes]] = state.scan(b"", None, 1000)
    store.abandon(state)
    return rows


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def used_bits(path: Path) -> int:
    """Bits of a file up to the zeros that a log keeps ahead of its records."""
    return len(path.read_bytes().rstrip(b"\0")) * 8


@pytest.mark.parametrize("kind", ["log", "snapshot"])
def test_one_copy_damaged_anywhere_is_found_or_refused(make_store: Any, kind: str) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    source = make_store(1)
    rows = fill(source)
    outcomes = {"right": 0, "refused": 0}
    for turn in range(150):
        target = make_store(1, name=f"flip{turn}")
        shutil.copytree(source.copies[0].path, target.copies[0].path)
        path = chance.choice(target.logs() if kind == "log" else target.snapshots())
        bit = chance.randrange(used_bits(path))
        flip(path, bit)
        try:
            state = target.open()
        except (Corrupt, Refused):
            outcomes["refused"] += 1
        else:
            # whoever does not refuse must have every row, and must have seen what does not verify
            assert state.scan(b"", None, 1000) == rows, (path.name, bit)
            assert state.recovery.damage or state.recovery.healed or path.name < max(p.name for p in target.logs())
            outcomes["right"] += 1
            target.abandon(state)
        shutil.rmtree(target.root)
    print(outcomes)
    assert outcomes["refused"] > 0


@pytest.mark.parametrize("kind", ["log", "snapshot"])
def test_with_another_copy_damage_anywhere_is_healed(make_store: Any, kind: str) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED + 1)
    source = make_store(2)
    rows = fill(source)
    for turn in range(40):
        target = make_store(2, name=f"flip{turn}")
        for number in (0, 1):
            shutil.copytree(source.copies[number].path, target.copies[number].path)
        victim = turn % 2
        path = chance.choice(target.logs(victim) if kind == "log" else target.snapshots(victim))
        flip(path, chance.randrange(used_bits(path)))
        state = target.open()
        assert state.scan(b"", None, 1000) == rows, path.name
        meta = state.meta()
        found = verify_copies(target.host, target.store, meta)
        if any(report.damage for report in found):  # not met when opening: the scrub sees it, a new snapshot heals it
            state.checkpoint_now()
            found = verify_copies(target.host, target.store, state.meta())
        assert [report.damage for report in found] == [[], []]
        target.abandon(state)
        alone = target.open(copies=[target.copies[victim]])
        assert alone.scan(b"", None, 1000) == rows
        target.abandon(alone)
        shutil.rmtree(target.root)


def test_damage_in_a_snapshot_is_found_by_the_scrub_and_healed_by_the_next_checkpoint(store: Any) -> None:
    rows = fill(store)
    state = store.open()
    flip(store.snapshots(2)[0], used_bits(store.snapshots(2)[0]) // 2)
    reports = verify_copies(store.host, store.store, state.meta())
    assert [bool(r.damage) for r in reports] == [False, False, True]
    state.checkpoint_now()
    assert not any(r.damage for r in verify_copies(store.host, store.store, state.meta()))
    assert state.scan(b"", None, 1000) == rows


def test_damage_in_the_index_is_found_by_a_process_that_may_die_of_it(make_store: Any) -> None:
    """Every kind of page, seeded: the walk says so, or the rows are all there; it never says whole over wrong rows."""
    print(f"seed {SEED}")
    chance = random.Random(SEED + 2)
    store = make_store(1)
    state = store.create()
    for _ in range(4):
        state.apply([put(chance.randbytes(20), b"v" * 300) for _ in range(200)])
    state.apply([put(LONG + b"%d" % n, b"v") for n in range(50)])
    rows = state.scan(b"", None, 10_000)
    size = state._use.index.size()
    store.abandon(state)
    whole = next(store.index.glob("index-*.mdb"))
    image = whole.read_bytes()[:size]
    found = 0
    for turn in range(16):
        path = store.root / f"flip{turn}.mdb"
        data = bytearray(image)
        for _ in range(1 if turn % 2 else 40):
            bit = chance.randrange(size * 8)
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        report = check_index(path, 256 << 20, structure=turn % 3 == 0)
        if report.whole:
            assert report.rows == len(rows)
        else:
            assert report.note
            found += 1
        path.unlink()
    assert found > 5


def test_an_index_damaged_while_stopped_is_never_used(make_store: Any) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED + 3)
    store = make_store(2)
    rows = fill(store)
    for clean in (True, False) * 6:
        state = store.open()
        assert state.scan(b"", None, 1000) == rows
        size = state._use.index.size()
        if clean:
            asyncio.run(state.close())
        else:
            store.abandon(state)
        flip(next(store.index.glob("index-*.mdb")), chance.randrange(size * 8))


def test_the_files_of_a_clean_stop_may_be_damaged_too(make_store: Any) -> None:
    chance = random.Random(SEED + 4)
    store = make_store(1)
    rows = fill(store)
    for _ in range(10):
        state = store.open()
        asyncio.run(state.close())
        for name in ("current", "*.clean"):
            path = next(store.index.glob(name))
            flip(path, chance.randrange(used_bits(path)))
        state = store.open()
        assert state.scan(b"", None, 1000) == rows
        store.abandon(state)


def test_what_was_acknowledged_last_is_not_taken_for_a_torn_tail(make_store: Any) -> None:
    """A flip in the last record of a single copy: that it was whole once is seen, and the loss is refused."""
    store = make_store(1)
    fill(store)
    path = store.logs()[-1]
    data = path.read_bytes()
    at = data.index(b"acknowledged")
    flip(path, at * 8)
    with pytest.raises(Corrupt):
        store.open()
    state = store.open(accept_loss=True)
    assert state.get(b"last") is None
    assert state.get(b"057") is not None


def test_a_value_that_looks_like_a_record_is_not_read_as_one(make_store: Any) -> None:
    """Values come from outside: behind a damaged head, a reader that looks for the next record must not find theirs."""
    from ostraka.state.log import Record, encode_record
    from ostraka.state.rows import encode_rows

    store = make_store(1)
    state = store.create()
    state.apply([put(b"a", b"1")])
    forged = Record(2, 1, 2, 1, 0, 1, 0, encode_rows([(b"root", b"owned")]))
    end = state.meta().copies[0].end
    state.apply([put(b"b", b"." * 700 + encode_record(forged, 0) + b"." * 700)])
    store.abandon(state)
    path = store.logs()[0]
    data = bytearray(path.read_bytes())
    data[end : end + 400] = bytes(400)
    path.write_bytes(data)
    try:
        again = store.open()
    except OstrakaError:
        return
    assert again.get(b"root") is None


@pytest.mark.parametrize("kind", ["log", "snapshot"])
def test_a_lone_copy_is_made_whole_from_the_index_when_a_person_asks(make_store: Any, kind: str) -> None:
    store = make_store(1)
    rows = fill(store)
    path = store.logs()[-1] if kind == "log" else store.snapshots()[0]
    flip(path, used_bits(path) - 400)
    with pytest.raises(Corrupt):
        store.open()
    salvage_from_index(store.host, SMALL_LIMITS, store.store, store.copies, store.index, 1)
    state = store.open()
    assert state.scan(b"", None, 1000) == rows
    state.apply([put(b"after", b"")])
    store.abandon(state)
    assert len(store.open().scan(b"", None, 1000)) == len(rows) + 1


def test_a_damaged_index_is_not_made_the_truth(make_store: Any) -> None:
    store = make_store(1)
    fill(store)
    index = max(store.index.glob("index-*.mdb"))
    with index.open("r+b") as file:
        data = bytearray(file.read(1 << 20))
        at = data.index(b"acknowledged")
        file.seek(at)
        file.write(b"A")
    with pytest.raises(Refused):
        salvage_from_index(store.host, SMALL_LIMITS, store.store, store.copies, store.index, 1)
    assert len(store.snapshots()) == 1
