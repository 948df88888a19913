"""Multipart uploads: parts that are manifests, and a Complete that counts manifests and moves no data.

- A part's row holds one reference to the part's manifest. Replacing the part queues the old manifest as dead.
- Complete builds a root manifest whose pages take a reference of their own to each part's manifest; pages before the
  last are committed invisibly, a bounded number of parts each, and only while the upload and these very parts stand.
  The last commit makes the version visible, removes the upload's row and queues the upload as dead: the collector
  then takes back the references of all its part rows, used or not. A crash anywhere leaves either an upload as it was
  and a pending root that the collector takes apart, or a completed object: every reference is counted by the row that
  holds it.
- What Complete answered is kept under the upload's id, so that a repeated Complete gets the same answer.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Invalid, TooLarge
from ostraka.objects import rows
from ostraka.objects.buckets import Buckets, Open
from ostraka.objects.core import CERTAINLY_NOT, Core, contended
from ostraka.objects.hashing import Lane
from ostraka.objects.intake import Intake
from ostraka.objects.listing import upload_view
from ostraka.objects.manifest import Draft, leaves, more_references
from ostraka.objects.plans import Plan
from ostraka.objects.publish import NO_CONDITIONS, Publisher, Write
from ostraka.objects.reader import read_slices
from ostraka.objects.receive import receive, whole
from ostraka.objects.replay import upload_hash
from ostraka.objects.rows import PartRecord, UploadRecord, VersionRecord
from ostraka.objects.types import (
    Assemble,
    Attributes,
    CompletePart,
    Digest,
    Digested,
    ObjectInfo,
    PartInfo,
    Replay,
    Source,
    Upload,
    WriteConditions,
)
from ostraka.objects.versions import Versions, check_attributes, check_key
from ostraka.state import Delete, Equals, Operation, Precondition, Present, Put, Rejected, prefix_end

UPLOAD_TAG = "upload"
PART_TAG = "part"
SCAN_ROWS = 1000


def no_upload(upload_id: str) -> Absent:
    return Absent(f"there is no upload {upload_id!r}", reason="upload")


class Named:
    """An upload that a request named: its row, as read."""

    __slots__ = ("bucket", "id", "record", "row", "value")

    def __init__(self, bucket: Open, identifier: bytes, row: bytes, value: bytes) -> None:
        self.bucket = bucket
        self.id = identifier
        self.row = row
        self.value = value
        self.record: UploadRecord = rows.upload_of(value)


class Multipart:
    """What happens to uploads."""

    def __init__(self, core: Core, buckets: Buckets, publisher: Publisher, versions: Versions) -> None:
        self._core = core
        self._buckets = buckets
        self._publisher = publisher
        self._versions = versions

    async def create(
        self,
        bucket_name: str,
        key: str,
        attributes: Attributes,
        *,
        owner: str,
        checksum_algorithm: str = "",
        checksum_type: str = "",
    ) -> Upload:
        core = self._core
        check_key(core, key)
        check_attributes(core, attributes)
        now = core.host.clock.time()
        identifier = int(now * 1_000_000).to_bytes(8, "big") + core.host.random(8)
        record = UploadRecord(
            owner,
            now,
            attributes.storage_class,
            rows.plain(attributes.headers),
            rows.plain(attributes.metadata),
            rows.plain(attributes.tags),
            checksum_algorithm,
            checksum_type,
        )
        for _ in range(core.limits.commit_attempts_max):
            bucket = await self._buckets.open_for_writing(bucket_name)
            row = rows.UPLOAD + bucket.tail(key) + identifier
            try:
                await core.commit([bucket.gate], [Put(row, rows.encode(record))])
            except Rejected:
                continue
            return upload_view(bucket_name, key, core.identity.uploads.text(identifier), record)
        raise contended()

    def find(self, bucket_name: str, key: str, upload_id: str) -> Named:
        """Absent("bucket") or ("upload")."""
        check_key(self._core, key)
        bucket = self._buckets.open(bucket_name)
        identifier = self._core.identity.uploads.block(upload_id)
        if identifier is None:
            raise no_upload(upload_id)
        row = rows.UPLOAD + bucket.tail(key) + identifier
        value = self._core.state.get(row)
        if value is None:
            raise no_upload(upload_id)
        return Named(bucket, identifier, row, value)

    def upload(self, bucket_name: str, key: str, upload_id: str) -> Upload:
        return upload_view(bucket_name, key, upload_id, self.find(bucket_name, key, upload_id).record)

    async def abort(self, bucket_name: str, key: str, upload_id: str) -> None:
        upload = self.find(bucket_name, key, upload_id)
        dead = rows.DeadRecord(uploads=(upload.id,))
        try:
            await self._core.commit(
                [Present(upload.row, UPLOAD_TAG)],
                [Delete(upload.row), Put(rows.DEAD, rows.encode(dead), stamp_key=True)],
            )
        except Rejected as refusal:
            raise no_upload(upload_id) from refusal

    # -- parts

    async def put_part(
        self, bucket_name: str, key: str, upload_id: str, number: int, source: Source, digest: Digest
    ) -> PartInfo:
        self._check_number(number)
        upload = self.find(bucket_name, key, upload_id)
        intake = await receive(self._core, source, digest, inline_max=-1)
        return await self._commit_part(upload, upload_id, number, intake, digest)

    def _check_number(self, number: int) -> None:
        if not 0 < number <= self._core.limits.part_count_max:
            raise Invalid(f"part numbers are 1 to {self._core.limits.part_count_max}", reason="part-number")

    async def _commit_part(
        self,
        upload: Named,
        upload_id: str,
        number: int,
        intake: Intake,
        digest: Digest,
        stands: Precondition | None = None,
    ) -> PartInfo:
        """The one commit that makes a part visible, in place of an earlier one. Settles the intake."""
        core = self._core
        try:
            digested = digest.finish()
            if intake.draft is None and intake.size:
                intake.new_draft()
            manifest = intake.draft.id if intake.draft is not None else b""
            modified = core.host.clock.time()
            record = PartRecord(intake.size, digested.etag, modified, manifest, rows.plain(digested.checksums))
            await self._replace_part(upload, upload_id, number, record, intake, stands)
        except BaseException:
            intake.discard()
            raise
        intake.landed()
        return part_info(number, record)

    async def _replace_part(
        self,
        upload: Named,
        upload_id: str,
        number: int,
        record: PartRecord,
        intake: Intake,
        stands: Precondition | None,
    ) -> None:
        core = self._core
        row = rows.part_key(upload.id, number)
        for _ in range(core.limits.commit_attempts_max):
            old = core.state.get(row)
            plan = Plan(Present(upload.row, UPLOAD_TAG), Equals(row, old, PART_TAG))
            if stands is not None:
                plan.preconditions.append(stands)
            plan.operations.append(Put(row, rows.encode(record)))
            if old is not None:
                plan.dead += rows.part_of(old).entries()
            intake.stage_into(plan)
            plan.bury()
            intake.unsure = True
            try:
                await core.commit(plan.preconditions, plan.operations)
            except Rejected as refusal:
                intake.unsure = False
                if refusal.tag == UPLOAD_TAG:
                    raise no_upload(upload_id) from refusal
                if refusal.tag == "source":
                    raise Absent("the version to copy is gone", reason="version") from refusal
                if refusal.tag != PART_TAG and not await intake.rejected(refusal.tag, refusal.key):
                    raise
            except CERTAINLY_NOT:
                intake.unsure = False
                raise
            else:
                return
        raise contended()

    async def copy_part(
        self,
        bucket_name: str,
        key: str,
        upload_id: str,
        number: int,
        source: ObjectInfo,
        offset: int,
        length: int,
        digest: Digest,
    ) -> PartInfo:
        """A part that shares slices of another version, while that version stands."""
        core = self._core
        self._check_number(number)
        if length > core.limits.put_size_max:
            raise TooLarge(f"a part of {length} bytes; at most {core.limits.put_size_max}", reason="entity")
        upload = self.find(bucket_name, key, upload_id)
        token = core.pins.enter()
        try:
            source_row, record = self._versions.source(source)
            if offset < 0 or length < 0 or offset + length > record.size:
                raise Invalid(f"bytes {offset}+{length} of a body of {record.size}", reason="range")
            stands = Present(source_row, "source")
            if record.inline is not None:
                intake = await whole(core, record.inline[offset : offset + length], digest, -1)
            else:
                await self._hash(record, offset, length, digest)
                intake = SharedRange(core, stands)
                try:
                    await intake.take(record, offset, length)
                except BaseException:
                    intake.discard()
                    raise
            return await self._commit_part(upload, upload_id, number, intake, digest, stands)
        finally:
            core.pins.leave(token)

    async def _hash(self, record: VersionRecord, offset: int, length: int, digest: Digest) -> None:
        core = self._core
        lane, fed = Lane(digest, core.executor), 0
        try:
            async for piece in read_slices(core, leaves(core.state, record.entries, offset, length)):
                lane.feed(piece)
                fed += len(piece)
                await lane.reached(fed)  # the piece may be gone once the next one is asked for
        except BaseException:
            core.spawn(lane.stop())
            raise

    def list_parts(
        self, bucket_name: str, key: str, upload_id: str, after: int, limit: int
    ) -> tuple[list[PartInfo], bool]:
        upload = self.find(bucket_name, key, upload_id)
        start = rows.part_key(upload.id, max(after, 0) + 1)
        page = self._core.state.scan(start, prefix_end(rows.PART + upload.id), limit + 1)
        found = [part_info(int.from_bytes(row[-4:], "big"), rows.part_of(value)) for row, value in page[:limit]]
        return found, len(page) > limit

    # -- complete

    async def complete(
        self,
        bucket_name: str,
        key: str,
        upload_id: str,
        parts: Sequence[CompletePart],
        assemble: Assemble,
        *,
        conditions: WriteConditions = NO_CONDITIONS,
        replay: Replay | None = None,
        size: int | None = None,
    ) -> ObjectInfo:
        core = self._core
        bucket = await self._buckets.open_for_writing(bucket_name)
        identifier = core.identity.uploads.block(upload_id)
        if identifier is None:
            raise no_upload(upload_id)
        name, fingerprint = upload_hash(identifier), _fingerprint(bucket, key, parts)
        for _ in range(core.limits.commit_attempts_max):
            try:
                upload = self.find(bucket_name, key, upload_id)
            except Absent:
                found = self._publisher.replays.find(name, fingerprint)
                if found is None:
                    raise
                return self._publisher.info(bucket, key, found[0], found[1], True)
            root = _Root(core, upload)
            try:
                chosen = self._choose(upload, parts, size)
                digested = assemble([part_info(number, part) for number, (part, _) in chosen])
                write = self._write(upload, root, digested, conditions, name, fingerprint)
                self._publisher.early(bucket, key, write)
                await root.build([found for _, found in chosen])
                info = await self._publisher.publish(bucket, key, write)
            except UploadChanged:
                root.discard()
                continue
            except BaseException:
                root.discard()
                raise
            if write.replayed:
                root.discard()
            return info
        raise contended()

    def _write(
        self,
        upload: Named,
        root: "_Root",
        digested: Digested,
        conditions: WriteConditions,
        name: bytes,
        fingerprint: str,
    ) -> Write:
        nonce, modified = self._core.host.random(8), self._core.host.clock.time()
        asked = upload.record

        def record(flags: int) -> VersionRecord:
            return VersionRecord(
                flags,
                nonce,
                root.size,
                digested.etag,
                modified,
                asked.owner,
                asked.storage_class,
                None,
                root.entries(),
                asked.headers,
                asked.metadata,
                asked.tags,
                rows.plain(digested.checksums),
                digested.checksum_type,
                root.count,
            )

        return Write(record, root, conditions, name, fingerprint, replay_must=True)

    def _choose(
        self, upload: Named, parts: Sequence[CompletePart], size: int | None
    ) -> list[tuple[int, tuple[PartRecord, tuple[bytes, bytes]]]]:
        """The parts that the caller names, checked: (number, (record, (row key, row as read)))."""
        core = self._core
        if not parts:
            raise Invalid("an upload is completed with at least one part", reason="part")
        have = self._all_parts(upload.id)
        chosen: list[tuple[int, tuple[PartRecord, tuple[bytes, bytes]]]] = []
        last, total = 0, 0
        for part in parts:
            if part.number <= last:
                raise Invalid("parts are not in ascending order", reason="part-order")
            last = part.number
            row = have.get(part.number)
            if row is None:
                raise Invalid(f"part {part.number} was not uploaded", reason="part")
            record = rows.part_of(row[1])
            if part.etag.strip('"') != record.etag:
                raise Invalid(f"part {part.number} has another etag", reason="part")
            if any(record.checksums.get(name) != value for name, value in part.checksums.items()):
                raise Invalid(f"part {part.number} has another checksum", reason="part")
            chosen.append((part.number, (record, row)))
            total += record.size
        for number, (record, _) in chosen[:-1]:
            if record.size < core.limits.part_size_min:
                raise Invalid(
                    f"part {number} has {record.size} bytes; all but the last need {core.limits.part_size_min}",
                    reason="part-small",
                )
        if total > core.limits.object_size_max:
            raise TooLarge(f"an object of {total} bytes; at most {core.limits.object_size_max}", reason="entity")
        if size is not None and size != total:
            raise Invalid(f"the parts come to {total} bytes, not {size}", reason="size")
        return chosen

    def _all_parts(self, upload: bytes) -> dict[int, tuple[bytes, bytes]]:
        start, end = rows.PART + upload, prefix_end(rows.PART + upload)
        found: dict[int, tuple[bytes, bytes]] = {}
        while True:
            page = self._core.state.scan(start, end, SCAN_ROWS)
            for row in page:
                found[int.from_bytes(row[0][-4:], "big")] = row
            if len(page) < SCAN_ROWS:
                return found
            start = page[-1][0] + b"\x00"


class UploadChanged(Exception):
    """The upload or one of its parts is another than was judged: judge anew."""


class _Root:
    """The manifest of manifests that a completed object is; the body of its `Write`."""

    unsure = False

    def __init__(self, core: Core, upload: Named) -> None:
        self._core = core
        self._upload = upload
        self._draft = Draft(core.host.random(16), core.incarnation, core.limits.manifest_page_entries_max)
        self._last: list[tuple[PartRecord, tuple[bytes, bytes]]] = []  # parts of the last, still uncommitted page
        self.size = 0
        self.count = 0

    def entries(self) -> tuple[Entry, ...]:
        return (Entry(Kind.MANIFEST, self._draft.id, 0, self.size),)

    async def build(self, parts: Sequence[tuple[PartRecord, tuple[bytes, bytes]]]) -> None:
        """Commit all pages but the last, invisibly."""
        page = self._core.limits.manifest_page_entries_max
        while len(parts) > page:
            await self._commit_page(parts[:page])
            parts = parts[page:]
        self._last = list(parts)
        self.size += sum(part.size for part, _ in parts)
        self.count += len(parts)

    async def _commit_page(self, parts: Sequence[tuple[PartRecord, tuple[bytes, bytes]]]) -> None:
        draft = self._draft
        preconditions: list[Precondition] = [Equals(self._upload.row, self._upload.value, UPLOAD_TAG)]
        operations: list[Operation] = []
        entries = self._stage(parts, preconditions, operations)
        mine, claimed = draft.invisibly()
        draft.pending = True
        try:
            await self._core.commit([mine, *preconditions], [*claimed, *operations])
        except Rejected as refusal:
            draft.pending = not claimed
            if refusal.tag in (UPLOAD_TAG, PART_TAG):
                raise UploadChanged from refusal
            raise
        draft.adopt(entries)
        self.size += sum(part.size for part, _ in parts)
        self.count += len(parts)

    def _stage(
        self,
        parts: Sequence[tuple[PartRecord, tuple[bytes, bytes]]],
        preconditions: list[Precondition],
        operations: list[Operation],
    ) -> list[Entry]:
        """References to parts that must stand as read, the page that holds them, and a row for each."""
        entries: list[Entry] = []
        offset, number = self._draft.size, self._committed
        for part, (row, value) in parts:
            number += 1
            preconditions.append(Equals(row, value, PART_TAG))
            entries.extend(part.entries())
            if part.manifest:
                operations.append(more_references(part.manifest))
            done = rows.CompletedPart(offset, part.size, part.etag, part.modified, part.checksums)
            operations.append(Put(rows.completed_key(self._draft.id, number), rows.encode(done)))
            offset += part.size
        operations.extend(self._draft.stage(entries))
        return entries

    @property
    def _committed(self) -> int:
        return self.count - len(self._last)

    def stage_into(self, plan: Plan) -> None:
        upload = self._upload
        plan.preconditions.append(Equals(upload.row, upload.value, UPLOAD_TAG))
        visible, released = self._draft.visibly()
        plan.preconditions.extend(visible)
        plan.operations.extend(released)
        self._stage(self._last, plan.preconditions, plan.operations)
        plan.operations.append(Delete(upload.row))
        plan.uploads += (upload.id,)

    async def rejected(self, tag: str, key: bytes) -> bool:
        if tag in (UPLOAD_TAG, PART_TAG):
            raise UploadChanged
        return False

    def discard(self) -> None:
        if self._draft.pending:
            self._core.spawn(self._core.give_up(self._draft.id))


class SharedRange(Intake):
    """The body of a copied part: slices of a version that must stand, referenced in bounded commits."""

    __slots__ = ("_leaves", "_stands")

    def __init__(self, core: Core, stands: Precondition) -> None:
        super().__init__(core)
        self._stands = stands
        self._leaves: list[Entry] = []  # not referenced yet

    async def take(self, record: VersionRecord, offset: int, length: int) -> None:
        page = self.core.limits.manifest_page_entries_max
        draft = self.new_draft()
        for entry in leaves(self.core.state, record.entries, offset, length):
            if len(self._leaves) == page:
                await self._commit_page(draft)
            self._leaves.append(entry)
            self.size += entry.length
        if not self.size:
            self.draft = None

    async def _commit_page(self, draft: Draft) -> None:
        for _ in range(self.core.limits.commit_attempts_max):
            mine, claimed = draft.invisibly()
            preconditions, operations = self.core.chunks.reference(self._leaves)
            before, draft.pending = draft.pending, True
            try:
                await self.core.commit(
                    [mine, self._stands, *preconditions], [*claimed, *operations, *draft.stage(self._leaves)]
                )
            except Rejected as refusal:
                draft.pending = before
                if refusal.tag == "source":
                    raise Absent("the version to copy is gone", reason="version") from refusal
                if refusal.tag == "pending":
                    raise
            else:
                draft.adopt(self._leaves)
                self._leaves = []
                return
        raise contended()

    def stage_into(self, plan: Plan) -> None:
        super().stage_into(plan)
        if self._leaves and self.draft is not None:
            preconditions, operations = self.core.chunks.reference(self._leaves)
            plan.preconditions.extend(preconditions)
            plan.operations.extend(operations)
            plan.operations.extend(self.draft.stage(self._leaves))

    async def rejected(self, tag: str, key: bytes) -> bool:
        await asyncio.sleep(0)
        return tag != "pending"  # a chunk changed, and ``reference`` looks at it anew


def part_info(number: int, record: PartRecord) -> PartInfo:
    return PartInfo(number, record.size, record.etag, record.modified, record.checksums)


def _fingerprint(bucket: Open, key: str, parts: Sequence[CompletePart]) -> str:
    """What two Completes of one upload must have in common to be the same."""
    hashed = hashlib.blake2b(bucket.tail(key), digest_size=16)
    for part in parts:
        hashed.update(b"%d:%s;" % (part.number, part.etag.strip('"').encode()))
    return hashed.hexdigest()
