"""Totals: how many rows a table has and what they come to, kept with every commit, so that asking costs one read.

Who owns a table says what a row weighs (`Weigh`): to which total it counts, and by how much. A batch changes the rows
of totals by the difference between what it puts and what was there, in the same record of the log: a crash keeps both
or neither. Every process that commits must weigh alike.

The row of a total is ``t`` and its name; its value some 8-byte signed big-endian numbers, at least one of them not 0.
The row `READY` says that the totals were begun: a store that an older program wrote has none until `recount` made them.
"""

from collections.abc import Callable, Iterable, Mapping
from struct import Struct as Layout
from struct import error as LayoutError

from ostraka.errors import Corrupt, OstrakaError
from ostraka.state.batch import Batch, Read
from ostraka.state.tables import rows_under
from ostraka.state.types import Delete, Equals, Mutation, Operation, Precondition, Put, State

TOTALS = b"t"
READY = TOTALS + b"\x00ready"
VERSION = b"\x01"

Amounts = tuple[int, ...]
Weigh = Callable[[bytes, bytes], tuple[bytes, Amounts]]
"""(key, value) of a row -> the name of the total that it counts to, and by how much. Raises Corrupt."""
Weighed = Mapping[int, Weigh]
"""By the first byte of the tables' keys."""

_layouts: dict[int, Layout] = {}


def _layout(count: int) -> Layout:
    layout = _layouts.get(count)
    if layout is None:
        layout = _layouts[count] = Layout(f">{count}q")
    return layout


def amounts(value: bytes | None, count: int) -> Amounts:
    """The numbers of a total's row; no row: zeros. Raises Corrupt."""
    if value is None:
        return (0,) * count
    try:
        return _layout(count).unpack(value)
    except LayoutError as error:
        raise Corrupt(f"a total that has not {count} numbers", reason="total") from error


def read(state: State, name: bytes, count: int) -> Amounts | None:
    """A total of ``count`` numbers; None while this store's totals were not begun."""
    ready, value = state.get_many([READY, TOTALS + name])
    return None if ready is None else amounts(value, count)


def account(batch: Batch, read_row: Read, weighed: Weighed) -> None:
    """Add to a resolved batch what it does to the totals. Never fails a commit: what cannot be weighed weighs nothing,
    and is found by fsck."""
    changes: dict[bytes, list[int]] = {}
    for key, value in batch.rows.items():
        weigh = weighed.get(key[0])
        if weigh is not None:
            old = batch.before.get(key)
            if old != value:
                _weigh(changes, weigh, key, old, -1)
                _weigh(changes, weigh, key, value, 1)
    for name, change in changes.items():
        if not any(change):
            continue
        key = TOTALS + name
        try:
            before = batch.before[key] = read_row(key)
            total = amounts(before, len(change))
        except Corrupt:
            batch.before.setdefault(key, None)
            total = (0,) * len(change)
        batch.rows[key] = _row([max(0, a + b) for a, b in zip(total, change, strict=True)])


def _weigh(changes: dict[bytes, list[int]], weigh: Weigh, key: bytes, value: bytes | None, sign: int) -> None:
    if value is None:
        return
    try:
        name, weights = weigh(key, value)
    except OstrakaError:
        return
    change = changes.get(name)
    if change is None:
        changes[name] = [sign * weight for weight in weights]
    else:
        for at, weight in enumerate(weights):
            change[at] += sign * weight


def _row(numbers: Iterable[int]) -> bytes | None:
    held = tuple(numbers)
    return _layout(len(held)).pack(*held) if any(held) else None


def recounted(state: State, weighed: Weighed) -> dict[bytes, bytes]:
    """The rows of all totals as the tables have them now. Reads every row of those tables."""
    changes: dict[bytes, list[int]] = {}
    for table, weigh in weighed.items():
        for key, value in rows_under(state, bytes([table])):
            _weigh(changes, weigh, key, value, 1)
    rows = {TOTALS + name: _row(numbers) for name, numbers in changes.items()}
    return {key: value for key, value in rows.items() if value is not None}


def begin(state: State, weighed: Weighed) -> Mutation | None:
    """What makes the totals of a store that has none; None if it has. Nobody else may commit meanwhile."""
    return None if state.get(READY) is not None else Mutation((), [Put(READY, VERSION), *_corrections(state, weighed)])


def wrong(state: State, weighed: Weighed) -> Mutation | None:
    """What mends the totals; None if they are right. It means something only if nobody committed meanwhile."""
    operations = _corrections(state, weighed)
    if not operations:
        return None
    unchanged: list[Precondition] = [Equals(op.key, state.get(op.key)) for op in operations]
    return Mutation(unchanged, operations)


def _corrections(state: State, weighed: Weighed) -> list[Operation]:
    right = recounted(state, weighed)
    there = {key: value for key, value in rows_under(state, TOTALS) if key != READY}
    put: list[Operation] = [Put(key, value) for key, value in right.items() if there.get(key) != value]
    return put + [Delete(key) for key in there if key not in right]
