"""Typed handles: what a program has of the names in a namespace. They encode, ask and tell; they hold nothing.

One implementation serves programs with and without asyncio: every handle is generic in what a write gives, N, and what
a comparison gives, B. With asyncio these are Awaitable[None] and Awaitable[bool], without it None and bool. Reading is
local, and gives its result in both.

``ttl``: seconds from now, by the clock of the one who writes; None: for ever. What has expired is absent. Integers are
64-bit and signed: an argument beyond that is refused, a result wraps around.
"""

from collections.abc import Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import UNSET, UnsetType

from ostraka.errors import Invalid
from ostraka.metadatadb import operations as o
from ostraka.metadatadb import queries as q
from ostraka.metadatadb.operations import INT64_MAX, INT64_MIN, Kind, Op
from ostraka.metadatadb.queries import Question
from ostraka.metadatadb.values import Codec, KeyCodec, type_name

T = TypeVar("T")
V = TypeVar("V")
K = TypeVar("K")
N = TypeVar("N")
B = TypeVar("B")
N_co = TypeVar("N_co", covariant=True)
B_co = TypeVar("B_co", covariant=True)

MISSING: Final = UNSET
"""In a comparison: there is no value; as the new value: remove it."""


class Session(Protocol[N_co, B_co]):
    """What handles need of a namespace."""

    def change(self, *ops: Op) -> N_co: ...

    def ask(self, *ops: Op) -> B_co: ...

    def query(self, query: Question[T]) -> T: ...

    def until(self, ttl: float | None) -> int:
        """Now and so many seconds, as operations have it."""
        ...


def int64(number: int) -> int:
    """The number itself. Invalid (reason "value") if it is none, or needs more than 64 bits."""
    if type(number) is not int or not INT64_MIN <= number <= INT64_MAX:
        raise Invalid(f"{number!r} is no signed 64-bit integer", reason="value")
    return number


def in_order(keys: Iterable[K]) -> list[K]:
    """Sorted if they can be compared, else as they are."""
    found = list(keys)
    try:
        return sorted(found)  # type: ignore[type-var]
    except TypeError:
        return found


class Handle(Generic[N, B]):
    """A name, and what any kind of name can do."""

    kind: Kind

    def __init__(self, session: Session[N, B], name: str) -> None:
        self._session = session
        self.name = name

    @property
    def types(self) -> tuple[Any, ...]:
        """Of its keys and values: whoever retrieves it must name the same ones."""
        return ()

    def drop(self) -> N:
        """Remove it all; the name may be used as another kind afterwards."""
        return self._session.change(o.Drop(self.name))

    def expire_all(self, ttl: float | None) -> N:
        """The whole name is gone after so many seconds; None: it stays. Nothing happens if it is absent."""
        return self._session.change(o.Expire(self.name, self._session.until(ttl)))

    def _expires(self, key: str | None = None) -> float | None:
        found = self._session.query(q.Expiry(self.name, key))
        return found / 1000 if found else None

    def __repr__(self) -> str:
        types = ", ".join(map(type_name, self.types))
        return f"<{type(self).__name__}{f'[{types}]' if types else ''} {self.name!r}>"


class Scalar(Handle[N, B], Generic[V, N, B]):
    """A single value. Last write wins."""

    kind = Kind.SCALAR

    def __init__(self, session: Session[N, B], name: str, value: Codec[V]) -> None:
        super().__init__(session, name)
        self._value = value

    @property
    def types(self) -> tuple[Any, ...]:
        return (self._value.kind,)

    def get(self, default: V | None = None) -> V | None:
        """The value, or the default if there is none."""
        text = self._session.query(q.ScalarGet(self.name))
        return default if text is None else self._value.decode(text)

    def exists(self) -> bool:
        return self._session.query(q.ScalarGet(self.name)) is not None

    def set(self, value: V, ttl: float | None = None) -> N:
        return self._session.change(o.ScalarSet(self.name, self._value.encode(value), self._session.until(ttl)))

    def delete(self) -> N:
        return self._session.change(o.ScalarDelete(self.name))

    def compare_and_set(self, expected: V | UnsetType, value: V | UnsetType, ttl: float | None = None) -> B:
        """Set (or, MISSING, delete) it if it is what was expected, between all replicas; whether it was."""
        expectation = o.ScalarExpect(self.name, UNSET if expected is UNSET else self._value.encode(expected))
        if value is UNSET:
            return self._session.ask(expectation, o.ScalarDelete(self.name))
        change = o.ScalarSet(self.name, self._value.encode(value), self._session.until(ttl))
        return self._session.ask(expectation, change)

    def expires(self) -> float | None:
        """When it will be gone, in seconds since 1970; None: never, or it is absent."""
        return self._expires()


class Int(Handle[N, B]):
    """An integer of 64 bits. What is absent is 0."""

    kind = Kind.INT

    def get(self) -> int:
        return self._session.query(q.IntGet(self.name))

    def set(self, value: int, ttl: float | None = None) -> N:
        return self._session.change(o.IntSet(self.name, int64(value), self._session.until(ttl)))

    def add(self, delta: int = 1) -> N:
        return self._session.change(o.IntAdd(self.name, int64(delta)))

    def mul(self, factor: int) -> N:
        return self._session.change(o.IntMul(self.name, int64(factor)))

    def div(self, divisor: int) -> N:
        """Divide, towards zero; by 0: nothing happens."""
        return self._session.change(o.IntDiv(self.name, int64(divisor)))

    def compare_and_set(self, expected: int, value: int, ttl: float | None = None) -> B:
        """Set it if it is what was expected, between all replicas; whether it was."""
        change = o.IntSet(self.name, int64(value), self._session.until(ttl))
        return self._session.ask(o.IntExpect(self.name, int64(expected)), change)

    def expires(self) -> float | None:
        """When it will be gone, in seconds since 1970; None: never, or it is absent."""
        return self._expires()


class Keyed(Handle[N, B], Generic[K, N, B]):
    """What has keys, or members, that can expire one by one."""

    def __init__(self, session: Session[N, B], name: str, key: KeyCodec[K]) -> None:
        super().__init__(session, name)
        self._key = key

    @property
    def types(self) -> tuple[Any, ...]:
        return (self._key.kind,)

    def decode_key(self, text: str) -> K:
        """What the program calls a key of which it was told the canonical text."""
        return self._key.decode_key(text)

    def expire(self, key: K, ttl: float | None) -> N:
        """The key is gone after so many seconds; None: it stays. Nothing happens if it is absent."""
        return self._session.change(o.Expire(self.name, self._session.until(ttl), self._key.encode_key(key)))

    def expires(self, key: K) -> float | None:
        """When the key will be gone, in seconds since 1970; None: never, or it is absent."""
        return self._expires(self._key.encode_key(key))

    def __len__(self) -> int:
        return self._session.query(q.Size(self.name))

    def __bool__(self) -> bool:  # a handle is not what it names
        return True


class IntMap(Keyed[K, N, B]):
    """Integers of 64 bits under keys. What is absent is 0."""

    kind = Kind.INT_MAP

    def get(self, key: K) -> int:
        return self._session.query(q.IntMapGet(self.name, self._key.encode_key(key)))

    def set(self, key: K, value: int, ttl: float | None = None) -> N:
        text = self._key.encode_key(key)
        return self._session.change(o.IntMapSet(self.name, text, int64(value), self._session.until(ttl)))

    def add(self, key: K, delta: int = 1) -> N:
        return self._session.change(o.IntMapAdd(self.name, self._key.encode_key(key), int64(delta)))

    def mul(self, key: K, factor: int) -> N:
        return self._session.change(o.IntMapMul(self.name, self._key.encode_key(key), int64(factor)))

    def div(self, key: K, divisor: int) -> N:
        """Divide, towards zero; by 0: nothing happens."""
        return self._session.change(o.IntMapDiv(self.name, self._key.encode_key(key), int64(divisor)))

    def delete(self, key: K) -> N:
        return self._session.change(o.IntMapDelete(self.name, self._key.encode_key(key)))

    def compare_and_set(self, key: K, expected: int, value: int, ttl: float | None = None) -> B:
        """Set it if it is what was expected, between all replicas; whether it was."""
        text = self._key.encode_key(key)
        change = o.IntMapSet(self.name, text, int64(value), self._session.until(ttl))
        return self._session.ask(o.IntMapExpect(self.name, text, int64(expected)), change)

    def keys(self) -> list[K]:
        return in_order(self._key.decode_key(text) for text in self._session.query(q.IntMapKeys(self.name)))

    def entries(self) -> dict[K, int]:
        found = self._session.query(q.IntMapEntries(self.name))
        return {self._key.decode_key(key): number for key, number in found.items()}


class Set(Keyed[K, N, B]):
    """Members, each once."""

    kind = Kind.SET

    def add(self, member: K, ttl: float | None = None) -> N:
        return self._session.change(o.SetAdd(self.name, self._key.encode_key(member), self._session.until(ttl)))

    def remove(self, member: K) -> N:
        return self._session.change(o.SetRemove(self.name, self._key.encode_key(member)))

    def contains(self, member: K) -> bool:
        return self._session.query(q.SetContains(self.name, self._key.encode_key(member)))

    def __contains__(self, member: K) -> bool:
        return self.contains(member)

    def members(self) -> set[K]:
        return {self._key.decode_key(text) for text in self._session.query(q.SetMembers(self.name))}

    def add_if_absent(self, member: K, ttl: float | None = None) -> B:
        """Add it if no replica has; whether it was absent."""
        text = self._key.encode_key(member)
        change = o.SetAdd(self.name, text, self._session.until(ttl))
        return self._session.ask(o.SetExpect(self.name, text, present=False), change)

    def remove_if_present(self, member: K) -> B:
        """Remove it if no replica has; whether it was there."""
        text = self._key.encode_key(member)
        return self._session.ask(o.SetExpect(self.name, text, present=True), o.SetRemove(self.name, text))


class Map(Keyed[K, N, B], Generic[K, V, N, B]):
    """Values under keys. Last write of a key wins."""

    kind = Kind.MAP

    def __init__(self, session: Session[N, B], name: str, key: KeyCodec[K], value: Codec[V]) -> None:
        super().__init__(session, name, key)
        self._value = value

    @property
    def types(self) -> tuple[Any, ...]:
        return (self._key.kind, self._value.kind)

    def get(self, key: K, default: V | None = None) -> V | None:
        """The value under the key, or the default if there is none."""
        text = self._session.query(q.MapGet(self.name, self._key.encode_key(key)))
        return default if text is None else self._value.decode(text)

    def __contains__(self, key: K) -> bool:
        return self._session.query(q.MapGet(self.name, self._key.encode_key(key))) is not None

    def set(self, key: K, value: V, ttl: float | None = None) -> N:
        text = self._key.encode_key(key)
        return self._session.change(o.MapSet(self.name, text, self._value.encode(value), self._session.until(ttl)))

    def delete(self, key: K) -> N:
        return self._session.change(o.MapDelete(self.name, self._key.encode_key(key)))

    def compare_and_set(self, key: K, expected: V | UnsetType, value: V | UnsetType, ttl: float | None = None) -> B:
        """Set (or, MISSING, delete) it if it is what was expected, between all replicas; whether it was."""
        text = self._key.encode_key(key)
        expectation = o.MapExpect(self.name, text, UNSET if expected is UNSET else self._value.encode(expected))
        if value is UNSET:
            return self._session.ask(expectation, o.MapDelete(self.name, text))
        change = o.MapSet(self.name, text, self._value.encode(value), self._session.until(ttl))
        return self._session.ask(expectation, change)

    def keys(self) -> list[K]:
        return in_order(self._key.decode_key(text) for text in self._session.query(q.MapKeys(self.name)))

    def entries(self) -> dict[K, V]:
        found = self._session.query(q.MapEntries(self.name))
        return {self._key.decode_key(key): self._value.decode(text) for key, text in found.items()}


class List(Handle[N, B], Generic[V, N, B]):
    """Values in the order in which they were appended."""

    kind = Kind.LIST

    def __init__(self, session: Session[N, B], name: str, value: Codec[V]) -> None:
        super().__init__(session, name)
        self._value = value

    @property
    def types(self) -> tuple[Any, ...]:
        return (self._value.kind,)

    def append(self, value: V) -> N:
        return self._session.change(o.ListAppend(self.name, self._value.encode(value)))

    def entries(self, start: int | None = None, stop: int | None = None) -> list[V]:
        """All values, or those of a slice."""
        return [self._value.decode(text) for text in self._session.query(q.ListEntries(self.name, start, stop))]

    def trim(self, keep: int) -> N:
        """Keep the last so many values."""
        return self._session.change(o.ListTrim(self.name, max(0, int64(keep))))

    def __len__(self) -> int:
        return self._session.query(q.ListLen(self.name))

    def __bool__(self) -> bool:  # a handle is not what it names
        return True
