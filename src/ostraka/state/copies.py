"""Appending one record to the log on every copy at once, and finding what a dead writer left behind.

A record is durable on a copy when its bytes are synced and, for a new file, the directory too. Nothing is ever
appended behind a tail that somebody else may have left, and nothing is truncated: a new file is begun instead
(ENGINE 23). A failed write or sync is reported, never tried again. A disk that hangs has failed after a deadline; the
thread that waits for it is left to its fate.
"""

import contextlib
import errno
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.host import File, Host
from ostraka.limits import MIB
from ostraka.state.log import (
    LOG_HEADER_SIZE,
    RECORD_HEADER_SIZE,
    Found,
    LogHeader,
    LogReader,
    Record,
    encode_header,
    encode_record,
    log_name,
    parse_log_name,
    seed_of,
)
from ostraka.state.meta import Position

T = TypeVar("T")

_ZERO_SIZE = 1 * MIB  # zeros written ahead of the records at a time
_ZEROS = bytes(_ZERO_SIZE)
_THREADS_MAX = 16


class _Open(NamedTuple):
    name: str
    file: File
    seed: int


class WriteFailed(Exception):
    """A copy took a write or a sync badly; ``began`` says whether a sync was reached (pages may be gone)."""

    def __init__(self, cause: OSError, began: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.began = began


class Appending(Protocol):
    """An append to some copies; `wait` must be called."""

    def wait(self) -> tuple[tuple[Position, ...], dict[bytes, WriteFailed]]:
        """(positions of the copies on which it is durable, the others' failures)."""
        ...


class _AppendAlone:
    """An append to the only copy there is: whoever waits for it makes it, since there is nobody to wait for instead."""

    def __init__(self, disk: bytes, call: Callable[[], Position]) -> None:
        self._disk = disk
        self._call = call

    def wait(self) -> tuple[tuple[Position, ...], dict[bytes, WriteFailed]]:
        try:
            return (self._call(),), {}
        except WriteFailed as error:
            return (), {self._disk: error}


class _Append:
    """An append in flight on all copies."""

    def __init__(self, futures: dict[bytes, "Future[Position]"], seconds_max: float) -> None:
        self._futures = futures
        self._seconds_max = seconds_max

    def wait(self) -> tuple[tuple[Position, ...], dict[bytes, WriteFailed]]:
        """A copy that takes longer than the deadline has failed; but the last of them all is waited for."""
        done, failed = [], {}
        late: dict[Future[Position], bytes] = {}
        for disk, future in self._futures.items():
            try:
                done.append(future.result(self._seconds_max))
            except WriteFailed as error:
                failed[disk] = error
            except TimeoutError:
                late[future] = disk
        while late and not done:
            for future in wait(late, return_when=FIRST_COMPLETED).done:
                disk = late.pop(future)
                try:
                    done.append(future.result())
                except WriteFailed as error:
                    failed[disk] = error
        for disk in late.values():
            failed[disk] = WriteFailed(TimeoutError(f"no answer in {self._seconds_max} seconds"), True)
        return tuple(done), failed


class Copies:
    """The log files that this process has open, one a copy, and the threads that sync them."""

    def __init__(self, host: Host, store: bytes, seconds_max: float) -> None:
        self._host = host
        self._store = store
        self._seconds_max = seconds_max
        self._open: dict[bytes, _Open] = {}
        self._probe = bytearray(RECORD_HEADER_SIZE)
        self._threads = ThreadPoolExecutor(_THREADS_MAX, "ostraka-state-log")

    def append(self, record: Record, positions: Sequence[Position]) -> Appending:
        """Make record durable on every copy by the time that `Appending.wait` returns."""
        if len(positions) == 1:  # a thread would be two hand-overs more, and the last copy has no deadline
            return _AppendAlone(positions[0].disk, partial(self._append_one, record, positions[0]))
        futures = {p.disk: self._threads.submit(self._append_one, record, p) for p in positions}
        return _Append(futures, self._seconds_max)

    def _append_one(self, record: Record, position: Position) -> Position:
        began, current = False, None
        try:
            if not position.name:
                return self._begin_file(record, position)
            current = self._current(position)
            data = encode_record(record, current.seed)
            end, zeroed = position.end + len(data), position.zeroed
            current.file.pwritev([data], position.end)
            if end > zeroed:
                zeroed = _write_zeros(current.file, end)
            began = True
            current.file.sync_data()
            return Position(position.disk, position.path, position.name, end, zeroed)
        except OSError as error:
            if current is not None and self._open.get(position.disk) is current:
                self._forget(position.disk)
            raise WriteFailed(error, began) from error
        except (Corrupt, Refused) as error:  # the header of our own open log file does not verify any more
            raise WriteFailed(OSError(str(error)), False) from error

    def _begin_file(self, record: Record, position: Position) -> Position:
        """A new file, header and record together."""
        files, directory = self._host.files, Path(position.path)
        self._forget(position.disk)
        turns = [-1]
        for name in files.names(directory):
            parsed = parse_log_name(name)
            if parsed is not None and parsed[0] == record.commit:
                turns.append(parsed[1])
        name = log_name(record.commit, max(turns) + 1)
        header = LogHeader(
            self._store,
            position.disk,
            self._host.random(16),
            record.epoch,
            record.commit,
        )
        seed = seed_of(header.incarnation)
        data = encode_record(record, seed)
        file = files.open(directory / name, write=True, create=True)
        began = False
        try:
            file.pwritev([encode_header(header), data], 0)
            end = LOG_HEADER_SIZE + len(data)
            zeroed = _write_zeros(file, end)
            began = True
            file.sync_data()
            files.sync_directory(directory)
        except OSError as error:
            file.close()
            if not began:  # nothing relies on it, and a full disk wants its blocks back
                with contextlib.suppress(OSError):
                    files.unlink(directory / name)
            raise WriteFailed(error, began) from error
        self._open[position.disk] = _Open(name, file, seed)
        return Position(position.disk, position.path, name, end, zeroed)

    def has_tail(self, position: Position, *, last: bool) -> bool:
        """Whether something was written behind the end that the index knows. OSError; the ``last`` copy is waited
        for, another one that takes longer than the deadline has failed."""
        if not position.name:
            return False
        current = self._open.get(position.disk)
        if current is not None and current.name == position.name:
            count = current.file.preadv_now([self._probe], position.end)
            if count is not None:
                return any(self._probe[:count])
        return any(self._bounded(partial(self._read, position), last=last))

    def _read(self, position: Position) -> bytes:
        probe = bytearray(RECORD_HEADER_SIZE)
        return bytes(probe[: self._current(position).file.preadv([probe], position.end)])

    def _bounded(self, call: Callable[[], T], *, last: bool) -> T:
        """A call in a thread; TimeoutError, which is an OSError, if it hangs and is not about the last copy."""
        return self._threads.submit(call).result(None if last else self._seconds_max)

    def left_behind(self, position: Position, commit: int, *, last: bool) -> Record | None:
        """The whole record of that commit which a dead writer left on a copy, if there is one. OSError, as above."""
        return self._bounded(partial(self._left_behind, position, commit), last=last)

    def _left_behind(self, position: Position, commit: int) -> Record | None:
        if position.name:
            with contextlib.suppress(Corrupt):
                reader = LogReader(self._current(position).file)
                reader.header()
                return _first(reader, position.end, commit)
            return None
        files, directory = self._host.files, Path(position.path)
        for name in files.names(directory):
            parsed = parse_log_name(name)
            if parsed is None or parsed[0] != commit:
                continue
            file = files.open(directory / name)
            try:
                reader = LogReader(file)
                with contextlib.suppress(OstrakaError):
                    reader.header()
                    found = _first(reader, LOG_HEADER_SIZE, commit)
                    if found is not None:
                        return found
            finally:
                file.close()
        return None

    def _current(self, position: Position) -> _Open:
        current = self._open.get(position.disk)
        if current is None or current.name != position.name:
            self._forget(position.disk)
            file = self._host.files.open(Path(position.path) / position.name, write=True)
            try:
                header = LogReader(file).header()
            except BaseException:
                file.close()
                raise
            current = self._open[position.disk] = _Open(position.name, file, seed_of(header.incarnation))
        return current

    def _forget(self, disk: bytes) -> None:
        current = self._open.pop(disk, None)
        if current is not None:
            current.file.close()

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        for disk in list(self._open):
            self._forget(disk)


def _write_zeros(file: File, end: int) -> int:
    """Zeros ahead of the records, from end on; returns where they end. A full disk does without them."""
    try:
        file.pwritev([_ZEROS], end)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return end
    return end + _ZERO_SIZE


def _first(reader: LogReader, offset: int, commit: int) -> Record | None:
    """The record at offset, if it is whole and of that commit."""
    found = next(reader.records(offset))
    if isinstance(found, Found) and found.offset == offset and found.record.commit == commit:
        return None if found.record.close else found.record
    return None


def unnamed(position: Position) -> Position:
    """The same copy, with its next record in a new file."""
    return msgspec.structs.replace(position, name="", end=0, zeroed=0)
