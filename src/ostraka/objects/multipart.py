"""Multipart uploads in progress: parts that are manifests, and parts that share the slices of another version.

A part's row holds one reference to the part's manifest, so that completing counts one row a part. Replacing a part
queues the old manifest as dead; aborting queues the upload, and the collector takes its parts. Every part is committed
only while its upload's row stands. `completing` tells the rest.
"""

import asyncio

from ostraka.chunks.sealing import Domain
from ostraka.chunks.types import Entry, Recipe
from ostraka.errors import Absent, Invalid, TooLarge
from ostraka.objects import rows
from ostraka.objects.anew import place_anew
from ostraka.objects.buckets import Buckets, Open
from ostraka.objects.core import CERTAINLY_NOT, Core, contended
from ostraka.objects.encryption import Chosen, chosen, kept
from ostraka.objects.hashing import Lane
from ostraka.objects.intake import Intake
from ostraka.objects.listing import upload_view
from ostraka.objects.manifest import Draft, leaves
from ostraka.objects.plans import Plan
from ostraka.objects.reader import read_slices
from ostraka.objects.receive import receive
from ostraka.objects.recipes import for_class
from ostraka.objects.rows import PartRecord, UploadRecord, VersionRecord
from ostraka.objects.tiers import pool_of
from ostraka.objects.types import (
    Attributes,
    CustomerKey,
    Digest,
    Encryption,
    ObjectInfo,
    PartInfo,
    Source,
    Upload,
)
from ostraka.objects.versions import Versions, check_attributes, check_key
from ostraka.state import Delete, Equals, Precondition, Present, Put, Rejected, prefix_end

UPLOAD_TAG = "upload"
PART_TAG = "part"


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

    def __init__(self, core: Core, buckets: Buckets, versions: Versions) -> None:
        self._core = core
        self._buckets = buckets
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
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
    ) -> Upload:
        core = self._core
        check_key(core, key)
        check_attributes(core, attributes)
        pool_of(core.state, attributes.storage_class)
        now = core.host.clock.time()
        identifier = int(now * 1_000_000).to_bytes(8, "big") + core.host.random(8)
        storage = self._buckets.open(bucket_name).record.storage
        record = UploadRecord(
            owner,
            now,
            attributes.storage_class,
            rows.plain(attributes.headers),
            rows.plain(attributes.metadata),
            rows.plain(attributes.tags),
            checksum_algorithm,
            checksum_type,
            chosen(core.keyring, storage, encryption, customer, core.host).row,
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
        self,
        bucket_name: str,
        key: str,
        upload_id: str,
        number: int,
        source: Source,
        digest: Digest,
        customer: CustomerKey | None = None,
    ) -> PartInfo:
        self._check_number(number)
        upload = self.find(bucket_name, key, upload_id)
        given = kept(self._core.keyring, rows.encryption_of(upload.record), customer)
        intake = await receive(self._core, source, digest, self._recipe(upload, given), inline_max=-1)
        return await self._commit_part(upload, upload_id, number, intake, digest, given)

    def _recipe(self, upload: Named, given: Chosen) -> Recipe:
        recipe = given.recipe(upload.bucket.recipe)
        return for_class(self._core.state, recipe, upload.record.storage_class)

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
        given: Chosen,
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
            etag = given.etag(digested.etag, core.host)
            record = PartRecord(intake.size, etag, modified, manifest, rows.plain(digested.checksums))
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
        customer: CustomerKey | None = None,
        source_customer: CustomerKey | None = None,
    ) -> PartInfo:
        """A part that shares slices of another version, while that version stands; under another key than that one's it
        gets them anew."""
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
            had = kept(core.keyring, rows.encryption_of(record), source_customer)
            given = kept(core.keyring, rows.encryption_of(upload.record), customer)
            domain = had.domain if source_customer is not None else None
            recipe = self._recipe(upload, given)
            if record.inline is not None or not given.shares(had):
                span = offset, length
                intake = await place_anew(core, source, record, span, domain, digest, recipe, inline_max=-1)
            else:
                await self._hash(record, offset, length, digest, domain)
                intake = SharedRange(core, stands)
                try:
                    await intake.take(record, offset, length)
                except BaseException:
                    intake.discard()
                    raise
            return await self._commit_part(upload, upload_id, number, intake, digest, given, stands)
        finally:
            core.pins.leave(token)

    async def _hash(
        self, record: VersionRecord, offset: int, length: int, digest: Digest, domain: Domain | None
    ) -> None:
        core = self._core
        lane, fed = Lane(digest, core.executor), 0
        try:
            async for piece in read_slices(core, leaves(core.state, record.entries, offset, length), domain):
                lane.feed(piece, 0, len(piece))
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
