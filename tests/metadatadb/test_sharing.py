"""The protocol at its edges: crashes between two steps, listings that miss, garbage that stays, writers forgotten."""

import asyncio
from dataclasses import replace

from msgspec import Raw
from tests.metadatadb.rig import Rig, rigged, scope_of

from ostraka.errors import Forbidden, Invalid
from ostraka.limits import LIMITS
from ostraka.metadatadb import Journal, Periodic
from ostraka.metadatadb.format import NEVER, Entry
from ostraka.metadatadb.operations import ListAppend, Transaction
from ostraka.metadatadb.stamps import Stamps, Writers
from ostraka.testing.backends.faulty import Fault, Faults
from ostraka.testing.virtual_time import LoopClock, VirtualLoop, run

SMALL = replace(LIMITS, metadatadb_entries_loose_max=4, metadatadb_tail_entries_max=8)


@rigged
async def test_the_journal_is_settled_and_swept(rig: Rig) -> None:
    ns = await rig.store(limits=SMALL).namespace("ns")
    for number in range(30):
        await ns.list("l", int).append(number)
        await asyncio.sleep(3)
    await asyncio.sleep(60)
    names = await rig.names()
    assert len([n for n in names if n.startswith("entry")]) < 4
    assert len([n for n in names if n.startswith("snapshot")]) == 1
    assert ns.list("l", int).entries() == list(range(30))
    assert (await rig.store().namespace("ns")).list("l", int).entries() == list(range(30))


@rigged
async def test_few_entries_are_settled_in_the_end(rig: Rig) -> None:
    ns = await rig.store().namespace("ns")
    await ns.int("n").add(1)
    await asyncio.sleep(500)
    assert await rig.names() == ["head"]
    assert ns.status().journal == 0


@rigged
async def test_processes_that_live_for_a_moment_leave_the_journal_short(rig: Rig) -> None:
    for _ in range(30):
        store = rig.store(limits=SMALL)
        await (await store.namespace("ns")).int("n").add(1)
        await store.close()
    assert len(await rig.names()) <= 2 * SMALL.metadatadb_entries_loose_max + 4
    assert (await rig.store().namespace("ns")).int("n").get() == 30


@rigged
async def test_a_crash_between_putting_and_deleting_leaves_garbage_that_others_remove(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(limits=SMALL, faults=faults).namespace("ns")
    faults.order("delete-batch", Fault.HANG, times=10**6)
    for number in range(6):
        await ns.list("l", int).append(number)
    sharing = scope_of(ns).sharing
    await sharing.sync()
    await sharing.sync()
    await sharing.compact()
    assert ns.status().journal == 0
    assert len(await rig.names()) == 7, "the entries are settled, and still there"
    await scope_of(ns).stop()  # it crashes here
    other = await rig.store(limits=SMALL).namespace("ns")
    assert other.list("l", int).entries() == list(range(6))
    await asyncio.sleep(200)
    assert await rig.names() == ["head"]
    assert other.list("l", int).entries() == list(range(6))


@rigged
async def test_where_deleting_is_denied_nothing_is_done_twice_and_it_is_tried_ever_more_seldom(rig: Rig) -> None:
    faults = Faults()
    faults.order("delete-batch", Fault.BEFORE, times=10**6, error=lambda: Forbidden("no", reason="access"))
    ns = await rig.store(limits=SMALL, faults=faults).namespace("ns")
    for number in range(30):
        await ns.list("l", int).append(number)
        await asyncio.sleep(5)
    await asyncio.sleep(10_000)
    assert len([n for n in await rig.names() if n.startswith("entry")]) == 30
    assert faults.calls["delete-batch"] < 20
    for kind in (Journal, Periodic):
        other = await rig.store(kind, limits=SMALL).namespace("ns")
        assert other.list("l", int).entries() == list(range(30))


@rigged
async def test_where_batches_are_not_understood_garbage_goes_one_by_one(rig: Rig) -> None:
    faults = Faults()
    faults.order("delete-batch", Fault.BEFORE, times=10**6, error=lambda: Invalid("what?", reason="request"))
    ns = await rig.store(limits=SMALL, faults=faults).namespace("ns")
    for number in range(30):
        await ns.list("l", int).append(number)
    await asyncio.sleep(1000)
    assert not [n for n in await rig.names() if n.startswith("entry")]
    assert faults.calls["delete-batch"] == 1
    assert ns.list("l", int).entries() == list(range(30))


@rigged
async def test_an_entry_that_is_written_again_after_it_was_removed_counts_once(rig: Rig) -> None:
    """The first answer was lost; the second attempt lands when the entry was settled and swept."""
    ns = await rig.store(limits=SMALL).namespace("ns")
    await ns.int("n").add(1)
    (name,) = await rig.names()
    data = await rig.common.read(f"metadatadb/ns/{name}")
    assert await ns.int("turn").compare_and_set(0, 1)
    await rig.common.delete(f"metadatadb/ns/{name}")
    await rig.common.write(f"metadatadb/ns/{name}", data)
    for kind in (Journal, Periodic):
        other = await rig.store(kind).namespace("ns")
        assert other.int("n").get() == 1
    await asyncio.sleep(200)
    assert name not in await rig.names()
    assert ns.int("n").get() == 1


@rigged
async def test_a_listing_that_missed_an_entry_settles_none_behind_it(rig: Rig) -> None:
    ns = await rig.store().namespace("ns")
    for number in range(5):
        await ns.list("l", int).append(number)
    missed = (await rig.names())[2]
    data = await rig.common.read(f"metadatadb/ns/{missed}")
    await rig.common.delete(f"metadatadb/ns/{missed}")
    other = await rig.store().namespace("ns")
    assert other.list("l", int).entries() == [0, 1]
    assert other.status().stuck == 2
    assert await other.int("turn").compare_and_set(0, 1)
    assert other.status().sequence == 3
    await rig.common.write(f"metadatadb/ns/{missed}", data)
    for replica in (other, ns, await rig.store().namespace("ns")):
        await replica.flush()
        assert replica.list("l", int).entries() == list(range(5))
        assert replica.status().stuck == 0


@rigged
async def test_a_stale_listing_takes_nothing_back(rig: Rig) -> None:
    faults = Faults(seed=3)
    ns = await rig.store(faults=faults, limits=SMALL).namespace("ns")
    faults.order("list", Fault.STALE_LIST, times=200)
    seen: list[int] = []
    for number in range(40):
        await ns.list("l", int).append(number)
        await asyncio.sleep(4)
        entries = ns.list("l", int).entries()
        assert entries[: len(seen)] == seen, "what had been seen is gone"
        seen = entries
    faults.heal()
    await ns.flush()
    assert ns.list("l", int).entries() == list(range(40))


@rigged
async def test_who_was_away_for_long_catches_up_from_the_snapshot(rig: Rig) -> None:
    faults = Faults()
    away = await rig.store(faults=faults, limits=SMALL).namespace("ns")
    await away.int("n").add(1)
    faults.order(None, Fault.BEFORE, times=10**6)
    ns = await rig.store(limits=SMALL).namespace("ns")
    for number in range(60):
        await ns.list("l", int).append(number)
        await asyncio.sleep(5)
    faults.heal()
    await away.int("n").add(1)
    await away.flush()
    await ns.flush()
    assert away.list("l", int).entries() == list(range(60))
    assert away.int("n").get() == ns.int("n").get() == 2


@rigged
async def test_a_snapshot_that_goes_while_it_is_read_is_looked_for_again(rig: Rig) -> None:
    ns = await rig.store(limits=SMALL, interval=1e6).namespace("ns")
    for number in range(30):
        await ns.list("l", int).append(number)
        await ns.int("turn").compare_and_set(number, number + 1)
    faults = Faults()
    late = rig.store(faults=faults, limits=SMALL)
    faults.order("read", Fault.LATENCY, skip=1)

    async def move(seconds: float) -> None:
        """While the snapshot is on its way, others make another one and remove it."""
        for number in range(30, 50):
            await ns.int("turn").compare_and_set(number, number + 1)
        await ns.flush()
        await scope_of(ns).sharing.sweep(all=True)

    faults.sleep = move
    assert (await late.namespace("ns")).int("turn").get() == 50


@rigged
async def test_two_that_settle_at_once_settle_once(rig: Rig) -> None:
    replicas = [await rig.store(limits=SMALL).namespace("ns") for _ in range(3)]
    for turn in range(10):
        for number, ns in enumerate(replicas):
            await ns.list("l", str).append(f"{number}-{turn}")
    sharings = [scope_of(ns).sharing for ns in replicas]
    for _ in range(3):
        await asyncio.gather(*(s.sync() for s in sharings))
    await asyncio.gather(*(s.compact() for s in sharings))
    await asyncio.gather(*(s.sync() for s in sharings))
    logs = [ns.list("l", str).entries() for ns in replicas]
    assert logs[0] == logs[1] == logs[2]
    assert len(set(logs[0])) == len(logs[0]) == 30
    assert sum(s.copy.sequence for s in sharings) == 3 * 30


def test_stamps_rise_and_follow_what_was_seen() -> None:
    async def main(loop: VirtualLoop) -> None:
        stamps = Stamps(LoopClock(loop))
        made = [stamps.next() for _ in range(10_000)]
        assert made == sorted(set(made))
        stamps.see("ff00000000000000")
        assert stamps.next() == "ff00000000000001"
        stamps.see(made[0])
        assert stamps.next() == "ff00000000000002"

    run(main)


def test_writers_that_are_forgotten_are_neither_lost_nor_counted_twice() -> None:
    def entry(number: int, writer: str, after: int = 0) -> Entry:
        return Entry(f"{number:016x}", writer * 32, f"{after:016x}", ())

    writers = Writers()
    for number, name in enumerate("abcdef", start=1):
        writers.settle(entry(number, name))
    writers.settle(entry(10, "a", 1))
    writers.trim(3)
    assert set(writers.last) == {"a" * 32, "e" * 32, "f" * 32}, "the ones with the newest stamps are remembered"
    assert writers.forgotten == f"{4:016x}"
    assert writers.settled(f"{2:016x}", "b" * 32), "what a forgotten one wrote before counts as settled"
    assert not writers.settled(f"{11:016x}", "b" * 32)
    assert writers.follows(entry(11, "b", 2), {}), "and it may go on"
    assert writers.follows(entry(11, "1"), {}), "as one may that is new"
    assert not writers.follows(entry(12, "b", 9), {}), "but not after one that nobody has seen"
    assert writers.follows(entry(13, "1", 11), {"1" * 32: f"{11:016x}"})
    assert writers.settled(f"{10:016x}", "a" * 32)
    assert not writers.settled(f"{11:016x}", "a" * 32)


@rigged
async def test_more_writers_than_are_remembered_lose_nothing(rig: Rig) -> None:
    limits = replace(SMALL, metadatadb_writers_max=3)
    old = await rig.store(limits=limits, interval=1e6).namespace("ns")
    await old.int("n").add(1)
    for _ in range(40):
        store = rig.store(limits=limits, interval=1e6)
        await (await store.namespace("ns")).int("n").add(1)
        await store.close()
    await asyncio.sleep(200)
    await old.int("n").add(1)
    await old.flush()
    assert old.int("n").get() == 42
    head = scope_of(old).copy.head
    assert head is not None
    assert head.about.forgotten > NEVER, "some were forgotten"
    assert len(scope_of(await rig.store(limits=limits).namespace("ns")).copy.writers.last) < 20


@rigged
async def test_a_clock_of_the_far_future_costs_nothing(rig: Rig) -> None:
    future = await rig.store(skew=80 * 365 * 86400.0).namespace("ns")
    now = await rig.store().namespace("ns")
    await future.scalar("s").set("future")
    await now.flush()
    await now.scalar("s").set("now")
    await now.int("n").add(1)
    await future.flush()
    await future.int("n").add(1)
    await now.flush()
    for ns in (now, future, await rig.store().namespace("ns")):
        assert (ns.scalar("s").get(), ns.int("n").get()) == ("now", 2)


@rigged
async def test_a_replica_whose_clock_is_behind_gives_no_time_to_live_that_is_over(rig: Rig) -> None:
    """What it set for a minute was gone at once, once it had seen a write of one whose clock was minutes ahead."""
    ahead = await rig.store(skew=300.0).namespace("ns")
    behind = await rig.store().namespace("ns")
    await ahead.int("n").add(1)
    await behind.flush()
    await behind.set("alive").add("behind", ttl=60)
    await ahead.flush()
    for ns in (ahead, behind):
        assert "behind" in ns.set("alive")
    await asyncio.sleep(61)
    assert "behind" not in ahead.set("alive")
    await ahead.int("n").add(1)
    await behind.flush()
    assert "behind" not in behind.set("alive")


@rigged
async def test_the_order_that_is_shown_is_the_order_that_is_settled(rig: Rig) -> None:
    """An entry that appears late lies before others in the journal, and all move over; nobody keeps the old order."""
    ns = await rig.store(interval=1e6).namespace("ns")
    await ns.list("l", str).append("second")
    sharing = scope_of(ns).sharing
    early = Entry("0" * 15 + "1", "e" * 32, NEVER, (Transaction(1, (ListAppend("l", Raw(b'"first"')),)),))
    await sharing.objects.write_entry(early)
    await ns.flush()
    assert ns.list("l", str).entries() == ["first", "second"]
    assert await ns.int("turn").compare_and_set(0, 1)
    later = Entry("0" * 15 + "2", "f" * 32, NEVER, (Transaction(1, (ListAppend("l", Raw(b'"third"')),)),))
    await sharing.objects.write_entry(later)
    await ns.flush()
    assert ns.list("l", str).entries() == ["first", "second", "third"], "what is settled stays where it is"


@rigged
async def test_a_read_that_ends_early_is_no_damage(rig: Rig) -> None:
    ns = await rig.store().namespace("ns")
    await ns.int("n").add(1)
    assert await ns.int("turn").compare_and_set(0, 1)
    faults = Faults()
    faults.order("read", Fault.TRUNCATE, times=2)
    late = rig.store(faults=faults)
    assert (await late.namespace("ns")).int("n").get() == 1


@rigged
async def test_objects_of_other_names_are_left_alone(rig: Rig) -> None:
    theirs = {"notes.txt": b"x", "entry": b"y", "entry-1-2": b"z", "snapshot-old": b"", "deep/entry-1": b""}
    for name, data in theirs.items():
        await rig.common.write(f"metadatadb/ns/{name}", data)
    store = rig.store(limits=SMALL)
    ns = await store.namespace("ns")
    for number in range(20):
        await ns.list("l", int).append(number)
        await asyncio.sleep(10)
    await asyncio.sleep(300)
    await store.delete_namespace("ns")
    for name, data in theirs.items():
        assert await rig.common.read(f"metadatadb/ns/{name}") == data


@rigged
async def test_a_comparison_in_doubt_is_answered_by_what_was_written(rig: Rig) -> None:
    """The answer to the first attempt is lost and another entry appears; the second attempt says the very same, so
    that the answer is right whichever of the two was written."""
    faults = Faults()
    ns = await rig.store(faults=faults, interval=1e6).namespace("ns")
    other = await rig.store(interval=1e6).namespace("ns")
    faults.order("write-if", Fault.BEFORE)
    task = asyncio.ensure_future(ns.int("turn").compare_and_set(0, 1))
    await asyncio.sleep(0)
    await other.int("turn").add(5)
    answer = await task
    await other.flush()
    await ns.flush()
    assert ns.int("turn").get() == other.int("turn").get() == (6 if answer else 5)
