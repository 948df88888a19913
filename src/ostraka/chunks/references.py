"""Counting references: what it takes for one more, and for one less.

Nothing is committed here: these are the words of a mutation that the caller commits with its own change. A chunk's
counter is its number of references, and no row at all means none. A slot's counter exists only from the second
reference on: a small object that is never copied costs no row. A slot that loses its last reference is marked dead
in its pack's row.

What falls to no reference is queued under its own name, stamped with the sequence of the commit, so that it is queued
once, under the newest moment at which somebody may still have been reading it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from ostraka.chunks.rows import (
    SLOT,
    SLOT_DEAD,
    SLOT_GONE,
    PackRow,
    chunk_counter_key,
    decode_pack,
    encode,
    pack_key,
    slot_counter_key,
    slots_of,
    zero_chunk_key,
    zero_pack_key,
)
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt, Invalid
from ostraka.limits import Limits
from ostraka.state.types import Add, Delete, Equals, Operation, Precondition, Put, State, counter

COUNT_TAG = "count"  # somebody else changed a count first: read again


def reference(entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
    """One more reference to each entry."""
    operations: list[Operation] = []
    for (kind, name, slot), number in _counted(entries).items():
        if kind == Kind.CHUNK:
            operations.append(Add(chunk_counter_key(name), number))
        else:
            operations.append(Add(slot_counter_key(name, slot), number, initial=1))
    return [], operations


def dismantle(state: State, entries: Sequence[Entry], limits: Limits) -> tuple[list[Precondition], list[Operation]]:
    """One reference less to each entry, queueing what falls to none. All that one mutation gives up, in one call.

    Raises Corrupt (reason "counter") where the counts say that there is no such reference, and gives up nothing.
    """
    counted = _counted(entries)
    keys = [_counter_key(*target) for target in counted]
    values: list[bytes | None] = []
    for start in range(0, len(keys), limits.scan_rows_max):
        values += state.get_many(keys[start : start + limits.scan_rows_max])
    preconditions: list[Precondition] = []
    operations: list[Operation] = []
    dead_slots: dict[bytes, list[int]] = {}
    for ((kind, name, slot), less), key, value in zip(counted.items(), keys, values, strict=True):
        floor = 0 if kind == Kind.CHUNK else 1
        left = (counter(value) if value is not None else floor) - less
        if left < 0:
            raise Corrupt(f"{name.hex()} ({slot}) has fewer references than {less}", reason="counter")
        preconditions.append(Equals(key, value, COUNT_TAG))
        if kind == Kind.CHUNK:
            operations.append(Add(key, -less, drop_at=0))
            if not left:
                operations.append(Put(zero_chunk_key(name), b"", stamp_value=True))
        elif left:
            operations.append(Add(key, -less, drop_at=1))
        else:
            if value is not None:
                operations.append(Delete(key))
            dead_slots.setdefault(name, []).append(slot)
    for pack, numbers in dead_slots.items():
        row_value = state.get(pack_key(pack))
        if row_value is None:
            raise Corrupt(f"pack {pack.hex()} is referred to and is not there", reason="pack")
        row = decode_pack(row_value)
        slots = slots_of(row)
        if any(n >= len(slots) or slots[n].flags & SLOT_DEAD for n in numbers):
            raise Corrupt(f"a slot of pack {pack.hex()} is referred to and is dead", reason="counter")
        more = bury(pack, row_value, row, numbers, limits.compact_live_ratio)
        preconditions += more[0]
        operations += more[1]
    return preconditions, operations


def bury(
    pack: bytes, value: bytes, row: PackRow, numbers: Iterable[int], live_ratio: float
) -> tuple[list[Precondition], list[Operation]]:
    """Mark slots of a pack dead; queue the pack once it is worth collecting, at each death anew."""
    slots = bytearray(row.slots)
    flags_at = SLOT.size - 9  # flags (1) and checksum (8) end a slot
    for number in numbers:
        slots[number * SLOT.size + flags_at] |= SLOT_DEAD
    after = PackRow(row.version, bytes(slots), row.stripe, row.seal)
    key = pack_key(pack)
    operations: list[Operation] = [Put(key, encode(after))]
    if live_share(after) < live_ratio:
        operations.append(Put(zero_pack_key(pack), b"", stamp_value=True))
    return [Equals(key, value, COUNT_TAG)], operations


def live_share(row: PackRow) -> float:
    """The part of a pack's stored bodies that is live; what compaction dropped is not counted. 0: all are dead."""
    live = stored = 0
    for slot in slots_of(row):
        if not slot.flags & SLOT_GONE:
            stored += slot.stored
            if not slot.flags & SLOT_DEAD:
                live += slot.stored
    return live / stored if stored else 0.0


def _counted(entries: Sequence[Entry]) -> "Counter[tuple[int, bytes, int]]":
    """References per target: slices of one chunk count one each."""
    counted: Counter[tuple[int, bytes, int]] = Counter()
    for entry in entries:
        if entry.kind not in (Kind.CHUNK, Kind.SLOT):
            raise Invalid("only chunks and slots are counted here")
        counted[entry.kind, entry.id, entry.slot] += 1
    return counted


def _counter_key(kind: int, name: bytes, slot: int) -> bytes:
    return chunk_counter_key(name) if kind == Kind.CHUNK else slot_counter_key(name, slot)
