"""A snapshot: all rows as one commit left them, sorted, in blocks that verify (docs/format/state-snapshot.md).

Header (512 bytes), blocks of about a mebibyte, a block index, a trailer. The file is the same, byte for byte, on every
copy. It is written under a staging name, read back and verified, and only then takes its own name (law 9): a file
that bears the name of a snapshot was whole once.
"""

import contextlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct
from xxhash import xxh3_64

from ostraka.errors import Corrupt, Refused
from ostraka.host import File, Files
from ostraka.limits import MIB
from ostraka.state.rows import DIGEST_MASK, checksum, decode_rows, encode_rows, row_hash

SNAPSHOT_MAGIC = b"OSTRASNP"
SNAPSHOT_VERSION = 1
SNAPSHOT_HEADER_SIZE = 512
# magic, version, zero, zero, store id, epoch, commit, sequence, digest
_HEADER = struct.Struct("<8sHHI16sQQQ16s")
BLOCK_MAGIC = b"OsB1"
BLOCK_HEADER_SIZE = 32
_BLOCK = struct.Struct("<4sIIIQ")  # magic, payload size, rows, zero, payload checksum; then the checksum of these
TRAILER_MAGIC = b"OsT1"
SNAPSHOT_TRAILER_SIZE = 64
_TRAILER = struct.Struct("<4sIQQ16sQQ")  # magic, zero, rows, blocks, digest, index offset, index size; then checksum
_CHECKSUM = struct.Struct("<Q")
_OFFSET = struct.Struct("<Q")

BLOCK_SIZE = 1 * MIB  # a block is closed at or above this
_UNSYNCED_MAX = 4 * MIB  # of a file that is being written: what a commit's sync on the same disk may have to wait for
_NAME = re.compile(r"snapshot-([0-9a-f]{16})\.ost")
STAGING_SUFFIX = ".staging"


class SnapshotHeader(Struct, frozen=True):
    """What moment a snapshot shows."""

    store: bytes
    epoch: int
    commit: int
    sequence: int
    digest: int


def snapshot_name(commit: int) -> str:
    return f"snapshot-{commit:016x}.ost"


def parse_snapshot_name(name: str) -> int | None:
    """The commit of a snapshot's name, or None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def encode_header(header: SnapshotHeader) -> bytes:
    packed = _HEADER.pack(
        SNAPSHOT_MAGIC,
        SNAPSHOT_VERSION,
        0,
        0,
        header.store,
        header.epoch,
        header.commit,
        header.sequence,
        header.digest.to_bytes(16, "big"),
    ).ljust(SNAPSHOT_HEADER_SIZE - _CHECKSUM.size, b"\0")
    return packed + _CHECKSUM.pack(checksum(packed))


def decode_header(data: bytes) -> SnapshotHeader:
    """Corrupt when it does not verify; Refused when it was written by a newer version."""
    if len(data) < SNAPSHOT_HEADER_SIZE or data[:8] != SNAPSHOT_MAGIC:
        raise Corrupt("no state snapshot begins here", reason="state_snapshot")
    body = data[: SNAPSHOT_HEADER_SIZE - _CHECKSUM.size]
    if checksum(body) != _CHECKSUM.unpack_from(data, len(body))[0]:
        raise Corrupt("the header of a state snapshot is damaged", reason="state_snapshot")
    _, version, _, _, store, epoch, commit, sequence, digest = _HEADER.unpack_from(body)
    if version != SNAPSHOT_VERSION:
        raise Refused(
            f"a state snapshot of version {version}; this Ostraka reads version {SNAPSHOT_VERSION}", reason="version"
        )
    return SnapshotHeader(store, epoch, commit, sequence, int.from_bytes(digest, "big"))


def encode_block(rows: list[tuple[bytes, bytes]]) -> bytes:
    payload = encode_rows(rows)
    head = _BLOCK.pack(BLOCK_MAGIC, len(payload), len(rows), 0, checksum(payload))
    return head + _CHECKSUM.pack(checksum(head)) + payload


class SnapshotWriter:
    """Builds a snapshot's bytes, piece by piece; ``write`` is given each piece, in order."""

    def __init__(self, header: SnapshotHeader, write: Callable[[bytes], None]) -> None:
        self._header = header
        self._write = write
        self._block: list[tuple[bytes, bytes]] = []
        self._block_size = 0
        self._starts: list[tuple[bytes, bytes]] = []
        self.offset = 0
        self.rows = 0
        self.digest = 0
        self._put(encode_header(header))

    def add(self, key: bytes, value: bytes) -> None:
        """The next row, in ascending order."""
        if not self._block:
            self._starts.append((key, _OFFSET.pack(self.offset)))
        self._block.append((key, value))
        self._block_size += len(key) + len(value)
        self.digest += row_hash(key, value)
        self.rows += 1
        if self._block_size >= BLOCK_SIZE:
            self._flush()

    def finish(self) -> None:
        """Write what is left. Corrupt when the rows do not come to the digest of the header."""
        self.digest &= DIGEST_MASK
        if self.digest != self._header.digest:
            raise Corrupt("the rows for a snapshot do not come to the digest of their commit", reason="state_index")
        if self._block:
            self._flush()
        blocks, index_offset = len(self._starts), self.offset
        self._put(encode_block(self._starts))
        body = _TRAILER.pack(
            TRAILER_MAGIC,
            0,
            self.rows,
            blocks,
            self.digest.to_bytes(16, "big"),
            index_offset,
            self.offset - index_offset,
        )
        self._put(body + _CHECKSUM.pack(checksum(body)))

    def _flush(self) -> None:
        self._put(encode_block(self._block))
        self._block, self._block_size = [], 0

    def _put(self, data: bytes) -> None:
        self._write(data)
        self.offset += len(data)


class SnapshotReader:
    """Reads a snapshot; every byte it gives was verified. Corrupt otherwise."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.size = file.size()
        self.header = decode_header(self._bytes(0, SNAPSHOT_HEADER_SIZE))
        body = self._bytes(max(0, self.size - SNAPSHOT_TRAILER_SIZE), SNAPSHOT_TRAILER_SIZE)
        if len(body) < SNAPSHOT_TRAILER_SIZE or body[:4] != TRAILER_MAGIC:
            raise Corrupt("a state snapshot has no end", reason="state_snapshot")
        if checksum(body[: _TRAILER.size]) != _CHECKSUM.unpack_from(body, _TRAILER.size)[0]:
            raise Corrupt("the trailer of a state snapshot is damaged", reason="state_snapshot")
        _, _, self.row_count, blocks, digest, self._index_offset, index_size = _TRAILER.unpack_from(body)
        if int.from_bytes(digest, "big") != self.header.digest:
            raise Corrupt("header and trailer of a state snapshot differ", reason="state_snapshot")
        if self._index_offset + index_size + SNAPSHOT_TRAILER_SIZE != self.size:
            raise Corrupt("a state snapshot has lost bytes", reason="state_snapshot")
        index, _ = self._block(self._index_offset)
        self._starts = [(key, _OFFSET.unpack(offset)[0]) for key, offset in index]
        if len(self._starts) != blocks:
            raise Corrupt("the block index of a state snapshot is damaged", reason="state_snapshot")

    def blocks(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """The rows, a block at a time, in order; at the end the count and the digest are checked as well."""
        digest = rows = 0
        at, last = SNAPSHOT_HEADER_SIZE, b""
        for _, offset in self._starts:
            if offset != at:
                raise Corrupt("blocks of a state snapshot do not follow one another", reason="state_snapshot")
            block, at = self._block(offset)
            for key, value in block:
                if key <= last:
                    raise Corrupt("rows of a state snapshot are out of order", reason="state_snapshot")
                last = key
                digest += row_hash(key, value)
            rows += len(block)
            yield block
        if at != self._index_offset or rows != self.row_count or digest & DIGEST_MASK != self.header.digest:
            raise Corrupt("a state snapshot does not come to its own digest", reason="state_snapshot")

    def verify(self) -> None:
        """Read all of it."""
        for _ in self.blocks():
            pass

    def lookup(self, key: bytes) -> bytes | None:
        """The value at key, or None."""
        low, high = 0, len(self._starts)
        while low < high:
            middle = (low + high) // 2
            if self._starts[middle][0] <= key:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return None
        return dict(self._block(self._starts[low - 1][1])[0]).get(key)

    def pieces(self) -> Iterator[bytes]:
        """The file's bytes as they are, to be copied; the copy is to be verified."""
        for at in range(0, self.size, BLOCK_SIZE):
            yield self._bytes(at, min(BLOCK_SIZE, self.size - at))

    def _block(self, offset: int) -> tuple[list[tuple[bytes, bytes]], int]:
        head = self._bytes(offset, BLOCK_HEADER_SIZE)
        if (
            len(head) < BLOCK_HEADER_SIZE
            or checksum(head[: _BLOCK.size]) != _CHECKSUM.unpack_from(head, _BLOCK.size)[0]
        ):
            raise Corrupt("a block of a state snapshot is damaged", reason="state_snapshot")
        magic, size, rows, _, payload_checksum = _BLOCK.unpack_from(head)
        payload = self._bytes(offset + BLOCK_HEADER_SIZE, size)
        if magic != BLOCK_MAGIC or len(payload) != size or checksum(payload) != payload_checksum:
            raise Corrupt("a block of a state snapshot is damaged", reason="state_snapshot")
        found = [(key, value) for key, value in decode_rows(payload, rows) if value is not None]
        if len(found) != rows:
            raise Corrupt("a state snapshot holds a removed row", reason="state_snapshot")
        return found, offset + BLOCK_HEADER_SIZE + size

    def _bytes(self, at: int, size: int) -> bytes:
        target = bytearray(max(0, min(size, self.size - at)))
        view, done = memoryview(target), 0
        while done < len(target):
            count = self._file.preadv([view[done:]], at + done)
            if count == 0:
                break
            done += count
        return bytes(view[:done])


@contextlib.contextmanager
def opened(files: Files, path: Path) -> Iterator[SnapshotReader]:
    """A reader of the snapshot at path. Corrupt; OSError."""
    file = files.open(path)
    try:
        yield SnapshotReader(file)
    finally:
        file.close()


class StagedFile:
    """A file on one copy that is being written under a staging name; nobody sees it until `publish`."""

    # what was written is summed up as it is written, so that reading it back costs no more than reading

    def __init__(self, files: Files, directory: Path, name: str, token: str) -> None:
        self._files = files
        self._final = directory / name
        self._staging = directory / f"{name}.{token}{STAGING_SUFFIX}"
        self._file: File | None = files.open(self._staging, write=True, create=True)
        self._offset = 0
        self._synced = 0
        self._sum = xxh3_64()

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.pwritev([data], self._offset)
        self._offset += len(data)
        self._sum.update(data)
        if self._offset - self._synced >= _UNSYNCED_MAX:
            self._sync(self._file)

    def publish(self) -> None:
        """Sync, read back what was written, rename, sync the directory (law 9). OSError."""
        assert self._file is not None
        self._sync(self._file)
        self._read_back(self._file)
        self._close()
        self._files.rename(self._staging, self._final)
        self._files.sync_directory(self._final.parent)

    def _sync(self, file: File) -> None:
        """In steps while it is written, too: all of it at once would hold up the syncs of commits for as long."""
        file.sync_data()
        self._synced = self._offset

    def _read_back(self, file: File) -> None:
        found, buffer, at = xxh3_64(), bytearray(BLOCK_SIZE), 0
        view = memoryview(buffer)
        while at < self._offset:
            count = file.preadv([view[: min(BLOCK_SIZE, self._offset - at)]], at)
            if count == 0:
                break
            found.update(view[:count])
            at += count
        if at != self._offset or file.size() != at or found.intdigest() != self._sum.intdigest():
            raise OSError(f"{self._staging} does not read back as it was written just now")

    def discard(self) -> None:
        """Remove it; no error when it was published or the disk is gone."""
        self._close()
        with contextlib.suppress(OSError):
            self._files.unlink(self._staging)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def write_snapshot(
    header: SnapshotHeader, rows: Iterable[tuple[bytes, bytes]], staged: list[StagedFile]
) -> tuple[int, dict[int, OSError]]:
    """Stream rows into the staged files, without publishing; (size, what failed by position in ``staged``).

    Corrupt when the rows do not come to the header's digest: then nothing of it may be published.
    """
    failed: dict[int, OSError] = {}

    def write(data: bytes) -> None:
        for number, file in enumerate(staged):
            if number not in failed:
                try:
                    file.write(data)
                except OSError as error:
                    failed[number] = error

    writer = SnapshotWriter(header, write)
    for key, value in rows:
        writer.add(key, value)
    writer.finish()
    return writer.offset, failed
