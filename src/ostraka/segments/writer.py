"""Appending shards to segment files, durably: the only module that writes records.

What is durable when: `SegmentWriter.append` returns after the records were written, one fdatasync that began after
that has ended, and ``publish`` has run. Writers that wait at the same time share that fdatasync: one of them leads.
A segment's directory entry is synced when the file is made, before anything relies on it (ENGINE 23).

A failed write or sync is never tried again on the same file, because the pages may be gone: the segment is given up
as it is, every write that was not yet synced in it fails with `SegmentFailed`, and `append` writes those records
anew, once, from memory, into another segment. What was acknowledged before was synced before, and stays where it is.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ostraka.host import Buffer, File, Files
from ostraka.limits import Limits
from ostraka.segments import aligned
from ostraka.segments.format import (
    BUFFERED_ALIGNMENT,
    CELL_SUM_SIZE,
    DIRECT_ALIGNMENT,
    SEGMENT_HEADER_SIZE,
    Identity,
    SegmentId,
    ShardHeader,
    align,
    pack_footer,
    pack_record_header,
    pack_segment_header,
    record_size,
    segment_id,
    segment_name,
    segment_seed,
)

_IOV_MAX: Final = 1024  # what the kernel takes in one call
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Record(msgspec.Struct, frozen=True, gc=False):
    """A shard to append. ``header.data_offset`` is filled in by the writer, which knows its alignment."""

    header: ShardHeader
    data: Sequence[Buffer]  # shard_size bytes


class Extent(msgspec.Struct, frozen=True, gc=False):
    """Where a record lies: ``offset`` of its first byte, ``size`` to the next record."""

    segment: SegmentId
    offset: int
    size: int
    header: ShardHeader


class SegmentFailed(OSError):
    """A write or a sync of this segment failed; nothing of what was not yet synced may be believed."""


Publish = Callable[[Sequence[Extent]], None]


class _Ticket:
    """One append that waits for a sync. ``state``: 0 waits, 1 a leader syncs for it, 2 done."""

    __slots__ = ("error", "extents", "headers", "state")

    def __init__(self, extents: Sequence[Extent], headers: Sequence[tuple[int, bytes]]) -> None:
        self.extents = extents
        self.headers = headers
        self.state = 0
        self.error: BaseException | None = None


class OpenSegment:
    """One file that is being appended to. Ranges are handed out in order and written in any order."""

    def __init__(self, file: File, segment: SegmentId, identity: Identity, alignment: int) -> None:
        self.file = file
        self.segment = segment
        self.seed = segment_seed(identity, segment)
        self.alignment = alignment
        self.end = align(SEGMENT_HEADER_SIZE, alignment)
        self.first = self.end
        self.records: list[tuple[int, bytes]] = []  # of synced records, for the footer
        self.in_flight = 0
        self.retired = False
        self.failed: BaseException | None = None
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._syncing = False

    def write(self, records: Sequence[Record], offset: int) -> _Ticket:
        """Write the records one after the other from ``offset``, a range that is ours alone."""
        extents: list[Extent] = []
        headers: list[tuple[int, bytes]] = []
        pieces: list[Buffer] = []
        pages = []
        at = offset
        for record in records:
            cells = len(record.header.cells) // CELL_SUM_SIZE
            data_offset, size = record_size(record.header.shard_size, cells, self.alignment)
            header = msgspec.structs.replace(record.header, data_offset=data_offset)
            raw = pack_record_header(header, self.seed, at)
            extents.append(Extent(self.segment, at, size, header))
            headers.append((at, raw))
            if self.alignment == DIRECT_ALIGNMENT:
                if data_offset == DIRECT_ALIGNMENT:
                    page = aligned.header_page(raw)
                    pages.append(page)
                    pieces.append(memoryview(page))
                else:
                    pieces.append(aligned.aligned_copy([raw], data_offset))
                if size == data_offset + header.shard_size and all(map(aligned.is_aligned, record.data)):
                    pieces.extend(record.data)
                else:
                    pieces.append(aligned.aligned_copy(record.data, size - data_offset))
            else:
                pieces.append(raw + bytes(data_offset - len(raw)))
                pieces.extend(record.data)
                if padding := size - data_offset - header.shard_size:
                    pieces.append(bytes(padding))
            at += size
        try:
            self._write(pieces, offset)
        finally:
            for page in pages:
                aligned.return_page(page)
        return _Ticket(extents, headers)

    def _write(self, pieces: Sequence[Buffer], offset: int) -> None:
        for start in range(0, len(pieces), _IOV_MAX):
            part = pieces[start : start + _IOV_MAX]
            self.file.pwritev(part, offset)
            offset += sum(memoryview(piece).nbytes for piece in part)

    def sync(self, ticket: _Ticket, publish: Publish) -> None:
        """Return once these records are on stable storage and published; share the sync with whoever waits too.

        Raises SegmentFailed if the sync failed, and whatever publish raised.
        """
        with self._changed:
            self._waiting.append(ticket)
            while ticket.state == 1 or (ticket.state == 0 and self._syncing):
                self._changed.wait()
            if ticket.state == 0:
                self._syncing = True
                batch, self._waiting = self._waiting, []
                for member in batch:
                    member.state = 1
        if ticket.state == 1:  # nobody has synced for us: we lead, for all that were written until now
            self._lead(batch, publish)
        if ticket.error is not None:
            raise ticket.error

    def _lead(self, batch: list[_Ticket], publish: Publish) -> None:
        error: BaseException | None = self.failed
        try:
            if error is None:
                self.file.sync_data()
        except BaseException as e:
            error = e
        with self._changed:
            if error is not None:
                self.failed = error
            self._syncing = False  # the next leader need not wait for our publishing
            self._changed.notify_all()
        if error is not None:
            error = _failure(error, self.segment)
        else:
            try:
                publish([extent for member in batch for extent in member.extents])
            except BaseException as e:
                error = e
        with self._changed:
            for member in batch:
                member.state = 2
                member.error = error
            if error is None:
                for member in batch:
                    self.records.extend(member.headers)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """A write failed: no sync of this file counts any more."""
        with self._changed:
            self.failed = self.failed or error

    def finish(self) -> int:
        """Seal: write the footer behind the last record and close. Returns the file's size.

        Not synced: whoever finds the footer damaged or missing scans the records instead.
        """
        size = self.end
        try:
            if self.failed is None:
                footer = pack_footer(sorted(self.records), self.end, self.seed, self.alignment)
                if self.alignment == DIRECT_ALIGNMENT:
                    self.file.pwritev([aligned.aligned_copy([footer], len(footer))], self.end)
                else:
                    self.file.pwritev([footer], self.end)
                size += len(footer)
        except OSError:
            pass  # a tail without a footer is as good, only slower to index
        finally:
            self.file.close()
        return size


def _failure(error: BaseException, segment: SegmentId) -> BaseException:
    if not isinstance(error, OSError):
        return error
    failed = SegmentFailed(
        error.errno or errno.EIO, f"segment {segment_name(segment)}: {os.strerror(error.errno or 5)}"
    )
    failed.__cause__ = error
    return failed


class SegmentWriter:
    """One stream of appends of one process on one disk: the segment that is open, and how it moves on to the next."""

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        incarnation: bytes,
        sequence: Iterator[int],
        files: Files,
        limits: Limits,
        *,
        direct: bool,
        on_sealed: Callable[[SegmentId, int], None],
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._incarnation = incarnation
        self._sequence = sequence  # shared by the writers of one process and disk
        self._files = files
        self._limits = limits
        self._direct = direct
        self._alignment = DIRECT_ALIGNMENT if direct else BUFFERED_ALIGNMENT
        self._on_sealed = on_sealed
        self._lock = threading.Lock()
        self._current: OpenSegment | None = None
        self._idle = threading.Condition(self._lock)
        self._busy: set[OpenSegment] = set()  # retired, with appends still in flight

    def open_segments(self) -> set[SegmentId]:
        """Segments that compaction must leave alone: still open, or being sealed."""
        with self._lock:
            found = {segment.segment for segment in self._busy}
            if self._current is not None:
                found.add(self._current.segment)
            return found

    def append(self, records: Sequence[Record], publish: Publish) -> list[Extent]:
        """Write the records, sync, publish; then return where they are.

        ``publish`` may be called for several appends at once, in the thread of any of them. Raises OSError when
        two segments in a row failed, or at once when there is no room (ENOSPC, EDQUOT): that is no fault of a disk.
        """
        try:
            return self._append(records, publish)
        except SegmentFailed as e:
            if e.errno in NO_ROOM:
                raise
        return self._append(records, publish)

    def _append(self, records: Sequence[Record], publish: Publish) -> list[Extent]:
        total = 0
        for record in records:
            cells = len(record.header.cells) // CELL_SUM_SIZE
            total += record_size(record.header.shard_size, cells, self._alignment)[1]
        segment, offset = self._reserve(total, len(records))
        try:
            try:
                ticket = segment.write(records, offset)
            except OSError as e:
                if e.errno in NO_ROOM:  # the range stays unused; the file is as good as before
                    raise
                segment.fail(e)
                raise _failure(e, segment.segment) from e
            segment.sync(ticket, publish)
            return list(ticket.extents)
        finally:
            self._leave(segment, len(records))

    def _reserve(self, total: int, count: int) -> tuple[OpenSegment, int]:
        """A range of ``total`` bytes in a segment that has room for it, opened if need be."""
        finished = None
        try:
            with self._lock:
                segment = self._current
                if segment is not None:
                    full = (
                        segment.end + total > self._limits.segment_size_max
                        or len(segment.records) + count > self._limits.segment_records_max
                    )
                    if segment.failed is not None or (full and segment.end > segment.first):
                        finished = self._retire(segment)
                        segment = None
                if segment is None:
                    segment = self._current = self._open()
                offset = segment.end
                segment.end += total
                segment.in_flight += 1
                return segment, offset
        finally:
            if finished is not None:
                self._finish(finished)

    def _open(self) -> OpenSegment:
        while True:
            segment = segment_id(self._incarnation, next(self._sequence))
            path = self._directory / segment_name(segment)
            try:
                file = self._files.open(path, write=True, create=True, direct=self._direct)
            except FileExistsError:  # this disk was opened before in this incarnation
                continue
            except OSError as e:
                raise _failure(e, segment) from e
            break
        try:
            head = pack_segment_header(self._identity, segment, self._alignment)
            file.pwritev([aligned.aligned_copy([head], len(head)) if self._direct else head], 0)
            self._files.sync_directory(self._directory)  # the header itself is synced with the first records
        except OSError as e:
            file.close()
            raise _failure(e, segment) from e
        except BaseException:
            file.close()
            raise
        return OpenSegment(file, segment, self._identity, self._alignment)

    def _retire(self, segment: OpenSegment) -> OpenSegment | None:
        """No more appends to it (we hold the lock). Returns it if nothing is in flight, to be finished outside."""
        segment.retired = True
        self._current = None
        self._busy.add(segment)
        return segment if segment.in_flight == 0 else None

    def _leave(self, segment: OpenSegment, count: int) -> None:
        finished = None
        with self._lock:
            segment.in_flight -= 1
            if segment.failed is not None and self._current is segment:
                self._retire(segment)
            if segment.retired and segment.in_flight == 0:
                finished = segment
        if finished is not None:
            self._finish(finished)

    def _finish(self, segment: OpenSegment) -> None:
        size = segment.finish()
        try:
            self._on_sealed(segment.segment, size)
        finally:
            with self._lock:
                self._busy.discard(segment)
                self._idle.notify_all()

    def seal(self) -> None:
        """Seal what is open, after the appends in flight; the next append opens a new file."""
        finished = None
        with self._lock:
            if self._current is not None:
                finished = self._retire(self._current)
        if finished is not None:
            self._finish(finished)
        with self._lock:
            while self._busy:
                self._idle.wait()
