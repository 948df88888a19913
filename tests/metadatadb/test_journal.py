"""The journal discipline: what it costs, what it promises, and what it says when it cannot."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from tests.metadatadb.rig import Rig, rigged, scope_of, spent

from ostraka.errors import Conflict, Forbidden, Full, Overloaded, PreconditionFailed, TooLarge, Unavailable
from ostraka.limits import LIMITS
from ostraka.metadatadb import Journal, Periodic
from ostraka.testing.backends.faulty import Fault, Faults


@rigged
async def test_a_write_is_one_put(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    before = faults.calls.copy()
    await ns.int("n").add(1)
    assert spent(faults, before) == {"write": 1}
    assert (await rig.names())[0].startswith("entry-")


@rigged
async def test_writes_that_wait_share_a_put(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    before = faults.calls.copy()
    await asyncio.gather(*(ns.int("n").add(1) for _ in range(20)))
    assert spent(faults, before)["write"] <= 2
    assert ns.int("n").get() == 20


@rigged
async def test_a_batch_is_never_split_between_entries(rig: Rig) -> None:
    limits = replace(LIMITS, metadatadb_group_ops_max=3)
    ns = await rig.store(limits=limits).namespace("ns")

    async def batch() -> None:
        async with ns.batch():
            for _ in range(5):
                await ns.int("n").add(1)

    await asyncio.gather(*(batch() for _ in range(4)))
    assert ns.int("n").get() == 20
    assert len([n for n in await rig.names() if n.startswith("entry")]) == 4


@rigged
async def test_an_idle_interval_costs_at_most_two_requests(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    await ns.int("n").add(1)
    await asyncio.sleep(60)
    before, syncs = faults.calls.copy(), scope_of(ns).sharing.synced
    await asyncio.sleep(100)
    ticks = scope_of(ns).sharing.synced - syncs
    assert ticks >= 9
    assert sum(spent(faults, before).values()) <= 2 * ticks
    assert spent(faults, before) == {"list": ticks}


@rigged
async def test_who_writes_faster_than_it_ticks_settles_between_ticks(rig: Rig) -> None:
    """The journal grew until the next tick: each write sorted all of it, and others had to fetch each entry."""
    faults = Faults()
    limits = replace(LIMITS, metadatadb_entries_unsettled_max=32)
    ns = await rig.store(faults=faults, limits=limits, interval=1e6).namespace("ns")
    before = faults.calls.copy()
    for number in range(1000):
        await ns.list("l", int).append(number)
        await asyncio.sleep(0.01)
        assert ns.status().journal <= 2 * 32
    assert ns.list("l", int).entries() == list(range(1000))
    assert sum(spent(faults, before).values()) <= 1000 + 1000 / 32 * 4, "the write, and the rest for 32 together"
    assert len(await rig.names()) <= 6 * 32
    assert (await rig.store().namespace("ns")).list("l", int).entries() == list(range(1000))


@rigged
async def test_a_comparison_is_one_listing_and_one_put(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    before = faults.calls.copy()
    assert await ns.int("n").compare_and_set(0, 1)
    assert spent(faults, before) == {"list": 1, "write-if": 1}
    before = faults.calls.copy()
    assert not await ns.int("n").compare_and_set(0, 1)
    assert spent(faults, before) == {"list": 1}, "what has no effect is not written"


@rigged
async def test_a_lost_answer_is_asked_for_again_and_counts_once(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    for fault in (Fault.BEFORE, Fault.AFTER):
        faults.order("write", fault, times=3)
        await ns.int("n").add(1)
    for fault in (Fault.BEFORE, Fault.AFTER):
        faults.order("write-if", fault)
        assert await ns.int("turn").compare_and_set(ns.int("turn").get(), ns.int("turn").get() + 1)
    other = await rig.store().namespace("ns")
    assert (other.int("n").get(), other.int("turn").get()) == (2, 2)


@rigged
async def test_an_answer_lost_below_us_is_no_conflict(rig: Rig) -> None:
    """A client that retries a conditional PUT by itself is told 412 of what its first attempt wrote."""
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    changed = lambda: PreconditionFailed("it was changed: by ourselves", reason="changed")  # noqa: E731
    faults.order("write-if", Fault.AFTER, error=changed)
    assert await ns.int("turn").compare_and_set(0, 1)
    assert not await ns.int("turn").compare_and_set(0, 1)
    assert ns.int("turn").get() == 1


@rigged
async def test_what_is_not_durable_in_time_is_told(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    faults.order("write", Fault.BEFORE, times=10**6)
    with pytest.raises(Unavailable, match="as ordered"):
        await ns.int("n").add(1)
    assert ns.int("n").get() == 0, "it is not shown either"
    faults.heal()
    await ns.int("n").add(10)
    other = await rig.store().namespace("ns")
    assert other.int("n").get() == 10


@rigged
async def test_what_came_late_is_not_in_the_way_of_what_came_after(rig: Rig) -> None:
    """The writer was told that nobody knows; it happened. Both are there, and nothing waits for anything."""
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    faults.order("write", Fault.AFTER, times=10**6)
    with pytest.raises(Unavailable):
        await ns.int("n").add(1)
    faults.heal()
    await ns.int("n").add(10)
    await ns.flush()
    assert (ns.int("n").get(), ns.status().stuck) == (11, 0)


@rigged
async def test_what_may_not_be_written_is_told_at_once(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    faults.order("write", Fault.BEFORE, error=lambda: Forbidden("read only", reason="access"))
    with pytest.raises(Forbidden):
        await ns.int("n").add(1)
    assert faults.calls["write"] == 1


@rigged
async def test_a_conflict_that_does_not_end_is_told_and_did_not_happen(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    changed = lambda: PreconditionFailed("so it is said", reason="changed")  # noqa: E731
    faults.order("write-if", Fault.BEFORE, times=10**6, error=changed)
    with pytest.raises(Conflict) as refused:
        await ns.int("turn").compare_and_set(0, 1)
    assert refused.value.reason == "contention"
    faults.heal()
    assert await ns.int("turn").compare_and_set(0, 1)


@rigged
async def test_what_waits_is_bounded(rig: Rig) -> None:
    limits = replace(LIMITS, metadatadb_pending_ops_max=10, metadatadb_pending_seconds_max=5.0)
    faults = Faults()
    ns = await rig.store(faults=faults, limits=limits).namespace("ns")
    faults.order("write", Fault.BEFORE, times=10**6)
    results = await asyncio.gather(*(ns.int("n").add(1) for _ in range(25)), return_exceptions=True)
    kinds = Counter(type(r) for r in results)
    assert set(kinds) == {Unavailable, Overloaded}
    assert kinds[Overloaded] >= 10
    faults.heal()
    await asyncio.gather(*(ns.int("n").add(1) for _ in range(25)))
    assert ns.int("n").get() == 25


@pytest.mark.parametrize("kind", [Journal, Periodic])
def test_a_batch_that_could_never_fit_is_refused_at_once(kind: type[Journal] | type[Periodic]) -> None:
    """It waited for room until the time was over, and was told that the store was too busy."""
    limits = replace(LIMITS, metadatadb_group_bytes_max=10_000, metadatadb_pending_bytes_max=10_000)

    @rigged
    async def check(rig: Rig) -> None:
        ns = await rig.store(kind, limits=limits).namespace("ns")
        began = rig.loop.time()
        with pytest.raises(TooLarge) as refused:
            async with ns.batch():
                for _ in range(3):
                    await ns.list("l").append("x" * 5000)
        assert (refused.value.reason, rig.loop.time()) == ("batch", began)
        await ns.list("l").append("x" * 5000)
        await ns.flush()
        assert len(ns.list("l")) == 1

    check()


@rigged
async def test_a_namespace_is_bounded(rig: Rig) -> None:
    limits = replace(LIMITS, metadatadb_state_bytes_max=1200, metadatadb_value_bytes_max=600)
    ns = await rig.store(limits=limits).namespace("ns")
    with pytest.raises(TooLarge):
        await ns.scalar("s").set("x" * 700)
    for _ in range(3):
        await ns.list("l").append("x" * 500)
    with pytest.raises(Full):
        await ns.list("l").append("x")
    with pytest.raises(Full):
        await ns.int("n").add(1)
    await ns.list("l").trim(1)
    await ns.int("n").add(1)


@rigged
async def test_who_gives_up_waiting_does_not_undo_the_write(rig: Rig) -> None:
    ns = await rig.store().namespace("ns")
    task = asyncio.ensure_future(ns.int("n").add(1))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ns.int("n").add(10)
    assert ns.int("n").get() == 11


@rigged
async def test_closing_waits_for_what_was_asked_before(rig: Rig) -> None:
    store = rig.store()
    ns = await store.namespace("ns")
    writes = [asyncio.ensure_future(ns.int("n").add(1)) for _ in range(5)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    assert (await rig.store().namespace("ns")).int("n").get() == 5


@rigged
async def test_closing_ends_though_nothing_can_be_written(rig: Rig) -> None:
    faults = Faults()
    store = rig.store(faults=faults, limits=replace(LIMITS, metadatadb_group_ops_max=1))
    ns = await store.namespace("ns")
    faults.order(None, Fault.BEFORE, times=10**6)
    writes = [asyncio.ensure_future(ns.int("n").add(1)) for _ in range(50)]
    await asyncio.sleep(0)
    begun = asyncio.get_running_loop().time()
    await store.close()
    assert asyncio.get_running_loop().time() - begun < 3 * LIMITS.metadatadb_commit_seconds_max
    assert all(isinstance(r, Unavailable) for r in await asyncio.gather(*writes, return_exceptions=True))


@rigged
async def test_a_store_that_is_away_is_read_as_it_was_and_says_why(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(faults=faults).namespace("ns")
    await ns.int("n").add(1)
    faults.order(None, Fault.BEFORE, times=10**6)
    await asyncio.sleep(95)
    assert ns.int("n").get() == 1
    assert ns.staleness > 80
    assert isinstance(ns.status().error, Unavailable)
    faults.heal()
    await asyncio.sleep(15)
    assert ns.staleness < 15
    assert ns.status().error is None


@rigged
async def test_opening_waits_for_the_store_and_gives_up_in_time(rig: Rig) -> None:
    faults = Faults()
    store = rig.store(faults=faults)
    faults.order("list", Fault.RESET, times=5)
    await store.namespace("ns")
    faults.order("list", Fault.RESET, times=10**6)
    with pytest.raises(Unavailable):
        await store.namespace("other")
    faults.heal()
    await store.namespace("other")
