"""From what the disks hold to a state that can be served: done once by the owner, before anybody else opens it.

1. every copy is scanned, and the scans are laid over one another (truth.py);
2. the index of a clean stop is used if all its pages are as they were; else it is built anew (rebuild.py), because
   LMDB's pages carry no checksum and building costs about what a full verification would;
3. copies that lag, or are damaged, are made whole; and where the stop was not clean, the last record is written once
   more: it may sit in the page cache only, behind a sync that failed (ENGINE 23).

Nothing is acknowledged before all of it is durable.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lmdb

from ostraka.errors import Corrupt, Full, OstrakaError, Refused, Unavailable
from ostraka.host import Host
from ostraka.limits import GIB, MIB, Limits
from ostraka.state.engine import OnCopyFailed
from ostraka.state.index_files import CleanStop, IndexFiles
from ostraka.state.meta import Meta, Position, load_meta, store_meta
from ostraka.state.ordered import LmdbMap, Map, OpenMap
from ostraka.state.rebuild import Rebuilt, fill
from ostraka.state.seed import format_copy, is_ours, reseed, write_log
from ostraka.state.snapshot import STAGING_SUFFIX, SnapshotReader, opened
from ostraka.state.truth import Base, Copy, CopyScan, DamageReport, Truth, scan_copy


@dataclass
class Recovery:
    """What opening found and did."""

    commit: int = 0
    sequence: int = 0
    formatted: bool = False
    clean: bool = False  # the index of a clean stop was used as it was
    rows: int = 0  # when the index was built
    seconds: float = 0.0
    restated: bool = False  # the rows did not come to the digest in the log: the index had been damaged in use
    damage: list[DamageReport] = field(default_factory=list)
    healed: list[tuple[bytes, str]] = field(default_factory=list)  # (disk, why it was written anew)
    failed: list[tuple[bytes, str]] = field(default_factory=list)  # copies that could not be read or written


@dataclass
class Opening:
    """All that recovery needs to know."""

    host: Host
    limits: Limits
    store: bytes
    copies: Sequence[Copy]
    index: Path
    epoch: int
    create: bool
    accept_loss: bool
    on_copy_failed: OnCopyFailed
    open_map: OpenMap = LmdbMap

    @property
    def index_size_max(self) -> int:
        return index_size_max(self.host, self.limits, self.index)


def index_size_max(host: Host, limits: Limits, directory: Path) -> int:
    """The size of the index's map, set once, from the size of its file system (ENGINE 9)."""
    _, total = host.files.free(directory)
    return min(limits.state_index_size_max, max(1 * GIB, total // MIB * MIB))


def recover(opening: Opening) -> tuple[Recovery, IndexFiles, int, Map]:
    """(what was done, the index directory, its generation, the open index). Refused, Corrupt, Unavailable, Full."""
    report = Recovery()
    started = opening.host.clock.monotonic()
    scans = _scan_all(opening, report)
    truth = Truth(opening.host, scans, accept_loss=opening.accept_loss)
    for scan in scans:
        report.damage += scan.damage
    base = truth.base()
    files = IndexFiles(opening.host.files, opening.index)
    try:
        generation, index, rebuilt = _index(opening, files, truth, base, report)
        try:
            positions = _heal(opening, truth, base, report)
            _write_meta(opening, index, truth, base, positions, rebuilt, report)
            files.use(generation)
            files.became_durable(truth.last)
        except BaseException:
            index.close()
            raise
    except BaseException as error:
        files.close()
        if isinstance(error, lmdb.Error):  # its disk went away meanwhile: another may take the index
            raise _not_built(error) from error
        raise
    report.seconds = opening.host.clock.monotonic() - started
    return report, files, generation, index


# -- copies


def _scan_all(opening: Opening, report: Recovery) -> list[CopyScan]:
    scans: list[CopyScan] = []
    for copy in opening.copies:
        try:
            if opening.create:
                opening.host.files.mkdir(copy.path)
            _sweep(opening.host, copy)
            scans.append(scan_copy(opening.host, opening.store, copy))
        except OSError as error:
            _lose(opening, report, copy.disk, error)
    empty = [scan for scan in scans if scan.empty]
    if empty and not opening.create:
        raise Refused(
            f"there is no state in {empty[0].copy.path}; if its disk is mounted, see `ostraka disk replace`",
            reason="missing",
        )
    if len(empty) == len(scans):
        for scan in empty:
            format_copy(opening.host, opening.store, scan.copy, opening.epoch)
        report.formatted = True
    elif empty:  # a first format that did not come to its end: the others are copied
        report.healed += [(scan.copy.disk, "empty") for scan in empty]
        whole = [scan for scan in scans if not scan.empty]
        truth = Truth(opening.host, whole, accept_loss=opening.accept_loss)
        for scan in empty:
            reseed(opening.host, opening.store, scan.copy, truth, truth.base(), opening.epoch)
    else:
        return scans
    return [scan_copy(opening.host, opening.store, scan.copy) for scan in scans]


def _sweep(host: Host, copy: Copy) -> None:
    """Remove what a crash left under staging names."""
    for name in host.files.names(copy.path):
        if name.endswith(STAGING_SUFFIX) and is_ours(name):
            host.files.unlink(copy.path / name)


def _lose(opening: Opening, report: Recovery, disk: bytes, error: OSError) -> None:
    """A copy that cannot be used is evicted before anything else; Unavailable when it is the last."""
    report.failed.append((disk, str(error)))
    if len(report.failed) == len(opening.copies):
        raise Unavailable(f"no copy of the state can be used: {error}", reason="state") from error
    try:
        opening.epoch = max(opening.epoch, opening.on_copy_failed(disk, error))
    except OstrakaError:
        raise
    except Exception as failure:
        raise Unavailable(f"a failed copy could not be evicted: {failure}", reason="eviction") from failure


def _heal(opening: Opening, truth: Truth, base: Base, report: Recovery) -> list[Position]:
    """Bring every copy to the end of truth; the positions of those that are there."""
    positions = []
    for scan in truth.scans:
        copy = scan.copy
        try:
            why = _heal_one(opening, truth, base, scan)
        except OSError as error:
            _lose(opening, report, copy.disk, error)
            continue
        if why:
            report.healed.append((copy.disk, why))
        positions.append(Position(copy.disk, str(copy.path)))
    return positions


def _heal_one(opening: Opening, truth: Truth, base: Base, scan: CopyScan) -> str:
    host, store, copy, epoch = opening.host, opening.store, scan.copy, opening.epoch
    if scan.damage or not scan.complete():
        reseed(host, store, copy, truth, base, epoch)
        return "damaged"
    if scan.last < truth.last:
        if all(truth.has(commit) for commit in range(scan.last + 1, truth.last + 1)):
            write_log(host, store, copy, truth, scan.last + 1, epoch)
        else:
            reseed(host, store, copy, truth, base, epoch)
        return "behind"
    if not scan.closed and scan.place(truth.last) is not None:
        write_log(host, store, copy, truth, truth.last, epoch)
    return ""


# -- index


def _index(
    opening: Opening, files: IndexFiles, truth: Truth, base: Base, report: Recovery
) -> tuple[int, Map, Rebuilt | None]:
    stops = {generation: s for generation, s in files.clean_stops().items() if s.store == opening.store}
    _check_not_stale(opening, truth, max([files.durable, *(stop.commit for stop in stops.values())]))
    whole = {generation: stop for generation, stop in stops.items() if files.pages_are(generation, stop)}
    files.drop_clean()  # from here on the index changes
    for generation, stop in whole.items():
        index = _reuse(opening, files, truth, base, generation, stop)
        if index is not None:
            report.clean = True
            return generation, index, None
    generation, index, rebuilt = build_index(files, truth, base, opening.open_map, opening.index_size_max)
    report.rows = rebuilt.rows
    report.restated = rebuilt.digest != digest_at(truth, base, truth.last)
    return generation, index, rebuilt


def _check_not_stale(opening: Opening, truth: Truth, durable: int) -> None:
    if durable > truth.last and not opening.accept_loss:
        raise Refused(
            f"the state was at commit {durable} before it stopped, and its copies end at {truth.last}: they are "
            "stale or damaged. Bring back the newest copy, or repair from the index, if that is whole, with "
            "fsck --repair, which accepts the loss if not",
            reason="stale",
        )


def _reuse(
    opening: Opening, files: IndexFiles, truth: Truth, base: Base, generation: int, stop: CleanStop
) -> Map | None:
    """The index that a clean stop left, if it shows the end of the truth."""
    digest = digest_at(truth, base, truth.last).to_bytes(16, "big")
    if stop.commit != truth.last or stop.digest != digest:
        return None
    try:
        index = opening.open_map(files.map_path(generation), opening.index_size_max)
    except lmdb.Error:  # no room for its lock file, perhaps: a new one will tell
        return None
    txn = index.begin()
    try:
        meta = load_meta(txn, index)
    except (Corrupt, lmdb.Error):
        meta = None
    finally:
        txn.abort()
    if meta is not None and (meta.store, meta.commit, meta.digest) == (opening.store, stop.commit, stop.digest):
        return index
    index.close()
    return None


def build_index(
    files: IndexFiles, truth: Truth, base: Base, open_map: OpenMap, size_max: int
) -> tuple[int, Map, Rebuilt]:
    """A new index of the next generation, filled from the truth; nobody uses it yet. Corrupt, Full, Unavailable."""
    problem: OstrakaError = Corrupt("no snapshot of the state verifies", reason="state_snapshot")
    for scan in base.holders:
        generation = files.next_generation()
        path = files.map_path(generation)
        try:
            index = open_map(path, size_max)
        except lmdb.Error as error:
            _remove(files, path)
            raise _not_built(error) from error
        try:
            with opened(files.files, scan.copy.path / scan.snapshots[base.commit]) as reader:
                return generation, index, _fill(index, reader, truth, base)
        except (Corrupt, OSError) as error:
            _discard(files, index, path)
            note = error.message if isinstance(error, Corrupt) else str(error)
            scan.damage.append(DamageReport(scan.copy.disk, scan.snapshots[base.commit], note))
            problem = Corrupt(
                f"the snapshot of commit {base.commit} verifies on no copy of the state: {note}. Restore a copy, or "
                "repair from the index with fsck --repair",
                reason="state",
            )
        except lmdb.Error as error:
            _discard(files, index, path)
            raise _not_built(error) from error
        except BaseException:
            _discard(files, index, path)
            raise
    raise problem


def _not_built(error: lmdb.Error) -> OstrakaError:
    text = str(error)
    if isinstance(error, lmdb.MapFullError) or "No space left" in text or "quota" in text:
        return Full(f"no room for the index of the state ({text}): make some on that disk", reason="state_index")
    return Unavailable(f"the index of the state cannot be built: {text}", reason="state_index")


def _discard(files: IndexFiles, index: Map, path: Path) -> None:
    index.close()
    _remove(files, path)


def _remove(files: IndexFiles, path: Path) -> None:
    for name in (path, path.with_name(path.name + "-lock")):
        with contextlib.suppress(OSError):
            files.files.unlink(name)


def _fill(index: Map, reader: SnapshotReader, truth: Truth, base: Base) -> Rebuilt:
    return fill(index, reader, truth.records(base.commit + 1))


def digest_at(truth: Truth, base: Base, commit: int) -> int:
    """The digest that the log or the snapshot gives for a commit from base to the end."""
    if commit == base.commit:
        return base.header.digest
    return next(truth.records(commit, commit)).digest


def _write_meta(
    opening: Opening,
    index: Map,
    truth: Truth,
    base: Base,
    positions: list[Position],
    rebuilt: Rebuilt | None,
    report: Recovery,
) -> None:
    with base.read() as reader:
        snapshot_size = reader.size
    log_files = max(len(scan.log_names) for scan in truth.scans)
    txn = index.begin(write=True)
    try:
        index.reserve(1 * MIB)
        if rebuilt is None:
            old = load_meta(txn, index)
            assert old is not None
            digest, sequence, log_bytes = old.digest, old.sequence, old.log_bytes
        else:
            digest, sequence = rebuilt.digest.to_bytes(16, "big"), rebuilt.sequence
            log_bytes = rebuilt.log_bytes
        meta = Meta(
            opening.store,
            opening.epoch,
            truth.last,
            sequence,
            digest,
            tuple(positions),
            log_bytes,
            log_files,
            base.commit,
            snapshot_size,
        )
        store_meta(txn, index, meta)
        txn.commit()
    finally:
        with contextlib.suppress(lmdb.Error):
            txn.abort()
    report.commit, report.sequence = meta.commit, meta.sequence
