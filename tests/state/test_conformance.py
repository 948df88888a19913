"""What every state engine promises. One set of tests; the engines differ only in how they are opened."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostraka.errors import Corrupt, Invalid, TooLarge, Unavailable
from ostraka.limits import LIMITS, MIB
from ostraka.state import (
    Absent,
    Add,
    Committed,
    Delete,
    Ensure,
    Equals,
    MemoryState,
    Mutation,
    Present,
    Put,
    Rejected,
    State,
    counter,
    counter_value,
    key_sequence,
    prefix_end,
    rows_under,
    stamped_key,
    value_sequence,
)
from ostraka.state.tables import ROWS_AT_ONCE

Test = Callable[[State], Awaitable[None]]
Run = Callable[[Test], None]
TIGHT = replace(LIMITS, scan_rows_max=50, state_index_size_max=256 * MIB)


@pytest.fixture(params=["memory", "embedded"])
def run(request: pytest.FixtureRequest, make_store: Any) -> Run:
    """Runs a test's coroutine on a fresh state."""

    def run_one(test: Test) -> None:
        async def main() -> None:
            state: State
            if request.param == "memory":
                state = MemoryState(TIGHT)
            else:
                state = make_store(2, name=f"store{len(opened)}").create(limits=TIGHT)
            opened.append(state)
            await test(state)
            await state.close()

        asyncio.run(main())

    opened: list[State] = []
    return run_one


def put(key: bytes, value: bytes) -> Mutation:
    return Mutation((), (Put(key, value),))


def test_a_commit_is_visible_when_it_returns(run: Run) -> None:
    async def test(state: State) -> None:
        assert state.get(b"k") is None
        done = await state.commit(put(b"k", b"v"))
        assert state.get(b"k") == b"v"
        assert state.sequence == done.sequence

    run(test)


def test_sequences_count_applied_mutations_one_by_one(run: Run) -> None:
    async def test(state: State) -> None:
        outcomes = await state.commit_many(
            [put(b"a", b"1"), Mutation((Present(b"none", "t"),), (Put(b"x", b""),)), put(b"b", b"2"), Mutation()]
        )
        assert [o.sequence for o in outcomes if isinstance(o, Committed)] == [1, 2, 3]
        assert (await state.commit(put(b"c", b"3"))).sequence == 4

    run(test)


def test_a_rejected_mutation_leaves_its_neighbours_alone(run: Run) -> None:
    async def test(state: State) -> None:
        await state.commit(put(b"etag", b"old"))
        outcomes = await state.commit_many(
            [
                put(b"a", b"1"),
                Mutation((Equals(b"etag", b"new", "if-match"),), (Put(b"etag", b"mine"), Put(b"b", b"2"))),
                put(b"c", b"3"),
            ]
        )
        refusal = outcomes[1]
        assert isinstance(refusal, Rejected)
        assert (refusal.tag, refusal.key, refusal.reason) == ("if-match", b"etag", "if-match")
        assert [state.get(k) for k in (b"a", b"b", b"c", b"etag")] == [b"1", None, b"3", b"old"]
        with pytest.raises(Rejected) as caught:
            await state.commit(Mutation((Absent(b"a", "create-only"),), (Put(b"a", b"2"),)))
        assert caught.value.tag == "create-only"
        assert caught.value.retry

    run(test)


def test_a_mutation_sees_those_before_it_in_the_same_batch(run: Run) -> None:
    async def test(state: State) -> None:
        outcomes = await state.commit_many(
            [
                Mutation((Absent(b"k", "first"),), (Put(b"k", b"1"),)),
                Mutation((Absent(b"k", "second"),), (Put(b"k", b"2"),)),
                Mutation((Equals(b"k", b"1", "third"),), (Delete(b"k"),)),
                Mutation((Equals(b"k", None, "fourth"),), (Put(b"k", b"4"),)),
            ]
        )
        assert [getattr(o, "tag", None) for o in outcomes] == [None, "second", None, None]
        assert state.get(b"k") == b"4"

    run(test)


def test_the_first_condition_that_does_not_hold_is_named(run: Run) -> None:
    async def test(state: State) -> None:
        await state.commit(put(b"a", b"1"))
        conditions = (Present(b"a", "one"), Absent(b"b", "two"), Equals(b"a", b"2", "three"), Present(b"c", "four"))
        with pytest.raises(Rejected) as caught:
            await state.commit(Mutation(conditions, (Put(b"z", b""),)))
        assert caught.value.tag == "three"
        assert state.get(b"z") is None

    run(test)


def test_of_a_rejected_mutation_nothing_is_applied(run: Run) -> None:
    async def test(state: State) -> None:
        broken = Mutation((), (Put(b"a", b"1"), Add(b"n", 5), Add(b"n", -6), Put(b"b", b"2")))
        with pytest.raises(Corrupt) as caught:
            await state.commit(broken)
        assert caught.value.reason == "counter"
        assert state.scan(b"", None, 10) == []
        assert state.sequence == 0

    run(test)


def test_counters_start_stay_and_leave_as_told(run: Run) -> None:
    async def test(state: State) -> None:
        done = await state.commit(Mutation((), (Add(b"n", 2), Add(b"n", 3), Add(b"m", 1, initial=7))))
        assert done.counters == (2, 5, 8)
        assert counter(state.get(b"n") or b"") == 5
        await state.commit(Mutation((), (Add(b"n", -5),)))
        assert state.get(b"n") == counter_value(0)
        done = await state.commit(Mutation((), (Add(b"m", -8, drop_at=0),)))
        assert done.counters == (0,)
        assert state.get(b"m") is None
        await state.commit(put(b"text", b"no counter"))
        with pytest.raises(Corrupt):
            await state.commit(Mutation((), (Add(b"text", 1),)))

    run(test)


def test_ensure_keeps_what_is_there(run: Run) -> None:
    async def test(state: State) -> None:
        await state.commit(Mutation((), (Ensure(b"k", b"1"), Ensure(b"k", b"2"))))
        await state.commit(Mutation((), (Ensure(b"k", b"3"),)))
        assert state.get(b"k") == b"1"
        await state.commit(Mutation((), (Delete(b"k"), Ensure(b"k", b"4"), Delete(b"none"))))
        assert state.get(b"k") == b"4"

    run(test)


def test_stamped_keys_sort_the_newest_first(run: Run) -> None:
    async def test(state: State) -> None:
        done = [await state.commit(Mutation((), (Put(b"k/", b"v", True, True),))) for _ in range(3)]
        rows = state.scan(b"k/", prefix_end(b"k/"), 10)
        assert [key for key, _ in rows] == [stamped_key(b"k/", d.sequence) for d in reversed(done)]
        assert [key_sequence(key) for key, _ in rows] == [d.sequence for d in reversed(done)]
        assert [value_sequence(value) for _, value in rows] == [d.sequence for d in reversed(done)]
        assert state.first(b"k/") == rows[0]
        assert state.first(b"l/") is None

    run(test)


def test_scans_give_bounded_ranges_in_both_directions(run: Run) -> None:
    async def test(state: State) -> None:
        names = [b"%03d" % n for n in range(40)]
        await state.commit(Mutation((), tuple(Put(name, name) for name in names)))
        rows = [(name, name) for name in names]
        assert state.scan(b"", None, 50) == rows
        assert state.scan(b"010", b"020", 50) == rows[10:20]
        assert state.scan(b"010", b"020", 3) == rows[10:13]
        assert state.scan(b"010", b"020", 3, reverse=True) == rows[19:16:-1]
        assert state.scan(b"", None, 2, reverse=True) == rows[:-3:-1]
        assert state.scan(b"020", b"010", 5) == state.scan(b"5", None, 5) == state.scan(b"", None, 0) == []
        with pytest.raises(TooLarge):
            state.scan(b"", None, TIGHT.scan_rows_max + 1)
        assert state.get_many([b"005", b"nine", b"001"]) == [b"005", None, b"001"]
        with pytest.raises(TooLarge):
            state.get_many([b"k"] * (TIGHT.scan_rows_max + 1))

    run(test)


def test_bounds_are_checked_before_anything_is_done(run: Run) -> None:
    async def test(state: State) -> None:
        key, value = b"k" * TIGHT.state_key_size_max, b"v" * TIGHT.state_value_size_max
        await state.commit(put(key, value))
        assert state.get(key) == value
        for mutation in (
            put(key + b"k", b""),
            put(b"k", value + b"v"),
            Mutation((), (Put(key, b"", stamp_key=True),)),
            Mutation((), (Put(b"k", value, stamp_value=True),)),
            Mutation((Absent(key + b"k"),)),
            Mutation((), (), b"i" * 256),
            Mutation((), tuple(Put(b"%d" % n, value) for n in range(9))),
        ):
            with pytest.raises(TooLarge):
                await state.commit_many([put(b"good", b""), mutation])
        with pytest.raises(Invalid):
            await state.commit(put(b"", b"v"))
        assert state.get(b"good") is None

    run(test)


def test_many_writers_lose_no_increment(run: Run) -> None:
    async def test(state: State) -> None:
        async def add() -> list[int]:
            return [(await state.commit(Mutation((), (Add(b"n", 1),)))).counters[0] for _ in range(20)]

        results = await asyncio.gather(*[add() for _ in range(20)])
        assert sorted(n for result in results for n in result) == list(range(1, 401))

    run(test)


def test_after_close_everything_is_unavailable(run: Run) -> None:
    async def test(state: State) -> None:
        await state.commit(put(b"k", b"v"))
        await state.close()
        with pytest.raises(Unavailable):
            state.get(b"k")
        with pytest.raises(Unavailable):
            state.scan(b"", None, 1)
        with pytest.raises(Unavailable):
            await state.commit(put(b"k", b"w"))

    run(test)


# Keys around the lengths at which the embedded engine changes its way of storing them.
_HEADS = [
    b"",
    b"a",
    b"b" * 479,
    b"b" * 480,
    b"b" * 481,
    b"b" * 952,
    b"b" * 953,
    b"b" * 480 + b"\xff" * 480,
    b"\xff" * 500,
]
_KEYS = st.builds(lambda head, tail: head + tail, st.sampled_from(_HEADS), st.binary(max_size=3)).filter(bool)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.lists(st.tuples(_KEYS, st.one_of(st.none(), st.binary(max_size=8))), max_size=12), max_size=6),
    ranges=st.lists(
        st.tuples(st.one_of(st.just(b""), _KEYS), st.one_of(st.none(), _KEYS), st.integers(1, 20)), max_size=12
    ),
)
def test_keys_of_any_length_keep_plain_byte_order(run: Run, steps: Any, ranges: Any) -> None:
    async def test(state: State) -> None:
        model: dict[bytes, bytes] = {}
        for step in steps:
            await state.commit(Mutation((), tuple(Delete(k) if v is None else Put(k, v) for k, v in step)))
            for key, value in step:
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        assert state.scan(b"", None, 50) == sorted(model.items())[:50]
        assert state.scan(b"", None, 50, reverse=True) == sorted(model.items(), reverse=True)[:50]
        for start, end, limit in ranges:
            wanted = sorted((k, v) for k, v in model.items() if k >= start and (end is None or k < end))
            assert state.scan(start, end, limit) == wanted[:limit]
            assert state.scan(start, end, limit, reverse=True) == wanted[::-1][:limit]
            assert state.get(start or b"a") == model.get(start or b"a")

    run(test)


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE])
def test_a_table_is_read_whole_however_many_pages_it_takes(count: int) -> None:
    state = MemoryState()
    table = [(b"t" + number.to_bytes(2, "big"), b"") for number in range(count)]
    around = [(b"s\xff", b""), (b"u", b"")]
    asyncio.run(state.commit(Mutation([], [Put(key, value) for key, value in [*table, *around]])))
    assert list(rows_under(state, b"t")) == table
