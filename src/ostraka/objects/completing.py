"""Completing an upload: a manifest of its parts' manifests, and no data moved.

Complete builds a root manifest whose pages take a reference of their own to each part's manifest; pages before the last
are committed invisibly, a bounded number of parts each, and only while the upload and these very parts stand. The last
commit makes the version visible, removes the upload's row and queues the upload as dead: the collector then takes back
the references of all its part rows, used or not. A crash anywhere leaves either an upload as it was and a pending root
that the collector takes apart, or a completed object: every reference is counted by the row that holds it.

What Complete answered is kept under the upload's id, so that a repeated Complete gets the same answer.
"""

import hashlib
from collections.abc import Sequence

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Absent, Invalid, TooLarge
from ostraka.objects import rows
from ostraka.objects.buckets import Buckets, Open
from ostraka.objects.core import Core, contended
from ostraka.objects.manifest import Draft, more_references
from ostraka.objects.multipart import PART_TAG, UPLOAD_TAG, Multipart, Named, no_upload, part_info
from ostraka.objects.plans import Plan
from ostraka.objects.publish import NO_CONDITIONS, Publisher, Write
from ostraka.objects.replay import upload_hash
from ostraka.objects.rows import PartRecord, VersionRecord
from ostraka.objects.types import Assemble, CompletePart, Digested, ObjectInfo, PartRefused, Replay, WriteConditions
from ostraka.state import Delete, Equals, Operation, Precondition, Put, Rejected, rows_under

Chosen = tuple[PartRecord, tuple[bytes, bytes]]  # a part, and its row as read


class Completer:
    """Completes uploads."""

    def __init__(self, core: Core, buckets: Buckets, publisher: Publisher, multipart: Multipart) -> None:
        self._core = core
        self._buckets = buckets
        self._publisher = publisher
        self._multipart = multipart

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
                upload = self._multipart.find(bucket_name, key, upload_id)
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
                asked.encryption,
            )

        return Write(record, root, conditions, name, fingerprint, replay_must=True)

    def _choose(self, upload: Named, parts: Sequence[CompletePart], size: int | None) -> list[tuple[int, Chosen]]:
        """The parts that the caller names, checked: (number, (record, (row key, row as read)))."""
        core = self._core
        if not parts:
            raise Invalid("an upload is completed with at least one part", reason="part")
        have = self._all_parts(upload.id)
        chosen: list[tuple[int, Chosen]] = []
        last, total = 0, 0
        for part in parts:
            if part.number <= last:
                raise Invalid("parts are not in ascending order", reason="part-order")
            last = part.number
            row = have.get(part.number)
            if row is None:
                raise _refused(part, "was not uploaded")
            record = rows.part_of(row[1])
            if part.etag.strip('"') != record.etag:
                raise _refused(part, "has another etag")
            if any(record.checksums.get(name) != value for name, value in part.checksums.items()):
                raise _refused(part, "has another checksum")
            chosen.append((part.number, (record, row)))
            total += record.size
        for number, (record, _) in chosen[:-1]:
            if record.size < core.limits.part_size_min:
                raise PartRefused(
                    f"part {number} has {record.size} bytes; all but the last need {core.limits.part_size_min}",
                    reason="part-small",
                    number=number,
                    etag=record.etag,
                    size=record.size,
                )
        if total > core.limits.object_size_max:
            raise TooLarge(f"an object of {total} bytes; at most {core.limits.object_size_max}", reason="entity")
        if size is not None and size != total:
            raise Invalid(f"the parts come to {total} bytes, not {size}", reason="size")
        return chosen

    def _all_parts(self, upload: bytes) -> dict[int, tuple[bytes, bytes]]:
        return {int.from_bytes(row[0][-4:], "big"): row for row in rows_under(self._core.state, rows.PART + upload)}


class UploadChanged(Exception):
    """The upload or one of its parts is another than was judged: judge anew."""


class _Root:
    """The manifest of manifests that a completed object is; the body of its `Write`."""

    unsure = False

    def __init__(self, core: Core, upload: Named) -> None:
        self._core = core
        self._upload = upload
        self._draft = Draft(core.host.random(16), core.incarnation, core.limits.manifest_page_entries_max)
        self._last: list[Chosen] = []  # parts of the last, still uncommitted page
        self.size = 0
        self.count = 0

    def entries(self) -> tuple[Entry, ...]:
        return (Entry(Kind.MANIFEST, self._draft.id, 0, self.size),)

    async def build(self, parts: Sequence[Chosen]) -> None:
        """Commit all pages but the last, invisibly."""
        page = self._core.limits.manifest_page_entries_max
        while len(parts) > page:
            await self._commit_page(parts[:page])
            parts = parts[page:]
        self._last = list(parts)
        self.size += sum(part.size for part, _ in parts)
        self.count += len(parts)

    async def _commit_page(self, parts: Sequence[Chosen]) -> None:
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
        parts: Sequence[Chosen],
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


def _refused(part: CompletePart, why: str) -> PartRefused:
    return PartRefused(f"part {part.number} {why}", reason="part", number=part.number, etag=part.etag)


def _fingerprint(bucket: Open, key: str, parts: Sequence[CompletePart]) -> str:
    """What two Completes of one upload must have in common to be the same."""
    hashed = hashlib.blake2b(bucket.tail(key), digest_size=16)
    for part in parts:
        hashed.update(b"%d:%s;" % (part.number, part.etag.strip('"').encode()))
    return hashed.hexdigest()
