"""Tiering: what is kept in another pool than the storage classes of its objects ask for is moved there.

A pass looks at every object once: the most wanted class among those that refer to a chunk or a pack says where that
belongs (objects/tiers.py). There may be many millions, so this is noted in a temporary file (SQLite), not in memory.
Then every body that is elsewhere is read, verified, written to its pool, read back there and verified, and only then
does its row name the new place; the old one is given up when the readers in flight are done. A crash anywhere leaves
bodies that no row names, which compaction takes from the disks and `_sweep` from the backends.

A pass begins when it is asked for, and once in ``limits.tier_seconds`` if anything was committed since. It notes no
place: what it moved is where it belongs, and a new pass passes it by.
"""

import contextlib
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ostraka.chunks.rows import CHUNKS, PACKS, ZERO, chunk_key, decode, pack_key
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Corrupt, Full, OstrakaError, Unavailable
from ostraka.jobs.ground import Budget, Ground, Job, Progress, in_thread
from ostraka.jobs.stripes import MOVES_MAX, Named, adopt, pages, read_named
from ostraka.objects import rows
from ostraka.objects.manifest import leaves
from ostraka.objects.tiers import DISKS, GONE, LEAVING, PoolRow, encode, homes, pool_key, pools
from ostraka.pools.backend_pool import write_id_of
from ostraka.pools.types import Stripe
from ostraka.state import Equals, Mutation, Put, Rejected, State, rows_under

log = logging.getLogger("ostraka.jobs")

PAGE = 64
DELETED_AT_ONCE = 500
_RETRY_SECONDS = 300.0
_BATCH = 2000


class Tier(Job):
    name = "tier"
    purpose = "moves what belongs in another pool"
    paused_means = "what belongs in another pool stays where it is"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._wanted: _Wanted | None = None  # of the pass under way
        self._cursor = b""
        self._finished_at = ground.host.clock.monotonic()
        self._finished: tuple[int, object] | None = None  # what the state was when the last pass began
        self._began: tuple[int, object] = (0, None)
        self._asked = False
        self._empty: set[int] = set()  # pools that leave, and that the last pass found empty
        self._done = self._moved = self._left = 0
        self.moved_bytes = 0

    def ask(self) -> None:
        """Begin a pass with the next piece."""
        self._asked = True

    async def begin(self) -> None:
        self.ask()

    async def cancel(self) -> str:
        if not self._asked and self._wanted is None:
            return await super().cancel()
        self._asked = False
        self._end()
        return "the pass that was under way"

    def close(self) -> None:
        if self._wanted is not None:
            self._wanted.close()
            self._wanted = None

    async def run_once(self, budget: Budget) -> Progress:
        moved, size = self._moved, self.moved_bytes
        progress = await self._step(budget)
        did = self._moved - moved if self._moved >= moved else self._moved  # a new pass counts anew
        return msgspec.structs.replace(progress, did=did, bytes=self.moved_bytes - size)

    async def _step(self, budget: Budget) -> Progress:
        known = pools(self._ground.state)
        if not known:
            return Progress(0)
        await self._ground.pools.pay()
        if self._wanted is None:
            due = self._due(known)
            if due is None or due > 0:
                return Progress(self._done, again_in=due)
            await self._begin()
        try:
            if not await self._walk(budget):
                return Progress(self._done, more=True, note=self._note())
        except OstrakaError:
            self._end()
            raise
        self._end()
        await self._sweep()
        return Progress(self._done, again_in=_RETRY_SECONDS if self._left else self._due(known), note=self._note())

    def _note(self) -> str:
        left = f"; {self._left} could not be moved: see the log" if self._left else ""
        return f"{self._moved} bodies moved{left}"

    def _due(self, known: object) -> float | None:
        """Seconds until the next pass; None: nothing changed since the last one."""
        if self._asked or known != (self._finished or (0, None))[1]:
            return 0.0
        if self._left:
            return max(0.0, self._finished_at + _RETRY_SECONDS - self._ground.host.clock.monotonic())
        if self._finished is not None and self._ground.state.sequence == self._finished[0]:
            return None
        return max(0.0, self._finished_at + self._ground.limits.tier_seconds - self._ground.host.clock.monotonic())

    # -- a pass

    async def _begin(self) -> None:
        state = self._ground.state
        self._asked = False
        self._began = state.sequence, pools(state)
        self._done = self._moved = self._left = 0
        self._cursor = b""
        wanted = _Wanted(state)
        try:
            await in_thread(wanted.fill)
        except BaseException:
            wanted.close()
            raise
        self._wanted = wanted

    def _end(self) -> None:
        if self._wanted is not None:
            self._wanted.close()
        self._wanted = None
        self._finished, self._finished_at = self._began, self._ground.host.clock.monotonic()

    async def _walk(self, budget: Budget) -> bool:
        """Go on with the pass; True when it is at its end."""
        assert self._wanted is not None
        for page in pages(self._ground.state, self._cursor, PAGE):
            for key, value in page:
                budget.rows -= 1
                self._done += 1
                await self._look(key, value)
                self._cursor = key + b"\0"
                if not budget.left:
                    return False
        return True

    async def _look(self, key: bytes, value: bytes) -> None:
        assert self._wanted is not None
        home = self._wanted.home(key)
        if home is None:
            return  # nothing refers to it any more, or only since the pass began
        for _ in range(MOVES_MAX):
            try:
                named = read_named(key, value)
                if named.stripe.pool == home:
                    return
                if await self._move(named, home):
                    self._moved += 1
                    self.moved_bytes += named.stripe.length
                    return
            except (Corrupt, Unavailable, Full, Absent, OSError) as error:
                log.warning("tiering: %s stays where it is: %s", key.hex(), error)
                self._left += 1
                return
            current = self._ground.state.get(key)
            if current is None:
                return
            value = current

    async def _move(self, named: Named, home: int) -> bool:
        """Write the body to its pool, verify it there, have the row name it. False: the row changed meanwhile."""
        ground, old = self._ground, named.stripe
        body = await ground.pools.read(old, 0, old.length)
        new = await ground.pools.write(named.owner, named.owner_id, body, old.length, home)
        landed = False
        try:
            if any(shard.state != "good" for shard in await ground.pools.verify(new)):
                raise Corrupt(f"what was written to pool {home} does not come back as it was", reason="pool")
            landed = await adopt(ground, named, new)
        finally:
            ground.pools.settle([new])  # whatever became of the commit: compaction, or `_sweep`, asks the state
        if not landed:
            await ground.pools.release([(named.owner, named.owner_id, new)])
        return landed

    # -- what nobody names, and what is missing

    async def _sweep(self) -> None:
        """Objects of backends that no row names and that no living process may still name are deleted; a pool that
        is to leave, and holds nothing any more, is gone."""
        ground = self._ground
        for number, row in pools(ground.state).items():
            if row.status == GONE:
                continue
            try:
                await self._sweep_pool(number)
                if row.status == LEAVING:
                    await self._retire(number, row)
            except OstrakaError as error:
                log.warning("pool %s cannot be swept: %s", row.name, error.message)
                self._left += 1

    async def _retire(self, number: int, row: PoolRow) -> None:
        """A pool that leaves is gone when two passes found nothing that names it: a write that had chosen it may have
        committed behind the first."""
        ground, key = self._ground, pool_key(number)
        if await in_thread(_is_named, ground.state, number):
            self._empty.discard(number)
            self._left += 1
        elif number not in self._empty:
            self._empty.add(number)
            self._left += 1
        else:
            gone = encode(msgspec.structs.replace(row, status=GONE))
            with contextlib.suppress(Rejected):
                await ground.state.commit(Mutation([Equals(key, encode(row))], [Put(key, gone)]))
                log.info("pool %s is empty and gone", row.name)
            self._empty.discard(number)

    async def _sweep_pool(self, number: int) -> None:
        ground = self._ground
        alive = {incarnation[:8] for incarnation in ground.live_incarnations()}
        backend = ground.pools.backend(number).backend
        with tempfile.TemporaryDirectory(prefix="ostraka-tier-") as directory:
            db = _database(Path(directory))
            try:
                db.execute("CREATE TABLE there (id BLOB PRIMARY KEY) WITHOUT ROWID")
                async for path in backend.list(""):
                    write_id = write_id_of(path)
                    if write_id is not None and write_id[:8] not in alive:
                        db.execute("INSERT OR IGNORE INTO there VALUES (?)", (write_id,))
                await ground.state.commit(Mutation())  # what the dead had committed is visible, or never will be
                await in_thread(_strike, db, ground.state, number)
                dead = [bytes(found) for (found,) in db.execute("SELECT id FROM there")]
            finally:
                db.close()
        for start in range(0, len(dead), DELETED_AT_ONCE):
            await ground.pools.backend(number).delete_ids(dead[start : start + DELETED_AT_ONCE])
        if dead:
            log.info("%d objects that nobody names were deleted from pool %d", len(dead), number)


def _database(directory: Path) -> sqlite3.Connection:
    db = sqlite3.connect(directory / "tier", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=OFF")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA cache_size=-32768")
    return db


def _stripes(state: State) -> Iterator[Stripe]:
    """Of chunks, of packs, and those that wait for readers."""
    for table in (CHUNKS, PACKS, ZERO):
        for key, value in rows_under(state, table):
            row = decode(key, value).row
            if row is not None:
                yield row.stripe


def _is_named(state: State, number: int) -> bool:
    return any(stripe.pool == number for stripe in _stripes(state))


def _strike(db: sqlite3.Connection, state: State, number: int) -> None:
    """Take from the list what rows name."""
    for stripe in _stripes(state):
        if stripe.pool == number:
            db.execute("DELETE FROM there WHERE id = ?", (stripe.write_id,))


class _Wanted:
    """Where each body belongs, by the classes of the objects that refer to it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._directory = tempfile.TemporaryDirectory(prefix="ostraka-tier-")
        self._db = _database(Path(self._directory.name))
        self._db.execute("CREATE TABLE home (name BLOB PRIMARY KEY, pool INTEGER) WITHOUT ROWID")

    def fill(self) -> None:
        """Blocking. Raises Corrupt."""
        where = homes(self._state)
        add = "INSERT INTO home VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET pool = min(pool, excluded.pool)"
        batch: list[tuple[bytes, int]] = []
        for storage_class, entry in _references(self._state):
            name = chunk_key(entry.id) if entry.kind == Kind.CHUNK else pack_key(entry.id)
            batch.append((name, where.get(storage_class, DISKS)))
            if len(batch) == _BATCH:
                self._db.executemany(add, batch)
                batch.clear()
        self._db.executemany(add, batch)

    def home(self, key: bytes) -> int | None:
        found = self._db.execute("SELECT pool FROM home WHERE name = ?", (key,)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        self._db.close()
        with contextlib.suppress(OSError):
            self._directory.cleanup()


def _references(state: State) -> Iterator[tuple[str, Entry]]:
    """(storage class, slice) of all versions, parts of uploads, and holds."""
    for _, value in rows_under(state, rows.VERSION):
        record = rows.version_of(value)
        if record.inline is None:
            for entry in leaves(state, record.entries, 0, record.size):
                yield record.storage_class, entry
    for key, value in rows_under(state, rows.UPLOAD):
        upload = rows.upload_of(value)
        for _, part in rows_under(state, rows.PART + key[-rows.ID_SIZE :]):
            record_of_part = rows.part_of(part)
            for entry in leaves(state, record_of_part.entries(), 0, record_of_part.size):
                yield upload.storage_class, entry
    for key, _ in rows_under(state, rows.HELD):
        yield "", Entry(Kind.CHUNK.value, key[1:], 0, 0)
