"""When a disk's shard index may be believed, and how it is built anew from the segments.

``shards/mark`` says how the index was last left. It is trusted in two cases only:

- the last owner closed it and the file is, byte for byte, what it was then (a checksum of the whole: damage at rest
  shows before LMDB follows a broken pointer), or
- a process of this same boot died with it open: the page cache survived that, and LMDB survives a killed process.
  But twice in a row is once too often: what kills its readers would kill them for ever.

And not even then if a process met damage in it: that has left ``shards/doubt``. Everything else (another boot, store or
version, no mark, a rebuild cut short) is a rebuild from the segments.
"""

import contextlib
import errno
import logging
from pathlib import Path
from typing import Final

import msgspec
from xxhash import xxh3_128

from ostraka.host import Host
from ostraka.nodes.shard_index import SEALED, ShardIndex
from ostraka.segments.format import (
    BUFFERED_ALIGNMENT,
    DIRECT_ALIGNMENT,
    Identity,
    SegmentId,
    ShardHeader,
    align,
    parse_segment_name,
    segment_name,
)
from ostraka.segments.reader import headers
from ostraka.segments.writer import Extent

log = logging.getLogger("ostraka.nodes")

VERSION: Final = 1
_DATA: Final = "data.mdb"
_LOCK: Final = "lock.mdb"
_DOUBT: Final = "doubt"
_MARK: Final = "mark"
_MAP_SIZE_MIN: Final = 1 << 30
_HASH_BLOCK: Final = 1 << 20
_PAGE_SIZE: Final = 4096


class Mark(msgspec.Struct, frozen=True):
    """How the index was left. ``state``: "building", "open" or "clean" (only then size and checksum mean anything)."""

    version: int
    store: str
    disk: int
    boot: str
    state: str
    unclean_opens: int
    map_size: int
    size: int = 0
    checksum: str = ""


def segments_directory(disk: Path) -> Path:
    return disk / "segments"


def index_directory(disk: Path) -> Path:
    return disk / "shards"


def read_mark(host: Host, disk: Path) -> Mark | None:
    try:
        return msgspec.json.decode(host.files.read(index_directory(disk) / _MARK), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_open_mark(host: Host, disk: Path) -> Mark:
    """The mark of an index that the owner has open. OSError if it has not (it may have failed to), or if what it wrote
    is damaged: the disk is of no use to this process, as if it had gone."""
    mark = read_mark(host, disk)
    if mark is None or mark.state != "open":
        raise OSError(errno.EIO, "the process that owns the store has not opened the disk, or its mark is damaged")
    return mark


def write_mark(host: Host, disk: Path, mark: Mark) -> None:
    host.files.publish(index_directory(disk) / _MARK, msgspec.json.encode(mark), mode=0o600)


def prepare(host: Host, disk: Path, identity: Identity) -> bool:
    """Leave the disk with an index that can be believed, marked open. True if it was built anew.

    Only for the process that owns the store, before any other opens the index.
    """
    files = host.files
    files.mkdir(segments_directory(disk))
    files.mkdir(index_directory(disk))
    files.sync_directory(disk)  # always: whoever made them may have died before this
    mark = read_mark(host, disk)
    with contextlib.suppress(FileNotFoundError):
        files.unlink(index_directory(disk) / _LOCK)  # only shared memory; nobody else is here
    doubted = is_doubted(host, disk)
    trusted = mark is not None and not doubted and _trusted(host, disk, mark, identity)
    unclean = mark.unclean_opens + 1 if trusted and mark is not None and mark.state == "open" else 0
    free_total = files.free(disk)[1]
    map_size = max(_MAP_SIZE_MIN, align(free_total // 8, 1 << 20))
    fresh = Mark(VERSION, identity.store_id.hex(), identity.disk, host.boot_id, "building", unclean, map_size)
    if not trusted:
        write_mark(host, disk, fresh)
        with contextlib.suppress(FileNotFoundError):
            files.unlink(index_directory(disk) / _DATA)
        rebuild(host, disk, identity, map_size)
        if doubted:
            files.unlink(index_directory(disk) / _DOUBT)
    write_mark(host, disk, msgspec.structs.replace(fresh, state="open"))
    return not trusted


def _trusted(host: Host, disk: Path, mark: Mark, identity: Identity) -> bool:
    if (mark.version, mark.store, mark.disk) != (VERSION, identity.store_id.hex(), identity.disk):
        return False
    if mark.state == "clean":
        return (mark.size, mark.checksum) == _fingerprint(host, index_directory(disk) / _DATA)
    return mark.state == "open" and mark.boot == host.boot_id and mark.unclean_opens == 0


def doubt(host: Host, disk: Path, why: str) -> None:
    """Have the index built anew at the next start. By any process, at any time."""
    host.files.publish(index_directory(disk) / _DOUBT, why.encode(), mode=0o600)


def is_doubted(host: Host, disk: Path) -> bool:
    return _DOUBT in host.files.names(index_directory(disk))


def _damaged(host: Host, disk: Path, why: str) -> None:
    with contextlib.suppress(OSError):  # a disk on its way out: the next start will see what it gives
        if not is_doubted(host, disk):
            log.error("%s: the index of its shards is damaged (%s); it is built anew at the next start", disk, why)
            doubt(host, disk, why)


def close_clean(host: Host, disk: Path) -> None:
    """The last process has closed the index: mark it clean, as it is now."""
    mark = read_mark(host, disk)
    if mark is None or mark.state != "open" or is_doubted(host, disk):
        return
    size, checksum = _fingerprint(host, index_directory(disk) / _DATA)
    write_mark(host, disk, msgspec.structs.replace(mark, state="clean", unclean_opens=0, size=size, checksum=checksum))


def _fingerprint(host: Host, path: Path) -> tuple[int, str]:
    try:
        file = host.files.open(path)
    except FileNotFoundError:
        return -1, ""
    digest = xxh3_128()
    block = bytearray(_HASH_BLOCK)
    size = 0
    try:
        while done := file.preadv([block], size):
            digest.update(memoryview(block)[:done])
            size += done
    finally:
        file.close()
    return size, digest.hexdigest()


def segment_ids(host: Host, disk: Path) -> list[SegmentId]:
    """Every segment file that is there. Raises OSError if the directory itself is gone: then we do not know."""
    found = map(parse_segment_name, host.files.names(segments_directory(disk)))
    return [segment for segment in found if segment is not None]


def read_headers(
    host: Host, disk: Path, identity: Identity, segment: SegmentId
) -> tuple[list[Extent], bool, int] | None:
    """(records, sealed, bytes in the file) of a segment, or None if it was unlinked meanwhile."""
    try:
        file = host.files.open(segments_directory(disk) / segment_name(segment))
    except FileNotFoundError:
        return None
    try:
        listed, sealed = headers(file, identity, segment)
        size = file.size()
    finally:
        file.close()
    return [extent_of(segment, offset, header) for offset, header in listed], sealed, size


def extent_of(segment: SegmentId, offset: int, header: ShardHeader) -> Extent:
    """Records in direct segments, and only they, have their data at a page boundary: that tells their padding."""
    page = header.data_offset % DIRECT_ALIGNMENT == 0
    size = align(header.data_offset + header.shard_size, DIRECT_ALIGNMENT if page else BUFFERED_ALIGNMENT)
    return Extent(segment, offset, size, header)


def open_index(host: Host, disk: Path, map_size: int) -> ShardIndex:
    """Open the index, new if there is none. The disk is waited for before LMDB is asked: that call holds the
    interpreter's lock, so that on a disk that hangs it would stop every thread of the process. (LMDB's lock file is
    left alone: to close it drops the locks that this process has on it.)"""
    path = index_directory(disk)
    with contextlib.suppress(FileNotFoundError):
        file = host.files.open(path / _DATA)
        try:
            file.preadv([bytearray(2 * _PAGE_SIZE)], 0)
        finally:
            file.close()
    return ShardIndex(path, map_size, lambda why: _damaged(host, disk, why))


def rebuild(host: Host, disk: Path, identity: Identity, map_size: int) -> int:
    """Fill an empty index from the segments; returns how many segments could not be read (their shards read as
    unavailable until they can be, never as absent: local.py counts them before it says so)."""
    index = open_index(host, disk, map_size)
    unreadable = 0
    try:
        segments = segment_ids(host, disk)
        for segment in segments:
            try:
                read = read_headers(host, disk, identity, segment)
            except OSError:
                unreadable += 1
                continue
            if read is None:
                continue
            extents, sealed, size = read
            index.put_copies(extents)
            index.mark(segment, total=size, flags=SEALED if sealed else 0)
        if segments and unreadable == len(segments):
            raise OSError(5, f"{disk}: no segment can be read")
    finally:
        index.close()
    return unreadable
