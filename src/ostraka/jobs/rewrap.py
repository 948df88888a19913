"""Re-wrapping: after a key was rotated, every data key that an older version wraps comes under the newest.

Rows change and data do not. A pass walks all rows that hold a seal, inline bodies, chunks and packs, each changed only
if it still is what was read. Writes that were under way when the key was rotated still seal under the older version; so
a first pass is followed, ``limits.key_retire_seconds`` later, by a last one, which begins by closing the old versions:
from then on no commit that seals under them lands. When that pass ends with nothing left, they are forgotten.

It goes on where it was after a restart, and waits where the master key is missing.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ostraka.chunks.keyring import Key
from ostraka.chunks.sealing import Domain, key_of
from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread
from ostraka.jobs.records import REWRAP_KEY, RewrapRecord, decode, encode
from ostraka.objects.seals import TABLES, sealed
from ostraka.state.types import Committed, Delete, Equals, Mutation, Put, State, prefix_end

log = logging.getLogger("ostraka.jobs")

ROWS_AT_ONCE = 200
AGAIN_SECONDS = 3600.0
ATTEMPTS_MAX = 20  # on one row that others keep changing; it is left to the next pass then


class _Target(NamedTuple):
    """A key that was rotated."""

    name: str
    current: int
    domain: Domain


class _Page(NamedTuple):
    """What is to be done with a run of rows."""

    changes: list[Mutation]
    examined: int
    left: int
    cursor: bytes  # b"": the end


class Rewrap(Job):
    name = "rewrap"
    purpose = "brings data keys under the newest version of a key that was rotated"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._done = 0
        self._not_before = 0.0  # of the next pass, after one that could not read all rows
        self._note = ""

    async def run_once(self, budget: Budget) -> Progress:
        keyring, now = self._ground.keyring, self._ground.host.clock.monotonic()
        if now < self._not_before:
            return Progress(self._done, again_in=self._not_before - now, note=self._note)
        rotated = [key for key in keyring.all() if len(key.row.versions) > 1]
        record = _record(self._ground.state)
        if not rotated:
            if record.targets:
                await self._save(None)
            return Progress(self._done)
        try:
            targets = {key.id: _Target(key.row.name, key.row.current.number, self._domain(key)) for key in rotated}
        except OstrakaError as error:  # the master key is missing, and comes with another start
            return Progress(self._done, note=error.message)
        wanted = tuple(sorted((key_id, target.current) for key_id, target in targets.items()))
        if record.targets != wanted:
            record = RewrapRecord(targets=wanted)
        if record.ended:
            wait = self._retired_in(rotated)
            if wait > 0:
                return Progress(
                    record.examined, again_in=wait, note="older versions of a key are kept for writes under way"
                )
            record = RewrapRecord(targets=wanted, closing=True)
            if not await keyring.close(rotated, [Put(REWRAP_KEY, encode(record))]):
                return Progress(self._done, more=True)
        while budget.left:
            record = await self._piece(record, targets)
            budget.rows -= ROWS_AT_ONCE
            if not record.cursor:
                return await self._end(record, rotated)
        return Progress(record.examined, more=True)

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        value = state.get(REWRAP_KEY)
        if value is None:
            return 0, ""
        record = decode(REWRAP_KEY, value)
        assert isinstance(record, RewrapRecord)
        return record.examined, "a pass was begun"

    def _domain(self, key: Key) -> Domain:
        for version in key.row.versions:
            self._ground.keyring.wrapping(key.id, version.number)
        return self._ground.keyring.domain(key.row.name)

    def _retired_in(self, rotated: Sequence[Key]) -> float:
        """Seconds until all older versions are old enough."""
        since = max(key.row.current.created for key in rotated)
        return since + self._ground.limits.key_retire_seconds - self._ground.host.clock.time()

    async def _end(self, record: RewrapRecord, rotated: Sequence[Key]) -> Progress:
        if not record.closing:
            await self._save(msgspec.structs.replace(record, ended=True))
            return Progress(record.examined, more=True)
        if record.left:
            self._note = f"{record.left} rows could not be read, and older versions of keys are kept: ostraka fsck"
            self._not_before = self._ground.host.clock.monotonic() + AGAIN_SECONDS
            await self._save(RewrapRecord(targets=record.targets, closing=True))
            return Progress(record.examined, again_in=AGAIN_SECONDS, note=self._note)
        for key in rotated:
            await self._ground.keyring.drop(key)  # if it was changed meanwhile there is another pass to come
        await self._save(None)
        log.info("all data keys are under the newest versions of their keys: %d were changed", record.rewrapped)
        return Progress(record.examined, more=True)

    # -- rows

    async def _piece(self, record: RewrapRecord, targets: dict[bytes, _Target]) -> RewrapRecord:
        page: _Page = await in_thread(self._page, record.cursor, targets)
        changed, left = 0, page.left
        outcomes = await self._ground.state.commit_many(page.changes) if page.changes else []
        for mutation, outcome in zip(page.changes, outcomes, strict=True):
            if isinstance(outcome, Committed) or await self._again(mutation.operations[0].key, targets):
                changed += 1
            else:
                left += 1
        self._done += changed
        record = msgspec.structs.replace(
            record,
            cursor=page.cursor,
            examined=record.examined + page.examined,
            rewrapped=record.rewrapped + changed,
            left=record.left + left,
        )
        if page.cursor:
            await self._save(record)
        return record

    def _page(self, cursor: bytes, targets: dict[bytes, _Target]) -> _Page:
        """The next rows from the cursor on, and how those are to be changed that need it."""
        changes: list[Mutation] = []
        examined = left = 0
        for table in TABLES:
            if cursor[:1] > table:
                continue
            start = cursor + b"\0" if cursor[:1] == table else table
            page = self._ground.state.scan(start, prefix_end(table), ROWS_AT_ONCE - examined)
            for key, value in page:
                try:
                    change = self._change(key, value, targets)
                except (Corrupt, Refused) as error:
                    log.warning("the key of a row cannot be wrapped anew: %s", error.message)
                    left += 1
                else:
                    changes += [change] if change is not None else []
            examined += len(page)
            if examined >= ROWS_AT_ONCE:
                return _Page(changes, examined, left, page[-1][0])
        return _Page(changes, examined, left, b"")

    def _change(self, key: bytes, value: bytes, targets: dict[bytes, _Target]) -> Mutation | None:
        """What brings a row's seal under the newest version; None when it is there, or has none."""
        found = sealed(key, value)
        if found is None:
            return None
        key_id, number = key_of(found.seal)
        target = targets.get(key_id)
        if target is None or number >= target.current:
            return None
        wrapping = self._ground.keyring.wrapping(key_id, number)
        newer = target.domain.rewrapped(found.seal, wrapping, found.of, self._ground.host)
        return Mutation([Equals(key, value)], [Put(key, found.with_seal(newer))])

    async def _again(self, key: bytes, targets: dict[bytes, _Target]) -> bool:
        """A row that somebody changed under us: once more, as it is now."""
        state = self._ground.state
        for _ in range(ATTEMPTS_MAX):
            value = state.get(key)
            change = None if value is None else self._change(key, value, targets)
            if change is None:
                return True
            (outcome,) = await state.commit_many([change])
            if isinstance(outcome, Committed):
                return True
        return False

    # -- the record

    async def _save(self, record: RewrapRecord | None) -> None:
        change = Delete(REWRAP_KEY) if record is None else Put(REWRAP_KEY, encode(record))
        await self._ground.state.commit(Mutation((), [change]))


def _record(state: State) -> RewrapRecord:
    """As it stands; where it cannot be read the work is begun anew."""
    value = state.get(REWRAP_KEY)
    if value is None:
        return RewrapRecord()
    try:
        record = decode(REWRAP_KEY, value)
    except Corrupt:
        return RewrapRecord()
    assert isinstance(record, RewrapRecord)
    return record
