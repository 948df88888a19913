"""fsck: everything that a store holds is read and held against everything else, while it may be serving.

Outside in: what the disks say of themselves; the state's copies and its index; every row, by its own checksum and by
what it should decode to; the references that rows hold, against the counters; every cell of every shard that a row
names; and last what lies on the disks and is named by nobody, which is counted and is no damage.

The store may change meanwhile. So what looks wrong is looked at again, and is a finding only if it is wrong in the same
way; repairs carry what they were judged on as preconditions. Memory is bounded: rows stream by in pages, references
are counted in a temporary file, findings beyond a limit are only counted.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from ostraka.chunks import keyring as key_rows
from ostraka.chunks import rows as chunk_rows
from ostraka.errors import Corrupt, OstrakaError, Refused
from ostraka.jobs import heal, records, state_copies
from ostraka.jobs.ground import in_thread, together
from ostraka.jobs.liveness import liveness
from ostraka.jobs.state_scrub import scrub_state
from ostraka.jobs.stripes import Named, describe, mend, pages, read_named
from ostraka.nodes import keys as keyring
from ostraka.nodes import recovery, superblock
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.superblock import Epoch, Member, Superblock
from ostraka.objects import check as objects_check
from ostraka.objects import rows as object_rows
from ostraka.objects import seals, tiers
from ostraka.pools.types import ShardHealth
from ostraka.state import totals
from ostraka.store.disks import Progress
from ostraka.store.references import check_counters
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

PAGE = 500
STRIPES_AT_ONCE = 4
TOTALS_TRIES = 3  # each reads all rows of the tables that are counted
NAMED_MAX = 5
MOVES_MAX = 10  # how often a stripe may move while it is verified

_OBJECT_DECODERS = {
    object_rows.BUCKET: object_rows.bucket_of,
    object_rows.LIVE: object_rows.live_of,
    object_rows.VERSION: object_rows.version_of,
    object_rows.UPLOAD: object_rows.upload_of,
    object_rows.PART: object_rows.part_of,
    object_rows.PAGE: object_rows.page_of,
    object_rows.DEAD: object_rows.dead_of,
    object_rows.REPLAY: object_rows.replay_of,
    object_rows.COMPLETED: object_rows.completed_of,
}
_OBJECT_NUMBERS = (object_rows.NULL, object_rows.TOP, object_rows.REFERENCES, object_rows.HELD)  # 8 bytes
_OPAQUE = (
    object_rows.GATE,
    object_rows.PENDING,
    object_rows.INCARNATION,
    b"a",  # accounts (accounts.py): the state has verified the row's checksum
)


class Finding(msgspec.Struct, frozen=True):
    """Damage. ``repaired``: it is no more."""

    kind: str
    what: str
    repaired: bool


async def run(store: Store, progress: Progress, *, repair: bool) -> dict[str, Any]:
    """Verify everything; with ``repair``, mend what can be mended. The result's keys are those of cli/fsck.py."""
    return await Fsck(store, progress, repair).run()


class Fsck:
    def __init__(self, store: Store, progress: Progress, repair: bool) -> None:
        self._store = store
        self._progress = progress
        self._repair = repair and not store.membership.read_only
        self._findings: list[Finding] = []
        self._more: Counter[bool] = Counter()
        self._away: Counter[int] = Counter()  # disk -> shards that could not be asked for
        self.rows = self.stripes = self.shards = self.bytes = 0
        self.orphans = self.orphan_bytes = 0

    def _found(self, kind: str, what: str, repaired: bool = False) -> None:
        log.log(logging.WARNING if repaired else logging.ERROR, "fsck: %s: %s", kind, what)
        if len(self._findings) < self._store.limits.fsck_findings_max:
            self._findings.append(Finding(kind, what, repaired))
        else:
            self._more[repaired] += 1

    async def run(self) -> dict[str, Any]:
        self._store.membership.disk(-1)  # takes over what another process changed
        async with heal.turn(self._store):
            await self._disks()
            await self._state()
            try:
                await self._rows()
                await self._references()
                await self._totals()
                await self._stripes()
                await self._orphans()
            except Corrupt as error:  # a row that no copy gives back: what depends on it cannot be told
                self._found("state", error.message)
        findings = [msgspec.to_builtins(f) for f in self._findings]
        for mended, count in self._more.items():
            findings.append({"kind": "more", "what": f"{count} more findings", "repaired": mended})
        repaired = sum(f.repaired for f in self._findings) + self._more[True]
        return {
            "findings": findings,
            "rows": self.rows,
            "stripes": self.stripes,
            "shards": self.shards,
            "bytes": self.bytes,
            "repaired": repaired,
            "orphans": self.orphans,
            "orphan_bytes": self.orphan_bytes,
            "clean": all(f["repaired"] for f in findings),
        }

    # -- what the disks say of themselves

    async def _disks(self) -> None:
        store = self._store
        epoch = store.membership.epoch
        self._progress("disks", 0, len(epoch.members))
        for done, member in enumerate(epoch.members, 1):
            path = store.membership.paths.get(member.number)
            if not member.up or path is None:
                self._found("disk", f"disk {member.number} is {'missing' if path is None else 'down'}")
                continue
            await in_thread(self._superblock, member.number, path)
            if member.state:
                await in_thread(self._keys, member.number, path)
            self._progress("disks", done, len(epoch.members))
        if len(state_copies.carriers(epoch)) < epoch.m + 1:
            what = f"{len(state_copies.carriers(epoch))} copies of the state, {epoch.m + 1} are due"
            done_well = self._repair and await state_copies.restore(store) is None
            self._found("state-copies", what, done_well)

    def _superblock(self, number: int, path: Path) -> None:
        store = self._store
        for _ in range(2):  # an epoch may pass under the first look
            wrong = self._wrong_superblock(number, path)
            if not wrong:
                return
        repaired = False
        mark = recovery.read_mark(store.host, path)
        if mark is None or (mark.store, mark.disk) != (store.membership.store_id.hex(), number):
            # an empty mount point, perhaps: nothing is written there
            self._found("disk", f"disk {number}: {path} is not that disk any more ({wrong})")
            return
        if self._repair:
            membership = store.membership
            with contextlib.suppress(OSError), membership.exclusive():
                member = membership.epoch.member(number)
                if member is not None:
                    block = Superblock(membership.store_id, member.disk_id, True, membership.epoch)
                    superblock.write(store.host.files, path, block)
                    repaired = True
        self._found("superblock", f"{path}: {wrong}", repaired)

    def _wrong_superblock(self, number: int, path: Path) -> str:
        membership = self._store.membership
        membership.disk(number)
        try:
            block = superblock.read(self._store.host.files, path)
        except (OSError, OstrakaError) as error:
            return str(error)
        epoch: Epoch = membership.epoch
        member: Member | None = epoch.member(number)
        if member is None or not member.up:
            return ""
        if block is None:
            return "there is no superblock"
        if (block.store_id, block.disk_id) != (membership.store_id, member.disk_id):
            return "it is the superblock of another disk"
        return "" if block.formed and block.epoch.id == epoch.id else f"it is of epoch {block.epoch.number}"

    def _keys(self, number: int, path: Path) -> None:
        store = self._store
        problem = self._wrong_keys(path)
        if not problem:
            return
        repaired = False
        if self._repair and not self._wrong_superblock(number, path):
            good = self._good_keys()
            with contextlib.suppress(OSError):
                keyring.write(good, [path], store.host)
                repaired = True
        self._found("keys", f"disk {number}: {problem}", repaired)

    def _wrong_keys(self, path: Path) -> str:
        try:
            keys = keyring.decode(self._store.host.files.read(path / keyring.NAME), str(path / keyring.NAME))
        except (OSError, Corrupt, Refused) as error:
            return str(error)
        same = (keys.store_id, keys.secret) == (self._store.keys.store_id, self._store.keys.secret)
        return "" if same else f"{path / keyring.NAME} is another store's"

    def _good_keys(self) -> keyring.Keys:
        """As another disk has them; what is in memory may hold credentials that were given for this run only."""
        membership = self._store.membership
        for member in state_copies.carriers(membership.epoch):
            path = membership.paths.get(member.number)
            if path is not None and not self._wrong_keys(path):
                return keyring.decode(self._store.host.files.read(path / keyring.NAME), str(path))
        return self._store.keys

    # -- the state, and its rows

    async def _state(self) -> None:
        self._progress("state", 0, 1)
        findings, _ = await scrub_state(self._store, repair=self._repair)
        for finding in findings:
            self._found(finding.kind, finding.what, finding.repaired)
        self._progress("state", 1, 1)

    async def _rows(self) -> None:
        """Every row is read (the state verifies its checksum) and decoded."""
        state, start = self._store.state, b""
        while True:
            page = state.scan(start, None, PAGE)
            for key, value in page:
                problem = self._wrong_row(key, value)
                if problem:
                    again = state.get(key)
                    problem = self._wrong_row(key, again) if again is not None else ""
                if problem:
                    self._found("row", f"{key[:64].hex()}: {problem}")
            self.rows += len(page)
            self._progress("rows", self.rows, None)
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"
            await asyncio.sleep(0)

    def _wrong_row(self, key: bytes, value: bytes) -> str:
        problem = _wrong_row(key, value)
        if not problem and key[:1] in seals.TABLES:
            found = seals.sealed(key, value)
            if found is not None and not self._store.keyring.names(found.seal):
                return "sealed under a key that the store does not have: what it holds cannot be read"
        return problem

    async def _references(self) -> None:
        """What rows hold, against what is counted; twice where something is wrong, for it may be in motion."""
        store = self._store
        self._progress("references", 0, None)
        found = await in_thread(objects_check.check, store.state)
        if found:
            again = {(f.kind, f.row, f.message): f for f in await in_thread(objects_check.check, store.state)}
            found = [again[key] for f in found if (key := (f.kind, f.row, f.message)) in again]
        for finding in found:
            repaired = self._repair and await objects_check.repair(store.state, [finding]) == 1
            self._found(finding.kind, finding.message, repaired)
        alone = store.live_incarnations() <= {store.incarnation}
        for wrong in await in_thread(check_counters, store.state):
            repaired = False
            orphan = wrong.kind == "orphan-slot"
            if self._repair and wrong.repair is not None and (alone or not orphan):
                with contextlib.suppress(OstrakaError):
                    await store.state.commit(wrong.repair)
                    repaired = True
            if not orphan:
                self._found(wrong.kind, wrong.message, repaired)
            elif not repaired:
                self.orphans += 1
                self.orphan_bytes += wrong.orphan_bytes

    async def _totals(self) -> None:
        """What is held, against what the tables come to: it can be told only while nobody commits."""
        state = self._store.state
        for _ in range(TOTALS_TRIES):
            before = state.sequence
            mend = await in_thread(totals.wrong, state, state.weighed)
            if mend is None or state.sequence == before:
                break
        else:
            return
        if mend is not None:
            repaired = False
            if self._repair:
                with contextlib.suppress(OstrakaError):
                    await state.commit(mend)
                    repaired = True
            names = ", ".join(op.key.hex() for op in mend.operations[:NAMED_MAX])
            self._found("totals", f"{len(mend.operations)} totals are not what the tables come to: {names}", repaired)

    # -- shards that rows name

    async def _stripes(self) -> None:
        for page in pages(self._store.state, b"", PAGE):
            for start in range(0, len(page), STRIPES_AT_ONCE):
                await together([self._stripe(key, value) for key, value in page[start : start + STRIPES_AT_ONCE]])
                self._progress("stripes", self.stripes, None)
        for disk, count in sorted(self._away.items()):
            self._found("disk", f"disk {disk} could not be asked for {count} shards")

    async def _stripe(self, key: bytes, value: bytes) -> None:
        store = self._store
        try:
            named = read_named(key, value)
            health = await store.pools.verify(named.stripe)
            for _ in range(MOVES_MAX):
                if all(shard.state == "good" for shard in health):
                    break
                current = store.state.get(key)  # deleted or moved under us? It counts if the row names it still
                if current is None:
                    return
                before, named = named, read_named(key, current)
                if named.stripe == before.stripe:
                    break
                health = await store.pools.verify(named.stripe)
        except Corrupt:
            return  # told when all rows were read
        self.stripes += 1
        good = sum(shard.state == "good" for shard in health)
        bad = [shard for shard in health if shard.state in ("missing", "damaged")]
        if bad:
            good += await self._bad(named, bad)
        for shard in health:
            self._away[shard.disk] += shard.state == "unreachable"
        self._away = +self._away
        self.shards += good
        self.bytes += good * named.stripe.shard_size

    async def _bad(self, named: Named, bad: list[ShardHealth]) -> int:
        """Tell, and mend if told to; how many of them are good now."""
        repaired = False
        if self._repair:
            result = await mend(self._store, named)
            repaired = result.outcome in ("repaired", "whole", "gone") or (
                result.outcome == "away" and not any(shard.disk in result.bad for shard in bad)
            )
        self._found("shard", f"{named.name}: {describe(bad)}", repaired)
        return len(bad) if repaired else 0

    # -- what nobody names

    async def _orphans(self) -> None:
        store = self._store
        for number, disk in sorted(store.disks.items()):
            if store.membership.disk(number) is not disk:
                continue
            self._progress("orphans", self.orphans, None)
            try:
                count, size = await in_thread(_orphans_on, disk, store)
            except OSError as error:
                self._found("disk", f"disk {number}: {error}")
                continue
            self.orphans += count
            self.orphan_bytes += size


def _orphans_on(disk: LocalDisk, store: Store) -> tuple[int, int]:
    """Shards that the disk keeps, and no row names: (how many, their bytes)."""
    is_live = liveness(store.state, disk.number)
    count = size = 0
    for found in disk.iterate():
        header = found.extent.header
        if not found.named:
            continue  # dead, and known to be
        try:
            live = is_live(header.owner, header.owner_id, header.write_id, header.index)
        except OstrakaError:
            continue  # the row cannot be read: told elsewhere
        if not live:
            count += 1
            size += found.extent.size
    return count, size


def _wrong_row(key: bytes, value: bytes) -> str:
    """What is wrong with a row by itself; "" if nothing is."""
    table = key[:1]
    try:
        if table in chunk_rows.TABLES:
            chunk_rows.decode(key, value)
        elif table in key_rows.TABLES:
            key_rows.check_row(key, value)
        elif table in records.TABLES:
            records.decode(key, value)
        elif table in _OBJECT_DECODERS:
            _OBJECT_DECODERS[table](value)
        elif table in _OBJECT_NUMBERS:
            if len(value) != 8:
                return f"a number of {len(value)} bytes"
        elif table == tiers.POOL:
            tiers.decode(key, value)
        elif table == totals.TOTALS:
            if key != totals.READY and (not value or len(value) % 8):
                return f"a total of {len(value)} bytes"
        elif table not in _OPAQUE:
            return f"the table {table!r} is unknown"
    except (Corrupt, Refused) as error:
        return error.message
    return ""
