"""What was acknowledged is there after every way of stopping; what was not is there whole or not at all."""

import asyncio
import shutil
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ostraka.errors import Corrupt, Refused
from ostraka.limits import LIMITS, MIB
from ostraka.state import Copy, Mutation, Put, salvage_from_index, verify_copies
from ostraka.state.log import End, LogReader, Record, ScanEnd
from ostraka.state.rows import DIGEST_MASK, encode_rows, row_hash
from ostraka.state.snapshot import STAGING_SUFFIX


def put(key: bytes, value: bytes) -> Mutation:
    return Mutation((), (Put(key, value),))


def durable_but_unfinished(state: Any, rows: list[tuple[bytes, bytes]], copies: list[int]) -> None:
    """Leave what a writer leaves that dies between the sync of some copies and the commit of the index."""
    engine = state._use.engine
    with engine.writing() as (_, meta):
        digest = int.from_bytes(meta.digest, "big") + sum(row_hash(k, v) for k, v in rows)
        record = Record(
            meta.commit + 1, meta.epoch, meta.sequence + 1, 1, digest & DIGEST_MASK, len(rows), 0, encode_rows(rows)
        )
        assert engine.append_everywhere(record, [meta.copies[n] for n in copies])


@pytest.mark.parametrize("copies", [[0], [2], [0, 1], [0, 1, 2]])
@pytest.mark.parametrize("log_begun", [False, True])
def test_the_next_writer_rolls_forward_what_a_dead_one_left_on_some_copies(
    store: Any, copies: list[int], log_begun: bool
) -> None:
    state = store.create()
    if log_begun:
        state.apply([put(b"before", b"")])
    durable_but_unfinished(state, [(b"left", b"behind")], copies)
    assert state.get(b"left") is None
    outcome = state.apply([put(b"next", b"")])
    assert state.get(b"left") == b"behind"
    assert outcome[0].sequence == (3 if log_begun else 2)
    assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[], [], []]
    store.abandon(state)
    again = store.open()
    assert [k for k, _ in again.scan(b"", None, 9)] == [b"before"] * log_begun + [b"left", b"next"]


@pytest.mark.parametrize("copies", [[0], [2], [0, 1], [0, 1, 2]])
def test_the_next_start_rolls_forward_what_a_dead_one_left_on_some_copies(store: Any, copies: list[int]) -> None:
    state = store.create()
    state.apply([put(b"before", b"")])
    durable_but_unfinished(state, [(b"left", b"behind")], copies)
    store.abandon(state)
    again = store.open()
    assert again.get(b"left") == b"behind"
    assert again.sequence == 2
    assert [(r.damage, r.commit) for r in verify_copies(store.host, store.store, again.meta())] == [([], 2)] * 3


def test_a_tail_torn_at_any_byte_is_the_end_and_stays_as_it_is(make_store: Any) -> None:
    store = make_store(1)
    state = store.create()
    state.apply([put(b"kept", b"1" * 700)])
    end = state.meta().copies[0].end
    durable_but_unfinished(state, [(b"torn", b"2" * 1300)], [0])
    store.abandon(state)
    log = store.logs()[0]
    whole = log.read_bytes()
    tail = whole[end:].rstrip(b"\0")
    for cut in [0, 1, 3, 4, 79, 80, 81, *range(150, len(tail), 150), len(tail) - 1]:
        target = make_store(1, name=f"cut{cut}")
        shutil.copytree(store.copies[0].path, target.copies[0].path)
        torn = target.logs()[0]
        torn.write_bytes(whole[: end + cut] + bytes(len(whole) - end - cut))
        again = target.open()
        assert again.scan(b"", None, 9) == [(b"kept", b"1" * 700)], cut
        again.apply([put(b"after", b"3")])
        assert torn.read_bytes()[end : end + cut] == tail[:cut]
        target.abandon(again)
        once_more = target.open()
        assert [k for k, _ in once_more.scan(b"", None, 9)] == [b"after", b"kept"], cut
        target.abandon(once_more)
        shutil.rmtree(target.root)


def test_a_reader_takes_a_record_cut_at_any_byte_for_a_torn_tail(store: Any) -> None:
    state = store.create()
    state.apply([put(b"kept", b"1")])
    end = state.meta().copies[0].end
    durable_but_unfinished(state, [(b"torn", b"\0" * 50 + b"2" * 250 + b"\0" * 50)], [0])
    store.abandon(state)
    path = store.root / "cut"
    whole = store.logs()[0].read_bytes()
    tail = whole[end:].rstrip(b"\0")
    for ahead in (0, 100):  # zeros ahead of the records, or the end of the file
        for cut in range(len(tail)):
            path.write_bytes(whole[: end + cut] + bytes(len(tail) - cut + ahead if ahead else 0))
            file = store.host.files.open(path)
            reader = LogReader(file)
            reader.header()
            *found, last = reader.records()
            file.close()
            assert isinstance(last, ScanEnd)
            assert (len(found), last.offset) == (1, end)
            assert last.end is (End.CLEAN if cut == 0 else End.TORN)


def test_sectors_of_a_torn_tail_may_arrive_in_any_order(make_store: Any) -> None:
    store = make_store(1)
    state = store.create()
    state.apply([put(b"kept", b"1")])
    end = state.meta().copies[0].end
    durable_but_unfinished(state, [(b"torn", b"2" * 1800)], [0])
    store.abandon(state)
    whole = store.logs()[0].read_bytes()
    tail_end = len(whole.rstrip(b"\0"))
    sectors = list(range(end // 512, tail_end // 512 + 1))
    for lost in range(1, 2 ** len(sectors)):
        target = make_store(1, name=f"lost{lost}")
        shutil.copytree(store.copies[0].path, target.copies[0].path)
        data = bytearray(whole)
        for bit, sector in enumerate(sectors):
            if lost >> bit & 1:
                low, high = max(end, sector * 512), min(tail_end, (sector + 1) * 512)
                data[low:high] = bytes(high - low)
        target.logs()[0].write_bytes(data)
        again = target.open()
        assert again.scan(b"", None, 9) == [(b"kept", b"1")], lost
        target.abandon(again)
        shutil.rmtree(target.root)


def test_sequences_are_never_used_twice_over_restarts(store: Any) -> None:
    seen = 0
    state = store.create()
    for turn in range(6):
        outcomes = state.apply([put(b"k", b"%d" % turn), Mutation(), put(b"k", b"%d" % turn)])
        numbers = [o.sequence for o in outcomes]
        assert numbers == [seen + 1, seen + 2, seen + 3]
        seen = numbers[-1]
        if turn == 3:
            state.checkpoint_now()
        if turn % 2:
            asyncio.run(state.close())
        else:
            store.abandon(state)
        state = store.open()
        assert state.recovery.clean == bool(turn % 2)
        assert state.sequence == seen


def test_a_clean_stop_needs_no_rebuild_and_an_index_changed_afterwards_is_not_used(store: Any) -> None:
    state = store.create()
    state.apply([put(b"%d" % n, b"v" * 100) for n in range(100)])
    asyncio.run(state.close())
    state = store.open()
    assert state.recovery.clean
    asyncio.run(state.close())
    index = next(store.index.glob("*.mdb"))
    with index.open("r+b") as file:
        file.seek(3 * 4096 + 2000)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    state = store.open()
    assert not state.recovery.clean
    assert state.recovery.rows == 100
    assert len(state.scan(b"", None, 200)) == 100


def test_copies_behind_a_clean_stop_are_refused(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.abandon(state)
    shutil.copytree(store.copies[0].path, store.root / "old")
    state = store.open()
    state.apply([put(b"k", b"2")])
    asyncio.run(state.close())
    for _ in range(2):  # a service that is restarted is refused as often as it tries
        with pytest.raises(Refused) as caught:
            store.open(copies=[Copy(store.copies[0].disk, store.root / "old")])
        assert caught.value.reason == "stale"
    assert store.open().get(b"k") == b"2"


def test_the_end_of_the_log_that_is_wiped_after_a_clean_stop_is_refused_again_and_again(make_store: Any) -> None:
    """Wiped, it looks like the torn end of a crash; even when the index is damaged too, its mark says otherwise."""
    store = make_store(1)
    state = store.create()
    for n in range(3):
        state.apply([put(b"k", b"%d" % n)])
    asyncio.run(state.close())
    log = store.logs()[0]
    data = log.read_bytes()
    with log.open("r+b") as file:
        file.seek(len(data.rstrip(b"\0")) // 512 * 512)
        file.write(bytes(512))
    for damaged in (False, True):
        if damaged:
            with next(store.index.glob("*.mdb")).open("r+b") as file:
                file.seek(2 * 4096 + 100)
                file.write(b"damage")
        with pytest.raises(Refused, match="fsck --repair") as caught:
            store.open()
        assert caught.value.reason == "stale"


def test_the_end_of_the_log_that_is_damaged_after_a_kill_is_not_taken_for_a_torn_one(make_store: Any) -> None:
    """Garbage over the last record and beyond it: the log alone cannot tell it from a write that was cut."""
    store = make_store(1)
    state = store.create()
    for n in range(3):
        state.apply([put(b"k", b"%d" % n)])
    store.abandon(state)
    log = store.logs()[0]
    end = len(log.read_bytes().rstrip(b"\0"))
    with log.open("r+b") as file:
        file.seek(end - 20)
        file.write(b"garbage" * 70)
    for _ in range(2):
        with pytest.raises((Refused, Corrupt), match="fsck --repair"):
            store.open()
    limits = replace(LIMITS, state_index_size_max=256 * MIB)
    salvage_from_index(store.host, limits, store.store, store.copies, store.index, 1)
    assert store.open().get(b"k") == b"2"


def test_a_checkpoint_drops_what_it_replaces_and_loses_nothing(store: Any) -> None:
    state = store.create()
    for n in range(30):
        state.apply([put(b"%02d" % n, b"v" * 100), put(b"same", b"%d" % n)])
        if n % 7 == 6:
            state.checkpoint_now()
            assert [len(store.snapshots(c)) for c in range(3)] == [1, 1, 1]
            assert [len(store.logs(c)) for c in range(3)] == [0, 0, 0]
    rows = state.scan(b"", None, 100)
    assert len(rows) == 31
    store.abandon(state)
    again = store.open()
    assert again.scan(b"", None, 100) == rows
    assert again.recovery.damage == []


def test_a_snapshot_is_synced_in_steps_so_that_commits_beside_it_never_wait_for_all_of_it(make_store: Any) -> None:
    store = make_store(1)
    state = store.create()
    for n in range(32):
        state.apply([put(b"k%d" % n, bytes([n]) * (1 << 19))])
    before = len(store.files.syncs)
    state.checkpoint_now()
    steps = [path for path in store.files.syncs[before:] if path.name.endswith(STAGING_SUFFIX)]
    assert len(steps) >= 4  # of 16 MiB


def test_a_checkpoint_is_due_when_the_log_has_outgrown_its_bound(store: Any) -> None:
    limits = replace(LIMITS, log_bytes_before_checkpoint=10_000, state_index_size_max=1 << 28)
    state = store.create(limits=limits)
    assert not state.checkpoint_due
    state.apply([put(b"%d" % n, b"v" * 100) for n in range(100)])
    assert state.checkpoint_due
    state.checkpoint_now()
    assert not state.checkpoint_due
    store.abandon(state)
    assert not store.open(limits=limits).checkpoint_due


def test_commits_go_on_while_a_checkpoint_is_written(store: Any) -> None:
    async def main() -> None:
        state = store.create()
        await state.commit_many([put(b"%05d" % n, b"v" * 50) for n in range(2000)])
        done = False

        async def write() -> int:
            count = 0
            while not done:
                await state.commit(put(b"new %d" % count, b""))
                count += 1
            return count

        writer = asyncio.create_task(write())
        for _ in range(3):
            await state.checkpoint()
        done = True
        count = await writer
        assert count > 0
        assert len(state.scan(b"new", b"nex", 10_000)) == count
        rows = state.scan(b"", None, 10_000)
        state.recovery = None
        await state.close()
        again = await asyncio.to_thread(store.open)
        assert again.scan(b"", None, 10_000) == rows

    asyncio.run(main())


def test_a_new_copy_is_made_and_joins_while_commits_go_on(store: Any) -> None:
    new = Copy(b"n" * 16, store.root / "new")

    async def main() -> Any:
        state = store.create()
        await state.commit_many([put(b"%05d" % n, b"v" * 50) for n in range(500)])
        done = False

        async def write() -> None:
            count = 0
            while not done:
                await state.commit(put(b"new %d" % count, b""))
                count += 1

        writer = asyncio.create_task(write())
        store.epoch = 2
        await state.seed(new, 2)
        await state.commit(put(b"after", b"seed"))
        done = True
        await writer
        await state.drop(store.copies[0].disk, 2)
        await state.commit(put(b"after", b"drop"))
        rows = state.scan(b"", None, 10_000)
        assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[], [], []]
        state.recovery = None
        await state.close()
        return rows

    rows = asyncio.run(main())
    alone = store.open(copies=[msgspec.structs.replace(new, epoch_min=2)])
    assert alone.scan(b"", None, 10_000) == rows
    with pytest.raises(Refused):
        store.open(copies=[msgspec.structs.replace(store.copies[0], epoch_min=3)])


def test_a_copy_that_lost_its_last_commits_is_brought_forward(store: Any) -> None:
    state = store.create()
    state.apply([put(b"a", b"1")])
    saved = store.logs(1)[0].read_bytes()
    name = store.logs(1)[0]
    for n in range(5):
        state.apply([put(b"b", b"%d" % n)])
    store.abandon(state)
    name.write_bytes(saved)
    again = store.open()
    assert again.recovery.healed == [(store.copies[1].disk, "behind")]
    assert again.get(b"b") == b"4"
    store.abandon(again)
    alone = store.open(copies=[store.copies[1]])
    assert alone.get(b"b") == b"4"


def test_a_copy_behind_the_snapshots_of_the_others_is_made_anew(store: Any) -> None:
    state = store.create()
    state.apply([put(b"a", b"1")])
    shutil.copytree(store.copies[1].path, store.root / "old")
    state.apply([put(b"a", b"2")])
    state.checkpoint_now()
    state.apply([put(b"a", b"3")])
    store.abandon(state)
    shutil.rmtree(store.copies[1].path)
    shutil.move(store.root / "old", store.copies[1].path)
    again = store.open()
    assert again.recovery.healed == [(store.copies[1].disk, "behind")]
    store.abandon(again)
    alone = store.open(copies=[store.copies[1]])
    assert alone.get(b"a") == b"3"


def test_an_index_damaged_in_use_is_found_and_built_anew_from_the_truth(store: Any) -> None:
    state = store.create()
    state.apply([put(b"%03d" % n, b"v%d" % n) for n in range(100)])
    use = state._use
    txn = use.index.begin(write=True)  # damage of the kind that a checksum of rows cannot see: a row is gone
    txn.delete(b"050", db=use.index.rows)
    txn.commit()
    assert state.get(b"050") is None
    report = asyncio.run(state.verify_index())
    assert not report.whole
    assert "digest" in report.note
    with pytest.raises(Corrupt):
        state.checkpoint_now()
    assert state.index_suspect
    assert [len(store.snapshots(c)) for c in range(3)] == [1, 1, 1]
    state.apply([put(b"050", b"new")])  # decided on the damaged index, and still durable
    assert state.rebuild_index_now() == 100
    assert state.get(b"050") == b"new"
    assert asyncio.run(state.verify_index()).whole
    state.checkpoint_now()


def test_a_damaged_row_is_answered_from_the_truth(store: Any) -> None:
    state = store.create()
    state.apply([put(b"old", b"in the snapshot"), put(b"gone", b"")])
    state.checkpoint_now()
    state.apply([put(b"new", b"in the log"), Mutation((), (Put(b"old2", b"x"),))])
    use = state._use
    for key in (b"old", b"new"):
        txn = use.index.begin(write=True)
        raw = bytearray(txn.get(key, db=use.index.rows) or b"")
        raw[2] ^= 1
        txn.put(key, bytes(raw), db=use.index.rows)
        txn.commit()
    assert state.get(b"old") == b"in the snapshot"
    assert state.get(b"new") == b"in the log"
    assert state.index_suspect
    assert state.get_many([b"old", b"new"]) == [b"in the snapshot", b"in the log"]
    assert dict(state.scan(b"", None, 9))[b"old"] == b"in the snapshot"
    state.apply([put(b"old", b"changed")])
    assert state.get(b"old") == b"changed"
    assert asyncio.run(state.rebuild_index()) == 4
    assert state.get(b"new") == b"in the log"
    assert not state.index_suspect


def test_an_index_is_not_rebuilt_from_copies_that_lost_what_it_shows(store: Any) -> None:
    state = store.create()
    state.apply([put(b"a", b"1")])
    state.apply([put(b"a", b"2")])
    for number in range(3):
        path = store.logs(number)[0]
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"OsR1", 600)] + bytes(200))
    with pytest.raises(Corrupt):
        state.rebuild_index_now()
    assert state.get(b"a") == b"2"


def test_the_directory_of_a_new_copy_is_durable_before_the_copy_counts(store: Any) -> None:
    """The power went once the epoch named the copy, and its directory went with it: there was no such copy."""
    new = Copy(b"n" * 16, store.root / "disk9" / "state")
    new.path.parent.mkdir(parents=True)
    state = store.create()
    state.apply([put(b"k", b"v")])
    store.files.syncs.clear()
    store.epoch = 2
    state.seed_now(new, 2)
    assert new.path.parent in store.files.syncs
