"""The log: what was committed, in order, in files that are written once (docs/format/state-log.md).

A log file is a header of 512 bytes and records behind it. Files grow by zeros ahead of the records, because a sync
that overwrites zeros costs two thirds of one that extends the file; zeros where a record would begin are the end. A
file is written together with its first record, so a file whose first record is not whole counts as not written.
Where a later file begins at commit F, what earlier files hold from F on is superseded.

Values in a record come from outside. So that no value can pass for a record where a reader looks for the next one
behind damage, the checksum of a record's head is seeded by the file's random incarnation, which nobody is told.

This module knows the bytes of one file: encoding, scanning, and telling a torn tail from damage. A record ends with a
byte that is not zero. One that was cut short by a crash has a zero there, or a whole sector that still holds the zeros
from before. A record that was written whole and does not verify is damage, and damage is never taken for an end.
"""

import enum
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import Struct

from ostraka.errors import Corrupt, Refused
from ostraka.host import File
from ostraka.limits import MIB
from ostraka.state.rows import Row, checksum, decode_rows

LOG_MAGIC = b"OSTRALOG"
LOG_VERSION = 1
LOG_HEADER_SIZE = 512
# magic, version, zero, zero, store id, disk id, incarnation, epoch, first commit; zeros; checksum of all before it
_LOG_HEADER = struct.Struct("<8sHHI16s16s16sQQ")

RECORD_MAGIC = b"OsR1"
RECORD_HEADER_SIZE = 80
RECORD_END = b"\x5a"  # after the payload
# magic, flags, zero, payload size, rows, mutations, ids size, epoch, commit, first sequence, digest after,
# payload checksum; then the checksum of these
_RECORD = struct.Struct("<4sHHIIIIQQQ16sQ")
_CHECKSUM = struct.Struct("<Q")
_ID = struct.Struct("<IB")
FLAG_CLOSE = 1  # a clean stop: no rows, and the number, sequence and digest of the commit before

SECTOR_SIZE = 512
_SCAN_SIZE = 4 * MIB
_NAME = re.compile(r"log-([0-9a-f]{16})-([0-9a-f]{4})\.ost")


def log_name(first_commit: int, turn: int) -> str:
    """The name of a log file; ``turn`` tells files apart that begin at the same commit, later ones sort last."""
    return f"log-{first_commit:016x}-{turn:04x}.ost"


def parse_log_name(name: str) -> tuple[int, int] | None:
    """(first commit, turn) of a log file's name, or None for any other name."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


class LogHeader(Struct, frozen=True):
    """What a log file says of itself."""

    store: bytes
    disk: bytes
    incarnation: bytes
    epoch: int
    first_commit: int


class Record(Struct, frozen=True):
    """One commit: the rows as they are after it. ``payload`` holds rows and ids as they were written."""

    commit: int
    epoch: int
    first_sequence: int
    mutations: int
    digest: int
    row_count: int
    ids_size: int
    payload: bytes
    close: bool = False

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + self.mutations - 1

    def rows(self) -> Iterator[Row]:
        return decode_rows(self.payload[: len(self.payload) - self.ids_size], self.row_count)

    def ids(self) -> list[tuple[int, bytes]]:
        """(index of the mutation among those applied, its id)."""
        found, data = [], self.payload[len(self.payload) - self.ids_size :]
        at = 0
        while at < len(data):
            index, size = _ID.unpack_from(data, at)
            at += _ID.size
            found.append((index, data[at : at + size]))
            at += size
        return found


def encode_header(header: LogHeader) -> bytes:
    packed = _LOG_HEADER.pack(
        LOG_MAGIC,
        LOG_VERSION,
        0,
        0,
        header.store,
        header.disk,
        header.incarnation,
        header.epoch,
        header.first_commit,
    )
    packed = packed.ljust(LOG_HEADER_SIZE - _CHECKSUM.size, b"\0")
    return packed + _CHECKSUM.pack(checksum(packed))


def decode_header(data: bytes) -> LogHeader:
    """Corrupt when it does not verify; Refused when it was written by a newer version."""
    if len(data) < LOG_HEADER_SIZE or data[:8] != LOG_MAGIC:
        raise Corrupt("no state log begins here", reason="state_log")
    body = data[: LOG_HEADER_SIZE - _CHECKSUM.size]
    if checksum(body) != _CHECKSUM.unpack_from(data, len(body))[0]:
        raise Corrupt("the header of a state log is damaged", reason="state_log")
    _, version, _, _, store, disk, incarnation, epoch, first = _LOG_HEADER.unpack_from(body)
    if version != LOG_VERSION:
        raise Refused(f"a state log of version {version}; this Ostraka reads version {LOG_VERSION}", reason="version")
    return LogHeader(store, disk, incarnation, epoch, first)


def encode_ids(ids: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join([_ID.pack(index, len(id_)) + id_ for index, id_ in ids])


def seed_of(incarnation: bytes) -> int:
    """The seed of the head checksums in a file of that incarnation."""
    return int.from_bytes(incarnation[:8], "little")


def encode_record(record: Record, seed: int) -> bytes:
    payload = record.payload
    head = _RECORD.pack(
        RECORD_MAGIC,
        FLAG_CLOSE if record.close else 0,
        0,
        len(payload),
        record.row_count,
        record.mutations,
        record.ids_size,
        record.epoch,
        record.commit,
        record.first_sequence,
        record.digest.to_bytes(16, "big"),
        checksum(payload),
    )
    return b"".join((head, _CHECKSUM.pack(checksum(head, seed)), payload, RECORD_END))


class _Head(Struct, frozen=True):
    record: Record  # without its payload
    payload_size: int
    payload_checksum: int


def _decode_head(data: bytes, seed: int) -> _Head | None:
    """The head of a record, or None when it does not verify."""
    if len(data) < RECORD_HEADER_SIZE or data[:4] != RECORD_MAGIC:
        return None
    if checksum(data[: _RECORD.size], seed) != _CHECKSUM.unpack_from(data, _RECORD.size)[0]:
        return None
    _, flags, _, size, rows, mutations, ids_size, epoch, commit, first, digest, payload_checksum = _RECORD.unpack_from(
        data
    )
    if flags & ~FLAG_CLOSE:
        raise Refused("a state log record with flags that this Ostraka does not know", reason="version")
    record = Record(
        commit, epoch, first, mutations, int.from_bytes(digest, "big"), rows, ids_size, b"", bool(flags & FLAG_CLOSE)
    )
    return _Head(record, size, payload_checksum)


class End(enum.Enum):
    """How a log file ends."""

    CLEAN = "clean"  # after a whole record
    TORN = "torn"  # in a record that a crash cut
    DAMAGED = "damaged"  # in or before a record that had been written whole


@dataclass(slots=True)
class Damage:
    """A stretch of a log file that does not verify."""

    offset: int
    size: int
    note: str


@dataclass(slots=True)
class Found:
    """A whole record, where it is, and the stretch that was passed over to find it."""

    offset: int
    size: int
    record: Record
    skipped: Damage | None = None


@dataclass(slots=True)
class ScanEnd:
    """Where the records of a file end, and how."""

    end: End
    offset: int
    damage: Damage | None = None


class LogReader:
    """Reads one log file from its header, or from the end of a known record, to its end."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._size = file.size()
        self._buffer = b""
        self._buffer_at = 0

        self._seed = 0

    def header(self) -> LogHeader:
        """Read first: records verify only against it. Corrupt, Refused."""
        header = decode_header(self._bytes(0, LOG_HEADER_SIZE))
        self._seed = seed_of(header.incarnation)
        return header

    def header_is_unwritten(self) -> bool:
        """The header's sector still holds what was there before: zeros, or nothing."""
        return not self._bytes(0, LOG_HEADER_SIZE).strip(b"\0")

    def records(self, offset: int = LOG_HEADER_SIZE) -> Iterator[Found | ScanEnd]:
        """Every whole record from offset on, then one ScanEnd. Damage is passed over if records follow it."""
        skipped: Damage | None = None
        at = offset
        while True:
            found = self._record_at(at)
            if found is not None:
                found.skipped, skipped = skipped, None
                yield found
                at += found.size
                continue
            damage, resume = self._examine(at)
            if resume is None:
                yield damage if isinstance(damage, ScanEnd) else ScanEnd(End.DAMAGED, at, damage)
                return
            assert isinstance(damage, Damage)
            skipped = damage if skipped is None else Damage(skipped.offset, resume - skipped.offset, skipped.note)
            at = resume

    def _record_at(self, at: int) -> Found | None:
        head = _decode_head(self._bytes(at, RECORD_HEADER_SIZE), self._seed)
        if head is None:
            return None
        body = self._bytes(at + RECORD_HEADER_SIZE, head.payload_size + len(RECORD_END))
        payload = body[: head.payload_size]
        if body[head.payload_size :] != RECORD_END or checksum(payload) != head.payload_checksum:
            return None
        r = head.record
        record = Record(
            r.commit, r.epoch, r.first_sequence, r.mutations, r.digest, r.row_count, r.ids_size, payload, r.close
        )
        return Found(at, RECORD_HEADER_SIZE + len(body), record)

    def _examine(self, at: int) -> tuple[Damage | ScanEnd, int | None]:
        """What is at ``at`` instead of a whole record, and where the next whole record is, if there is one."""
        resume = self._next_record(at + 1)
        if resume is not None:
            return Damage(at, resume - at, "a record does not verify, and others follow it"), resume
        if self._is_zero(at, self._size):
            return ScanEnd(End.CLEAN, at), None
        head = _decode_head(self._bytes(at, RECORD_HEADER_SIZE), self._seed)
        if head is None:
            end = at + RECORD_HEADER_SIZE
            cut = self._is_zero(end, self._size)
        else:
            end = at + RECORD_HEADER_SIZE + head.payload_size + len(RECORD_END)
            cut = end > self._size or self._bytes(end - 1, 1) == b"\0"
        if cut or self._has_unwritten_sector(at, end):
            return ScanEnd(End.TORN, at), None
        return Damage(at, end - at, "a record had been written whole and does not verify"), None

    def _has_unwritten_sector(self, start: int, end: int) -> bool:
        """Whether some 512-byte sector, as far as it lies in start..end, is all zeros."""
        at = start
        while at < end:
            stop = min((at // SECTOR_SIZE + 1) * SECTOR_SIZE, end)
            if not self._bytes(at, stop - at).strip(b"\0"):
                return True
            at = stop
        return False

    def _is_zero(self, start: int, end: int) -> bool:
        for at in range(start, end, _SCAN_SIZE):
            data = self._bytes(at, min(_SCAN_SIZE, end - at))
            if data.count(0) != len(data):
                return False
        return True

    def _next_record(self, start: int) -> int | None:
        """The offset of the first whole record at or after start."""
        at = start
        while at < self._size:
            data = self._bytes(at, min(_SCAN_SIZE, self._size - at))
            index = data.find(RECORD_MAGIC)
            while index >= 0:
                if self._record_at(at + index) is not None:
                    return at + index
                index = data.find(RECORD_MAGIC, index + 1)
            at += max(len(data) - len(RECORD_MAGIC) + 1, 1) if len(data) == _SCAN_SIZE else len(data)
        return None

    def _bytes(self, at: int, size: int) -> bytes:
        """Bytes at offset, fewer only at the end of the file."""
        start = at - self._buffer_at
        if start >= 0 and start + size <= len(self._buffer):
            return self._buffer[start : start + size]
        wanted = max(0, min(max(size, _SCAN_SIZE), self._size - at))
        target = bytearray(wanted)
        view, done = memoryview(target), 0
        while done < wanted:
            count = self._file.preadv([view[done:]], at + done)
            if count == 0:
                break
            done += count
        self._buffer, self._buffer_at = bytes(view[:done]), at
        return self._buffer[:size]
