"""Programs without asyncio: the same names, from any thread."""

import doctest
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ostraka.backends import LocalBackend, MemoryBackend
from ostraka.errors import Invalid, PreconditionFailed, Unavailable
from ostraka.metadatadb import MISSING, Journal, Memory, Periodic, Replica, Store, aio, blocking, handles


@pytest.fixture(params=["memory", "journal", "periodic"])
def replica(request: pytest.FixtureRequest, tmp_path: Path) -> Replica:
    if request.param == "memory":
        return Memory()
    kind = Journal if request.param == "journal" else Periodic
    return kind(LocalBackend(tmp_path / "root"), sync_interval=3600.0)


@pytest.fixture
def store(replica: Replica) -> Iterator[Store]:
    with Store(replica) as store:
        yield store


def test_everything_is_there_without_await(store: Store) -> None:
    ns = store.namespace("ns")
    assert store.namespace("ns") is ns
    clones, owner, seen = ns.int_map("clones"), ns.scalar("owner", str), ns.set("seen", int)
    clones.add("a", 2)
    assert owner.compare_and_set(MISSING, "ann") is True
    assert owner.compare_and_set(MISSING, "bob") is False
    with ns.batch():
        seen.add(1)
        ns.list("log").append({"seen": 1})
        ns.map("m", str, list[int]).set("k", [1])
        assert len(seen) == 0
    assert (clones.entries(), owner.get(), seen.members()) == ({"a": 2}, "ann", {1})
    with pytest.raises(PreconditionFailed), ns.batch():
        owner.compare_and_set("bob", "cyd")
        seen.add(2)
    assert 2 not in seen
    ns.flush()
    ns.refresh(5.0)
    assert ns.staleness < 60
    assert store.namespaces() == ["ns"]
    assert b"ostraka_metadatadb_operations_total" in store.metrics()
    store.delete_namespace("ns")
    assert (ns.names(), store.namespaces()) == ({}, [])


def test_threads_lose_nothing(store: Store) -> None:
    ns = store.namespace("ns")

    def work(number: int) -> None:
        for turn in range(20):
            with ns.batch():
                ns.int("n").add(1)
                ns.set("seen").add(f"{number}-{turn}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert (ns.int("n").get(), len(ns.set("seen"))) == (160, 160)


def test_a_batch_is_of_its_thread(store: Store) -> None:
    ns = store.namespace("ns")
    with ns.batch():
        ns.int("mine").add(1)
        other = threading.Thread(target=lambda: ns.int("theirs").add(1))
        other.start()
        other.join()
        assert (ns.int("mine").get(), ns.int("theirs").get()) == (0, 1)
    assert ns.int("mine").get() == 1


def test_watching_waits_for_changes(store: Store) -> None:
    ns = store.namespace("ns")
    ns.set("s", int)
    changes = ns.watch("s")
    ns.set("s", int).add(7)
    assert next(changes).keys == {7}
    later = threading.Timer(0.01, lambda: ns.set("s", int).add(8))
    later.start()
    assert next(changes).keys == {8}
    later.join()
    store.close()
    with pytest.raises(Unavailable):
        next(changes)


def test_what_is_wrong_is_told_to_who_did_it(store: Store) -> None:
    ns = store.namespace("ns")
    with pytest.raises(Invalid):
        ns.int("n").add(1 << 63)
    with pytest.raises(Invalid):
        ns.set("n")
    store.close()
    store.close()
    with pytest.raises(Unavailable):
        ns.int("n").add(1)


def test_a_byte_store_is_a_journal_and_outlives_the_store(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "root")
    for turn in range(2):
        with Store(backend) as store:
            assert isinstance(store.replica, Journal)
            n = store.namespace("ns").int("n")
            assert n.get() == turn
            n.add(1)


def test_a_closed_periodic_store_has_flushed(tmp_path: Path) -> None:
    with Store(Periodic(LocalBackend(tmp_path / "root"))) as store:
        store.namespace("ns").int("n").add(1)
    with Store(LocalBackend(tmp_path / "root")) as store:
        assert store.namespace("ns").int("n").get() == 1


def test_a_backend_that_cannot_is_refused_before_anything_is_started() -> None:
    class Plain(MemoryBackend):
        @property
        def capabilities(self) -> frozenset:  # type: ignore[type-arg]
            return frozenset()

    before = threading.active_count()
    with pytest.raises(Exception, match="WritesConditionally"):
        Store(Plain())
    assert threading.active_count() == before


def test_what_is_no_byte_store_is_told_at_once() -> None:
    with pytest.raises(Invalid, match="'/data' is no byte store"):
        Store("/data")  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [aio, blocking, handles], ids=lambda m: m.__name__)
def test_the_examples_do_what_they_say(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
