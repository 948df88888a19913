"""Buckets: their rows, and the gate that every write to one must find as it was judged.

A bucket has two rows: its record under its name, and under its id a gate of a few bytes that changes with versioning
and with an attempted deletion only. Writes carry the gate as a precondition, so that a change of tags or of a long
policy disturbs none, while a bucket that is deleted, or whose versioning changes, rejects what was planned before.

Deleting needs the certainty that a bucket is empty at the very commit that removes it. First the gate is changed: no
write that was planned before can land any more. Then the bucket is looked through, then removed if its row is still
the same. A write that meets a bucket in between takes the intention back, by a commit of its own, and goes on.
"""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from ostraka.chunks.types import Recipe
from ostraka.errors import Absent, Exists, Invalid, TooLarge
from ostraka.objects import rows
from ostraka.objects.core import Core, contended
from ostraka.objects.encryption import check_storage
from ostraka.objects.recipes import recipe_of
from ostraka.objects.rows import BucketRecord
from ostraka.objects.types import AES256, NEW_STORAGE, Bucket, Storage, Versioning
from ostraka.state import Absent as NoRow
from ostraka.state import Delete, Equals, Operation, Precondition, Put, Rejected, prefix_end, rows_under

SCAN_ROWS = 1000


class Open:
    """A bucket as one request uses it: the record, its row as read, and what writes need ready-made."""

    __slots__ = ("ever_versioned", "gate", "id", "name", "raw", "record")

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.raw = raw
        self.record = record = rows.bucket_of(raw)
        self.id = record.id
        self.gate = Equals(rows.GATE + record.id, record.gate, "gate")
        self.ever_versioned = bool(record.versioning)

    @property
    def recipe(self) -> Recipe:
        """How a body is kept that is written now. Raises Invalid for words of a later version: reading knows none."""
        return recipe_of(self.record.storage)

    def tail(self, key: str) -> bytes:
        return rows.tail(self.id, key.encode())


def _row(name: str) -> bytes:
    return rows.BUCKET + name.encode("utf-8", "surrogatepass")


def bucket_view(name: str, record: BucketRecord) -> Bucket:
    """The bucket as the doors see it."""
    versioning: Versioning = record.versioning  # type: ignore[assignment]
    return Bucket(
        name,
        int.from_bytes(record.id, "big"),
        record.owner,
        record.created,
        record.region,
        versioning,
        record.tags,
        record.settings,
        record.storage,
    )


class Buckets:
    """Everything about buckets. Decoded records are kept as long as their row reads the same."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._cache: dict[str, Open] = {}

    def open(self, name: str) -> Open:
        """The bucket for reading; Absent("bucket")."""
        raw = self._core.state.get(_row(name))
        if raw is None:
            raise Absent(f"there is no bucket {name!r}", reason="bucket")
        known = self._cache.get(name)
        if known is not None and known.raw == raw:
            return known
        if len(self._cache) >= self._core.limits.buckets_cached_max:
            self._cache.clear()
        known = self._cache[name] = Open(name, raw)
        return known

    async def open_for_writing(self, name: str) -> Open:
        """As open; if somebody is about to delete the bucket, that is taken back."""
        bucket = self.open(name)
        if not bucket.record.deleting:
            return bucket
        for _ in range(self._core.limits.commit_attempts_max):
            try:
                await self._replace(bucket, deleting=False)
            except Rejected:
                pass
            bucket = self.open(name)
            if not bucket.record.deleting:
                return bucket
        raise contended()

    async def create(self, name: str, owner: str, region: str) -> Bucket:
        core = self._core
        self._check_count(owner)
        row = _row(name)
        while True:
            taken = core.state.get(row)
            if taken is not None:
                if rows.bucket_of(taken).owner == owner:
                    raise Exists(f"you own the bucket {name!r} already", reason="bucket-owned")
                raise Exists(f"the bucket {name!r} belongs to another account", reason="bucket-taken")
            gate = core.host.random(8)
            record = BucketRecord(
                core.host.random(8), owner, core.host.clock.time(), region, gate, storage=self.new_storage()
            )
            gate_row = rows.GATE + record.id
            try:
                await core.commit(
                    [NoRow(row, "bucket"), NoRow(gate_row, "bucket")],
                    [Put(row, rows.encode(record)), Put(gate_row, gate)],
                )
            except Rejected:
                continue
            return bucket_view(name, record)

    def new_storage(self) -> Storage:
        """What a new bucket gets: encryption, once the store has a key."""
        return msgspec.structs.replace(NEW_STORAGE, encryption=AES256) if self._core.keyring.active else NEW_STORAGE

    def _check_count(self, owner: str) -> None:
        limit = self._core.limits.buckets_per_account_max
        count = 0
        for _, value in rows_under(self._core.state, rows.BUCKET):
            count += rows.bucket_of(value).owner == owner
            if count >= limit:
                raise TooLarge(f"the account {owner!r} has {limit} buckets, the most allowed", reason="buckets")

    async def update(self, name: str, change: Callable[[Bucket], Bucket]) -> Bucket:
        for _ in range(self._core.limits.commit_attempts_max):
            bucket = self.open(name)
            old = bucket_view(name, bucket.record)
            new = change(old)
            fixed = replace(new, versioning=old.versioning, tags=old.tags, settings=old.settings, storage=old.storage)
            if fixed != old:
                raise Invalid("only versioning, tags, settings and storage of a bucket can change", reason="bucket")
            if new.versioning not in ("", "Enabled", "Suspended") or (old.versioning and not new.versioning):
                raise Invalid("versioning can be enabled and suspended, and never be undone", reason="versioning")
            recipe_of(new.storage)
            if new.storage != old.storage:
                check_storage(self._core.keyring, new.storage)
            if len(new.tags) > self._core.limits.tags_per_bucket_max:
                raise TooLarge(f"more than {self._core.limits.tags_per_bucket_max} tags", reason="tags")
            try:
                await self._replace(bucket, deleting=False, new=new)
            except Rejected:
                continue
            return new
        raise contended()

    async def _replace(self, bucket: Open, *, deleting: bool, new: Bucket | None = None) -> bytes:
        """Commit a changed record over the one that was read; returns its row. Rejected if it is another by now."""
        old, core = bucket.record, self._core
        versioning = new.versioning if new else old.versioning
        gate = old.gate
        if versioning != old.versioning or deleting or old.deleting:
            gate = core.host.random(8)
        record = BucketRecord(
            old.id,
            old.owner,
            old.created,
            old.region,
            gate,
            versioning,
            deleting,
            rows.plain(new.tags) if new else old.tags,
            dict(new.settings) if new else old.settings,
            new.storage if new else old.storage,
        )
        row, value = _row(bucket.name), rows.encode(record)
        operations: list[Operation] = [Put(row, value)]
        if gate != old.gate:
            operations.append(Put(rows.GATE + old.id, gate))
        await core.commit([Equals(row, bucket.raw, "bucket")], operations)
        return value

    async def delete(self, name: str) -> None:
        core = self._core
        row = _row(name)
        for _ in range(core.limits.commit_attempts_max):
            bucket = self.open(name)
            self._check_empty(bucket)
            try:
                value = await self._replace(bucket, deleting=True)
            except Rejected:
                continue
            try:
                self._check_empty(bucket)
            except Exists:
                try:
                    await self._replace(Open(name, value), deleting=False)
                except Rejected:
                    pass
                raise
            preconditions: list[Precondition] = [Equals(row, value, "bucket")]
            operations: list[Operation] = [Delete(row), Delete(rows.GATE + bucket.id)]
            if core.state.first(rows.UPLOAD + bucket.id) is not None:  # uploads in progress end with their bucket
                dead = rows.DeadRecord(buckets=(bucket.id,))
                operations.append(Put(rows.DEAD, rows.encode(dead), stamp_key=True))
            try:
                await core.commit(preconditions, operations)
            except Rejected:
                continue
            return
        raise contended()

    def _check_empty(self, bucket: Open) -> None:
        if self._core.state.first(rows.VERSION + bucket.id) is not None:
            raise Exists(f"the bucket {bucket.name!r} is not empty", reason="bucket-not-empty")

    def list(self, owner: str | None, prefix: str, after: str, limit: int) -> tuple[list[Bucket], bool]:
        """Buckets named above ``after``, in order, at most limit; and whether more follow."""
        start = _row(prefix)
        end = prefix_end(start)
        if after:
            start = max(start, _row(after) + b"\x00")
        found: list[Bucket] = []
        while True:
            page = self._core.state.scan(start, end, SCAN_ROWS)
            for key, value in page:
                record = rows.bucket_of(value)
                if owner is not None and record.owner != owner:
                    continue
                if len(found) == limit:
                    return found, True
                found.append(bucket_view(key[1:].decode(), record))
            if len(page) < SCAN_ROWS:
                return found, False
            start = page[-1][0] + b"\x00"
