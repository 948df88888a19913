"""The one row of the index that says which commit it shows and where each copy's log ends.

It is read and written inside the writing transaction of every commit, so that all processes share it: who writes
next knows what is durable, which copies count, and at which byte to look for the record of a writer that died.
"""

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_digest

from ostraka.errors import Corrupt
from ostraka.state.ordered import Map, Transaction
from ostraka.state.rows import TRAILER_SIZE

_KEY = b"state"


class Position(Struct, frozen=True, array_like=True):
    """Where a copy's log ends. No ``name``: the next record begins a new file."""

    disk: bytes
    path: str
    name: str = ""
    end: int = 0  # records end here
    zeroed: int = 0  # and the file is zeros up to here


class Meta(Struct, frozen=True, array_like=True):
    """The moment that the index shows."""

    store: bytes
    epoch: int
    commit: int
    sequence: int
    digest: bytes  # 16 bytes, big-endian
    copies: tuple[Position, ...]
    log_bytes: int = 0  # in the log since the last snapshot
    log_files: int = 0  # begun since the last snapshot
    snapshot_commit: int = 0
    snapshot_size: int = 0
    stopped: str = ""  # why no commit may be tried before the next recovery


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode


def load_meta(txn: Transaction, index: Map) -> Meta | None:
    """The meta row; None when the index was never finished. Corrupt."""
    raw = txn.get(_KEY, db=index.meta)
    if raw is None:
        return None
    data = raw[:-TRAILER_SIZE]
    if xxh3_64_digest(data) != raw[-TRAILER_SIZE:]:
        raise Corrupt("the meta row of the index is damaged", reason="state_index")
    return _decode(data)


def store_meta(txn: Transaction, index: Map, meta: Meta) -> None:
    data = _encode(meta)
    txn.put(_KEY, data + xxh3_64_digest(data), db=index.meta)
