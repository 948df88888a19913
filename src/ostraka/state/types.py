"""What every state engine promises, and the words in which mutations are told to it (ENGINE 6, 7).

The state is one ordered map of bytes to bytes. It knows nothing of buckets or chunks: the first byte of a key
names a table, and only the rooms above give those bytes a meaning. Everything that changes it is a `Mutation`:
preconditions and operations that are applied together or not at all. No interactive transaction leaks upward, so
that LMDB, PostgreSQL, etcd and a simulator can stand behind the same interface.

Keys are 1 to ``limits.state_key_size_max`` bytes, values 0 to ``limits.state_value_size_max``; beyond that
`errors.TooLarge`. Keys sort as plain bytes.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from ostraka.errors import Conflict, Corrupt

SEQUENCE_MAX = 2**64 - 1
COUNTER_SIZE = 8  # a row that `Add` keeps: a signed 8-byte big-endian number


# -- operations


class Put(Struct, frozen=True, gc=False):
    """Store value under key, whatever was there.

    ``stamp_key`` appends the inverted big-endian 8-byte sequence of the commit to the key (`stamped_key`), so that
    the newest sorts first. ``stamp_value`` appends the big-endian 8-byte sequence to the value (`stamped_value`).
    """

    key: bytes
    value: bytes
    stamp_key: bool = False
    stamp_value: bool = False


class Delete(Struct, frozen=True, gc=False):
    """Remove key; no error when it is absent."""

    key: bytes


class Ensure(Struct, frozen=True, gc=False):
    """Store value under key if key is absent; else leave what is there."""

    key: bytes
    value: bytes


class Add(Struct, frozen=True, gc=False):
    """Add delta to the counter at key (8 bytes, signed, big-endian: `counter`, `counter_value`).

    An absent row counts as ``initial``. The row is removed when the result equals ``drop_at``, else the result is
    stored, zero included. A result below zero, or a row that is no counter, is a mistake of our own: the mutation
    fails with `errors.Corrupt` (reason "counter") and nothing of it is applied.
    """

    key: bytes
    delta: int
    initial: int = 0
    drop_at: int | None = None


Operation = Put | Delete | Ensure | Add


# -- preconditions


class Equals(Struct, frozen=True, gc=False):
    """The row at key holds exactly ``value``; None: it is absent. ``tag`` names the condition in `Rejected`."""

    key: bytes
    value: bytes | None
    tag: str = ""


class Present(Struct, frozen=True, gc=False):
    """There is a row at key."""

    key: bytes
    tag: str = ""


class Absent(Struct, frozen=True, gc=False):
    """There is no row at key."""

    key: bytes
    tag: str = ""


Precondition = Equals | Present | Absent


class Mutation(Struct, frozen=True, gc=False):
    """Operations that are applied all together, in order, if every precondition holds; else nothing of it.

    Preconditions are checked in order against the state as the mutations before it left it; operations see the
    operations before them. ``id`` (at most 255 bytes) is kept in the log for people who search there; it has no
    meaning to the engine.
    """

    preconditions: Sequence[Precondition] = ()
    operations: Sequence[Operation] = ()
    id: bytes | None = None


class Committed(Struct, frozen=True, gc=False):
    """A mutation that is durable on every copy and visible. ``counters``: what each `Add` came to, in order."""

    sequence: int
    counters: tuple[int, ...] = ()


class Rejected(Conflict):
    """A precondition does not hold, and nothing was applied: ``tag`` and ``key`` say which."""

    def __init__(self, tag: str, key: bytes) -> None:
        super().__init__(f"precondition {tag!r} does not hold", reason=tag)
        self.tag = tag
        self.key = key


Outcome = Committed | Rejected | Corrupt


# -- numbers in keys and values


def stamped_key(key: bytes, sequence: int) -> bytes:
    """The key under which ``Put(key, ..., stamp_key=True)`` was stored by the commit of that sequence."""
    return key + (SEQUENCE_MAX - sequence).to_bytes(8, "big")


def key_sequence(key: bytes) -> int:
    """The sequence in the last 8 bytes of a stamped key."""
    return SEQUENCE_MAX - int.from_bytes(key[-8:], "big")


def stamped_value(value: bytes, sequence: int) -> bytes:
    """The value that ``Put(..., stamp_value=True)`` stored."""
    return value + sequence.to_bytes(8, "big")


def value_sequence(value: bytes) -> int:
    """The sequence in the last 8 bytes of a stamped value."""
    return int.from_bytes(value[-8:], "big")


def counter_value(number: int) -> bytes:
    """A counter as it is stored."""
    return number.to_bytes(COUNTER_SIZE, "big", signed=True)


def counter(value: bytes) -> int:
    """A stored counter as a number."""
    if len(value) != COUNTER_SIZE:
        raise Corrupt(f"a counter of {len(value)} bytes", reason="counter")
    return int.from_bytes(value, "big", signed=True)


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after every key that starts with prefix; None when there is none (all bytes are 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


# -- the engine


class State(Protocol):
    """An ordered, transactional key-value store.

    Reads are synchronous and take microseconds, so that they are called on the event loop; each sees one
    consistent moment, and only what is durable on every copy. What one `commit` returned, every later read in
    every process sees. Reads raise `errors.Corrupt` for a row that no copy can give back, and
    `errors.Unavailable` when the engine cannot be asked; absence is None or an empty list, and certain.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value at key, or None."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values at keys, in their order, all at one moment. At most ``limits.scan_rows_max`` keys."""
        ...

    def scan(self, start: bytes, end: bytes | None, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        """Rows with start <= key < end (None: to the last), ascending, or descending from end when ``reverse``.

        At most ``limit`` rows, itself at most ``limits.scan_rows_max`` (`errors.TooLarge`). Fewer than limit means
        that the range is exhausted.
        """
        ...

    def first(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        """The first row whose key starts with prefix, or None."""
        ...

    async def commit(self, mutation: Mutation) -> Committed:
        """Apply one mutation; returns when it is durable on every copy, and visible.

        Raises `Rejected`; `errors.Corrupt` (a counter below zero, a row that cannot be read); `errors.TooLarge`;
        `errors.Overloaded` when the queue stayed full or unserved until the deadline (nothing was applied);
        `errors.Full`; `errors.Unavailable` (no copy is left: whether it was applied shows after the next start).
        When the caller is cancelled, the mutation was either not begun or will be finished.
        """
        ...

    async def commit_many(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """Apply mutations in order, each on its own; those that fail do so as values, in their place.

        They share one batch when ``limits`` let them. Raises as `commit` for what concerns all of them.
        """
        ...

    @property
    def sequence(self) -> int:
        """The sequence of the last mutation that is visible; 0 before the first."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then let go of everything; later calls raise `errors.Unavailable`."""
        ...
