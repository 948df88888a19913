"""What a batch of mutations does to the rows: preconditions checked, operations resolved, nothing written.

Every engine that orders commits itself (memory, embedded) shares this, so that they cannot differ in meaning. Each
mutation sees the rows as those before it left them, and fails alone.
"""

from collections.abc import Callable, Sequence

from ostraka.errors import Corrupt, Invalid, TooLarge
from ostraka.limits import Limits
from ostraka.state.types import (
    COUNTER_SIZE,
    SEQUENCE_MAX,
    Absent,
    Add,
    Committed,
    Delete,
    Ensure,
    Equals,
    Mutation,
    Outcome,
    Present,
    Put,
    Rejected,
)

ID_SIZE_MAX = 255
_STAMP_SIZE = 8

Read = Callable[[bytes], bytes | None]
Gather = Callable[[], Sequence[Mutation]]
"""The mutations of a batch, asked for once its turn in the order of commits has come."""
_UNREAD = object()


def measure(mutation: Mutation, limits: Limits) -> int:
    """The bytes that the mutation may add to a batch; TooLarge or Invalid when it can never be accepted."""
    key_max, value_max = limits.state_key_size_max, limits.state_value_size_max
    total = 0
    for condition in mutation.preconditions:
        size = len(condition.key)
        if not 0 < size <= key_max:
            _refuse_key(size, key_max)
    for op in mutation.operations:
        kind = type(op)
        size = len(op.key)
        if kind is Put:
            value_size = len(op.value)  # type: ignore[union-attr]
            if op.stamp_key:  # type: ignore[union-attr]
                size += _STAMP_SIZE
            if op.stamp_value:  # type: ignore[union-attr]
                value_size += _STAMP_SIZE
        elif kind is Ensure:
            value_size = len(op.value)  # type: ignore[union-attr]
        else:
            value_size = COUNTER_SIZE
        if not 0 < size <= key_max:
            _refuse_key(size, key_max)
        if value_size > value_max:
            raise TooLarge(f"a value of {value_size} bytes; at most {value_max}", reason="state_value")
        total += size + value_size
    if mutation.id is not None and len(mutation.id) > ID_SIZE_MAX:
        raise TooLarge(f"a mutation id of {len(mutation.id)} bytes; at most {ID_SIZE_MAX}", reason="state_id")
    if total > limits.batch_bytes_max:
        raise TooLarge(f"a mutation of {total} bytes; at most {limits.batch_bytes_max}", reason="state_mutation")
    return total


def _refuse_key(size: int, size_max: int) -> None:
    if size == 0:
        raise Invalid("an empty key", reason="state_key")
    raise TooLarge(f"a key of {size} bytes; at most {size_max}", reason="state_key")


class Batch:
    """The sum of a batch: ``rows`` as they are to be, ``before`` as they are, and an outcome for each mutation."""

    __slots__ = ("before", "ids", "outcomes", "rows", "sequence", "sequence_before")

    def __init__(self, sequence: int) -> None:
        self.sequence_before = sequence
        self.sequence = sequence  # of the last mutation applied
        self.rows: dict[bytes, bytes | None] = {}
        self.before: dict[bytes, bytes | None] = {}
        self.outcomes: list[Outcome] = []
        self.ids: list[tuple[int, bytes]] = []  # (index among the applied, id)

    @property
    def applied(self) -> int:
        return self.sequence - self.sequence_before


def resolve(mutations: Sequence[Mutation], read: Read, sequence: int) -> Batch:
    """Check and resolve mutations in order, on top of what ``read`` gives; the first to be applied is sequence + 1.

    ``read`` may raise Corrupt: it fails the one mutation that needed the row.
    """
    batch = Batch(sequence)
    for mutation in mutations:
        try:
            outcome = _resolve_one(mutation, read, batch)
        except (Rejected, Corrupt) as refusal:
            batch.outcomes.append(refusal)
        else:
            batch.outcomes.append(outcome)
    return batch


def _resolve_one(mutation: Mutation, read: Read, batch: Batch) -> Committed:
    rows, before = batch.rows, batch.before

    def current(key: bytes) -> bytes | None:
        value = rows.get(key, _UNREAD)
        if value is _UNREAD:
            value = before.get(key, _UNREAD)
            if value is _UNREAD:
                value = before[key] = read(key)
        return value  # type: ignore[return-value]

    for condition in mutation.preconditions:
        kind = type(condition)
        found = current(condition.key)
        if kind is Equals:
            holds = found == condition.value  # type: ignore[union-attr]
        elif kind is Present:
            holds = found is not None
        else:
            assert kind is Absent
            holds = found is None
        if not holds:
            raise Rejected(condition.tag, condition.key)

    sequence = batch.sequence + 1
    if sequence >= SEQUENCE_MAX:  # 2**64 commits do not happen; a wrong number does
        raise Corrupt("the commit sequence is exhausted", reason="sequence")
    mine: dict[bytes, bytes | None] = {}
    counters: tuple[int, ...] = ()
    for op in mutation.operations:
        key = op.key
        if type(op) is Put:
            if op.stamp_key:
                key += (SEQUENCE_MAX - sequence).to_bytes(8, "big")
            if key not in before:
                before[key] = read(key)
            mine[key] = op.value + sequence.to_bytes(8, "big") if op.stamp_value else op.value
            continue
        value = mine[key] if key in mine else current(key)
        if key not in before:
            before[key] = read(key)
        if type(op) is Delete:
            mine[key] = None
        elif type(op) is Ensure:
            if value is None:
                mine[key] = op.value
        else:
            assert type(op) is Add
            number = _added(op, value)
            mine[key] = None if number == op.drop_at else number.to_bytes(COUNTER_SIZE, "big", signed=True)
            counters += (number,)
    rows.update(mine)
    if mutation.id is not None:
        batch.ids.append((batch.applied, mutation.id))
    batch.sequence = sequence
    return Committed(sequence, counters)


def _added(op: Add, value: bytes | None) -> int:
    if value is None:
        number = op.initial
    elif len(value) == COUNTER_SIZE:
        number = int.from_bytes(value, "big", signed=True)
    else:
        raise Corrupt(f"the row at {op.key!r} is no counter", reason="counter")
    number += op.delta
    if not 0 <= number < 2**63:
        raise Corrupt(f"the counter at {op.key!r} would come to {number}", reason="counter")
    return number
