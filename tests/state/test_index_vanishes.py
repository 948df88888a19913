"""An index that is not there answers nothing: least of all that a key is absent."""

import contextlib
from pathlib import Path
from typing import Any

import lmdb
import pytest

from ostraka.errors import Unavailable
from ostraka.state import Mutation, Put, open_shared
from ostraka.state.ordered import LmdbMap, Map, Transaction


def test_an_index_that_goes_as_it_is_opened_is_no_empty_store(store: Any) -> None:
    """A rebuild may take the file away between looking and opening, and LMDB makes what it does not find."""
    state = store.create()
    state.apply([Mutation((), (Put(b"k", b"1"),))])
    store.abandon(state)

    def late(path: Path, size_max: int) -> Map:
        path.unlink()
        return LmdbMap(path, size_max)

    with pytest.raises(Unavailable):
        other = open_shared(store.host, store.store, store.index, open_map=late)
        assert other.get(b"k") == b"1"


def test_who_reads_while_the_state_is_closed_is_told_that_and_takes_no_index_for_lost(store: Any) -> None:
    lost: list[str] = []
    told: list[str] = []

    class Watched(LmdbMap):
        def close(self) -> None:
            super().close()
            with pytest.raises(Unavailable) as closed:
                state.get(b"k")
            told.append(closed.value.reason)

    state = store.open(create=True, open_map=Watched)
    state.on_index_lost = lost.append
    state.apply([Mutation((), (Put(b"k", b"1"),))])
    state.close_now()
    assert told == ["closed"]
    assert lost == []


@pytest.mark.parametrize("at", range(1, 5))
def test_an_index_whose_disk_goes_while_the_state_is_recovered_is_told_in_our_words(store: Any, at: int) -> None:
    """LMDB's own error came out of it, so that no other disk was asked to take the index."""
    state = store.create()
    state.apply([Mutation((), (Put(b"k", b"1"),))])
    store.abandon(state)
    begun: list[bool] = []

    class Gone(LmdbMap):
        def begin(self, write: bool = False) -> Transaction:
            begun.append(write)
            if len(begun) == at:
                raise lmdb.Error("Input/output error")
            return super().begin(write)

    with contextlib.suppress(Unavailable):
        store.abandon(store.open(open_map=Gone))
        assert len(begun) < at, "nobody was told"
