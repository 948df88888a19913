"""Answering queries from a state, at a moment of the caller's: what has expired by then is absent."""

from collections.abc import Callable
from typing import Any, TypeVar

from ostraka.errors import Invalid
from ostraka.metadatadb import queries as q
from ostraka.metadatadb.operations import Kind
from ostraka.metadatadb.queries import Question
from ostraka.metadatadb.state import Held, State

T = TypeVar("T")


def answer(state: State, query: Question[T], now: int) -> T:
    """The answer. Invalid (reason "kind") if the name holds another kind than the query is about."""
    if now < state.time:
        now = state.time
    held = state.live(query.name, now)
    if held is not None and query.kind is not None and query.kind is not held.kind:
        raise Invalid(f"{query.name!r} is of kind {held.kind}, not {query.kind}", reason="kind")
    found: T = ANSWER[type(query)](state, query, held, now)
    return found


def _value(state: State, query: Question[Any], held: Held | None, now: int) -> Any:
    return None if held is None else held.value


def _int(state: State, query: Question[Any], held: Held | None, now: int) -> Any:
    return 0 if held is None else held.value


def _int_map_get(state: State, query: q.IntMapGet, held: Held | None, now: int) -> Any:
    return held.value[query.key] if held is not None and held.has(query.key, now) else 0


def _map_get(state: State, query: q.MapGet, held: Held | None, now: int) -> Any:
    return held.value[query.key] if held is not None and held.has(query.key, now) else None


def _set_contains(state: State, query: q.SetContains, held: Held | None, now: int) -> bool:
    return held is not None and held.has(query.member, now)


def _entries(state: State, query: Question[Any], held: Held | None, now: int) -> dict[str, Any]:
    if held is None:
        return {}
    if not held.key_expires:
        return dict(held.value)
    return {key: value for key, value in held.value.items() if held.has(key, now)}


def _keys(state: State, query: Question[Any], held: Held | None, now: int) -> list[str]:
    return list(_entries(state, query, held, now))


def _list_entries(state: State, query: q.ListEntries, held: Held | None, now: int) -> Any:
    return [] if held is None else held.value[query.start : query.stop]


def _list_len(state: State, query: q.ListLen, held: Held | None, now: int) -> int:
    return 0 if held is None else len(held.value)


def _size(state: State, query: q.Size, held: Held | None, now: int) -> int:
    if held is None:
        return 0
    if held.kind is Kind.LIST:
        return len(held.value)
    return len(_entries(state, query, held, now)) if isinstance(held.value, dict) else 1


def _expiry(state: State, query: q.Expiry, held: Held | None, now: int) -> int | None:
    if held is None or query.key is None:
        return None if held is None else held.expires
    if not isinstance(held.value, dict) or not held.has(query.key, now):
        return None
    return held.key_expires.get(query.key, 0)


def _names(state: State, query: q.Names, held: Held | None, now: int) -> dict[str, Kind]:
    return {n: state.names[n].kind for n in sorted(state.names) if n.startswith(query.name) and state.live(n, now)}


ANSWER: dict[type[Question[Any]], Callable[[State, Any, Held | None, int], Any]] = {
    q.ScalarGet: _value,
    q.IntGet: _int,
    q.IntMapGet: _int_map_get,
    q.IntMapKeys: _keys,
    q.IntMapEntries: _entries,
    q.SetContains: _set_contains,
    q.SetMembers: _keys,
    q.MapGet: _map_get,
    q.MapKeys: _keys,
    q.MapEntries: _entries,
    q.ListEntries: _list_entries,
    q.ListLen: _list_len,
    q.Size: _size,
    q.Expiry: _expiry,
    q.Names: _names,
}
