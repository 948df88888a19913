"""The superblock: what a disk says of itself, and of the store it belongs to (docs/format/superblock.md).

A superblock is one small file, replaced as a whole by law 9. It carries the newest *epoch* that this disk has seen:
the membership of the store, numbered and with a random id. This module knows the bytes and nothing of what an epoch
means for reading and writing: that is ``membership``.
"""

from pathlib import Path

import msgspec
import xxhash

from ostraka.errors import Corrupt, Refused
from ostraka.host import Files

MAGIC = b"OSTRAKA\x00"  # 8 bytes
VERSION = 1  # u16, big-endian
HEADER_SIZE = 14  # magic 8, version 2, payload length 4
CHECKSUM_SIZE = 8  # xxh3_64 of everything before it, big-endian
PAYLOAD_SIZE_MAX = 4 << 20
NAME = "superblock"


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One disk of a store, as an epoch has it."""

    number: int  # small, given once, never reused: what stripes name
    disk_id: bytes  # 16 random bytes: what the directory says it is
    up: bool
    state: bool  # carries a copy of the state
    since: int  # the epoch in which it last came up: a disk that has not seen it is stale
    healing: bool = False  # it came back or is new: its shards count once the heal job has verified them
    path: str = ""  # where a disk that joined a serving store is, for the other processes; directories may move later
    draining: int = 0  # the epoch since which it gets nothing new, because it is to leave; 0: it stays


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """A membership, as committed on a strict majority. ``history`` proves that an older epoch is an ancestor."""

    number: int
    id: bytes  # 16 random bytes: two halves that were changed apart differ here
    k: int
    m: int
    members: tuple[Member, ...]
    next_number: int  # the next disk number to give
    history: tuple[bytes, ...]  # ids of the epochs before, newest first, at most HISTORY_MAX

    def member(self, number: int) -> Member | None:
        """The member of that number."""
        return next((d for d in self.members if d.number == number), None)

    def descends_from(self, other: "Epoch") -> bool:
        """Whether other is this epoch or one of its ancestors."""
        back = self.number - other.number
        if back == 0:
            return self.id == other.id
        if back < 0:
            return False
        return back > len(self.history) or self.history[back - 1] == other.id


HISTORY_MAX = 4096


class Superblock(msgspec.Struct, frozen=True, array_like=True):
    """What one disk says."""

    store_id: bytes  # 16 random bytes
    disk_id: bytes
    formed: bool  # False while the first format is under way: such a disk holds nothing that was acknowledged
    epoch: Epoch


def encode(block: Superblock) -> bytes:
    """The file's content."""
    payload = msgspec.msgpack.encode(block)
    head = MAGIC + VERSION.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload
    return head + xxhash.xxh3_64_digest(head)


def decode(content: bytes, where: str) -> Superblock:
    """The opposite; ``where`` names the file in errors. Raises Corrupt, or Refused for a newer version."""
    if len(content) < HEADER_SIZE + CHECKSUM_SIZE or content[:8] != MAGIC:
        raise Corrupt(f"{where} is not an Ostraka superblock", reason="superblock")
    end = len(content) - CHECKSUM_SIZE
    if xxhash.xxh3_64_digest(content[:end]) != content[end:]:  # so in every version: first of all it must be whole
        raise Corrupt(f"{where} does not match its checksum", reason="superblock")
    version, length = int.from_bytes(content[8:10], "big"), int.from_bytes(content[10:14], "big")
    if version != VERSION:
        raise Refused(
            f"{where} has format version {version}, this program knows {VERSION}: use the release that wrote it",
            reason="version",
        )
    if length > PAYLOAD_SIZE_MAX or end != HEADER_SIZE + length:
        raise Corrupt(f"{where} is {len(content)} bytes long, which does not fit its header", reason="superblock")
    try:
        return msgspec.msgpack.decode(content[HEADER_SIZE:end], type=Superblock)
    except msgspec.ValidationError as e:
        raise Corrupt(f"{where}: {e}", reason="superblock") from None


def read(files: Files, disk: Path) -> Superblock | None:
    """The superblock of a directory, None if there is none. Raises OSError, Corrupt, Refused."""
    path = disk / NAME
    try:
        content = files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode(content, str(path))


def write(files: Files, disk: Path, block: Superblock) -> None:
    """Replace the superblock; durable when it returns. Raises OSError."""
    files.publish(disk / NAME, encode(block))
