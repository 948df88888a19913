"""The lock: it changes hands by compare-and-set, knows no clock but the waiter's own, and nothing depends on it."""

import asyncio
import random

from tests.metadatadb.rig import Rig, rigged, scope_of

from ostraka.errors import Forbidden
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.metadatadb import Periodic
from ostraka.metadatadb.format import LockLine
from ostraka.metadatadb.lock import Lock
from ostraka.metadatadb.objects import Objects
from ostraka.testing.backends.faulty import Fault, Faults, FaultyBackend
from ostraka.testing.virtual_time import LoopClock


def lock(rig: Rig, owner: str, *, faults: Faults | None = None, skew: float = 0.0, seconds: float = 30.0) -> Lock:
    objects = Objects(FaultyBackend(rig.common, faults or Faults()), "metadatadb/ns", LIMITS)
    host = Host(clock=LoopClock(rig.loop, skew), boot="")
    return Lock(objects, host, random.Random(owner), owner, seconds)


async def owner(rig: Rig) -> str:
    found = await Objects(rig.common, "metadatadb/ns", LIMITS).read_lock()
    return found[0].owner if found else "nothing"


@rigged
async def test_it_is_held_by_one_and_goes_to_the_next(rig: Rig) -> None:
    ours, theirs = lock(rig, "ours"), lock(rig, "theirs")
    assert await ours.acquire(0.0)
    assert not await theirs.acquire(5.0)
    waiting = asyncio.ensure_future(theirs.acquire(20.0))
    await asyncio.sleep(5)
    await ours.release()
    assert await waiting
    assert await owner(rig) == "theirs"
    await theirs.release()
    assert await owner(rig) == ""


@rigged
async def test_it_expires_by_the_watch_of_who_waits_whatever_the_clocks_say(rig: Rig) -> None:
    for skew in (-600.0, 0.0, 600.0):
        dead = lock(rig, "dead", skew=-skew)
        assert await dead.acquire(0.0)
        waiter = lock(rig, "waiter", skew=skew)
        assert not await waiter.acquire(25.0), "it was taken before its time"
        assert await waiter.acquire(10.0), "its time is over"
        await waiter.release()


@rigged
async def test_of_two_that_find_it_expired_one_gets_it(rig: Rig) -> None:
    assert await lock(rig, "dead", seconds=5.0).acquire(0.0)
    waiters = [lock(rig, f"waiter {n}") for n in range(5)]
    answers = await asyncio.gather(*(w.acquire(20.0) for w in waiters))
    assert answers.count(True) == 1
    assert await owner(rig) == f"waiter {answers.index(True)}"


@rigged
async def test_who_overstayed_does_not_release_another_ones(rig: Rig) -> None:
    slow, quick = lock(rig, "slow", seconds=5.0), lock(rig, "quick")
    assert await slow.acquire(0.0)
    assert await quick.acquire(20.0)
    await slow.release()
    assert await owner(rig) == "quick"


@rigged
async def test_an_answer_that_was_lost_does_not_lock_us_out(rig: Rig) -> None:
    faults = Faults()
    ours = lock(rig, "ours", faults=faults)
    faults.order("write-if", Fault.AFTER)
    assert await ours.acquire(5.0)
    await ours.release()
    assert await owner(rig) == ""


@rigged
async def test_a_hostile_lock_holds_nobody_for_long(rig: Rig) -> None:
    objects = Objects(rig.common, "metadatadb/ns", LIMITS)
    for seconds in (1e300, -5.0):
        await objects.write_lock(LockLine("x", "0" * 32, seconds), await _etag(objects))
        ours = lock(rig, "ours")
        assert await ours.acquire(60.0)
        await ours.release()


async def _etag(objects: Objects) -> str | None:
    found = await objects.read_lock()
    return found[1] if found else None


@rigged
async def test_without_it_work_goes_on(rig: Rig) -> None:
    """It may not be written, or somebody holds it who is dead: the comparison needs it not."""
    faults = Faults()
    ns = await rig.store(Periodic, faults=faults).namespace("ns")
    other = await rig.store(Periodic).namespace("ns")
    assert await lock(rig, "dead", seconds=1e9).acquire(0.0)
    for number in range(3):
        await asyncio.gather(ns.int("n").compare_and_set(number, number + 1), other.int("m").add(1))
        await asyncio.gather(ns.flush(), other.flush())
    assert ns.int("n").get() == 3
    sharing = scope_of(ns).sharing
    faults.order("write-if", Fault.BEFORE, times=10**6, error=lambda: Forbidden("no", reason="access"))
    assert not await sharing._lock.acquire(60.0)


@rigged
async def test_many_rivals_wait_for_each_other_instead_of_colliding(rig: Rig) -> None:
    faults = Faults(1)
    faults.chance(1.0, {Fault.LATENCY})
    faults.latency_max = 0.2
    rivals = [await rig.store(Periodic, interval=1e6, faults=faults).namespace("ns") for _ in range(10)]
    for _ in range(5):
        for ns in rivals:
            await ns.int("n").add(1)
        await asyncio.gather(*(ns.flush() for ns in rivals))
    await asyncio.gather(*(ns.refresh() for ns in rivals))
    assert {ns.int("n").get() for ns in rivals} == {50}
    assert sum(scope_of(ns).counters.total("lock_waits_total") for ns in rivals) > 0
    print(sum(scope_of(ns).counters.total("conflicts_total") for ns in rivals), faults.calls)
