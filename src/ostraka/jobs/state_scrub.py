"""The scrub of the state: damage at rest is found before somebody needs the row (ENGINE 8).

Every byte of every copy's log and snapshots is read, the copies are compared, and the index is walked, in a process of
its own, against the digest of its commit. What is damaged is made anew: a copy from the others, or from the index where
there are none; the index from the copies.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from ostraka.errors import OstrakaError
from ostraka.jobs.ground import Ground, finish, in_thread
from ostraka.state.meta import Meta
from ostraka.state.truth import Copy
from ostraka.state.verify import verify_copies

log = logging.getLogger("ostraka.jobs")


class StateFinding(NamedTuple):
    """Damage of the state: "state-copy" or "state-index"."""

    kind: str
    what: str
    repaired: bool


async def scrub_state(ground: Ground, *, repair: bool) -> tuple[list[StateFinding], int]:
    """(what is damaged, and whether it was mended; rows of the index). Blocking work runs in threads."""
    state = ground.state
    findings: list[StateFinding] = []
    index = await state.verify_index()
    if not index.whole:
        index = await state.verify_index()  # a commit may have passed under the first walk
    meta = state.meta()
    reports = await in_thread(verify_copies, ground.host, ground.membership.store_id, meta)
    damaged = [report for report in reports if report.damage]
    mended: set[bytes] = set()
    if repair and damaged:
        mended = await _mend_copies(ground, meta, {r.disk for r in damaged}, index.whole)
    for report in damaged:
        for damage in report.damage:
            what = f"copy on disk {_number(ground, report.disk)}: {damage.file}: {damage.note}"
            findings.append(StateFinding("state-copy", what, report.disk in mended))
    if not index.whole:
        repaired = False
        if repair:
            try:
                await finish(state.rebuild_index())
                repaired = True
            except OstrakaError as error:
                log.error("the index of the state cannot be built anew: %s", error.message)
        findings.append(StateFinding("state-index", index.note, repaired))
    return findings, index.rows


async def _mend_copies(ground: Ground, meta: Meta, damaged: set[bytes], index_whole: bool) -> set[bytes]:
    """Write damaged copies anew; returns those that are whole now."""
    state = ground.state
    mended: set[bytes] = set()
    for position in meta.copies:
        if position.disk not in damaged:
            continue
        try:
            await finish(state.seed(Copy(position.disk, Path(position.path)), ground.membership.epoch.number))
            mended.add(position.disk)
        except (OstrakaError, OSError) as error:
            log.warning("%s: the copy of the state cannot be made from the others: %s", position.path, error)
    left = damaged - mended
    if left and index_whole:  # the index is all there is: a snapshot of it takes the place of every log
        try:
            await finish(state.checkpoint())
        except (OstrakaError, OSError) as error:
            log.error("no snapshot of the state could be made from its index: %s", error)
    reports = await in_thread(verify_copies, ground.host, ground.membership.store_id, state.meta())
    return {report.disk for report in reports if not report.damage} & damaged


def _number(ground: Ground, disk: bytes) -> int | str:
    found = next((d.number for d in ground.membership.epoch.members if d.disk_id == disk), None)
    return disk.hex() if found is None else found
