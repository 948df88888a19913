"""Cases: what one replica says of what it was told."""

import asyncio
from typing import Any

import msgspec

from ostraka.errors import Invalid, PreconditionFailed, TooLarge, Unavailable
from ostraka.metadatadb import MISSING, Kind
from ostraka.metadatadb.operations import INT64_MAX, INT64_MIN
from ostraka.testing.backends.case import holds, refused, same
from ostraka.testing.metadatadb.case import Case, Place, SetClock, collector

CASES: list[Case] = []
case = collector(CASES)


class Owner(msgspec.Struct, frozen=True):
    """A value, and a key, with fields."""

    name: str
    shares: int = 1


@case()
async def a_scalar_is_what_was_set_last(place: Place) -> None:
    async with place.namespaces() as [ns]:
        colour = ns.scalar("colour", str)
        same((colour.get(), colour.get("none"), colour.exists()), (None, "none", False), "what is absent")
        await colour.set("red")
        await colour.set("blue")
        same((colour.get(), colour.exists()), ("blue", True), "the scalar")
        await ns.scalar("anything").set({"a": [1, 2.5, None, True], "b": {}})
        same(ns.scalar("anything").get(), {"a": [1, 2.5, None, True], "b": {}}, "a scalar of any type")
        await ns.scalar("nothing").set(None)
        same((ns.scalar("nothing").get("none"), ns.scalar("nothing").exists()), (None, True), "a null that was set")


@case()
async def a_deleted_scalar_is_absent(place: Place) -> None:
    async with place.namespaces() as [ns]:
        colour = ns.scalar("colour", str)
        await colour.set("red")
        await colour.delete()
        await colour.delete()
        same((colour.get(), colour.exists(), ns.names()), (None, False, {}), "what was deleted")


@case()
async def a_scalar_holds_a_struct(place: Place) -> None:
    async with place.namespaces() as [ns]:
        owner = ns.scalar("owner", Owner)
        await owner.set(Owner("ann", 3))
        same(owner.get(), Owner("ann", 3), "the struct")
        with refused(Invalid, "value"):
            await owner.set("ann")  # type: ignore[arg-type]
        same(owner.get(), Owner("ann", 3), "the struct after a refused write")


@case()
async def an_integer_begins_at_zero(place: Place) -> None:
    async with place.namespaces() as [ns]:
        number = ns.int("number")
        same(number.get(), 0, "what is absent")
        await number.add(5)
        await number.add(-2)
        same(number.get(), 3, "the sum")
        await number.set(100)
        same(number.get(), 100, "what was set")


@case()
async def integers_calculate(place: Place) -> None:
    async with place.namespaces() as [ns]:
        number = ns.int("number")
        await number.set(100)
        await number.mul(3)
        await number.div(4)
        await number.add(-25)
        same(number.get(), 50, "100 * 3 / 4 - 25")
        await number.set(-7)
        await number.div(2)
        same(number.get(), -3, "-7 / 2, towards zero")


@case()
async def dividing_by_zero_changes_nothing(place: Place) -> None:
    async with place.namespaces() as [ns]:
        await ns.int("number").set(7)
        await ns.int("number").div(0)
        await ns.int_map("numbers").set("a", 7)
        await ns.int_map("numbers").div("a", 0)
        same((ns.int("number").get(), ns.int_map("numbers").get("a")), (7, 7), "what was divided by zero")


@case()
async def integers_have_64_bits_and_wrap_around(place: Place) -> None:
    async with place.namespaces() as [ns]:
        number, numbers = ns.int("number"), ns.int_map("numbers", int)
        for value in ((1 << 53) + 1, -(1 << 53) - 1, 1 << 60, INT64_MAX, INT64_MIN):
            await number.set(value)
            await numbers.set(value, value)
            same((number.get(), numbers.get(value)), (value, value), "an integer of 64 bits")
        await number.set(INT64_MAX)
        await number.add(1)
        same(number.get(), INT64_MIN, "the greatest integer and 1")
        await number.mul(-1)
        same(number.get(), INT64_MIN, "the least integer times -1")
        for beyond in (INT64_MAX + 1, INT64_MIN - 1, 1.0, True, "1"):
            for write in (number.set, number.add, number.mul, number.div):
                with refused(Invalid, "value"):
                    await write(beyond)  # type: ignore[arg-type]


@case()
async def a_set_has_each_member_once(place: Place) -> None:
    async with place.namespaces() as [ns]:
        seen = ns.set("seen", str)
        same((seen.members(), "a" in seen, len(seen)), (set(), False, 0), "an empty set")
        for member in ("a", "b", "a"):
            await seen.add(member)
        same((seen.members(), "a" in seen, seen.contains("c"), len(seen)), ({"a", "b"}, True, False, 2), "the set")


@case()
async def a_removed_member_is_gone(place: Place) -> None:
    async with place.namespaces() as [ns]:
        seen = ns.set("seen", int)
        await seen.add(1)
        await seen.add(2)
        await seen.remove(1)
        await seen.remove(3)
        same((seen.members(), 1 in seen), ({2}, False), "the set")
        await seen.remove(2)
        same((seen.members(), ns.names()), (set(), {"seen": Kind.SET}), "an empty set is still a set")


@case()
async def a_map_has_the_last_value_of_each_key(place: Place) -> None:
    async with place.namespaces() as [ns]:
        etags = ns.map("etags", str, str)
        same((etags.get("a"), etags.get("a", "?"), etags.keys(), etags.entries()), (None, "?", [], {}), "an empty map")
        await etags.set("a", "1")
        await etags.set("b", "2")
        await etags.set("a", "3")
        same((etags.get("a"), "a" in etags, "c" in etags, len(etags)), ("3", True, False, 2), "the map")
        same((etags.keys(), etags.entries()), (["a", "b"], {"a": "3", "b": "2"}), "all of the map")


@case()
async def a_deleted_key_is_gone(place: Place) -> None:
    async with place.namespaces() as [ns]:
        etags = ns.map("etags", str, str)
        await etags.set("a", "1")
        await etags.delete("a")
        await etags.delete("b")
        same((etags.get("a"), "a" in etags, etags.entries()), (None, False, {}), "the map")


@case()
async def a_map_holds_structs_under_structs(place: Place) -> None:
    async with place.namespaces() as [ns]:
        owners = ns.map("owners", Owner, Owner)
        await owners.set(Owner("ann"), Owner("bob", 2))
        await owners.set(Owner("ann", 1), Owner("cyd", 3))
        same(owners.entries(), {Owner("ann"): Owner("cyd", 3)}, "the map")


@case()
async def an_int_map_has_a_number_for_each_key(place: Place) -> None:
    async with place.namespaces() as [ns]:
        numbers = ns.int_map("numbers", str)
        same((numbers.get("a"), numbers.keys(), numbers.entries()), (0, [], {}), "an empty map of integers")
        await numbers.set("a", 10)
        await numbers.set("b", 20)
        await numbers.mul("a", 6)
        await numbers.div("a", 4)
        await numbers.delete("b")
        await numbers.delete("c")
        await numbers.mul("d", 5)
        same((numbers.entries(), numbers.keys()), ({"a": 15, "d": 0}, ["a", "d"]), "the map of integers")


@case()
async def an_int_map_counts(place: Place) -> None:
    async with place.namespaces() as [ns]:
        numbers = ns.int_map("numbers", int)
        for key in (9, 10, 9):
            await numbers.add(key)
        await numbers.add(10, -3)
        same((numbers.get(9), numbers.entries(), numbers.keys()), (2, {9: 2, 10: -2}, [9, 10]), "the counts")


@case()
async def a_list_keeps_its_order(place: Place) -> None:
    async with place.namespaces() as [ns]:
        log = ns.list("log", str)
        same((log.entries(), len(log)), ([], 0), "an empty list")
        for entry in ("a", "b", "a"):
            await log.append(entry)
        same(
            (log.entries(), len(log), log.entries(-2), log.entries(0, 1)), (["a", "b", "a"], 3, ["b", "a"], ["a"]), "it"
        )
        await log.trim(2)
        await log.trim(5)
        same(log.entries(), ["b", "a"], "what was kept")
        await log.trim(0)
        same(log.entries(), [], "nothing was kept")


@case()
async def namespaces_are_apart(place: Place) -> None:
    async with place.store() as store:
        one, other = await store.namespace("one"), await store.namespace("other")
        await one.int("n").add(1)
        await other.set("n").add("x")
        await one.flush()
        await other.flush()
        same((one.names(), other.names()), ({"n": Kind.INT}, {"n": Kind.SET}), "the names of each")
        same(await store.namespaces(), ["one", "other"], "the namespaces")
        holds(await store.namespace("one") is one, "the same namespace by the same name")


@case()
async def what_cannot_be_a_part_of_a_path_is_no_name_of_a_namespace(place: Place) -> None:
    """Nor is it in memory, so that a program that is moved to a byte store still works."""
    async with place.store() as store:
        for name in ("", "a/b", "..", "a\nb", "x" * 300):
            with refused(Invalid, "name"):
                await store.namespace(name)
        await store.namespace("ä b.c-1")


@case()
async def keys_are_found_by_what_they_are(place: Place) -> None:
    async with place.namespaces() as [ns]:
        structs = ns.int_map("structs", Owner)
        await structs.add(Owner("ann", 2))
        await structs.add(Owner(shares=2, name="ann"))
        same(structs.entries(), {Owner("ann", 2): 2}, "a key whose fields were written in another order")
        pairs = ns.set("pairs", tuple[str, int])
        await pairs.add(("a", 1))
        same((("a", 1) in pairs, ("a", 2) in pairs, pairs.members()), (True, False, {("a", 1)}), "pairs")
        floats = ns.set("floats", float)
        await floats.add(0.0)
        same((-0.0 in floats, 0 in floats), (True, True), "what is equal to a member")
        for key in ([1], {"a": 1}):
            with refused(Invalid):
                await ns.set("any", Any).add(key)  # type: ignore[arg-type]


@case()
async def a_name_has_one_kind_and_one_type(place: Place) -> None:
    async with place.namespaces() as [ns]:
        number = ns.int("n")
        holds(ns.int("n") is number, "the same handle by the same name")
        with refused(Invalid, "kind", what="another kind, before anything is held"):
            ns.map("n")
        await number.add(1)
        with refused(Invalid, "kind", what="another kind"):
            ns.set("n")
        ns.map("m", str, int)
        with refused(Invalid, "type", what="another type"):
            ns.map("m", str, str)
        for name in ("", "x" * 201):
            with refused(Invalid, "name"):
                ns.int(name)
    async with place.store() as store:
        for name in ("", "x" * 201):
            with refused(Invalid, "name"):
                await store.namespace(name)


@case()
async def a_dropped_name_may_be_another_kind(place: Place) -> None:
    async with place.store() as store:
        ns = await store.namespace("case")
        await ns.int("n").add(1)
        await ns.int("n").drop()
        same((ns.int("n").get(), ns.names()), (0, {}), "what was dropped")


@case()
async def a_batch_takes_effect_together(place: Place) -> None:
    async with place.namespaces() as [ns]:
        number, seen = ns.int("number"), ns.set("seen", str)
        async with ns.batch():
            await number.add(1)
            await seen.add("a")
            same((number.get(), len(seen)), (0, 0), "what is seen inside")
        same((number.get(), seen.members()), (1, {"a"}), "what is seen afterwards")
        try:
            async with ns.batch():
                await number.add(1)
                raise KeyError
        except KeyError:
            pass
        same(number.get(), 1, "what a batch that raised has left")
        with refused(Invalid, "batch"):
            async with ns.batch(), ns.batch():
                pass
        with refused(TooLarge, "batch"):
            async with ns.batch():
                for _ in range(10_001):
                    await number.add(1)
        same(number.get(), 1, "what a batch that was too large has left")


@case()
async def a_comparison_holds_or_nothing_happens(place: Place) -> None:
    async with place.namespaces() as [ns]:
        owner = ns.scalar("owner", str)
        same(await owner.compare_and_set("ann", "bob"), False, "a comparison with what is absent")
        same(await owner.compare_and_set(MISSING, "ann"), True, "a claim")
        same(await owner.compare_and_set(MISSING, "bob"), False, "a claim of what is there")
        same((await owner.compare_and_set("ann", "bob"), owner.get()), (True, "bob"), "a change")
        same((await owner.compare_and_set("ann", MISSING), owner.get()), (False, "bob"), "a deletion of another")
        same((await owner.compare_and_set("bob", MISSING), owner.exists()), (True, False), "a deletion")
        number, numbers = ns.int("number"), ns.int_map("numbers", str)
        same((await number.compare_and_set(0, 5), await number.compare_and_set(0, 6)), (True, False), "an integer")
        same(
            (await numbers.compare_and_set("a", 0, 5), await numbers.compare_and_set("a", 4, 6)), (True, False), "keyed"
        )
        same((number.get(), numbers.get("a")), (5, 5), "the integers")
        etags = ns.map("etags", str, str)
        same(await etags.compare_and_set("a", MISSING, "1"), True, "a claim of a key")
        same((await etags.compare_and_set("a", "2", "3"), etags.get("a")), (False, "1"), "a key that is another")
        same((await etags.compare_and_set("a", "1", MISSING), "a" in etags), (True, False), "a key that is deleted")
        seen = ns.set("seen", str)
        same((await seen.add_if_absent("a"), await seen.add_if_absent("a")), (True, False), "a member's claim")
        same((await seen.remove_if_present("a"), await seen.remove_if_present("a")), (True, False), "its end")


@case()
async def a_batch_with_a_comparison_holds_or_nothing_happens(place: Place) -> None:
    async with place.namespaces() as [ns]:
        turn, log = ns.int("turn"), ns.list("log", str)
        for expected, result in ((0, ["a"]), (0, ["a"]), (1, ["a", "c"])):
            try:
                async with ns.batch():
                    await turn.compare_and_set(expected, expected + 1)
                    await log.append("abc"[len(log.entries()) + expected])
                holds(len(log.entries()) > expected, "a batch went through that should not")
            except PreconditionFailed as e:
                same(e.reason, "changed", "the reason")
            same(log.entries(), result, f"after expecting {expected}")


@case()
async def what_has_a_time_to_live_expires(place: Place) -> None:
    clock = SetClock()
    async with place.store(clock) as store:
        ns = await store.namespace("case")
        owner, numbers, seen, etags = ns.scalar("owner"), ns.int_map("numbers"), ns.set("seen"), ns.map("etags")
        await owner.set("ann", ttl=10)
        await ns.int("number").set(5, ttl=10)
        await numbers.set("a", 1, ttl=10)
        await numbers.set("b", 1)
        await seen.add("a", ttl=10)
        await etags.set("a", "1", ttl=10)
        await ns.list("log").append("x")
        await ns.list("log").expire_all(10)
        same(
            (owner.expires(), numbers.expires("a"), numbers.expires("b")),
            (clock.now + 10, clock.now + 10, None),
            "ends",
        )
        clock.now += 9.9
        same((owner.get(), ns.int("number").get(), numbers.get("a"), "a" in seen), ("ann", 5, 1, True), "just before")
        await etags.expire("a", None)
        clock.now += 0.2
        same(
            (owner.get(), ns.int("number").get(), numbers.entries(), seen.members()),
            (None, 0, {"b": 1}, set()),
            "after",
        )
        same((etags.entries(), ns.list("log").entries()), ({"a": "1"}, []), "what was told to stay, and a list")
        await numbers.add("a", 2)
        same((numbers.get("a"), await owner.compare_and_set(MISSING, "bob")), (2, True), "what begins anew")
        for ttl in (0, -1, float("nan"), float("inf")):
            with refused(Invalid, "ttl"):
                await owner.set("ann", ttl=ttl)


@case()
async def changes_are_told_to_who_watches(place: Place) -> None:
    async with place.namespaces() as [ns]:
        counts = ns.int_map("counts", int)
        everything, some = aiter(ns.watch()), aiter(ns.watch("counts"))
        waiting = [asyncio.ensure_future(anext(w)) for w in (everything, some)]
        await asyncio.sleep(0)
        await ns.scalar("s").set(1)
        await counts.add(5)
        first = await waiting[0]
        same((first.name, first.keys), ("s", None), "the first change of anything")
        change = await waiting[1]
        same((change.name, change.keys), ("counts", frozenset({5})), "the change of one name, with its key")
        same((await anext(everything)).name, "counts", "the second change")
        await counts.add(6)
        await counts.add(7)
        same((await anext(some)).keys, frozenset({6, 7}), "what changed while nobody asked")


@case()
async def watching_begins_with_the_call(place: Place) -> None:
    """Not with the first look: who asks, reads, and then looks misses nothing."""
    async with place.namespaces() as [ns]:
        changes = ns.watch("n")
        await ns.int("n").add(1)
        same((await asyncio.wait_for(anext(changes), 10)).name, "n", "what changed before the first look")


@case()
async def a_closed_store_says_so(place: Place) -> None:
    async with place.store() as store:
        ns = await store.namespace("case")
        await ns.int("n").add(1)
        watching = asyncio.ensure_future(anext(aiter(ns.watch())))
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        with refused(Unavailable, "closed", what="a write"):
            await ns.int("n").add(1)
        with refused(Unavailable, "closed", what="a comparison"):
            await ns.int("n").compare_and_set(1, 2)
        with refused(Unavailable, "closed", what="another namespace"):
            await store.namespace("other")
        with refused(Unavailable, "closed", what="watching"):
            await watching
        same(ns.int("n").get(), 1, "what is read after the end")


@case()
async def a_deleted_namespace_holds_nothing(place: Place) -> None:
    async with place.store() as store:
        ns = await store.namespace("case")
        for number in range(5):
            await ns.list("log").append(number)
        await ns.flush()
        same(await store.namespaces(), ["case"], "the namespaces")
        await store.delete_namespace("case")
        await store.delete_namespace("never")
        same((ns.names(), await store.namespaces()), ({}, []), "what is left")
        await ns.list("log").append("new")
        await ns.flush()
        same((ns.list("log").entries(), await store.namespaces()), (["new"], ["case"]), "what was written then")
