"""Looking for damage that nobody has met yet: in the index, and in what the copies hold.

The index is walked in a process of its own, because a damaged page can kill whoever follows it. All its rows, summed
up, must come to the digest of its commit: a row that is gone is found as surely as one that was changed (walk.py).
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.state.meta import Meta
from ostraka.state.report import IndexReport
from ostraka.state.snapshot import opened
from ostraka.state.truth import Copy, CopyScan, DamageReport, scan_copy


class CopyReport(Struct, frozen=True):
    """Whether one copy is what its checksums say; ``commit`` is the newest that it holds whole."""

    disk: bytes
    commit: int
    records: int
    damage: list[DamageReport]


def check_index(path: Path, size_max: int, *, structure: bool = False) -> IndexReport:
    """Walk the index at path in a new process. ``structure``: LMDB's own pages too, when nobody writes."""
    command = [sys.executable, "-m", "ostraka.state.walk", str(path), str(size_max)]
    if structure:
        command.append("structure")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        with contextlib.suppress(ValueError, TypeError):
            return IndexReport(**json.loads(done.stdout))
    if done.returncode < 0:
        return IndexReport(False, note=f"reading the index ended with signal {-done.returncode}")
    lines = done.stderr.strip().splitlines()
    return IndexReport(False, note=lines[-1] if lines else "reading the index failed")


def verify_copies(host: Host, store: bytes, meta: Meta) -> list[CopyReport]:
    """Read every byte of every copy that counts, and compare the copies with one another."""
    scans: list[CopyScan] = []
    reports: list[CopyReport] = []
    for position in meta.copies:
        copy = Copy(position.disk, Path(position.path))
        try:
            scan = _scan_at_rest(host, store, copy)
        except (OSError, OstrakaError) as error:
            reports.append(CopyReport(copy.disk, 0, 0, [DamageReport(copy.disk, "", str(error))]))
            continue
        damage = list(scan.damage)
        for name in scan.snapshots.values():
            try:
                with opened(host.files, copy.path / name) as reader:
                    reader.verify()
            except FileNotFoundError:
                continue  # a checkpoint has replaced it meanwhile
            except (OSError, OstrakaError) as error:
                damage.append(DamageReport(copy.disk, name, str(error)))
        if scan.last < meta.commit or not scan.complete():
            damage.append(DamageReport(copy.disk, "", f"does not lead to commit {meta.commit}"))
        for other in scans:
            commit = scan.disagrees(other)
            if commit is not None:
                note = f"holds another commit {commit} than {other.copy.path}"
                damage.append(DamageReport(copy.disk, "", note))
        scans.append(scan)
        reports.append(CopyReport(copy.disk, scan.last, len(scan.places), damage))
    return reports


def _scan_at_rest(host: Host, store: bytes, copy: Copy) -> CopyScan:
    """A scan whose findings are not a write in flight: what is damage is so twice."""
    scan = scan_copy(host, store, copy)
    return scan if not scan.damage and scan.complete() else scan_copy(host, store, copy)
