"""Carrying out transactions. The same ones in the same order give the same state everywhere, whatever the clock of the
one who applies them says: time passes only by the moments at which transactions were written.

A transaction takes effect whole or not at all: not if an expectation does not hold before it, nor if it uses a name as
another kind than it is. Whoever replays it comes to the same verdict.
"""

import enum
from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from ostraka.metadatadb import operations as o
from ostraka.metadatadb.operations import INT64_MAX, INT64_MIN, Kind, Op, Operation, Transaction
from ostraka.metadatadb.state import Held, State


class Outcome(enum.Enum):
    """What became of a transaction."""

    DONE = "done"
    UNMET = "unmet"  # an expectation did not hold
    REFUSED = "refused"  # a name has another kind


def apply(state: State, transaction: Transaction) -> Outcome:
    """Let it take effect, if it can."""
    outcome = judge(state, transaction)
    now = state.time
    if now < transaction.at:
        now = state.time = transaction.at
    if outcome is Outcome.DONE:
        for op in transaction.ops:
            APPLY[type(op)](state, op, now)
    return outcome


def judge(state: State, transaction: Transaction) -> Outcome:
    """What would become of it."""
    now = max(state.time, transaction.at)
    for op in transaction.ops:
        if op.expects and not _holds(state, op, now):
            return Outcome.UNMET
    return Outcome.DONE if misused(state, transaction) is None else Outcome.REFUSED


def misused(state: State, transaction: Transaction) -> tuple[str, Kind] | None:
    """The first name that is used as another kind than it then has, and the kind that it has."""
    now = max(state.time, transaction.at)
    if len(transaction.ops) == 1:
        return _misused(state, transaction.ops[0], now)
    kinds: dict[str, Kind | None] = {}  # of the names that the operations so far have made or dropped
    cleared = False
    for op in transaction.ops:
        kind = op.kind
        if op.name in kinds or cleared:
            has = kinds.get(op.name)
        else:
            held = state.live(op.name, now)
            has = None if held is None else held.kind
        if kind is not None and has is not None and has is not kind:
            return op.name, has
        if isinstance(op, o.Clear):
            cleared = True
            kinds.clear()
        elif isinstance(op, o.Drop | o.ScalarDelete):
            kinds[op.name] = None
        elif kind is not None and not op.expects:
            kinds[op.name] = kind
    return None


def _misused(state: State, op: Op, now: int) -> tuple[str, Kind] | None:
    """The same of a single operation."""
    held = state.live(op.name, now) if op.kind is not None else None
    return None if held is None or held.kind is op.kind else (op.name, held.kind)


def _holds(state: State, op: Op, now: int) -> bool:
    found = state.find(op.name, o.key_of(op), now)
    match op:
        case o.ScalarExpect() | o.MapExpect():
            return bool(found == (op.value if op.value is UNSET else bytes(op.value)))
        case o.IntExpect() | o.IntMapExpect():
            return bool((0 if found is UNSET else found) == op.value)
        case o.SetExpect():
            return (found is not UNSET) == op.present
        case _:
            raise AssertionError(op)


def wrap(number: int) -> int:
    """The number modulo 2^64, as a signed one."""
    if INT64_MIN <= number <= INT64_MAX:
        return number
    return (number - INT64_MIN) % (1 << 64) + INT64_MIN


def add(number: int, delta: int) -> int:
    return wrap(number + delta)


def multiply(number: int, factor: int) -> int:
    return wrap(number * factor)


def divide(number: int, divisor: int) -> int:
    """Towards zero; a divisor of 0 leaves the number."""
    if divisor == 0:
        return number
    quotient = abs(number) // abs(divisor)
    return wrap(quotient if (number < 0) == (divisor < 0) else -quotient)


def _expectation(state: State, op: Operation, now: int) -> None:
    """It was judged before; nothing changes."""


def _drop(state: State, op: Operation, now: int) -> None:
    state.remove(op.name)


def _clear(state: State, op: Operation, now: int) -> None:
    for name in list(state.names):
        state.remove(name)


def _set(state: State, op: o.ScalarSet | o.IntSet, now: int) -> None:
    assert op.kind is not None
    value = op.value if isinstance(op, o.IntSet) else bytes(op.value)
    state.put(op.name, Held(op.kind, value, op.expires))


def _int_change(state: State, name: str, operand: int, now: int, change: Callable[[int, int], int]) -> None:
    held = state.own_or_make(name, Kind.INT, now)
    held.value = change(held.value, operand)


def _int_add(state: State, op: o.IntAdd, now: int) -> None:
    _int_change(state, op.name, op.delta, now, add)


def _int_mul(state: State, op: o.IntMul, now: int) -> None:
    _int_change(state, op.name, op.factor, now, multiply)


def _int_div(state: State, op: o.IntDiv, now: int) -> None:
    _int_change(state, op.name, op.divisor, now, divide)


def _under(state: State, op: o.IntMapSet | o.SetAdd | o.MapSet, now: int, key: str, value: bytes | int | None) -> None:
    assert op.kind is not None
    held = state.own_or_make(op.name, op.kind, now)
    state.assign(held, key, value)
    if op.expires:
        held.key_expires[key] = op.expires
    elif held.key_expires:
        held.key_expires.pop(key, None)


def _int_map_set(state: State, op: o.IntMapSet, now: int) -> None:
    _under(state, op, now, op.key, op.value)


def _set_add(state: State, op: o.SetAdd, now: int) -> None:
    _under(state, op, now, op.member, None)


def _map_set(state: State, op: o.MapSet, now: int) -> None:
    _under(state, op, now, op.key, bytes(op.value))


def _int_map_change(
    state: State, name: str, key: str, operand: int, now: int, change: Callable[[int, int], int]
) -> None:
    held = state.own_or_make(name, Kind.INT_MAP, now)
    if held.key_expires and not held.has(key, now):
        state.discard(held, key)
    state.assign(held, key, change(held.value.get(key, 0), operand))


def _int_map_add(state: State, op: o.IntMapAdd, now: int) -> None:
    _int_map_change(state, op.name, op.key, op.delta, now, add)


def _int_map_mul(state: State, op: o.IntMapMul, now: int) -> None:
    _int_map_change(state, op.name, op.key, op.factor, now, multiply)


def _int_map_div(state: State, op: o.IntMapDiv, now: int) -> None:
    _int_map_change(state, op.name, op.key, op.divisor, now, divide)


def _key_remove(state: State, op: o.IntMapDelete | o.SetRemove | o.MapDelete, now: int) -> None:
    held = state.own(op.name, now)
    if held is not None:
        state.discard(held, op.member if isinstance(op, o.SetRemove) else op.key)


def _list_append(state: State, op: o.ListAppend, now: int) -> None:
    value = bytes(op.value)
    state.own_or_make(op.name, Kind.LIST, now).value.append(value)
    state.size += len(value)


def _list_trim(state: State, op: o.ListTrim, now: int) -> None:
    held = state.own(op.name, now)
    if held is not None:
        cut = max(0, len(held.value) - op.keep)
        state.size -= sum(map(len, held.value[:cut]))
        del held.value[:cut]


def _expire(state: State, op: o.Expire, now: int) -> None:
    held = state.own(op.name, now)
    if held is None:
        return
    if op.key is None:
        held.expires = op.expires
    elif isinstance(held.value, dict) and held.has(op.key, now):
        held.key_expires.pop(op.key, None)
        if op.expires:
            held.key_expires[op.key] = op.expires


APPLY: dict[type[Operation], Callable[[State, Any, int], None]] = {
    o.ScalarSet: _set,
    o.ScalarDelete: _drop,
    o.ScalarExpect: _expectation,
    o.IntSet: _set,
    o.IntAdd: _int_add,
    o.IntMul: _int_mul,
    o.IntDiv: _int_div,
    o.IntExpect: _expectation,
    o.IntMapSet: _int_map_set,
    o.IntMapAdd: _int_map_add,
    o.IntMapMul: _int_map_mul,
    o.IntMapDiv: _int_map_div,
    o.IntMapDelete: _key_remove,
    o.IntMapExpect: _expectation,
    o.SetAdd: _set_add,
    o.SetRemove: _key_remove,
    o.SetExpect: _expectation,
    o.MapSet: _map_set,
    o.MapDelete: _key_remove,
    o.MapExpect: _expectation,
    o.ListAppend: _list_append,
    o.ListTrim: _list_trim,
    o.Expire: _expire,
    o.Drop: _drop,
    o.Clear: _clear,
}
