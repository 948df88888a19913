"""The state of a namespace: names and what they hold, and the primitives that operations are made of.

Pure: knows nothing of storage or threads, nor what keys and values mean. applying.py carries out transactions,
answering.py answers queries.

What has expired counts as absent; it is removed when somebody writes there, or by ``purge``. ``fork`` is cheap: both
states share what a name holds until one of them writes to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from ostraka.metadatadb.operations import Kind

INT_BYTES = 20  # what an integer counts for in ``size``

_EMPTY: dict[Kind, Callable[[], Any]] = {
    Kind.SCALAR: lambda: None,
    Kind.INT: int,
    Kind.INT_MAP: dict,
    Kind.SET: dict,
    Kind.MAP: dict,
    Kind.LIST: list,
}


@dataclass(slots=True)
class Held:
    """What a name holds: bytes of JSON, an int, a list of bytes, or a dict from keys to ints, bytes or None (a set).

    Moments are milliseconds since 1970; 0 is never.
    """

    kind: Kind
    value: Any
    expires: int = 0
    key_expires: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Held":
        value = self.value.copy() if isinstance(self.value, dict | list) else self.value
        return Held(self.kind, value, self.expires, self.key_expires.copy())

    def live(self, now: int) -> bool:
        return not 0 < self.expires <= now

    def has(self, key: str, now: int) -> bool:
        """Whether a map or set has that key now."""
        return key in self.value and not 0 < self.key_expires.get(key, 0) <= now

    def size(self) -> int:
        """About how many bytes of JSON it is."""
        if isinstance(self.value, dict):
            return sum(len(key) + weigh(value) for key, value in self.value.items())
        return sum(map(len, self.value)) if isinstance(self.value, list) else weigh(self.value)


def weigh(value: bytes | int | None) -> int:
    """About how many bytes of JSON a single value is."""
    if value is None:
        return 0
    return INT_BYTES if isinstance(value, int) else len(value)


class State:
    """All names of a namespace. ``time``: the latest moment of any transaction so far; ``size``: bytes, about."""

    __slots__ = ("_owned", "names", "size", "time")

    def __init__(self) -> None:
        self.names: dict[str, Held] = {}
        self.time = 0
        self.size = 0
        self._owned: set[str] = set()  # names whose Held no fork shares

    def fork(self) -> "State":
        """A state of its own, equal to this one."""
        other = State()
        other.names, other.time, other.size = self.names.copy(), self.time, self.size
        self._owned.clear()
        return other

    def live(self, name: str, now: int) -> Held | None:
        """What the name holds at that moment; not to be written to."""
        held = self.names.get(name)
        return None if held is None or 0 < held.expires <= now else held

    def find(self, name: str, key: str | None, now: int) -> Any:
        """The value of a name, or the one under a key of it; UNSET if there is none."""
        held = self.live(name, now)
        if held is None:
            return UNSET
        if key is None:
            return held.value
        return held.value[key] if isinstance(held.value, dict) and held.has(key, now) else UNSET

    def own(self, name: str, now: int) -> Held | None:
        """What the name holds at that moment, to be written to."""
        held = self.live(name, now)
        if held is not None and name not in self._owned:
            self._owned.add(name)
            held = self.names[name] = held.copy()
        return held

    def own_or_make(self, name: str, kind: Kind, now: int) -> Held:
        """The same; empty and of that kind if there was nothing."""
        return self.own(name, now) or self.put(name, Held(kind, _EMPTY[kind]()))

    def put(self, name: str, held: Held) -> Held:
        """The name holds this, in place of what it held."""
        self.remove(name)
        self.names[name] = held
        self._owned.add(name)
        self.size += len(name) + held.size()
        return held

    def remove(self, name: str) -> None:
        held = self.names.pop(name, None)
        if held is not None:
            self.size -= len(name) + held.size()
        self._owned.discard(name)

    def assign(self, held: Held, key: str, value: bytes | int | None) -> None:
        """Put a value under a key; the moment at which it expires stays as it is."""
        self.size += weigh(value) - weigh(held.value[key]) if key in held.value else weigh(value) + len(key)
        held.value[key] = value

    def discard(self, held: Held, key: str) -> None:
        """Remove a key or member."""
        held.key_expires.pop(key, None)
        if key in held.value:
            self.size -= len(key) + weigh(held.value.pop(key))

    def purge(self) -> None:
        """Remove what has expired by ``time``: nobody sees a difference."""
        for name, held in list(self.names.items()):
            if not held.live(self.time):
                self.remove(name)
            elif gone := [key for key, at in held.key_expires.items() if at <= self.time]:
                for key in gone:
                    self.discard(self.own(name, self.time) or held, key)
