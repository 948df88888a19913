"""The scrub of the state: damage at rest is found before somebody needs the row (ENGINE 8).

Within each period every byte of every copy's log and snapshots is read, the copies are compared, and the index is
walked, in a process of its own, against the digest of its commit. What is damaged is made anew: a copy from the others,
or from the index where there are none; the index from the copies. The period is counted over restarts.
"""

import logging
from pathlib import Path
from typing import NamedTuple

from ostraka.errors import Corrupt, OstrakaError
from ostraka.jobs.ground import Budget, Ground, Job, Progress, finish, in_thread
from ostraka.jobs.records import SCRUB_KEY, ScrubRecord, decode, encode
from ostraka.state.meta import Meta
from ostraka.state.truth import Copy
from ostraka.state.types import Mutation, Put, State
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


class Scrub(Job):
    name = "scrub"
    purpose = "verifies every byte of the state"
    paused_means = "damage at rest is not looked for"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._finished = self._load()
        self._started = ground.host.clock.time()  # recovery has looked at all of it
        self._done = 0
        self.findings: list[StateFinding] = []  # of the last scrub

    async def run_once(self, budget: Budget) -> Progress:
        ground = self._ground
        due = self._due()
        if due > 0 and not ground.state.index_suspect:
            return Progress(self._done, again_in=due)
        self.findings, _ = await scrub_state(ground, repair=True)
        for finding in self.findings:
            level = logging.WARNING if finding.repaired else logging.ERROR
            log.log(level, "the state was damaged (%s): %s", "repaired" if finding.repaired else "left", finding.what)
        self._done += 1
        self._finished = ground.host.clock.time()
        await ground.state.commit(Mutation((), [Put(SCRUB_KEY, encode(ScrubRecord(finished=self._finished)))]))
        return Progress(self._done, again_in=self._due(), did=1, bytes=self._ground.state.meta().log_bytes)

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        value = state.get(SCRUB_KEY)
        if value is None:
            return 0, ""
        record = decode(SCRUB_KEY, value)
        assert isinstance(record, ScrubRecord)
        return 0, "finished before" if record.finished else ""

    def _due(self) -> float:
        """Seconds until the next; a wall clock that went back does not put it off by more than a period."""
        period = self._ground.limits.state_scrub_seconds
        now = self._ground.host.clock.time()
        last = max((t for t in (self._finished, self._started) if t <= now), default=now - period)
        return max(0.0, last + period - now)

    def _load(self) -> float:
        value = self._ground.state.get(SCRUB_KEY)
        if value is None:
            return 0.0
        try:
            record = decode(SCRUB_KEY, value)
            assert isinstance(record, ScrubRecord)
            return record.finished
        except Corrupt:
            return 0.0
