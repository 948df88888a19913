"""A row: how it is sealed, hashed, and laid out one after another in logs and snapshots.

One 128-bit xxh3 of a row serves twice. Its low 64 bits are the trailer that follows the value in the index, so that a
read sees damage. And all 128 are summed, modulo 2**128, over all rows: the state digest, which does not depend on
order, can be kept up while rows come and go, and makes copies, snapshots and the index comparable.

The key's length seeds the hash, so that bytes cannot move between key and value unseen.
"""

import struct
from collections.abc import Iterable, Iterator

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from ostraka.errors import Corrupt

TRAILER_SIZE = 8
DIGEST_MASK = 2**128 - 1
TOMBSTONE = 0xFFFFFFFF

_ROW = struct.Struct("<HI")  # key size, value size or TOMBSTONE; then key, value
ROW_HEADER_SIZE = 6
_pack_row = _ROW.pack
_unpack_row = _ROW.unpack_from

Row = tuple[bytes, bytes | None]  # None: the row is removed


def seal(key: bytes, value: bytes) -> bytes:
    """The value as it is stored in the index: with a checksum that is bound to its key."""
    return value + xxh3_128_digest(key + value, len(key))[8:]


def unseal(key: bytes, raw: bytes) -> bytes | None:
    """The value, or None when it does not belong to that key as it is."""
    value = raw[:-TRAILER_SIZE]
    return value if xxh3_128_digest(key + value, len(key))[8:] == raw[-TRAILER_SIZE:] else None


def row_hash(key: bytes, value: bytes) -> int:
    """What the row adds to the state digest."""
    return int.from_bytes(xxh3_128_digest(key + value, len(key)), "big")


def checksum(data: bytes | bytearray | memoryview, seed: int = 0) -> int:
    """The 64-bit checksum of headers, payloads and blocks."""
    return xxh3_64_intdigest(data, seed)


def encode_rows(rows: Iterable[Row]) -> bytes:
    """Rows one after another; a removed one has the value size TOMBSTONE and no value."""
    parts: list[bytes] = []
    add = parts.append
    for key, value in rows:
        if value is None:
            add(_pack_row(len(key), TOMBSTONE))
            add(key)
        else:
            add(_pack_row(len(key), len(value)))
            add(key)
            add(value)
    return b"".join(parts)


def decode_rows(data: bytes, count: int) -> Iterator[Row]:
    """The opposite of `encode_rows`. The caller has verified data; what contradicts count is Corrupt."""
    at, end = 0, len(data)
    for _ in range(count):
        if at + ROW_HEADER_SIZE > end:
            raise Corrupt("a row begins beyond its block", reason="state")
        key_size, value_size = _unpack_row(data, at)
        at += ROW_HEADER_SIZE
        value_at = at + key_size
        if value_size == TOMBSTONE:
            if value_at > end:
                raise Corrupt("a row ends beyond its block", reason="state")
            yield data[at:value_at], None
            at = value_at
        else:
            key, at_next = data[at:value_at], value_at + value_size
            if at_next > end:
                raise Corrupt("a row ends beyond its block", reason="state")
            yield key, data[value_at:at_next]
            at = at_next
    if at != end:
        raise Corrupt("bytes after the last row of a block", reason="state")
