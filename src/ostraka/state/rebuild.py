"""The index made anew from the truth: a snapshot, then the log behind it.

Rows of the snapshot come sorted and are appended, which is LMDB's fastest way in; the log's rows are merged over many
records before they are applied, so that a row that changed a thousand times is written once.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from ostraka.errors import Corrupt
from ostraka.limits import MIB
from ostraka.state import keys
from ostraka.state.log import Record
from ostraka.state.ordered import PAGE_SIZE, Map, Transaction
from ostraka.state.rows import DIGEST_MASK, row_hash, seal, unseal
from ostraka.state.snapshot import SnapshotReader

_ROWS_PER_TRANSACTION = 50_000
_RESERVE_PER_ROW = 3 * PAGE_SIZE  # a row in the midst of others may copy its leaf and branches
_RESERVE_OVERHEAD = 64


class Rebuilt(Struct, frozen=True):
    """What the rows in the index came to."""

    rows: int
    digest: int
    sequence: int
    log_bytes: int  # of the records behind the snapshot


def fill(index: Map, snapshot: SnapshotReader, records: Iterable[Record]) -> Rebuilt:
    """Load an empty index. Corrupt when the snapshot does not verify; Full; lmdb.Error."""
    count = _load(index, snapshot)
    digest, change = snapshot.header.digest, 0
    sequence, log_bytes = snapshot.header.sequence, 0
    merged: dict[bytes, bytes | None] = {}
    for record in records:
        merged.update(record.rows())
        sequence = record.last_sequence
        log_bytes += len(record.payload)
        if len(merged) >= _ROWS_PER_TRANSACTION:
            digest, step = _apply(index, merged, digest)
            change += step
            merged = {}
    digest, step = _apply(index, merged, digest)
    return Rebuilt(count + change + step, digest, sequence, log_bytes)


def _load(index: Map, snapshot: SnapshotReader) -> int:
    pending: list[tuple[bytes, bytes]] = []
    count = 0
    for block in snapshot.blocks():
        pending.extend(block)
        if len(pending) >= _ROWS_PER_TRANSACTION:
            _append(index, pending)
            count += len(pending)
            pending = []
    _append(index, pending)
    return count + len(pending)


def _append(index: Map, rows: list[tuple[bytes, bytes]]) -> None:
    txn = _begin(index, rows)
    try:
        cursor = txn.cursor(db=index.rows)
        run: list[tuple[bytes, bytes]] = []
        for key, value in rows:
            if len(key) <= keys.HEAD_SIZE:
                run.append((key, seal(key, value)))
                continue
            cursor.putmulti(run, append=True)
            run = []
            keys.store(txn, index, key, seal(key, value))
        cursor.putmulti(run, append=True)
        cursor.close()
        txn.commit()
    finally:
        txn.abort()


def _apply(index: Map, rows: dict[bytes, bytes | None], digest: int) -> tuple[int, int]:
    """Apply rows in one transaction; the digest after, and by how many rows the index grew."""
    ordered = sorted(rows.items())
    txn = _begin(index, ordered)
    change = 0
    try:
        for key, value in ordered:
            raw = keys.find(txn, index, key)
            if raw is not None:
                old = unseal(key, raw)
                if old is None:
                    raise Corrupt("a row of the index was damaged while it was built", reason="state_index")
                digest -= row_hash(key, old)
                change -= 1
            if value is not None:
                digest += row_hash(key, value)
                change += 1
                keys.store(txn, index, key, seal(key, value))
            elif raw is not None:
                keys.remove(txn, index, key)
        txn.commit()
    finally:
        txn.abort()
    return digest & DIGEST_MASK, change


def _begin(index: Map, rows: Iterable[tuple[bytes, bytes | None]]) -> Transaction:
    txn = index.begin(write=True)
    try:
        pages = data = 0
        for key, value in rows:
            pages += _RESERVE_PER_ROW
            data += len(key) + len(value or b"") + _RESERVE_OVERHEAD
        index.reserve(min(pages, index.size()) + 2 * data + MIB)
    except BaseException:
        txn.abort()
        raise
    return txn


def read_rows(txn: Transaction, index: Map) -> Iterator[tuple[bytes, bytes]]:
    """Every row of the index, verified, in order. Corrupt at the first that does not verify."""
    for key, raw in keys.walk(txn, index):
        value = unseal(key, raw)
        if value is None:
            raise Corrupt("a row of the index is damaged", reason="state_index")
        yield key, value
