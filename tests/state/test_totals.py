"""Totals are exact after every commit, whatever the commits were, and cost one read."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from ostraka.errors import Corrupt
from ostraka.state import Delete, Ensure, Equals, MemoryState, Mutation, Outcome, Put, Rejected, rows_under, totals

COLOURS = b"rgb"


def weigh(key: bytes, value: bytes) -> tuple[bytes, tuple[int, ...]]:
    """By colour, the second byte of the key: rows, and the number that is their value."""
    if not value.isdigit():
        raise Corrupt("no number", reason="row")
    return key[1:2], (1, int(value))


WEIGHED = {ord("w"): weigh}


def held(state: MemoryState) -> dict[bytes, bytes]:
    return {key: value for key, value in rows_under(state, totals.TOTALS) if key != totals.READY}


def commit(state: MemoryState, *mutations: Mutation) -> Sequence[Outcome]:
    return asyncio.run(state.commit_many(mutations))


def test_after_every_batch_the_totals_are_what_the_rows_come_to(seed: int) -> None:
    dice, state = random.Random(seed), MemoryState(weighed=WEIGHED)
    refused = 0
    for _ in range(400):
        batch = []
        for _ in range(dice.randrange(1, 6)):
            key = b"w%c%d" % (dice.choice(COLOURS), dice.randrange(6))
            value = b"%d" % dice.randrange(100)
            operation = dice.choice([Put(key, value), Ensure(key, value), Delete(key), Put(b"other" + key, value)])
            guard = [Equals(key, b"50")] if dice.random() < 0.1 else []
            batch.append(Mutation(guard, [operation, *([Put(key, b"7")] if dice.random() < 0.2 else [])]))
        refused += sum(isinstance(outcome, Rejected) for outcome in commit(state, *batch))
        assert held(state) == totals.recounted(state, WEIGHED)
    assert refused
    assert held(state)


def test_a_total_that_comes_to_nothing_has_no_row_and_reads_as_zeros() -> None:
    state = MemoryState(weighed=WEIGHED)
    assert totals.read(state, b"r", 2) is None  # not begun
    begun = totals.begin(state, WEIGHED)
    assert begun is not None
    commit(state, begun)
    assert totals.begin(state, WEIGHED) is None
    commit(state, Mutation((), [Put(b"wr1", b"0"), Put(b"wr2", b"5")]))
    assert totals.read(state, b"r", 2) == (2, 5)
    commit(state, Mutation((), [Delete(b"wr1"), Delete(b"wr2")]))
    assert held(state) == {}
    assert totals.read(state, b"r", 2) == (0, 0)


def test_a_store_that_had_no_totals_gets_those_of_what_is_there() -> None:
    state = MemoryState()
    commit(state, Mutation((), [Put(b"wr1", b"3"), Put(b"wr2", b"4"), Put(b"wg1", b"0")]))
    state.weighed = WEIGHED
    begun = totals.begin(state, WEIGHED)
    assert begun is not None
    commit(state, begun)
    assert totals.read(state, b"r", 2) == (2, 7)
    assert totals.read(state, b"g", 2) == (1, 0)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 7, b"\x00" * 16], ids=["empty", "cut", "other"])
def test_wrong_totals_and_rows_that_cannot_be_weighed_fail_no_commit_and_are_mended(damage: bytes) -> None:
    state = MemoryState(weighed=WEIGHED)
    commit(state, Mutation((), [Put(b"wr1", b"3"), Put(b"wr2", b"damaged")]))
    commit(state, Mutation((), [Put(totals.TOTALS + b"r", damage)]))
    commit(state, Mutation((), [Put(b"wr2", b"4"), Delete(b"wr1")]))
    mend = totals.wrong(state, WEIGHED)
    assert mend is not None
    commit(state, mend)
    assert totals.wrong(state, WEIGHED) is None
    assert held(state) == totals.recounted(state, WEIGHED)
