"""One batch, from preconditions to visible: the only way in which rows change (ENGINE 6, 7).

Under the index's writing transaction, which orders commits over all processes and is given up by a writer that is
killed:

1. what a dead writer left behind the known end of a log is rolled forward, on every copy, or left for dead;
2. the batch is resolved into rows;
3. one record with those rows is appended to the log of every copy and synced; the index is changed meanwhile,
   or before, inside the transaction, where nobody sees it;
4. a copy that failed is evicted by an epoch change (the owner's callback), else nobody is answered;
5. the index transaction commits, unsynced: now it is visible, and durable on every copy since step 3.

This module is synchronous and belongs to one thread; the asyncio side is committer.py.
"""

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence

import lmdb
import msgspec
from xxhash import xxh3_128_digest

from ostraka.errors import Corrupt, Full, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.limits import MIB
from ostraka.state import keys
from ostraka.state.batch import Batch, Gather, resolve
from ostraka.state.copies import Copies, WriteFailed, unnamed
from ostraka.state.log import Record, encode_ids
from ostraka.state.meta import Meta, Position, load_meta, store_meta
from ostraka.state.ordered import KEY_SIZE_MAX, PAGE_SIZE, Map, Transaction
from ostraka.state.rows import DIGEST_MASK, encode_rows, row_hash, seal, unseal
from ostraka.state.totals import Weighed, account
from ostraka.state.types import Outcome

Change = tuple[bytes, bytes | None, bytes | None]  # key, value, sealed value; None: removed

OnCopyFailed = Callable[[bytes, BaseException], int]
"""(disk id, what happened) -> the new epoch, once the eviction of that copy is durable. Called by the thread that
commits, while it holds the order of commits: it must not use the state. When it raises, nobody is answered."""

Repair = Callable[[bytes, int], bytes | None]
"""(key, commit) -> the row as the truth has it at that commit. Corrupt when it cannot be known."""

_PAGES_PER_ROW = 6  # a leaf, its branches up to the root, and what the free list needs: more than LMDB changes
_RESERVE_FLOOR = 1 * MIB


class Moved(Unavailable):
    """The index was replaced by another; the same call may be made on that."""


class _LastCopyFailed(Unavailable):
    """No copy of the state is left that a commit could be written to."""

    def __init__(self, before: Meta, cause: OSError) -> None:
        super().__init__(
            f"the last copy of the state failed ({cause}); restart once the disk is well", reason="stopped"
        )
        self.before = before


class Engine:
    """Applies batches to one open index and the logs of all copies."""

    def __init__(
        self,
        host: Host,
        index: Map,
        store: bytes,
        on_copy_failed: OnCopyFailed,
        repair: Repair,
        in_use: Callable[[], bool],
        index_failed: Callable[[lmdb.Error], OstrakaError],
        seconds_max: float,
        on_durable: Callable[[int], None],
    ) -> None:
        """``on_durable`` is told of each commit when all copies have it, before it is visible. ``index_failed`` says
        what an error of the index means; a copy that takes longer than ``seconds_max`` to sync a record has failed."""
        self._in_use = in_use
        self._index_failed = index_failed
        self._on_durable = on_durable
        self._index = index
        self._on_copy_failed = on_copy_failed
        self._repair = repair
        self._copies = Copies(host, store, seconds_max)

    def apply(self, gather: Gather, weighed: Weighed) -> list[Outcome]:
        """Apply a batch; returns when what was applied is durable on all copies and visible.

        What is in it is asked for when nobody else commits any more: all that came meanwhile shares its sync.

        Full, Unavailable and Corrupt concern all of the batch. After Unavailable it is not known here whether the
        batch will be applied: the next writer or start decides it, by what the logs hold.
        """
        with self.writing() as (txn, meta):
            read = self._reader(txn, meta)
            batch = resolve(gather(), read, meta.sequence)
            if batch.applied:
                account(batch, read, weighed)
                self._commit(txn, meta, batch)
            return batch.outcomes

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Transaction, Meta]]:
        """The order of commits, with nothing of a dead writer left; rolled back unless it was committed inside."""
        for _ in range(3):
            txn = self._begin()
            try:
                if not self._in_use():
                    raise Moved("the index of the state was replaced", reason="state_index")
                meta = self._usable_meta(txn)
                settled = self._settle(txn, meta)
                if settled is None:
                    yield txn, meta
                    return
                self._land(txn, settled)  # and begin again: what was rolled forward stands on its own
            except _LastCopyFailed as failure:
                txn.abort()
                self._stop(failure)
                raise
            except lmdb.Error as error:
                raise self._index_failed(error) from error
            finally:
                txn.abort()  # does nothing after a commit
        raise Unavailable("the logs of the state do not come to rest", reason="state_log")

    def _begin(self) -> Transaction:
        try:
            return self._index.begin(write=True)
        except lmdb.Error as error:
            raise self._index_failed(error) from error

    def _usable_meta(self, txn: Transaction) -> Meta:
        meta = load_meta(txn, self._index)
        if meta is None:
            raise Unavailable("the index of the state is being rebuilt", reason="state_index")
        if meta.stopped:
            raise Unavailable(meta.stopped, reason="stopped")
        return meta

    # -- step 1

    def _settle(self, txn: Transaction, meta: Meta) -> Meta | None:
        """The meta after rolling forward, or None when there was nothing to do."""
        tails, failed = self._tails(meta)
        if not tails and not failed and all(p.name for p in meta.copies):
            return None
        left: Record | None = None
        for position in meta.copies:
            if position.disk in failed or (position.name and position.disk not in tails):
                continue
            try:
                alone = len(failed) + 1 == len(meta.copies)
                left = left or self._copies.left_behind(position, meta.commit + 1, last=alone)
            except OSError as error:
                failed[position.disk] = WriteFailed(error, False)
        if left is None:
            if not tails and not failed:
                return None
            copies = tuple(unnamed(p) if p.disk in tails else p for p in meta.copies if p.disk not in failed)
            return self._evict(meta, msgspec.structs.replace(meta, copies=copies), failed)
        fresh = [unnamed(p) for p in meta.copies if p.disk not in failed]
        append = self._copies.append(left, fresh)
        try:
            changed = [(key, value, None if value is None else seal(key, value)) for key, value in left.rows()]
            self._reserve(changed)
            self._put(txn, changed)
        finally:
            done, failures = append.wait()
        _check_room(done, failures)
        failed.update(failures)
        after = self._advanced(meta, left, done)
        return self._evict(meta, after, failed)

    def _tails(self, meta: Meta) -> tuple[set[bytes], dict[bytes, WriteFailed]]:
        tails: set[bytes] = set()
        failed: dict[bytes, WriteFailed] = {}
        for position in meta.copies:
            try:
                if self._copies.has_tail(position, last=len(failed) + 1 == len(meta.copies)):
                    tails.add(position.disk)
            except (OSError, Corrupt) as error:
                failed[position.disk] = WriteFailed(error if isinstance(error, OSError) else OSError(str(error)), False)
        return tails, failed

    # -- steps 2 to 5

    def _commit(self, txn: Transaction, meta: Meta, batch: Batch) -> None:
        changed, digest = _effect(batch, int.from_bytes(meta.digest, "big"))
        ids = encode_ids(batch.ids)
        record = Record(
            meta.commit + 1,
            meta.epoch,
            batch.sequence_before + 1,
            batch.applied,
            digest,
            len(changed),
            len(ids),
            encode_rows([(key, value) for key, value, _ in changed]) + ids,
        )
        self._reserve(changed)
        append = self._copies.append(record, meta.copies)
        try:
            self._put(txn, changed)
        finally:
            done, failed = append.wait()
        _check_room(done, failed)
        self._land(txn, self._evict(meta, self._advanced(meta, record, done), failed))

    def _land(self, txn: Transaction, after: Meta) -> None:
        """Step 5."""
        self._on_durable(after.commit)
        store_meta(txn, self._index, after)
        txn.commit()

    def _advanced(self, meta: Meta, record: Record, copies: tuple[Position, ...]) -> Meta:
        named = {p.disk for p in meta.copies if p.name}
        return Meta(
            meta.store,
            meta.epoch,
            record.commit,
            record.last_sequence,
            record.digest.to_bytes(16, "big"),
            copies,
            meta.log_bytes + len(record.payload),
            meta.log_files + any(p.disk not in named for p in copies),
            meta.snapshot_commit,
            meta.snapshot_size,
        )

    def _evict(self, before: Meta, after: Meta, failed: dict[bytes, WriteFailed]) -> Meta:
        """``after`` without the failed copies, once their eviction is durable. Unavailable when none is left."""
        if not failed:
            return after
        if not after.copies:
            raise _LastCopyFailed(before, next(iter(failed.values())).cause)
        epoch = after.epoch
        for disk, failure in failed.items():
            try:
                epoch = max(epoch, self._on_copy_failed(disk, failure.cause))
            except Unavailable:
                raise
            except Exception as error:  # of any kind: the record stands on other copies, so nobody may say it does not
                raise Unavailable(f"a failed copy could not be evicted: {error}", reason="eviction") from error
        return msgspec.structs.replace(after, epoch=epoch)

    def _stop(self, failure: "_LastCopyFailed") -> None:
        """Let no process commit any more until the next recovery has seen what the disks really hold."""
        with contextlib.suppress(lmdb.Error):
            txn = self._index.begin(write=True)
            try:
                store_meta(txn, self._index, msgspec.structs.replace(failure.before, stopped=failure.message))
                txn.commit()
            finally:
                txn.abort()

    def _reserve(self, changed: Sequence[Change]) -> None:
        data = sum([len(key) + len(value or b"") for key, value, _ in changed])
        deep = sum([len(key) // keys.HEAD_SIZE for key, _, _ in changed])
        self._index.reserve((len(changed) + deep) * _PAGES_PER_ROW * PAGE_SIZE + 2 * data + _RESERVE_FLOOR)

    def _put(self, txn: Transaction, changed: Sequence[Change]) -> None:
        table, put = self._index.rows, txn.put
        for key, _, raw in changed:
            if len(key) <= keys.HEAD_SIZE:
                if raw is None:
                    txn.delete(key, db=table)
                else:
                    put(key, raw, db=table)
            elif raw is None:
                keys.remove(txn, self._index, key)
            else:
                keys.store(txn, self._index, key, raw)

    def _reader(self, txn: Transaction, meta: Meta) -> Callable[[bytes], bytes | None]:
        index, table = self._index, self._index.rows

        def read(key: bytes) -> bytes | None:
            raw = txn.get(key, db=table) if len(key) <= keys.HEAD_SIZE else keys.find(txn, index, key)
            if raw is None:
                return None
            value = unseal(key, raw)
            return self._repair(key, meta.commit) if value is None else value

        return read

    # -- for those who care for the copies

    def append_everywhere(self, record: Record, positions: Sequence[Position]) -> bool:
        """Append a record that changes nothing; whether it is durable on all of them. Inside `writing`."""
        _, failed = self._copies.append(record, positions).wait()
        return not failed

    def mark_epoch(self, txn: Transaction, meta: Meta, epoch: int, must: bytes = b"") -> None:
        """Make every copy of meta say that it is of that epoch, and commit. Inside `writing`.

        OSError, and nothing is changed, when the copy on the disk ``must`` does not take it.
        """
        epoch = max(epoch, meta.epoch)
        digest = int.from_bytes(meta.digest, "big")
        record = Record(meta.commit + 1, epoch, meta.sequence + 1, 0, digest, 0, 0, b"")
        done, failed = self._copies.append(record, meta.copies).wait()
        if must in failed:
            raise failed[must].cause
        _check_room(done, failed)
        after = msgspec.structs.replace(self._advanced(meta, record, done), epoch=epoch)
        self._land(txn, self._evict(meta, after, failed))

    def fail_copies(self, failed: dict[bytes, OSError]) -> None:
        """Evict copies that something else than a commit failed on."""
        with self.writing() as (txn, meta):
            copies = tuple(p for p in meta.copies if p.disk not in failed)
            known = {p.disk: WriteFailed(failed[p.disk], True) for p in meta.copies if p.disk in failed}
            store_meta(txn, self._index, self._evict(meta, msgspec.structs.replace(meta, copies=copies), known))
            txn.commit()

    def close(self) -> None:
        self._copies.close()


def _effect(batch: Batch, digest: int) -> tuple[list[Change], int]:
    """The rows that really change, in order of their keys, and the state digest after them."""
    before = batch.before
    changed: list[Change] = []
    for key, value in sorted(batch.rows.items()):
        old = before[key]
        if old == value:
            continue
        if old is not None:
            digest -= row_hash(key, old)
        if value is None:
            changed.append((key, None, None))
        else:
            row_digest = xxh3_128_digest(key + value, len(key))
            digest += int.from_bytes(row_digest, "big")
            changed.append((key, value, value + row_digest[8:]))
    return changed, digest & DIGEST_MASK


def _check_room(done: Sequence[Position], failed: dict[bytes, WriteFailed]) -> None:
    """Full when no copy holds the record, and none is at fault: what was cut off stays behind, the next record begins
    files."""
    if failed and not done and all(_is_full(f) for f in failed.values()):
        raise Full("no room for the log of the state", reason="state_log")


def _is_full(failure: WriteFailed) -> bool:
    return not failure.began and failure.cause.errno in (errno.ENOSPC, errno.EDQUOT)


assert keys.HEAD_SIZE < KEY_SIZE_MAX
