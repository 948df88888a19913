"""The counters of chunks and slots, against the references that rows hold.

There may be many millions of references, so they are counted in a temporary file (SQLite), not in memory. The walk is
not at one moment: where it differs from the counters and the state moved meanwhile, it is done again, and only what
differs in the same way, over rows that did not change, is told.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from ostraka.chunks.references import bury
from ostraka.chunks.rows import (
    CHUNK_COUNTERS,
    CHUNKS,
    PACKS,
    SLOT_COUNTERS,
    SLOT_DEAD,
    SLOT_GONE,
    chunk_counter_key,
    chunk_key,
    decode_chunk,
    decode_pack,
    pack_key,
    slot_counter_key,
    slots_of,
    zero_chunk_key,
)
from ostraka.chunks.types import Kind
from ostraka.limits import LIMITS
from ostraka.objects.check import chunk_references
from ostraka.state import Absent, Delete, Equals, Mutation, Precondition, Put, State, counter, counter_value, rows_under

ROUNDS_MAX = 3
_BATCH = 2000


class Wrong(msgspec.Struct, frozen=True):
    """A count that does not fit. ``seen``: what it was judged on, so that a second walk can tell whether it stands."""

    kind: str
    message: str
    repair: Mutation | None
    seen: tuple[bytes, bytes | None, int]
    orphan_bytes: int = 0  # of a slot that no commit ever named: what a crashed write leaves, and no damage


def check_counters(state: State) -> list[Wrong]:
    """All that does not fit, and stays so while the state moves. Blocking. Raises Corrupt."""
    standing: dict[tuple[str, tuple[bytes, bytes | None, int]], Wrong] | None = None
    for _ in range(ROUNDS_MAX):
        before = state.sequence
        found = {(wrong.kind, wrong.seen): wrong for wrong in _round(state)}
        standing = found if standing is None else {key: w for key, w in found.items() if key in standing}
        if not standing or state.sequence == before:
            break
    return list((standing or {}).values())


def _round(state: State) -> Iterator[Wrong]:
    with tempfile.TemporaryDirectory(prefix="ostraka-fsck-") as directory:
        db = sqlite3.connect(Path(directory) / "references", isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA cache_size=-65536")
            db.execute("CREATE TABLE held (name BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID")
            _count(db, state)
            yield from _chunks(db, state)
            yield from _packs(db, state)
            yield from _dangling(db, state)
        finally:
            db.close()


def _count(db: sqlite3.Connection, state: State) -> None:
    references = chunk_references(state)
    while batch := list(islice(references, _BATCH)):
        names = [
            (chunk_key(e.id) if e.kind == Kind.CHUNK else pack_key(e.id) + e.slot.to_bytes(2, "big"),) for e in batch
        ]
        db.execute("BEGIN")
        db.executemany("INSERT INTO held VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET number = number + 1", names)
        db.execute("COMMIT")


def _held(db: sqlite3.Connection, name: bytes) -> int:
    row = db.execute("SELECT number FROM held WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def _chunks(db: sqlite3.Connection, state: State) -> Iterator[Wrong]:
    for key, value in rows_under(state, CHUNKS):
        decode_chunk(value)
        chunk = key[-32:]
        count_key = chunk_counter_key(chunk)
        stored = state.get(count_key)
        held, counted = _held(db, key), 0 if stored is None else counter(stored)
        unchanged: list[Precondition] = [Equals(key, value), Equals(count_key, stored)]
        if held != counted:
            right = Put(count_key, counter_value(held)) if held else Delete(count_key)
            queue = [] if held else [Put(zero_chunk_key(chunk), b"", stamp_value=True)]
            yield Wrong(
                "chunk-count",
                f"chunk {chunk.hex()} counts {counted} references, and has {held}",
                Mutation(unchanged, [right, *queue]),
                (count_key, stored, held),
            )
        elif not held and state.get(zero_chunk_key(chunk)) is None and state.get(key) == value:
            queue_key = zero_chunk_key(chunk)
            yield Wrong(
                "chunk-unqueued",
                f"chunk {chunk.hex()} has no references, and the collector does not know",
                Mutation([*unchanged, Absent(queue_key)], [Put(queue_key, b"", stamp_value=True)]),
                (queue_key, None, 0),
            )
    for key, value in rows_under(state, CHUNK_COUNTERS):
        chunk = key[-32:]
        row_key = chunk_key(chunk)
        if state.get(row_key) is None and not _held(db, row_key):
            yield Wrong(
                "chunk-count",
                f"references of chunk {chunk.hex()} are counted, and there is no such chunk",
                Mutation([Equals(key, value), Absent(row_key)], [Delete(key)]),
                (key, value, 0),
            )


def _packs(db: sqlite3.Connection, state: State) -> Iterator[Wrong]:
    for key, value in rows_under(state, PACKS):
        pack = key[1:]
        for number, slot in enumerate(slots_of(decode_pack(value))):
            held = _held(db, key + number.to_bytes(2, "big"))
            count_key = slot_counter_key(pack, number)
            stored = state.get(count_key)
            dead = bool(slot.flags & (SLOT_DEAD | SLOT_GONE))
            counted = counter(stored) if stored is not None else 0 if dead else 1
            if held == counted and not (dead and held):
                continue
            wrong = _slot(key, value, number, count_key, stored, held, counted, dead)
            if not held and stored is None:  # its neighbours committed the row, its own commit is to come, or never did
                wrong = msgspec.structs.replace(wrong, kind="orphan-slot", orphan_bytes=slot.stored)
            yield wrong
    for key, value in rows_under(state, SLOT_COUNTERS):
        row_key = pack_key(key[1:-2])
        if state.get(row_key) is None:
            yield Wrong(
                "slot-count",
                f"references of a slot of pack {key[1:-2].hex()} are counted, and there is no such pack",
                Mutation([Equals(key, value), Absent(row_key)], [Delete(key)]),
                (key, value, 0),
            )


def _slot(
    key: bytes, value: bytes, number: int, count_key: bytes, stored: bytes | None, held: int, counted: int, dead: bool
) -> Wrong:
    message = f"slot {number} of pack {key[1:].hex()} counts {counted} references, and has {held}"
    repair: Mutation | None = None
    unchanged: list[Precondition] = [Equals(key, value), Equals(count_key, stored)]
    if held and not dead:
        right = Put(count_key, counter_value(held)) if held > 1 else Delete(count_key)
        repair = Mutation(unchanged, [right])
    elif not held:
        more = bury(key[1:], value, decode_pack(value), [number], LIMITS.compact_live_ratio)
        repair = Mutation([*unchanged, *more[0]], [Delete(count_key), *more[1]])
    return Wrong("slot-count", message, repair, (count_key, stored, held))


def _dangling(db: sqlite3.Connection, state: State) -> Iterator[Wrong]:
    """References to what is not there: nothing here can mend them."""
    for name, number in db.execute("SELECT name, number FROM held"):
        name = bytes(name)
        row_key = name if name[:1] == CHUNKS else name[:-2]
        value = state.get(row_key)
        if value is not None and (name[:1] == CHUNKS or _has_slot(value, int.from_bytes(name[-2:], "big"))):
            continue
        what = (
            f"chunk {name[-32:].hex()}" if name[:1] == CHUNKS else f"slot {name[-2:].hex()} of pack {name[1:-2].hex()}"
        )
        yield Wrong("missing", f"{what} is referred to {number} times, and is not there", None, (name, value, number))


def _has_slot(value: bytes, number: int) -> bool:
    return number < len(slots_of(decode_pack(value)))
