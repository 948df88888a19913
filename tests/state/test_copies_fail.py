"""A copy that fails a commit is evicted before anyone is answered; the others go on (ENGINE 6, 22, 23)."""

import asyncio
import errno
import shutil
from typing import Any

import pytest

from ostraka.errors import Corrupt, Full, Refused, Unavailable
from ostraka.state import Mutation, Put, open_owner, verify_copies


def put(key: bytes, value: bytes) -> Mutation:
    return Mutation((), (Put(key, value),))


@pytest.mark.parametrize("what", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_copy_that_fails_is_evicted_and_the_rest_goes_on(store: Any, what: str, error: int) -> None:
    state = store.create()
    state.apply([put(b"before", b"1")])
    store.files.fail(what, store.copies[1].path, error)
    outcome = state.apply([put(b"during", b"2")])
    assert store.evicted == [store.copies[1].disk]
    assert outcome[0].sequence == 2
    state.apply([put(b"after", b"3")])
    meta = state.meta()
    assert [p.disk for p in meta.copies] == [store.copies[0].disk, store.copies[2].disk]
    assert meta.epoch == store.epoch == 2
    assert store.evicted == [store.copies[1].disk]
    store.abandon(state)
    store.files.heal()
    again = store.open()
    assert again.scan(b"", None, 10) == [(b"after", b"3"), (b"before", b"1"), (b"during", b"2")]
    assert [r.damage for r in verify_copies(store.host, store.store, again.meta())] == [[], []]


def test_a_copy_whose_new_log_file_cannot_be_made_durable_is_evicted(store: Any) -> None:
    state = store.create()
    store.files.fail("directory", store.copies[2].path)
    state.apply([put(b"k", b"v")])
    assert store.evicted == [store.copies[2].disk]


def test_the_evicted_copy_is_stale_from_then_on(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.files.fail("sync", store.copies[0].path)
    state.apply([put(b"k", b"2")])
    store.files.heal()
    store.abandon(state)
    stale = type(store.copies[0])(store.copies[0].disk, store.copies[0].path, epoch_min=store.epoch)
    with pytest.raises(Refused) as caught:
        store.open(copies=[stale])
    assert caught.value.reason == "stale"


def test_nobody_is_answered_when_the_eviction_cannot_be_recorded(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])

    def no(disk: bytes, error: BaseException) -> int:
        raise RuntimeError("no majority")

    state._use.engine._on_copy_failed = no
    store.files.fail("sync", store.copies[0].path)
    with pytest.raises(Unavailable):
        state.apply([put(b"k", b"2")])
    assert state.get(b"k") == b"1"
    state._use.engine._on_copy_failed = store.evict  # a majority is back: the next writer evicts, and rolls forward
    state.apply([put(b"other", b"")])
    assert state.get(b"k") == b"2"
    assert store.evicted == [store.copies[0].disk]


def test_with_no_copy_left_every_commit_is_unavailable_and_reads_go_on(make_store: Any) -> None:
    store = make_store(1)
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.files.fail("sync", store.copies[0].path)
    with pytest.raises(Unavailable):
        state.apply([put(b"k", b"2")])
    store.files.heal()
    with pytest.raises(Unavailable):  # a failed sync is never tried again
        state.apply([put(b"k", b"3")])
    assert state.get(b"k") == b"1"
    assert store.evicted == []
    store.abandon(state)
    again = store.open()
    again.apply([put(b"new", b"")])
    assert again.get(b"k") in (b"1", b"2")
    before = again.scan(b"", None, 10)
    store.abandon(again)
    assert store.open().scan(b"", None, 10) == before


@pytest.mark.parametrize("copy_count", [1, 3])
def test_a_full_disk_refuses_the_commit_and_serves_again_when_there_is_room(make_store: Any, copy_count: int) -> None:
    store = make_store(copy_count)
    state = store.create()
    state.apply([put(b"k", b"1")])
    for copy in store.copies:
        store.files.fail("write", copy.path, errno.ENOSPC)
    for _ in range(3):
        with pytest.raises(Full):
            state.apply([put(b"k", b"2" * 1000)])
    assert store.evicted == []
    assert state.get(b"k") == b"1"
    store.files.heal()
    state.apply([put(b"later", b"3")])
    assert (state.get(b"k"), state.get(b"later")) == (b"1", b"3")
    store.abandon(state)
    again = store.open()
    assert again.scan(b"", None, 10) == [(b"k", b"1"), (b"later", b"3")]


def test_all_who_wait_learn_that_the_state_is_gone(make_store: Any) -> None:
    store = make_store(1)

    async def main() -> None:
        state = store.create()
        await state.commit(put(b"k", b"1"))
        store.files.fail("sync", store.copies[0].path)
        results = await asyncio.gather(*[state.commit(put(b"%d" % n, b"")) for n in range(20)], return_exceptions=True)
        assert {type(r) for r in results} <= {Unavailable, *[type(r) for r in results if isinstance(r, Unavailable)]}
        assert all(isinstance(r, Unavailable) for r in results)

    asyncio.run(main())


def test_a_copy_that_cannot_be_read_at_the_start_is_evicted(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.abandon(state)
    store.files.fail("read", store.copies[0].path)
    again = store.open()
    assert again.get(b"k") == b"1"
    assert store.evicted == [store.copies[0].disk]
    assert again.recovery.failed[0][0] == store.copies[0].disk


def test_a_snapshot_that_one_copy_does_not_take_evicts_that_copy(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.files.fail("write", store.copies[2].path)
    done = state.checkpoint_now()
    assert done.copies == 2
    assert store.evicted == [store.copies[2].disk]
    state.apply([put(b"k", b"2")])
    assert state.get(b"k") == b"2"


def test_a_missing_copy_is_refused_not_formatted(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.abandon(state)
    for path in store.copies[1].path.iterdir():
        path.unlink()
    with pytest.raises(Refused) as caught:
        store.open()
    assert caught.value.reason == "missing"


def test_a_format_that_did_not_end_is_finished_by_the_same_call(store: Any) -> None:
    state = store.open(create=True, copies=store.copies[:2])
    store.abandon(state)
    state = store.create()
    state.apply([put(b"k", b"1")])
    assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[], [], []]


def test_another_stores_copy_is_refused(make_store: Any) -> None:
    store = make_store(2)
    state = store.create()
    store.abandon(state)
    with pytest.raises(Refused) as caught:
        open_owner(store.host, b"some other store", store.copies, store.index)
    assert caught.value.reason == "foreign"


def test_copies_that_were_changed_apart_are_refused(make_store: Any) -> None:
    store = make_store(2)
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.abandon(state)
    for number in (0, 1):
        alone = store.open(copies=[store.copies[number]])
        alone.apply([put(b"k", b"apart %d" % number)])
        store.abandon(alone)
        shutil.rmtree(store.index)  # on each half's own disk; one that they shared would know
    with pytest.raises(Corrupt) as caught:
        store.open()
    assert caught.value.reason == "split"


@pytest.mark.parametrize("what", ["write", "sync"])
def test_a_lone_copy_that_takes_no_snapshot_goes_on_with_its_log(make_store: Any, what: str) -> None:
    store = make_store(1)
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.files.fail(what, store.copies[0].path, errno.EIO)
    with pytest.raises(Unavailable):
        state.checkpoint_now()
    store.files.heal()
    state.apply([put(b"k", b"2")])
    state.checkpoint_now()
    assert state.get(b"k") == b"2"


def test_a_copy_without_room_for_a_snapshot_stays_a_copy(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])
    store.files.fail("write", store.copies[1].path, errno.ENOSPC)
    assert state.checkpoint_now().copies == 2
    store.files.heal()
    state.apply([put(b"k", b"2")])
    assert store.evicted == []
    assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[], [], []]
    for copy in store.copies:
        store.files.fail("write", copy.path, errno.ENOSPC)
    with pytest.raises(Full):
        state.checkpoint_now()
    store.files.heal()
    store.abandon(state)
    alone = store.open(copies=[store.copies[1]])
    assert alone.get(b"k") == b"2"


def test_a_full_disk_only_delays_what_a_dead_writer_left(store: Any) -> None:
    state = store.create()
    state.apply([put(b"k", b"1")])

    def no(disk: bytes, error: BaseException) -> int:
        raise RuntimeError("no majority")

    state._use.engine._on_copy_failed = no
    store.files.fail("sync", store.copies[0].path)
    with pytest.raises(Unavailable):
        state.apply([put(b"k", b"2")])  # whole on the two others, and nobody was told
    state._use.engine._on_copy_failed = store.evict
    store.files.heal()
    for copy in store.copies:
        store.files.fail("write", copy.path, errno.ENOSPC)
    for _ in range(2):
        with pytest.raises(Full):
            state.apply([put(b"other", b"")])
    assert store.evicted == []
    store.files.heal()
    state.apply([put(b"later", b"")])
    assert (state.get(b"k"), state.get(b"other"), state.get(b"later")) == (b"2", None, b"")
    assert [r.damage for r in verify_copies(store.host, store.store, state.meta())] == [[], [], []]


@pytest.mark.parametrize("kind", [Full, Corrupt])
def test_whatever_keeps_an_eviction_from_being_recorded_leaves_the_commit_in_doubt(store: Any, kind: Any) -> None:
    """The record stands on the other copies: an error that says "certainly not applied" would be a lie."""
    state = store.create()
    state.apply([put(b"k", b"1")])

    def no(disk: bytes, error: BaseException) -> int:
        raise kind("no room for a superblock")

    state._use.engine._on_copy_failed = no
    store.files.fail("sync", store.copies[0].path)
    with pytest.raises(Unavailable):
        state.apply([put(b"k", b"2")])
