"""Opening a store that is damaged: the way out that a refusal names, `ostraka fsck --repair`.

Only on a stopped store, and only because a person asked. A superblock that is damaged is written anew as the other
disks have it: if their newest epoch calls that disk up it missed nothing, and if not it is taken for one that was away.
The state is opened as always; where no copy leads to its end,
it is made anew from an index that is whole (state/salvage.py); where there is none, the store goes on without the
commits that no copy gives back. Each step is told, as a finding.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.nodes import opening as openings
from ostraka.nodes import recovery, superblock
from ostraka.nodes.superblock import Superblock
from ostraka.state.salvage import salvage_from_index
from ostraka.state.truth import Copy
from ostraka.store.fsck import Finding
from ostraka.store.recovery import INDEX, STATE, hold, survey_and_judge
from ostraka.store.store import Store, new_shared, open_owner

log = logging.getLogger("ostraka.store")

REASONS = frozenset({"state", "state_log", "state_snapshot", "stale"})  # of a state that no copy gives back


@contextlib.asynccontextmanager
async def open_for_repair(
    directories: Sequence[Path], *, host: Host | None = None, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Store, list[Finding]]]:
    """The store, for this process alone, and what had to be done to open it. InUse; else as `open_owner`."""
    host = host or Host()
    with hold(directories, host, make=False):
        mended = _mend_superblocks(directories, host)
        _doubt_indexes(directories, host)
        store, findings = _open(directories, host, limits)
        findings[:0] = mended
        try:
            yield store, findings
        finally:
            await store.close()


def _open(directories: Sequence[Path], host: Host, limits: Limits) -> tuple[Store, list[Finding]]:
    def attempt(*, accept_loss: bool = False) -> Store:
        return open_owner(
            directories, new_shared(1), 0, existing=True, host=host, limits=limits, accept_loss=accept_loss
        )

    try:
        return attempt(), []
    except (Corrupt, Refused) as error:
        if error.reason not in REASONS:
            raise
        problem = error
    log.error("the state cannot be opened: %s", problem.message)
    notes = _salvage(directories, host, limits)
    if notes is None:
        return attempt(), [Finding("state", f"{problem.message}: made anew from the index", True)]
    try:
        store = attempt(accept_loss=True)
    except OstrakaError as error:
        raise Corrupt(f"{error.message} ({notes})", reason="state") from None
    return store, [Finding("state", f"{problem.message}: what no copy gives back is lost ({notes})", True)]


def _doubt_indexes(directories: Sequence[Path], host: Host) -> None:
    """Shards are looked up in indexes that were made a moment ago, from the segments."""
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            recovery.doubt(host, directory, "somebody asked for a repair")


def _mend_superblocks(directories: Sequence[Path], host: Host) -> list[Finding]:
    found, _ = openings.survey(directories, host.files)
    damaged = [(f.path, f.error) for f in found if f.kind == "unreadable" and _is_damaged(f.path, host)]
    if not damaged or len(damaged) == len(found):
        return []
    opening = openings.judge(found, ec=None, existing=True)
    findings = []
    for path, error in damaged:
        mark = recovery.read_mark(host, path)
        if opening is None or mark is None or mark.store != opening.store_id.hex():
            continue
        member = opening.epoch.member(mark.disk)
        if member is None or member.number not in opening.missing:
            continue
        superblock.write(host.files, path, Superblock(opening.store_id, member.disk_id, True, opening.epoch))
        findings.append(Finding("superblock", f"{path} (disk {member.number}): {error}", True))
    return findings


def _is_damaged(path: Path, host: Host) -> bool:
    try:
        superblock.read(host.files, path)
    except Corrupt:
        return True
    except (OSError, OstrakaError):
        pass
    return False


def _salvage(directories: Sequence[Path], host: Host, limits: Limits) -> str | None:
    """Write the state anew from the first index that is whole; why there is none, or None."""
    opening, _, _ = survey_and_judge(directories, None, True, None, host)
    epoch = opening.epoch
    copies = [
        Copy(d.disk_id, opening.present[d.number] / STATE)
        for d in epoch.members
        if d.up and d.state and d.number in opening.present
    ]
    notes = []
    for path in opening.present.values():
        if not (path / INDEX).is_dir():
            continue
        try:
            salvage_from_index(host, limits, opening.store_id, copies, path / INDEX, epoch.number)
            return None
        except (OstrakaError, OSError) as error:
            notes.append(str(error))
    return "; ".join(notes) or "there is no index"
