"""The periodic discipline: at once here, later everywhere; nothing is lost by a failed sync, and nothing done twice."""

import asyncio
from dataclasses import replace

import pytest
from tests.metadatadb.rig import Rig, rigged, scope_of, spent

from ostraka.errors import Conflict, Forbidden, Invalid, Overloaded, PreconditionFailed, Unavailable
from ostraka.limits import LIMITS
from ostraka.metadatadb import Periodic
from ostraka.testing.backends.faulty import Fault, Faults


@rigged
async def test_a_write_costs_nothing_and_a_sync_one_listing_and_one_put(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    before = faults.calls.copy()
    for _ in range(100):
        await ns.int("n").add(1)
    assert spent(faults, before) == {}
    assert (ns.int("n").get(), ns.status().pending) == (100, 100)
    await asyncio.sleep(12)
    assert spent(faults, before) == {"list": 1, "write-if": 1}
    assert ns.status().pending == 0
    before = faults.calls.copy()
    await ns.int("n").add(1)
    await ns.flush()
    assert spent(faults, before) == {"list": 1, "write-if": 1}


@rigged
async def test_an_idle_interval_costs_at_most_two_requests(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    await ns.int("n").add(1)
    await ns.flush()
    before, syncs = faults.calls.copy(), scope_of(ns).sharing.synced
    await asyncio.sleep(100)
    assert spent(faults, before) == {"list": scope_of(ns).sharing.synced - syncs}


@rigged
async def test_what_is_pending_is_shown_over_what_others_did(rig: Rig) -> None:
    one, other = [await rig.store(Periodic).namespace("ns") for _ in range(2)]
    await one.int("n").set(100)
    await one.flush()
    await other.int("n").mul(3)
    assert other.int("n").get() == 0
    await other.refresh()
    assert other.int("n").get() == 300, "the product is made of what was settled before it"


@rigged
async def test_a_failed_sync_loses_nothing_and_does_nothing_twice(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    for operation in ("write-if", "list"):
        faults.order(operation, Fault.BEFORE, times=10**6)
        await ns.int("n").add(1)
        with pytest.raises(Unavailable):
            await ns.flush()
        await ns.int("n").add(1)
        faults.heal()
        await ns.flush()
    faults.order("write-if", Fault.AFTER, times=10**6)
    await ns.int("n").add(1)
    await ns.flush()  # the answer was lost, and the sync after it saw that it had happened
    faults.order("read", Fault.RESET, times=10**6)
    await ns.int("n").add(1)
    with pytest.raises(Unavailable):
        await ns.flush()
    faults.heal()
    await ns.flush()
    assert ns.int("n").get() == 6
    assert ns.status().pending == 0
    assert (await rig.store().namespace("ns")).int("n").get() == 6


@rigged
async def test_a_storm_of_conflicts_ends_well(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    changed = lambda: PreconditionFailed("so it is said", reason="changed")  # noqa: E731
    faults.order("write-if", Fault.BEFORE, times=6, error=changed)
    await ns.int("n").add(1)
    await ns.flush()
    faults.order("write-if", Fault.BEFORE, times=10**6, error=changed)
    await ns.int("n").add(1)
    with pytest.raises(Conflict):
        await ns.flush()
    faults.heal()
    await ns.flush()
    assert (await rig.store().namespace("ns")).int("n").get() == 2
    assert scope_of(ns).counters.total("conflicts") > 6


@rigged
async def test_what_is_pending_is_bounded(rig: Rig) -> None:
    limits = replace(LIMITS, metadatadb_pending_ops_max=10, metadatadb_pending_seconds_max=5.0)
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults, limits=limits).namespace("ns")
    for _ in range(25):
        await ns.int("n").add(1)
    assert ns.status().pending <= 10
    faults.order("write-if", Fault.BEFORE, times=10**6)
    with pytest.raises((Overloaded, Unavailable)):
        for _ in range(11):
            await ns.int("n").add(1)
    faults.heal()
    await ns.flush()
    assert ns.int("n").get() == (await rig.store().namespace("ns")).int("n").get()


@rigged
async def test_large_syncs_are_several_entries(rig: Rig) -> None:
    limits = replace(LIMITS, metadatadb_group_ops_max=10)
    ns = await rig.store(Periodic, limits=limits).namespace("ns")
    for number in range(35):
        await ns.list("l", int).append(number)
    await ns.flush()
    assert ns.status().sequence == 4
    assert (await rig.store().namespace("ns")).list("l", int).entries() == list(range(35))


@rigged
async def test_closing_flushes_and_says_what_it_could_not(rig: Rig) -> None:
    faults = Faults()
    store = rig.store(Periodic, faults=faults)
    ns = await store.namespace("ns")
    await ns.int("n").add(1)
    faults.order("write-if", Fault.BEFORE, times=3)
    await store.close()
    assert (await rig.store().namespace("ns")).int("n").get() == 1
    store = rig.store(Periodic, faults=faults)
    rig.stores.remove(store)
    ns = await store.namespace("ns")
    await ns.int("n").add(1)
    await ns.int("n").add(1)
    faults.order(None, Fault.BEFORE, times=10**6)
    with pytest.raises(Unavailable, match=r"'ns' was closed, and 2 operations may not be durable") as lost:
        await store.close()
    assert lost.value.reason == "lost"


@rigged
async def test_what_may_not_be_written_is_told_by_the_flush(rig: Rig) -> None:
    faults = Faults()
    store = rig.store(Periodic, faults=faults)
    rig.stores.remove(store)
    ns = await store.namespace("ns")
    faults.order("write-if", Fault.BEFORE, times=10**6, error=lambda: Forbidden("read only", reason="access"))
    await ns.int("n").add(1)
    with pytest.raises(Forbidden):
        await ns.flush()
    assert isinstance(ns.status().error, Forbidden)
    with pytest.raises(Unavailable, match="read only"):
        await store.close()


@rigged
async def test_a_comparison_is_settled_at_once_with_what_was_pending_before_it(rig: Rig) -> None:
    one, other = [await rig.store(Periodic).namespace("ns") for _ in range(2)]
    await one.int("n").add(1)
    assert await one.int("turn").compare_and_set(0, 1)
    assert one.status().pending == 0
    assert not await other.int("turn").compare_and_set(0, 1)
    assert (other.int("n").get(), other.int("turn").get()) == (1, 1)


@rigged
async def test_a_comparison_is_not_shown_before_it_is_settled(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    faults.order("write-if", Fault.BEFORE, times=10**6)
    with pytest.raises(Unavailable):
        await ns.int("turn").compare_and_set(0, 1)
    assert ns.int("turn").get() == 0
    faults.heal()
    await ns.flush()
    assert ns.int("turn").get() == 0
    assert await ns.int("turn").compare_and_set(0, 1)


@rigged
async def test_comparisons_of_the_same_moment_share_a_put(rig: Rig) -> None:
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    before = faults.calls.copy()
    answers = await asyncio.gather(*(ns.int("turn").compare_and_set(0, 1) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    assert spent(faults, before).get("write-if", 0) <= 2


@rigged
async def test_what_had_no_effect_after_all_is_told_by_the_flush(rig: Rig) -> None:
    one, other = [await rig.store(Periodic).namespace("ns") for _ in range(2)]
    await one.int("n").add(1)
    await other.set("n").add("x")
    await one.flush()
    with pytest.raises(Conflict) as refused:
        await other.flush()
    assert refused.value.reason == "kind"
    await other.flush()
    assert other.names() == one.names()
    with pytest.raises(Invalid):
        await other.set("n").add("x")
    assert scope_of(other).counters.total("refused") == 1
