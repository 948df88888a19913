"""Where seals stand: in the rows of chunks, of packs, and of versions whose inline body is encrypted.

For who goes through all of them: the job that wraps data keys anew, and fsck, which asks whether each names a key.
"""

from typing import NamedTuple

import msgspec

from ostraka.chunks.rows import CHUNKS, PACKS, ChunkRow, PackRow, decode_chunk, decode_pack
from ostraka.chunks.sealing import of_chunk, of_pack
from ostraka.objects.encryption import INLINE
from ostraka.objects.rows import VERSION, VersionRecord, encode, version_of

TABLES = (VERSION, CHUNKS, PACKS)  # in the order of their keys


class Sealed(NamedTuple):
    """A row with a seal. ``of``: what the seal is bound to."""

    row: ChunkRow | PackRow | VersionRecord
    seal: bytes
    of: bytes

    def with_seal(self, seal: bytes) -> bytes:
        """The row's value with another seal."""
        return encode(msgspec.structs.replace(self.row, seal=seal))


def sealed(key: bytes, value: bytes) -> Sealed | None:
    """A row of these tables; None if it is not encrypted. Raises Corrupt and Refused."""
    row: ChunkRow | PackRow | VersionRecord
    if key[:1] == CHUNKS:
        row, of = decode_chunk(value), of_chunk(key[-32:])
    elif key[:1] == PACKS:
        row, of = decode_pack(value), of_pack(key[1:])
    else:
        row, of = version_of(value), INLINE
    return None if row.seal is None else Sealed(row, row.seal, of)
