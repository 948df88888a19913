"""Keys of any length in a map whose keys are short (ENGINE 11), in plain byte order.

A key of at most HEAD_SIZE bytes is a row of ``rows`` under itself. A longer one goes through an anchor: a row of
``rows`` whose key is the first HEAD_SIZE bytes and one byte more, and whose value is a head id. The rest of the key,
behind that head id, is a row of ``tails``, where the same is done again if it is still too long.

Byte order is kept: an anchor is longer than every short key, so it cannot be one; it sorts directly after the short
key that equals its head; and every short key above that head sorts above everything that begins with the head.
The last tail that goes takes its anchors along.
"""

from collections.abc import Iterator

from xxhash import xxh3_64_digest

from ostraka.errors import Corrupt
from ostraka.state.ordered import Map, Table, Transaction
from ostraka.state.rows import TRAILER_SIZE
from ostraka.state.types import prefix_end

HEAD_SIZE = 480
HEAD_ID_SIZE = 8
_BEYOND = b"\xff" * (HEAD_SIZE + 1)  # above every key that is short enough to stand for itself
_MARK = b"\x00"
_LAST_HEAD = b"head"  # row of ``meta``: the last head id given out


def find(txn: Transaction, index: Map, key: bytes) -> bytes | None:
    """The raw (sealed) row at key, or None."""
    table = index.rows
    while len(key) > HEAD_SIZE:
        head_id = _read_anchor(txn, table, key[:HEAD_SIZE] + _MARK)
        if head_id is None:
            return None
        table, key = index.tails, head_id + key[HEAD_SIZE:]
    return txn.get(key, db=table)


def store(txn: Transaction, index: Map, key: bytes, raw: bytes) -> None:
    """Put the raw row at key."""
    table = index.rows
    while len(key) > HEAD_SIZE:
        anchor = key[:HEAD_SIZE] + _MARK
        head_id = _read_anchor(txn, table, anchor)
        if head_id is None:
            head_id = _new_head_id(txn, index)
            txn.put(anchor, head_id + xxh3_64_digest(anchor + head_id), db=table)
        table, key = index.tails, head_id + key[HEAD_SIZE:]
    txn.put(key, raw, db=table)


def remove(txn: Transaction, index: Map, key: bytes) -> None:
    """Remove the row at key, and the anchors that lead to nothing else."""
    table = index.rows
    anchors: list[tuple[Table, bytes, bytes]] = []
    while len(key) > HEAD_SIZE:
        anchor = key[:HEAD_SIZE] + _MARK
        head_id = _read_anchor(txn, table, anchor)
        if head_id is None:
            return
        anchors.append((table, anchor, head_id))
        table, key = index.tails, head_id + key[HEAD_SIZE:]
    txn.delete(key, db=table)
    for table, anchor, head_id in reversed(anchors):
        cursor = txn.cursor(db=index.tails)
        others = cursor.set_range(head_id) and cursor.key().startswith(head_id)
        cursor.close()
        if others:
            return
        txn.delete(anchor, db=table)


def walk(
    txn: Transaction, index: Map, start: bytes = b"", end: bytes | None = None, reverse: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """(key, raw row) of start <= key < end in byte order, or its reverse. Nothing may be written meanwhile."""
    return (_down if reverse else _up)(txn, index, index.rows, b"", start, end)


def _up(
    txn: Transaction, index: Map, table: Table, base: bytes, start: bytes, end: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """What follows ``base`` in the keys of table, from start to end, with anchors followed down."""
    cursor = txn.cursor(db=table)
    skip = len(base)
    stop = end if end is not None else _BEYOND
    if not cursor.set_range(_physical(base + start) or b"\x00"):
        return
    for key, raw in cursor.iternext():
        if skip:
            if not key.startswith(base):
                return
            rest = key[skip:]
        else:
            rest = key
        if len(key) <= HEAD_SIZE:
            if rest >= stop:
                return
            yield rest, raw
            continue
        head = key[skip:HEAD_SIZE]
        if end is not None and head >= end:
            return
        below = _up(txn, index, index.tails, _head_id(key, raw), _below(start, head) or b"", _below(end, head))
        for rest, row in below:
            yield head + rest, row


def _down(
    txn: Transaction, index: Map, table: Table, base: bytes, start: bytes, end: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """As `_up`, from end down to start."""
    cursor = txn.cursor(db=table)
    skip = len(base)
    top = prefix_end(base) if end is None else _physical(base + end)
    if top is None or not cursor.set_range(top):
        found = cursor.last()
    elif end is not None and len(base) + len(end) > HEAD_SIZE and cursor.key() == top:
        found = True  # the anchor that end itself goes through: some of its tails may be below end
    else:
        found = cursor.prev()
    if not found:
        return
    for key, raw in cursor.iterprev():
        if not key.startswith(base):
            return
        if len(key) <= HEAD_SIZE:
            rest = key[skip:]
            if rest < start:
                return
            yield rest, raw
            continue
        head = key[skip:HEAD_SIZE]
        if head < start and not start.startswith(head):
            return
        below = _down(txn, index, index.tails, _head_id(key, raw), _below(start, head) or b"", _below(end, head))
        for rest, row in below:
            yield head + rest, row


def _physical(key: bytes) -> bytes:
    """Where a key begins in its table: itself, or its anchor."""
    return key if len(key) <= HEAD_SIZE else key[:HEAD_SIZE] + _MARK


def _below(bound: bytes | None, head: bytes) -> bytes | None:
    """A bound of the whole key, as a bound of what follows head; None: it does not bound there."""
    return bound[len(head) :] if bound is not None and bound.startswith(head) else None


def _read_anchor(txn: Transaction, table: Table, anchor: bytes) -> bytes | None:
    raw = txn.get(anchor, db=table)
    return None if raw is None else _head_id(anchor, raw)


def _head_id(anchor: bytes, raw: bytes) -> bytes:
    head_id = raw[:HEAD_ID_SIZE]
    if len(raw) != HEAD_ID_SIZE + TRAILER_SIZE or xxh3_64_digest(anchor + head_id) != raw[HEAD_ID_SIZE:]:
        raise Corrupt("a head id in the index is damaged", reason="state_index")
    return head_id


def _new_head_id(txn: Transaction, index: Map) -> bytes:
    raw = txn.get(_LAST_HEAD, db=index.meta)
    last = 0 if raw is None else int.from_bytes(_head_id(_LAST_HEAD, raw), "big")
    head_id = (last + 1).to_bytes(HEAD_ID_SIZE, "big")
    txn.put(_LAST_HEAD, head_id + xxh3_64_digest(_LAST_HEAD + head_id), db=index.meta)
    return head_id
