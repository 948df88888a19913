"""What the copies say: which commits each one holds whole, and the history that they make together.

A copy is one directory with snapshots and log files. `CopyScan` reads one completely and notes every whole record and
every damage; `Truth` lays several over one another: a record that one copy lost is taken from another. Nothing is
written here.

Which end to believe: a commit was acknowledged only when every current copy had synced it. So the newest commit that
any copy holds whole is the end, unless a copy shows that there was more: a record that had been written whole, behind
that end, and does not verify. If every copy shows that, an acknowledged commit is lost, and that is refused.
"""

import contextlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from ostraka.errors import Corrupt, OstrakaError, Refused, Unavailable
from ostraka.host import File, Files, Host
from ostraka.state.log import (
    LOG_HEADER_SIZE,
    End,
    Found,
    LogReader,
    Record,
    ScanEnd,
    parse_log_name,
)
from ostraka.state.meta import Position
from ostraka.state.rows import checksum
from ostraka.state.snapshot import SnapshotHeader, SnapshotReader, opened, parse_snapshot_name

_GAP_MAX = 1 << 24  # commits lost in a row, beyond which a number cannot be right
_FILE_SHIFT = 44  # a place is (file number << 44 | offset), so that a commit costs 8 bytes of memory


class Copy(Struct, frozen=True):
    """A disk's state directory. It is not read when the newest epoch it was written in is below ``epoch_min``."""

    disk: bytes
    path: Path
    epoch_min: int = 0


@dataclass
class DamageReport:
    """What does not verify on one copy; ``file`` is a name in its directory."""

    disk: bytes
    file: str
    note: str


@dataclass
class CopyScan:
    """One copy as it is on its disk."""

    copy: Copy
    snapshots: dict[int, str] = field(default_factory=dict)  # commit -> name; header and trailer verified
    log_names: list[str] = field(default_factory=list)
    damage: list[DamageReport] = field(default_factory=list)
    epoch: int = 0
    closed: bool = False  # the log ends with a clean stop
    lost_tail: bool = False  # the log ends in a record that was whole once
    first: int = 0  # commit of places[0]
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    checksums: "array[int]" = field(default_factory=lambda: array("Q"))  # of the payloads, as places
    digests: dict[int, int] = field(default_factory=dict)  # of the snapshots, by commit

    @property
    def empty(self) -> bool:
        """Nothing that a state was ever written as is here."""
        return not self.snapshots and not self.log_names and not self.damage

    @property
    def last(self) -> int:
        """The newest commit held whole."""
        newest = max(self.snapshots, default=0)
        return max(newest, self.first + len(self.places) - 1 if self.places else 0)

    def place(self, commit: int) -> tuple[str, int] | None:
        """(file name, offset) of the record of that commit."""
        index = commit - self.first
        if not 0 <= index < len(self.places) or not self.places[index]:
            return None
        place = self.places[index]
        return self.log_names[place >> _FILE_SHIFT], place & ((1 << _FILE_SHIFT) - 1)

    def complete(self) -> bool:
        """Whether this copy alone gives its newest commit: a snapshot, and every record behind it."""
        base = max((c for c in self.snapshots), default=None)
        return base is not None and all(self.place(c) is not None for c in range(base + 1, self.last + 1))

    def disagrees(self, other: "CopyScan") -> int | None:
        """The first commit that both hold whole, and differently; None when there is none."""
        for commit, digest in self.digests.items():
            if other.digests.get(commit, digest) != digest:
                return commit
        low = max(self.first, other.first)
        high = min(self.first + len(self.places), other.first + len(other.places))
        for commit in range(low, high):
            mine, others = commit - self.first, commit - other.first
            if self.checksums[mine] != other.checksums[others] and self.places[mine] and other.places[others]:
                return commit
        return None

    def _hold(self, commit: int, file_number: int, offset: int, payload_checksum: int) -> None:
        if not self.places:
            self.first = commit
        elif commit - (self.first + len(self.places)) > _GAP_MAX:
            raise Corrupt(f"a log in {self.copy.path} leaps to commit {commit}", reason="state_log")
        while self.first + len(self.places) <= commit:
            self.places.append(0)
            self.checksums.append(0)
        self.places[commit - self.first] = file_number << _FILE_SHIFT | offset
        self.checksums[commit - self.first] = payload_checksum

    def _supersede(self, commit: int) -> None:
        """Forget what is held from commit on."""
        del self.places[max(0, commit - self.first) :]
        del self.checksums[max(0, commit - self.first) :]


def scan_copy(host: Host, store: bytes, copy: Copy, since: int = 0) -> CopyScan:
    """Read one copy; log files that end before commit ``since`` are passed over. Damage is noted in the result.

    OSError when it cannot be read; Refused when it is stale, another store's, or written by a newer version.
    """
    scan = CopyScan(copy)
    names = host.files.names(copy.path)
    logs = sorted((parsed, name) for name in names if (parsed := parse_log_name(name)) is not None)
    for name in names:
        commit = parse_snapshot_name(name)
        if commit is not None:
            _scan_snapshot(host.files, store, scan, name, commit)
    scan.log_names = [name for _, name in logs]
    for number, ((first, _), name) in enumerate(logs):
        if number + 1 < len(logs) and logs[number + 1][0][0] <= since:
            continue
        file = host.files.open(copy.path / name)
        try:
            _scan_log(file, store, scan, number, first)
        finally:
            file.close()
    if not scan.empty and scan.epoch < copy.epoch_min:
        raise Refused(
            f"the copy of the state in {copy.path} is stale: of epoch {scan.epoch}, while {copy.epoch_min} is wanted",
            reason="stale",
        )
    return scan


def _scan_snapshot(files: Files, store: bytes, scan: CopyScan, name: str, commit: int) -> None:
    try:
        with opened(files, scan.copy.path / name) as reader:
            header = reader.header
    except Corrupt as error:
        scan.damage.append(DamageReport(scan.copy.disk, name, error.message))
        return
    _check_store(store, header.store, scan.copy)
    if header.commit != commit:
        scan.damage.append(DamageReport(scan.copy.disk, name, f"holds commit {header.commit}, not {commit}"))
        return
    scan.epoch = max(scan.epoch, header.epoch)
    scan.snapshots[commit] = name
    scan.digests[commit] = header.digest


def _scan_log(file: File, store: bytes, scan: CopyScan, number: int, first: int) -> None:
    name = scan.log_names[number]

    def damaged(note: str) -> None:
        scan.damage.append(DamageReport(scan.copy.disk, name, note))

    reader = LogReader(file)
    try:
        header = reader.header()
    except Corrupt as error:
        if not reader.header_is_unwritten():
            damaged(error.message)
            scan.lost_tail = True
        return
    _check_store(store, header.store, scan.copy)
    if header.disk != scan.copy.disk or header.first_commit != first:
        damaged("is the log of another disk or commit")
        scan.lost_tail = True
        return
    begun = False
    for found in reader.records():
        if isinstance(found, ScanEnd):
            if found.end is End.DAMAGED:
                assert found.damage is not None
                damaged(f"at byte {found.damage.offset}: {found.damage.note}")
            if begun or found.end is End.DAMAGED:
                scan.lost_tail = found.end is End.DAMAGED
            return
        if found.skipped is not None:
            damaged(f"{found.skipped.size} bytes at {found.skipped.offset}: {found.skipped.note}")
        if not begun:
            scan._supersede(first)  # the file counts from its first whole record on
            begun = True
        scan.epoch = max(scan.epoch, found.record.epoch)
        scan.closed = found.record.close
        if not found.record.close:
            scan._hold(found.record.commit, number, found.offset, checksum(found.record.payload))


def _check_store(store: bytes, found: bytes, copy: Copy) -> None:
    if found != store:
        raise Refused(f"{copy.path} holds the state of another store", reason="foreign")


class Truth:
    """The history that several copies make together."""

    def __init__(self, host: Host, scans: Sequence[CopyScan], *, accept_loss: bool = False) -> None:
        self._host = host
        self.scans = list(scans)
        self.last = max(scan.last for scan in scans)
        self._check_agreement()
        if not accept_loss:
            self._check_end()

    def _check_agreement(self) -> None:
        for number, scan in enumerate(self.scans):
            for other in self.scans[:number]:
                commit = scan.disagrees(other)
                if commit is not None:
                    raise Corrupt(
                        f"{scan.copy.path} and {other.copy.path} were changed apart: their commits {commit} differ",
                        reason="split",
                    )

    def _check_end(self) -> None:
        if all(scan.lost_tail for scan in self.scans):
            notes = "; ".join(f"{d.file}: {d.note}" for scan in self.scans for d in scan.damage)
            raise Corrupt(
                f"a commit after {self.last} was written whole and does not verify on any copy of the state ({notes}). "
                "Restore a copy, or accept the loss with fsck --repair",
                reason="state_log",
            )

    def base(self) -> "Base":
        """The newest snapshot from which every record to the end can be had. Corrupt when there is none."""
        candidates = sorted({c for scan in self.scans for c in scan.snapshots}, reverse=True)
        for commit in candidates:
            if all(self.has(c) for c in range(commit + 1, self.last + 1)):
                holders = [scan for scan in self.scans if commit in scan.snapshots]
                return Base(self._host.files, commit, holders)
        raise Corrupt(
            f"no snapshot of the state leads to its last commit {self.last}: records or snapshots are damaged on every "
            "copy. Restore a copy, or repair from the index with fsck --repair",
            reason="state",
        )

    def has(self, commit: int) -> bool:
        return any(scan.place(commit) is not None for scan in self.scans)

    def records(self, first: int, last: int | None = None) -> Iterator[Record]:
        """The records of first..last (to the end), from whichever copy has them whole."""
        readers: dict[tuple[bytes, str], tuple[File, LogReader]] = {}
        try:
            for commit in range(first, (self.last if last is None else last) + 1):
                yield self._record(commit, readers)
        finally:
            for file, _ in readers.values():
                file.close()

    def _record(self, commit: int, readers: dict[tuple[bytes, str], tuple[File, LogReader]]) -> Record:
        for scan in self.scans:
            place = scan.place(commit)
            if place is None:
                continue
            name, offset = place
            key = (scan.copy.disk, name)
            try:
                if key not in readers:
                    for other in [k for k in readers if k[0] == scan.copy.disk]:
                        readers.pop(other)[0].close()
                    file = self._host.files.open(scan.copy.path / name)
                    reader = LogReader(file)
                    readers[key] = (file, reader)
                    reader.header()
                found = next(readers[key][1].records(offset))
            except (OSError, Corrupt):
                continue
            if isinstance(found, Found) and found.offset == offset and found.record.commit == commit:
                return found.record
        raise Corrupt(f"commit {commit} of the state cannot be read any more", reason="state_log")


def survey(host: Host, store: bytes, positions: Sequence[Position], since: int = 0) -> Truth:
    """What the copies that count say now, while commits may go on. Corrupt, Unavailable."""
    problem: OSError | None = None
    for _ in range(3):  # a checkpoint may drop files while they are listed
        scans = []
        for position in positions:
            try:
                scans.append(scan_copy(host, store, Copy(position.disk, Path(position.path)), since))
            except OSError as error:
                problem = error
        if scans:
            return Truth(host, scans, accept_loss=True)
    raise Unavailable(f"no copy of the state can be read: {problem}", reason="state") from problem


@dataclass
class Base:
    """A snapshot and the copies that hold it."""

    files: Files
    commit: int
    holders: list[CopyScan]
    bad: list[DamageReport] = field(default_factory=list)

    def verified(self) -> CopyScan:
        """A holder whose file verifies from end to end; the others that do not are noted. Corrupt when none does."""
        for scan in self.holders:
            name = scan.snapshots[self.commit]
            try:
                with opened(self.files, scan.copy.path / name) as reader:
                    reader.verify()
            except (OstrakaError, OSError) as error:
                self.bad.append(DamageReport(scan.copy.disk, name, str(error)))
                continue
            return scan
        raise Corrupt(f"the snapshot of commit {self.commit} verifies on no copy", reason="state_snapshot")

    @contextlib.contextmanager
    def read(self) -> Iterator[SnapshotReader]:
        """A reader of a holder whose header and trailer verify; blocks are verified as they are read."""
        for scan in self.holders:
            with contextlib.ExitStack() as stack:
                try:
                    reader = stack.enter_context(opened(self.files, scan.copy.path / scan.snapshots[self.commit]))
                except (Corrupt, OSError):
                    continue
                yield reader
                return
        raise Corrupt(f"the snapshot of commit {self.commit} verifies on no copy", reason="state_snapshot")

    @property
    def header(self) -> SnapshotHeader:
        with self.read() as reader:
            return reader.header


assert LOG_HEADER_SIZE < 1 << _FILE_SHIFT
