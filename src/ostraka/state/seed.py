"""A copy made anew from others: for a disk that replaces another, and for a copy that lags or is damaged.

The snapshot is copied, then the log behind it is written anew; what is written is read back before it takes its name.
Where an old log file begins, a new one begins too, which sorts right behind it and supersedes it. So the copy is as
good as before, or better, at every step, and the old files go last. It may be the only copy there is.
"""

import contextlib
import itertools

from ostraka.host import Host
from ostraka.state.log import (
    LogHeader,
    encode_header,
    encode_record,
    log_name,
    parse_log_name,
    seed_of,
)
from ostraka.state.snapshot import (
    STAGING_SUFFIX,
    SnapshotHeader,
    StagedFile,
    opened,
    parse_snapshot_name,
    snapshot_name,
    write_snapshot,
)
from ostraka.state.truth import Base, Copy, Truth

ASIDE_SUFFIX = ".aside"


def format_copy(host: Host, store: bytes, copy: Copy, epoch: int) -> None:
    """The empty state, as a snapshot of commit 0. OSError."""
    host.files.mkdir(copy.path)
    staged = StagedFile(host.files, copy.path, snapshot_name(0), host.random(4).hex())
    try:
        _, failed = write_snapshot(SnapshotHeader(store, epoch, 0, 0, 0), (), [staged])
        for error in failed.values():
            raise error
        staged.publish()
    finally:
        staged.discard()


def reseed(host: Host, store: bytes, copy: Copy, truth: Truth, base: Base, epoch: int) -> None:
    """Make the copy whole from others, up to the end of truth. Corrupt when the others are not; OSError."""
    files, directory = host.files, copy.path
    files.mkdir(directory)
    files.sync_directory(directory.parent)  # before an epoch names the copy: it has to be there after a power cut
    source = base.verified()
    old_names = files.names(directory)
    if source.copy.disk != copy.disk:
        staged = StagedFile(files, directory, snapshot_name(base.commit), host.random(4).hex())
        try:
            with opened(files, source.copy.path / source.snapshots[base.commit]) as reader:
                for piece in reader.pieces():
                    staged.write(piece)
            staged.publish()
        finally:
            staged.discard()
    keep = {snapshot_name(base.commit)}
    begins = {parsed[0] for name in old_names if (parsed := parse_log_name(name)) is not None}
    firsts = sorted(f for f in {base.commit + 1, *begins} if base.commit < f <= truth.last)
    for first, following in itertools.pairwise([*firsts, truth.last + 1]):
        keep.add(write_log(host, store, copy, truth, first, epoch, following - 1))
    for name in old_names:
        if name not in keep and is_ours(name):
            with contextlib.suppress(FileNotFoundError):
                files.unlink(directory / name)  # unsynced: one that comes back is superseded


def write_log(
    host: Host, store: bytes, copy: Copy, truth: Truth, first: int, epoch: int, last: int | None = None
) -> str:
    """One log file with the records first..last (to the end of truth); returns its name. Corrupt; OSError."""
    files, directory = host.files, copy.path
    taken = [parsed[1] for name in files.names(directory) if (parsed := parse_log_name(name)) and parsed[0] == first]
    name = log_name(first, max(taken, default=-1) + 1)
    staged = StagedFile(files, directory, name, host.random(4).hex())
    try:
        incarnation = host.random(16)
        seed = seed_of(incarnation)
        staged.write(encode_header(LogHeader(store, copy.disk, incarnation, epoch, first)))
        for record in truth.records(first, last):
            staged.write(encode_record(record, seed))
        staged.publish()
    finally:
        staged.discard()
    return name


def is_ours(name: str) -> bool:
    """Whether a file of a state directory was put there by the state."""
    return (
        parse_log_name(name) is not None
        or parse_snapshot_name(name) is not None
        or name.endswith((STAGING_SUFFIX, ASIDE_SUFFIX))
    )
