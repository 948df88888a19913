"""Cases: what replicas see of each other."""

import asyncio
from typing import Any

from ostraka.errors import Conflict, Invalid, OstrakaError
from ostraka.metadatadb import MISSING, AsyncNamespace
from ostraka.testing.backends.case import holds, refused, same
from ostraka.testing.metadatadb.case import Case, Place, SetClock, collector, durable_at_once
from ostraka.testing.metadatadb.single import Owner

CASES: list[Case] = []
case = collector(CASES, shared=True)


async def flush_all(*namespaces: AsyncNamespace) -> None:
    """Twice: what the last one told is seen by the first one."""
    for _ in range(2):
        for ns in namespaces:
            await ns.flush()


async def fill(ns: AsyncNamespace) -> None:
    """Something of every kind."""
    await ns.scalar("owner", Owner).set(Owner("ann", (1 << 53) + 1))
    await ns.int("number").set((1 << 60) + 1)
    await ns.int_map("numbers", int).set(-(1 << 53) - 1, -(1 << 62))
    await ns.set("seen", tuple[str, int]).add(("a", 1))
    await ns.map("etags", str, dict[str, int]).set("ä/\u2028", {"b": 1, "a": 2})
    for entry in ("x", None, 1.5):
        await ns.list("log").append(entry)


def contents(ns: AsyncNamespace) -> list[Any]:
    """What `fill` has put there."""
    return [
        ns.scalar("owner", Owner).get(),
        ns.int("number").get(),
        ns.int_map("numbers", int).entries(),
        ns.set("seen", tuple[str, int]).members(),
        ns.map("etags", str, dict[str, int]).entries(),
        ns.list("log").entries(),
    ]


@case()
async def what_was_flushed_is_there_for_who_comes_later(place: Place) -> None:
    async with place.namespaces() as [ns]:
        await ns.int("n").add(5)
        await ns.flush()
        async with place.namespaces() as [later]:
            same(later.int("n").get(), 5, "what a replica that came later reads")


@case()
async def what_was_acknowledged_as_durable_needs_no_flush(place: Place) -> None:
    async with place.store() as store, place.namespaces() as [other]:
        ns = await store.namespace("case")
        await ns.int("n").add(5)
        await other.flush()
        same(other.int("n").get(), 5 if durable_at_once(store) else 0, "what another sees before a flush")
        await ns.flush()
        await other.flush()
        same(other.int("n").get(), 5, "what another sees after it")


@case()
async def everything_comes_through_as_it_was(place: Place) -> None:
    async with place.namespaces(2) as [ns, other]:
        await fill(ns)
        expected = contents(ns)
        await flush_all(ns, other)
        same(contents(other), expected, "what another sees")
        same(contents(ns), expected, "what the writer sees after its flush")
        async with place.namespaces() as [later]:
            same(contents(later), expected, "what one that came later sees")


@case()
async def closing_flushes(place: Place) -> None:
    async with place.namespaces() as [ns]:
        await fill(ns)
        expected = contents(ns)
    async with place.namespaces() as [later]:
        same(contents(later), expected, "what was closed without a flush")


@case()
async def two_replicas_see_each_other(place: Place) -> None:
    async with place.namespaces(2) as [one, other]:
        await one.map("m", str, int).set("one", 1)
        await other.map("m", str, int).set("other", 2)
        await flush_all(one, other)
        for ns in (one, other):
            same(ns.map("m", str, int).entries(), {"one": 1, "other": 2}, "the map")
        await other.map("m", str, int).delete("one")
        await flush_all(other, one)
        same(one.map("m", str, int).entries(), {"other": 2}, "the map without a key")


@case()
async def operations_at_once_add_up(place: Place) -> None:
    async with place.namespaces(2) as [one, other]:
        await one.int("n").add(10)
        await other.int("n").add(-5)
        await flush_all(one, other)
        same((one.int("n").get(), other.int("n").get()), (5, 5), "10 - 5")


@case()
async def all_agree_on_the_order(place: Place) -> None:
    async with place.namespaces(3) as all_of_them:
        for turn in range(4):
            for number, ns in enumerate(all_of_them):
                await ns.list("log", str).append(f"{number}-{turn}")
                await ns.scalar("last", str).set(f"{number}-{turn}")
            await all_of_them[turn % 3].flush()
        await flush_all(*all_of_them)
        logs = [ns.list("log", str).entries() for ns in all_of_them]
        same(logs[1:], logs[:1] * 2, "the list")
        same(len({ns.scalar("last", str).get() for ns in all_of_them}), 1, "how many opinions there are")
        for number in range(3):
            mine = [entry for entry in logs[0] if entry.startswith(f"{number}-")]
            same(mine, sorted(mine), "what one replica appended")
        same(len(logs[0]), 12, "how many were appended")


@case()
async def who_has_seen_a_write_comes_after_it(place: Place) -> None:
    """Whatever the clocks say."""
    async with place.store(SetClock(1_800_000_900)) as fast, place.store(SetClock(1_800_000_000)) as slow:
        early, late = await fast.namespace("case"), await slow.namespace("case")
        await early.scalar("s").set("early")
        await flush_all(early, late)
        await late.scalar("s").set("late")
        await flush_all(late, early)
        same((early.scalar("s").get(), late.scalar("s").get()), ("late", "late"), "what was written last")


@case()
async def a_batch_is_seen_whole(place: Place) -> None:
    async with place.namespaces(2) as [one, other]:
        for ns, amount in ((one, 10), (other, 3), (one, -4)):
            async with ns.batch():
                await ns.int("left").add(-amount)
                await ns.int("right").add(amount)
            await flush_all(one, other)
            same(one.int("left").get() + other.int("right").get(), 0, "both sides")
        same(one.int("right").get(), 9, "one side")


@case()
async def a_comparison_knows_what_others_were_told_is_durable(place: Place) -> None:
    """Though it has not been seen here yet."""
    async with place.namespaces(2) as [one, other]:
        await one.int("turn").set(7)
        await one.flush()
        same(other.int("turn").get(), 0, "what is seen before")
        same(await other.int("turn").compare_and_set(0, 1), False, "a comparison with what is not so any more")
        same(await other.int("turn").compare_and_set(7, 8), True, "a comparison with what is so")
        same(other.int("turn").get(), 8, "what is seen after")
        await one.flush()
        same(one.int("turn").get(), 8, "what the other sees")


@case(rivals=True)
async def of_many_who_claim_at_once_one_wins(place: Place) -> None:
    async with place.namespaces(4) as rivals:
        for turn in range(3):
            answers = await asyncio.gather(
                *(ns.map("claims", int, str).compare_and_set(turn, MISSING, str(n)) for n, ns in enumerate(rivals))
            )
            same(sorted(answers), [False, False, False, True], "the answers")
            await flush_all(*rivals)
            winner = str(answers.index(True))
            same({ns.map("claims", int, str).get(turn) for ns in rivals}, {winner}, "who all say has won")


@case(rivals=True)
async def many_who_write_at_once_lose_nothing(place: Place) -> None:
    async with place.namespaces(4) as rivals:

        async def write(number: int, ns: AsyncNamespace) -> None:
            for turn in range(5):
                async with ns.batch():
                    await ns.int("n").add(1)
                    await ns.set("seen", str).add(f"{number}-{turn}")
                if turn % 2:
                    await ns.flush()

        await asyncio.gather(*(write(number, ns) for number, ns in enumerate(rivals)))
        await flush_all(*rivals)
        for ns in rivals:
            same((ns.int("n").get(), len(ns.set("seen", str))), (20, 20), "what all have written")


@case()
async def two_kinds_at_once_are_settled_for_all(place: Place) -> None:
    async with place.namespaces(2) as [one, other]:
        told = []
        await one.int("n").add(1)
        try:
            await other.set("n").add("x")
        except OstrakaError as e:
            told.append(e)
        for _ in range(2):
            for ns in (one, other):
                try:
                    await ns.flush()
                except OstrakaError as e:
                    told.append(e)
        same(one.names(), other.names(), "the names")
        same(len(one.names()), 1, "how many names there are")
        loser = one if one.names()["n"].value == "set" else other
        await loser.int("fine").add(1)
        with refused(Invalid, "kind"):
            await (loser.int("n").add(1) if loser is one else loser.set("n").add("x"))
        holds(all(isinstance(e, Conflict | Invalid) for e in told), "what was raised is of the right kind")


@case()
async def watchers_are_told_what_others_changed(place: Place) -> None:
    async with place.namespaces(2) as [one, other]:
        await one.map("m", int).set(0, "x")
        await flush_all(one, other)
        other.map("m", int)
        watching = aiter(other.watch("m"))
        news = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(0)
        await one.map("m", int).set(1, "y")
        await one.int("unrelated").add(1)
        await flush_all(one, other)
        change = await news
        same((change.name, change.keys), ("m", frozenset({1})), "what was told")
        same(other.map("m", int).get(1), "y", "what is read then")


@case()
async def a_time_to_live_is_the_same_for_all(place: Place) -> None:
    clock, behind = SetClock(), SetClock(1_799_999_995.0)
    async with place.store(clock) as store, place.store(behind) as slow:
        one, other = await store.namespace("case"), await slow.namespace("case")
        await one.map("m", str, int).set("a", 1, ttl=10)
        await flush_all(one, other)
        same(other.map("m", str, int).get("a"), 1, "what another sees")
        clock.now += 11
        await one.int("n").add(1)
        await flush_all(one, other)
        same((one.map("m", str, int).get("a"), other.map("m", str, int).get("a")), (None, None), "what has expired")
        async with place.namespaces() as [later]:
            same(later.map("m", str, int).entries(), {}, "what one that came later sees")


@case()
async def a_namespace_that_another_deleted_holds_nothing(place: Place) -> None:
    async with place.store() as store, place.store() as other:
        one, two = await store.namespace("case"), await other.namespace("case")
        await fill(one)
        await flush_all(one, two)
        await two.int("number").add(1)
        await two.flush()
        await store.delete_namespace("case")
        await two.flush()
        same((one.names(), two.names()), ({}, {}), "the names")
        same((await store.namespaces(), await other.namespaces()), ([], []), "the namespaces")
        await two.int("number").add(1)
        await flush_all(two, one)
        same((one.int("number").get(), await store.namespaces()), (1, ["case"]), "what was written then")


@case()
async def what_is_read_says_how_stale_it_is(place: Place) -> None:
    clock = SetClock()
    async with place.store(clock) as store, place.namespaces() as [other]:
        ns = await store.namespace("case")
        await ns.flush()
        same(ns.staleness, 0.0, "how stale it is at once")
        clock.now += 7
        same(ns.staleness, 7.0, "how stale it is after 7 seconds")
        await other.int("n").add(1)
        await other.flush()
        await ns.refresh(max_staleness=10)
        same((ns.int("n").get(), ns.staleness), (0, 7.0), "what is fresh enough")
        await ns.refresh(max_staleness=5)
        same((ns.int("n").get(), ns.staleness), (1, 0.0), "what was refreshed")
