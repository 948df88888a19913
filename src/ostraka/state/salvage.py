"""The truth made anew from the index: the way out when no copy gives a snapshot or a record back.

The index holds every row; if LMDB's own verifier finds its pages in order and its rows come to the digest of its
commit, it is as good as a snapshot, and is written as one. What the logs hold whole beyond that commit is kept.
"""

from pathlib import Path

import msgspec

from ostraka.errors import Refused
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.state.checkpoint import Checkpointed
from ostraka.state.index_files import generations
from ostraka.state.meta import Meta, load_meta
from ostraka.state.ordered import LmdbMap
from ostraka.state.rebuild import read_rows
from ostraka.state.recover import index_size_max
from ostraka.state.seed import ASIDE_SUFFIX
from ostraka.state.snapshot import SnapshotHeader, StagedFile, snapshot_name, write_snapshot
from ostraka.state.truth import Copy, scan_copy
from ostraka.state.verify import check_index


def salvage_from_index(
    host: Host, limits: Limits, store: bytes, copies: list[Copy], index: Path, epoch: int
) -> Checkpointed:
    """Write the index as a snapshot to every copy; then open as always. On a stopped store, and asked for by a person.

    Refused when there is no index of this store that is whole, or when the logs hold whole commits that the index
    does not lead to. OSError.
    """
    notes = []
    size_max = index_size_max(host, limits, index)
    for path in generations(host.files, index):
        report = check_index(path, size_max, structure=True)
        if not report.whole:
            notes.append(f"{path.name}: {report.note}")
            continue
        opened = LmdbMap(path, size_max, readonly=True)
        txn = opened.begin()
        try:
            meta = load_meta(txn, opened)
            if meta is None or meta.store != store:
                notes.append(f"{path.name}: belongs to another store")
                continue
            _check_logs(host, store, copies, meta)
            header = SnapshotHeader(
                store, max(epoch, meta.epoch), meta.commit, meta.sequence, int.from_bytes(meta.digest, "big")
            )
            staged = [StagedFile(host.files, c.path, snapshot_name(meta.commit), host.random(4).hex()) for c in copies]
            try:
                size, failed = write_snapshot(header, read_rows(txn, opened), staged)
                for error in failed.values():
                    raise error
                for copy, file in zip(copies, staged, strict=True):
                    file.publish()
                    _set_logs_aside(host, store, copy, meta.commit)
            finally:
                for file in staged:
                    file.discard()
            return Checkpointed(meta.commit, size, len(copies))
        finally:
            txn.abort()
            opened.close()
    raise Refused(f"no index of this store is whole ({'; '.join(notes) or 'there is none'})", reason="state_index")


def _check_logs(host: Host, store: bytes, copies: list[Copy], meta: Meta) -> None:
    for copy in copies:
        scan = scan_copy(host, store, msgspec.structs.replace(copy, epoch_min=0))
        missing = [c for c in range(meta.commit + 1, scan.last + 1) if scan.place(c) is None]
        if missing:
            raise Refused(
                f"{copy.path} goes to commit {scan.last}, the index only to {meta.commit}, and {missing[0]} is damaged",
                reason="state_log",
            )


def _set_logs_aside(host: Host, store: bytes, copy: Copy, commit: int) -> None:
    """Logs that say nothing beyond the snapshot must not be taken for damaged ones that did."""
    scan = scan_copy(host, store, msgspec.structs.replace(copy, epoch_min=0))
    if scan.last <= commit:
        for name in scan.log_names:
            host.files.rename(copy.path / name, copy.path / (name + ASIDE_SUFFIX))  # unsynced: can be asked for again
