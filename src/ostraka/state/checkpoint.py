"""Snapshots while commits go on, and copies that join while commits go on.

A checkpoint first lets every copy begin a new log file at the next commit, so that what the snapshot replaces is a
known set of files. Rows are read from one transaction of the index, and must come to the digest of its commit: a
snapshot made from a damaged index is found before anything is replaced. Old files go only when the new snapshot was
read back on that copy. A copy without room for the snapshot keeps its logs, and stays a copy.

Both hold a lock, so that no log is dropped under a copy that is being made.
"""

import contextlib
import errno
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from ostraka.errors import Corrupt, Full, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.state.copies import unnamed
from ostraka.state.engine import Engine
from ostraka.state.log import parse_log_name
from ostraka.state.meta import Meta, Position, load_meta, store_meta
from ostraka.state.ordered import Map
from ostraka.state.rebuild import read_rows
from ostraka.state.seed import reseed, write_log
from ostraka.state.snapshot import (
    SnapshotHeader,
    StagedFile,
    parse_snapshot_name,
    snapshot_name,
    write_snapshot,
)
from ostraka.state.truth import Copy, survey

_ROWS_BETWEEN_BREATHS = 256  # rows after which the interpreter lock is offered to the event loop


class Checkpointed(Struct, frozen=True):
    """What a checkpoint came to."""

    commit: int
    size: int  # bytes of the snapshot
    copies: int  # on which it is


def checkpoint(host: Host, store: bytes, index: Map, engine: Engine, directory: Path) -> Checkpointed:
    """Snapshot to every copy. InUse, Corrupt (the index is damaged), Full, Unavailable."""
    with host.files.lock(directory / "checkpoint.lock"):
        replaced = _begin_new_logs(host, index, engine)
        size, meta, staged, failed = _write(host, store, index)
        done = []
        try:
            for position, file, error in staged:
                try:
                    if error is not None:
                        raise error
                    file.publish()
                    done.append(position)
                except OSError as problem:
                    failed[position.disk] = problem
        finally:
            for _, file, _ in staged:
                file.discard()
        if not done:  # nothing is lost by it: every copy has its logs
            raise _refusal(failed)
        broken = {disk: error for disk, error in failed.items() if error.errno not in (errno.ENOSPC, errno.EDQUOT)}
        if broken:
            engine.fail_copies(broken)
        _settle(index, engine, meta, size)
        for position in done:
            _drop(host, position, replaced.get(position.disk, []), meta.commit)
        return Checkpointed(meta.commit, size, len(done))


def _begin_new_logs(host: Host, index: Map, engine: Engine) -> dict[bytes, list[str]]:
    """Let the next record begin a new file on every copy; the log files that end before it, by disk."""
    with engine.writing() as (txn, meta):
        old = {
            p.disk: [name for name in host.files.names(Path(p.path)) if parse_log_name(name) is not None]
            for p in meta.copies
        }
        store_meta(txn, index, msgspec.structs.replace(meta, copies=tuple(unnamed(p) for p in meta.copies)))
        txn.commit()
        return old


def _write(
    host: Host, store: bytes, index: Map
) -> tuple[int, Meta, list[tuple[Position, StagedFile, OSError | None]], dict[bytes, OSError]]:
    """Stage the snapshot of the present moment on every copy."""
    staged: list[tuple[Position, StagedFile]] = []
    broken: dict[bytes, OSError] = {}
    txn = index.begin()
    try:
        meta = load_meta(txn, index)
        if meta is None:
            raise Corrupt("the index of the state has no meta row", reason="state_index")
        token = host.random(4).hex()
        for position in meta.copies:
            try:
                file = StagedFile(host.files, Path(position.path), snapshot_name(meta.commit), token)
            except OSError as error:
                broken[position.disk] = error
            else:
                staged.append((position, file))
        header = SnapshotHeader(store, meta.epoch, meta.commit, meta.sequence, int.from_bytes(meta.digest, "big"))
        size, failed = write_snapshot(header, _politely(read_rows(txn, index)), [file for _, file in staged])
    except BaseException:
        for _, file in staged:
            file.discard()
        raise
    finally:
        txn.abort()
    found = [(position, file, failed.get(number)) for number, (position, file) in enumerate(staged)]
    return size, meta, found, broken


def _refusal(failed: dict[bytes, OSError]) -> OstrakaError:
    first = next(iter(failed.values()))
    if all(error.errno in (errno.ENOSPC, errno.EDQUOT) for error in failed.values()):
        return Full(f"no room for a snapshot of the state: {first}", reason="state_snapshot")
    return Unavailable(f"no copy takes a snapshot of the state: {first}", reason="state_snapshot")


def _politely(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for number, row in enumerate(rows):
        if number % _ROWS_BETWEEN_BREATHS == 0:
            time.sleep(0)
        yield row


def _settle(index: Map, engine: Engine, shown: Meta, size: int) -> None:
    with engine.writing() as (txn, meta):
        since = meta.log_bytes - shown.log_bytes
        after = msgspec.structs.replace(
            meta, log_bytes=max(0, since), log_files=1, snapshot_commit=shown.commit, snapshot_size=size
        )
        store_meta(txn, index, after)
        txn.commit()


def _drop(host: Host, position: Position, logs: list[str], commit: int) -> None:
    """Remove the logs and snapshots that the snapshot of ``commit`` replaces; what stays is dropped the next time."""
    directory = Path(position.path)
    with contextlib.suppress(OSError):
        older = [n for n in host.files.names(directory) if (c := parse_snapshot_name(n)) is not None and c < commit]
        for name in [*logs, *older]:
            host.files.unlink(directory / name)  # unsynced: one that comes back is dropped the next time


def seed_copy(host: Host, store: bytes, index: Map, engine: Engine, directory: Path, copy: Copy, epoch: int) -> None:
    """Make the copy from the others and let it join the commits. InUse, Corrupt, Unavailable, OSError."""
    with host.files.lock(directory / "checkpoint.lock"):
        _begin_new_logs(host, index, engine)
        with engine.writing() as (_, meta):
            pass
        truth = survey(host, store, meta.copies)
        reseed(host, store, copy, truth, truth.base(), epoch)
        with engine.writing() as (txn, meta):
            if meta.commit < truth.last:
                raise Unavailable("a commit that was in flight was given up meanwhile; try again", reason="state")
            if meta.commit > truth.last:
                rest = survey(host, store, meta.copies, since=truth.last + 1)
                write_log(host, store, copy, rest, truth.last + 1, epoch)
            joined = tuple(p for p in meta.copies if p.disk != copy.disk)
            joined += (Position(copy.disk, str(copy.path)),)
            engine.mark_epoch(txn, msgspec.structs.replace(meta, copies=joined), epoch, must=copy.disk)
