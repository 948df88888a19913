"""The embedded state: an index that every process reads, and one way in for changes (docs/decisions/state.md).

Each process has one `EmbeddedState`. Reads go to the index on the calling thread. Commits go through the process's
committer thread to the engine, which orders them over all processes. When a read meets a row that does not verify, the
truth is asked in its place; when the index as a whole is in doubt it is built anew and all processes change over.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

import lmdb
import msgspec
from xxhash import xxh3_128_digest

from ostraka.errors import Corrupt, OstrakaError, TooLarge, Unavailable
from ostraka.host import Host
from ostraka.limits import Limits
from ostraka.state import keys
from ostraka.state.batch import Gather
from ostraka.state.checkpoint import Checkpointed, checkpoint, seed_copy
from ostraka.state.committer import Committer
from ostraka.state.copies import unnamed
from ostraka.state.engine import Engine, Moved, OnCopyFailed
from ostraka.state.index_files import CleanStop, IndexFiles
from ostraka.state.log import Record
from ostraka.state.meta import Meta, load_meta, store_meta
from ostraka.state.ordered import Map, OpenMap, Transaction
from ostraka.state.recover import Recovery, build_index, index_size_max
from ostraka.state.report import IndexReport
from ostraka.state.rows import TRAILER_SIZE, unseal
from ostraka.state.totals import Weighed
from ostraka.state.truth import Copy, survey
from ostraka.state.types import Committed, Mutation, Outcome, prefix_end
from ostraka.state.verify import check_index

_PASSING = (  # of a call, not of the index
    lmdb.BadRslotError,
    lmdb.MapFullError,
    lmdb.MapResizedError,
    lmdb.MemoryError,
    lmdb.ReadersFullError,
    lmdb.TxnFullError,
)
_LATELY_SECONDS = 0.02  # for readers' pins, where an older sequence only holds the collector back a little longer


class _Use:
    """The index of one generation, open."""

    __slots__ = ("engine", "generation", "index")

    def __init__(self, generation: int, index: Map, engine: Engine) -> None:
        self.generation = generation
        self.index = index
        self.engine = engine


class EmbeddedState:
    """A `State` on the index in ``directory``; made by `open_owner` and `open_shared`."""

    def __init__(
        self,
        host: Host,
        limits: Limits,
        store: bytes,
        files: IndexFiles,
        open_map: OpenMap,
        on_copy_failed: OnCopyFailed,
        *,
        opened: tuple[int, Map] | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self.recovery = recovery  # what opening found and did; the owner's only
        self._host = host
        self._limits = limits
        self._store = store
        self._files = files
        self._open_map = open_map
        self._on_copy_failed = on_copy_failed
        self._shared = files.shared
        self._changing = threading.Lock()
        self._retired: list[_Use] = []
        self._closed = False
        self._index_suspect = False
        self._size_max = index_size_max(host, limits, files.directory)
        generation, index = opened or (0, None)
        if index is None:
            generation = self._shared[0]
            index = self._open_index(generation)
        self._use = self._make_use(generation, index)
        self._committer = Committer(self._apply, limits, host.clock)
        self._lately, self._lately_until = 0, 0.0
        self.weighed: Weighed = {}  # tables whose totals are kept: given before the first commit to any of them
        self.admit: Callable[[], Awaitable[None] | None] | None = None  # asked before each commit; raises to refuse
        self.on_index_lost: Callable[[str], None] | None = None  # told why this process cannot use the index any more

    # -- reads

    def get(self, key: bytes) -> bytes | None:
        use = self._use
        if use.generation != self._shared[0]:
            use = self._change_over()
        index = use.index
        try:
            txn = index.begin()
            try:
                raw = txn.get(key, db=index.rows) if len(key) <= keys.HEAD_SIZE else self._find(txn, index, key)
                if raw is None:
                    return None
                value = raw[:-TRAILER_SIZE]
                if xxh3_128_digest(key + value, len(key))[8:] == raw[-TRAILER_SIZE:]:
                    return value
                return self._repaired(txn, index, key)
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise self._failed(error) from error

    def get_many(self, wanted: Sequence[bytes]) -> list[bytes | None]:
        self._check_count(len(wanted))
        with self._reading() as (txn, index):
            found: list[bytes | None] = []
            for key in wanted:
                raw = txn.get(key, db=index.rows) if len(key) <= keys.HEAD_SIZE else self._find(txn, index, key)
                if raw is not None:
                    value = unseal(key, raw)
                    found.append(self._repaired(txn, index, key) if value is None else value)
                else:
                    found.append(None)
            return found

    def scan(self, start: bytes, end: bytes | None, limit: int, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        self._check_count(limit)
        if limit <= 0 or (end is not None and end <= start):
            return []
        with self._reading() as (txn, index):
            found: list[tuple[bytes, bytes]] = []
            digest, add = xxh3_128_digest, found.append
            for key, raw in keys.walk(txn, index, start, end, reverse):
                value = raw[:-TRAILER_SIZE]
                if digest(key + value, len(key))[8:] != raw[-TRAILER_SIZE:]:
                    truth = self._repaired(txn, index, key)
                    if truth is None:
                        continue
                    value = truth
                add((key, value))
                if len(found) >= limit:
                    break
            return found

    def first(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        use = self._use
        if use.generation == self._shared[0] and 0 < len(prefix) <= keys.HEAD_SIZE:
            # every read of an object comes this way: one step of a cursor, and whatever is not plain goes below
            index = use.index
            try:
                txn = index.begin()
                try:
                    cursor = txn.cursor(db=index.rows)
                    if not cursor.set_range(prefix):
                        return None
                    key, raw = cursor.item()
                finally:
                    txn.abort()
            except lmdb.Error as error:
                raise self._failed(error) from error
            if not key.startswith(prefix):
                return None
            value = raw[:-TRAILER_SIZE]
            if len(key) <= keys.HEAD_SIZE and xxh3_128_digest(key + value, len(key))[8:] == raw[-TRAILER_SIZE:]:
                return key, value
        return next(iter(self.scan(prefix, prefix_end(prefix), 1)), None)

    @property
    def sequence(self) -> int:
        return self.meta().sequence

    def sequence_lately(self) -> int:
        """The sequence of at most `_LATELY_SECONDS` ago: never ahead of what a read that follows can see."""
        now = self._host.clock.monotonic()
        if now >= self._lately_until:
            self._lately = self.sequence
            self._lately_until = now + _LATELY_SECONDS
        return self._lately

    def meta(self) -> Meta:
        """The moment that the index shows now, and the copies that count."""
        with self._reading() as (txn, index):
            meta = load_meta(txn, index)
        if meta is None:
            raise Unavailable("the index of the state is being rebuilt", reason="state_index")
        return meta

    # -- commits

    async def commit(self, mutation: Mutation) -> Committed:
        if self.admit is not None and (wait := self.admit()) is not None:
            await wait
        outcome = (await self._committer.commit((mutation,)))[0]
        if isinstance(outcome, OstrakaError):
            raise outcome
        return outcome

    async def commit_many(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        if self.admit is not None and (wait := self.admit()) is not None:
            await wait
        return await self._committer.commit(mutations) if mutations else []

    def apply(self, mutations: Sequence[Mutation]) -> list[Outcome]:
        """As `commit_many`, on the calling thread, in one batch: for tools without an event loop."""
        return self._apply(lambda: mutations)

    async def close(self) -> None:
        await self._committer.close()
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Let go of everything, on the calling thread. The owner, when nobody else is left, marks a clean stop."""
        if self._closed:
            return
        self._closed = True
        try:
            if self.recovery is not None and not self._index_suspect and self._use.generation == self._shared[0]:
                self._mark_clean()
        finally:
            self._shared = memoryview(bytes(8)).cast("Q")  # no generation: whoever still reads is told, not failed
            for use in [*self._retired, self._use]:
                use.engine.close()
                use.index.close()
            self._files.close()

    # -- care

    @property
    def checkpoint_due(self) -> bool:
        """Whether the log has outgrown its bound."""
        meta, limits = self.meta(), self._limits
        bound = max(limits.log_bytes_before_checkpoint, meta.snapshot_size)
        return meta.log_bytes > bound or meta.log_files > limits.log_files_before_checkpoint

    async def checkpoint(self) -> Checkpointed:
        """Write a snapshot to every copy, and drop the log that it replaces. InUse, Corrupt, Full, Unavailable."""
        return await asyncio.to_thread(self.checkpoint_now)

    def checkpoint_now(self) -> Checkpointed:
        """As `checkpoint`, on the calling thread."""
        use = self._current()
        use.index.forget_dead_readers()  # a killed process would hold back the index's free pages
        try:
            return checkpoint(self._host, self._store, use.index, use.engine, self._files.directory)
        except Corrupt:
            self._index_suspect = True
            raise

    async def verify_index(self) -> IndexReport:
        """Walk all rows of the index in a process of its own, against the digest of its commit."""
        use = self._current()
        return await asyncio.to_thread(check_index, self._files.map_path(use.generation), self._size_max)

    @property
    def index_suspect(self) -> bool:
        """A read met a damaged row, or a checkpoint a wrong digest: the index wants `rebuild_index`."""
        return self._index_suspect

    async def rebuild_index(self) -> int:
        """Build the index anew from the truth while commits wait; all processes change over. Returns its rows."""
        return await asyncio.to_thread(self.rebuild_index_now)

    def rebuild_index_now(self) -> int:
        """As `rebuild_index`, on the calling thread."""
        use = self._current()
        with use.engine.writing() as (_, meta):
            truth = survey(self._host, self._store, meta.copies)
            if truth.last != meta.commit:
                raise Corrupt(f"the copies end at {truth.last}, the index at {meta.commit}", reason="state")
            base = truth.base()
            generation, index, rebuilt = build_index(self._files, truth, base, self._open_map, self._size_max)
            restated = msgspec.structs.replace(meta, digest=rebuilt.digest.to_bytes(16, "big"))
            txn = index.begin(write=True)
            try:
                store_meta(txn, index, restated)
                txn.commit()
            finally:
                txn.abort()
            index.close()
            self._files.use(generation)
        self._index_suspect = False
        return rebuilt.rows

    async def seed(self, copy: Copy, epoch: int) -> None:
        """Make a new copy in ``copy.path``, of epoch ``epoch``, while commits go on, and let it join them.

        When it returns, every later commit is on it too; the caller then records it by an epoch change.
        """
        await asyncio.to_thread(self.seed_now, copy, epoch)

    def seed_now(self, copy: Copy, epoch: int) -> None:
        """As `seed`, on the calling thread."""
        use = self._current()
        seed_copy(self._host, self._store, use.index, use.engine, self._files.directory, copy, epoch)

    async def drop(self, disk: bytes, epoch: int) -> None:
        """Commits no longer go to that disk. The caller has recorded that by an epoch change, to ``epoch``."""
        await asyncio.to_thread(self.drop_now, disk, epoch)

    def drop_now(self, disk: bytes, epoch: int) -> None:
        """As `drop`, on the calling thread. Unavailable when it is the last."""
        self._change_meta(lambda meta: _without(meta, disk, epoch))

    async def set_epoch(self, epoch: int) -> None:
        """Commits are written in that epoch from now on, if it is newer."""
        await asyncio.to_thread(self.set_epoch_now, epoch)

    def set_epoch_now(self, epoch: int) -> None:
        """As `set_epoch`, on the calling thread; when it returns, every copy says so."""
        engine = self._current().engine
        with engine.writing() as (txn, meta):
            engine.mark_epoch(txn, meta, epoch)

    # -- inside

    def _apply(self, gather: Gather) -> list[Outcome]:
        for _ in range(3):
            with contextlib.suppress(Moved):
                return self._current().engine.apply(gather, self.weighed)
        raise Unavailable("the index of the state is replaced again and again", reason="state_index")

    def _change_meta(self, change: Callable[[Meta], Meta]) -> None:
        use = self._current()
        with use.engine.writing() as (txn, meta):
            store_meta(txn, use.index, change(meta))
            txn.commit()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[tuple[Transaction, Map]]:
        use = self._use
        if use.generation != self._shared[0]:
            use = self._change_over()
        try:
            txn = use.index.begin()
            try:
                yield txn, use.index
            finally:
                txn.abort()
        except lmdb.Error as error:
            raise self._failed(error) from error
        except Corrupt:
            self._index_suspect = True
            raise

    def _current(self) -> _Use:
        if self._closed:
            raise Unavailable("the state is closed", reason="closed")
        return self._use if self._use.generation == self._shared[0] else self._change_over()

    def _change_over(self) -> _Use:
        """Open the index that another process, or we, have built anew."""
        if self._closed:
            raise Unavailable("the state is closed", reason="closed")
        with self._changing:
            generation = self._shared[0]
            if self._use.generation != generation:
                fresh = self._make_use(generation, self._open_index(generation))
                self._retired.append(self._use)  # another thread may be in it still
                self._use = fresh
            return self._use

    def _make_use(self, generation: int, index: Map) -> _Use:
        def repair(key: bytes, commit: int) -> bytes | None:
            return self._from_truth(key, index)

        engine = Engine(
            self._host,
            index,
            self._store,
            self._on_copy_failed,
            repair,
            lambda: self._shared[0] == generation,
            self._failed,
            self._limits.disk_seconds_max,
            self._files.became_durable,
        )
        return _Use(generation, index, engine)

    def _open_index(self, generation: int) -> Map:
        path = self._files.map_path(generation)
        if not self._files.files.exists(path):
            raise Unavailable(
                "the index of the state is not there; the owner has to open it first", reason="state_index"
            )
        try:
            index = self._open_map(path, self._size_max)
            try:
                index.forget_dead_readers()
                txn = index.begin()
                try:
                    finished = load_meta(txn, index) is not None
                finally:
                    txn.abort()
                if not finished:  # LMDB makes the file that it does not find: replaced as we opened it
                    raise Unavailable("the index of the state was replaced; try again", reason="state_index")
            except BaseException:
                index.close()
                raise
        except lmdb.Error as error:
            raise Unavailable(f"the index of the state cannot be opened: {error}", reason="state_index") from error
        return index

    def _find(self, txn: Transaction, index: Map, key: bytes) -> bytes | None:
        """The raw row at a long key; one that does not verify, when the way to it is damaged."""
        try:
            return keys.find(txn, index, key)
        except Corrupt:
            return bytes(TRAILER_SIZE)

    def _repaired(self, txn: Transaction, index: Map, key: bytes) -> bytes | None:
        """The row as the truth has it at the moment of txn, where the index has it damaged."""
        return self._from_truth(key, index, txn)

    def _from_truth(self, key: bytes, index: Map, txn: Transaction | None = None) -> bytes | None:
        self._index_suspect = True
        own = txn is None
        txn = txn or index.begin()
        try:
            meta = load_meta(txn, index)
        finally:
            if own:
                txn.abort()
        if meta is None:
            raise Corrupt("the index of the state has no meta row", reason="state_index")
        truth = survey(self._host, self._store, meta.copies)
        if truth.last < meta.commit:
            raise Corrupt(f"the copies end at {truth.last}, the index at {meta.commit}", reason="state")
        base = truth.base()
        value: bytes | None = None
        found = False
        for record in truth.records(base.commit + 1, min(meta.commit, truth.last)):
            for row_key, row_value in record.rows():
                if row_key == key:
                    value, found = row_value, True
        if not found:
            with base.read() as reader:
                value = reader.lookup(key)
        return value

    def _mark_clean(self) -> None:
        """Close the logs, and leave word that the index can be used again as it is."""
        use = self._use
        with contextlib.suppress(OstrakaError, OSError, lmdb.Error), use.engine.writing() as (txn, meta):
            record = Record(
                meta.commit, meta.epoch, meta.sequence + 1, 0, int.from_bytes(meta.digest, "big"), 0, 0, b"", True
            )
            named = [p for p in meta.copies if p.name]
            if not use.engine.append_everywhere(record, named):
                return
            meta = msgspec.structs.replace(meta, copies=tuple(unnamed(p) for p in meta.copies))
            store_meta(txn, use.index, meta)
            txn.commit()
            size, checksum = use.index.fingerprint()
            self._files.mark_clean(use.generation, CleanStop(self._store, meta.commit, meta.digest, size, checksum))

    def _failed(self, error: lmdb.Error) -> OstrakaError:
        self._index_suspect = True
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return Corrupt(f"the index of the state is damaged: {error}", reason="state_index")
        if self.on_index_lost is not None and not isinstance(error, _PASSING):
            self.on_index_lost(str(error))  # its disk has failed, and LMDB does not go on after a failed commit
        return Unavailable(f"the index of the state fails: {error}", reason="state_index")

    def _check_count(self, count: int) -> None:
        if count > self._limits.scan_rows_max:
            raise TooLarge(f"{count} rows at once; at most {self._limits.scan_rows_max}", reason="state_scan")


def _without(meta: Meta, disk: bytes, epoch: int) -> Meta:
    copies = tuple(p for p in meta.copies if p.disk != disk)
    if not copies:
        raise Unavailable("the last copy of the state cannot be dropped", reason="state")
    return msgspec.structs.replace(meta, copies=copies, epoch=max(meta.epoch, epoch))
