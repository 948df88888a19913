"""Objects and their versions: put, look up, open, delete, copy, tag."""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ostraka.chunks.sealing import Domain
from ostraka.chunks.types import Kind
from ostraka.errors import Absent, Invalid, OstrakaError, TooLarge
from ostraka.objects import rows
from ostraka.objects.anew import AnewBody, NoDigest, place_anew
from ostraka.objects.buckets import Buckets, Open
from ostraka.objects.core import FENCE, Core, contended, fenced
from ostraka.objects.encryption import Chosen, chosen, customer_domain, kept
from ostraka.objects.identity import NULL_VERSION
from ostraka.objects.manifest import more_references
from ostraka.objects.plans import REPLAN, Plan, find_null, judge_current, plan_delete, plan_delete_version
from ostraka.objects.publish import NO_CONDITIONS, Publisher, Write
from ostraka.objects.reader import Reader
from ostraka.objects.receive import receive
from ostraka.objects.recipes import for_class
from ostraka.objects.replay import invocation_hash
from ostraka.objects.rows import VersionRecord
from ostraka.objects.tiers import pool_of
from ostraka.objects.types import (
    NO_ETAGS,
    Attributes,
    BadVersionId,
    CustomerKey,
    Deleted,
    DeleteMarker,
    Digest,
    Digested,
    Encryption,
    ObjectInfo,
    Replay,
    Source,
    WriteConditions,
)
from ostraka.state import Equals, Mutation, Precondition, Present, Put, Rejected, key_sequence


class SharedBody:
    """The bytes of another version, with one reference more, while that version stands."""

    unsure = False

    def __init__(self, core: Core, source: rows.VersionRecord, source_row: bytes) -> None:
        self._core = core
        self._source = source
        self._stands = Present(source_row, "source")

    def stage_into(self, plan: Plan) -> None:
        plan.preconditions.append(self._stands)
        leaves = [entry for entry in self._source.entries if entry.kind != Kind.MANIFEST]
        for entry in self._source.entries:
            if entry.kind == Kind.MANIFEST:
                plan.operations.append(more_references(entry.id))
        if leaves:
            preconditions, operations = self._core.chunks.reference(leaves)
            plan.preconditions += preconditions
            plan.operations += operations

    async def rejected(self, tag: str, key: bytes) -> bool:
        if tag == "source":
            raise Absent("the version to copy is gone", reason="version")
        return True  # a chunk changed, and ``reference`` looks at it anew


def check_key(core: Core, key: str) -> None:
    """Invalid("key") or ("key-too-long")."""
    size = len(key) if key.isascii() else _utf8_size(key)
    if size > core.limits.key_bytes_max:
        raise Invalid(f"a key of {size} bytes; at most {core.limits.key_bytes_max}", reason="key-too-long")
    if not size:
        raise Invalid("an empty key", reason="key")


def _utf8_size(key: str) -> int:
    try:
        return len(key.encode())
    except UnicodeEncodeError:
        raise Invalid("a key that is not Unicode text", reason="key") from None


def check_attributes(core: Core, attributes: Attributes) -> None:
    """TooLarge("metadata") or ("tags")."""
    metadata = attributes.metadata
    if metadata:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
        if size > core.limits.metadata_bytes_max:
            raise TooLarge(
                f"user metadata of {size} bytes; at most {core.limits.metadata_bytes_max}", reason="metadata"
            )
    if len(attributes.tags) > core.limits.tags_per_object_max:
        raise TooLarge(f"more than {core.limits.tags_per_object_max} tags", reason="tags")


class Versions:
    """What happens to single keys."""

    def __init__(self, core: Core, buckets: Buckets, publisher: Publisher) -> None:
        self._core = core
        self._buckets = buckets
        self._publisher = publisher

    # -- writing

    async def put(
        self,
        bucket_name: str,
        key: str,
        source: Source,
        digest: Digest,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = NO_CONDITIONS,
        replay: Replay | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
    ) -> ObjectInfo:
        core = self._core
        check_key(core, key)
        check_attributes(core, attributes)
        bucket = await self._buckets.open_for_writing(bucket_name)
        name = None if replay is None else invocation_hash(replay, bucket_name, key)

        def record(flags: int) -> VersionRecord:
            return VersionRecord(
                flags,
                nonce,
                intake.size,
                etag,
                modified,
                owner,
                attributes.storage_class,
                inline,
                intake.entries(),
                rows.plain(attributes.headers),
                rows.plain(attributes.metadata),
                rows.plain(attributes.tags),
                rows.plain(digested.checksums),
                digested.checksum_type,
                0,
                given.row,
                seal,
            )

        write = Write(record, None, conditions, name, replay.body if replay else "")
        if name is not None or conditions.if_none_match or conditions.if_match:
            found = self._publisher.early(bucket, key, write)
            if found is not None:
                return found
        given = chosen(core.keyring, bucket.record.storage, encryption, customer, core.host)
        recipe = for_class(core.state, given.recipe(bucket.recipe), attributes.storage_class)
        intake = await receive(core, source, digest, recipe, inline_max=core.limits.inline_size_max)
        if intake.placed or intake.draft is not None:
            write.body = intake
        elif intake.inline is None:
            intake.inline = b""
        try:
            digested = digest.finish()
            etag = given.etag(digested.etag, core.host)
            inline, seal = given.inline(intake.inline, core.host)
            nonce = core.host.random(8)
            modified = core.host.clock.time()
            info = await self._publisher.publish(bucket, key, write)
        except BaseException:
            intake.discard()
            raise
        if write.replayed:
            intake.discard()  # an overlapping attempt won, and this is its answer
        else:
            intake.landed()
        return info

    async def copy(
        self,
        source: ObjectInfo,
        bucket_name: str,
        key: str,
        attributes: Attributes,
        *,
        owner: str,
        conditions: WriteConditions = NO_CONDITIONS,
        digested: Digested | None = None,
        encryption: Encryption | None = None,
        customer: CustomerKey | None = None,
        source_customer: CustomerKey | None = None,
    ) -> ObjectInfo:
        core = self._core
        check_key(core, key)
        check_attributes(core, attributes)
        pool_of(core.state, attributes.storage_class)  # there is one: the tier job moves what has to be moved
        old_row, old = self.source(source)
        bucket = await self._buckets.open_for_writing(bucket_name)
        had = kept(core.keyring, rows.encryption_of(old), source_customer)
        given = chosen(core.keyring, bucket.record.storage, encryption, customer, core.host)
        etag = digested.etag if digested else old.etag
        if given.hides and (digested or not had.hides):
            etag = given.etag(etag, core.host)
        new = VersionRecord(
            0,
            core.host.random(8),
            old.size,
            etag,
            core.host.clock.time(),
            owner,
            attributes.storage_class,
            old.inline,
            old.entries,
            rows.plain(attributes.headers),
            rows.plain(attributes.metadata),
            rows.plain(attributes.tags),
            rows.plain(digested.checksums) if digested else old.checksums,
            digested.checksum_type if digested else old.checksum_type,
            0 if digested else old.part_count,
            given.row,
            old.seal,
        )
        if not given.shares(had):
            domain = had.domain if source_customer is not None else None
            return await self._copy_anew(bucket, key, source, (old_row, old), domain, new, given, conditions)
        write = Write(lambda flags: replace(new, flags=flags), SharedBody(core, old, old_row), conditions)
        return await self._publisher.publish(bucket, key, write)

    async def _copy_anew(
        self,
        bucket: Open,
        key: str,
        source: ObjectInfo,
        old: tuple[bytes, VersionRecord],
        domain: Domain | None,
        new: VersionRecord,
        given: Chosen,
        conditions: WriteConditions,
    ) -> ObjectInfo:
        """A copy under another key than its source's: the bytes are read and stored anew."""
        core, span = self._core, (0, new.size)
        recipe = for_class(core.state, given.recipe(bucket.recipe), new.storage_class)
        inline_max = core.limits.inline_size_max
        intake = await place_anew(core, source, old[1], span, domain, NoDigest(), recipe, inline_max=inline_max)
        try:
            inline, seal = given.inline(intake.inline, core.host)
            made = replace(new, inline=inline, seal=seal, entries=intake.entries(), part_count=0)
            body = AnewBody(intake, Present(old[0], "source"))
            write = Write(lambda flags: replace(made, flags=flags), body, conditions)
            info = await self._publisher.publish(bucket, key, write)
        except BaseException:
            intake.discard()
            raise
        intake.landed()
        return info

    def source(self, info: ObjectInfo) -> tuple[bytes, VersionRecord]:
        """(row key, record) of exactly the version in ``info``; Absent("version") when it is gone."""
        bucket = self._buckets.open(info.bucket)
        row = rows.version_key(bucket.tail(info.key), info.sequence)
        value = self._core.state.get(row)
        if value is None:
            raise Absent("the version to copy is gone", reason="version")
        record = rows.version_of(value)
        if record.marker:
            raise DeleteMarker(info.key, info.version_id, False, record.modified)
        return row, record

    # -- looking

    def _find(self, bucket: Open, key: str, version_id: str | None) -> tuple[int, VersionRecord, bytes, bool]:
        """(sequence, record, row as read, whether it is the newest) of what a request names."""
        state = self._core.state
        key_tail = bucket.tail(key)
        prefix = rows.VERSION + key_tail
        newest = state.first(prefix)
        if version_id is None:
            if newest is None:
                raise Absent(f"there is no key {key!r}", reason="key")
            sequence, value = key_sequence(newest[0]), newest[1]
            record = rows.version_of(value)
            if record.flags & rows.MARKER:
                shown = self._publisher.info(bucket, key, record, sequence, True).version_id
                raise DeleteMarker(key, shown, False, record.modified)
            return sequence, record, value, True
        found = self._named(key_tail, version_id)
        if found is None:
            raise Absent(f"{key!r} has no version {version_id!r}", reason="version")
        sequence, record, value = found
        if record.marker:
            raise DeleteMarker(key, version_id, True, record.modified)
        return sequence, record, value, newest is not None and key_sequence(newest[0]) == sequence

    def _named(self, key_tail: bytes, version_id: str) -> tuple[int, VersionRecord, bytes] | None:
        state = self._core.state
        if version_id == NULL_VERSION:
            _, null = find_null(state, key_tail)
            if null is None:
                return None
            value = state.get(rows.version_key(key_tail, null[0]))
            return None if value is None else (null[0], rows.version_of(value), value)
        parsed = self._core.identity.version(version_id)
        if parsed is None:
            raise BadVersionId(version_id)
        sequence, nonce = parsed
        value = state.get(rows.version_key(key_tail, sequence))
        if value is None:
            return None
        record = rows.version_of(value)
        return None if record.nonce != nonce or record.null else (sequence, record, value)

    def lookup(self, bucket_name: str, key: str, version_id: str | None = None) -> ObjectInfo:
        check_key(self._core, key)
        bucket = self._buckets.open(bucket_name)
        sequence, record, _, latest = self._find(bucket, key, version_id)
        return self._publisher.info(bucket, key, record, sequence, latest)

    def open(
        self, bucket_name: str, key: str, version_id: str | None = None, customer: CustomerKey | None = None
    ) -> Reader:
        core = self._core
        check_key(core, key)
        bucket = self._buckets.open(bucket_name)
        token: int | None = core.pins.enter()
        try:
            sequence, record, _, latest = self._find(bucket, key, version_id)
            domain = customer_domain(core.keyring, rows.encryption_of(record), customer)
            if record.inline is not None:
                core.pins.leave(token)  # type: ignore[arg-type]
                token = None
            return Reader(core, self._publisher.info(bucket, key, record, sequence, latest), record, token, domain)
        except BaseException:
            if token is not None:
                core.pins.leave(token)
            raise

    # -- deleting

    async def delete(
        self,
        bucket_name: str,
        key: str,
        version_id: str | None = None,
        *,
        owner: str = "",
        if_match: Sequence[str] = (),
    ) -> Deleted:
        core = self._core
        check_key(core, key)
        key_tail = self._buckets.open(bucket_name).tail(key)
        await core.locks.acquire(key_tail)
        try:
            for _ in range(core.limits.commit_attempts_max):
                bucket = await self._buckets.open_for_writing(bucket_name)
                try:
                    plan, answer = self._plan_delete(bucket, key, version_id, owner, if_match)
                    if plan is None:
                        return answer
                    sequence = (await core.state.commit(Mutation(plan.preconditions, plan.operations))).sequence
                except Rejected as refusal:
                    self._check_replan(refusal)
                    continue
                return self._deleted(bucket, answer, sequence)
        finally:
            core.locks.release(key_tail)
        raise contended()

    @staticmethod
    def _check_replan(refusal: Rejected) -> None:
        if refusal.tag == FENCE:
            raise fenced() from refusal
        if refusal.tag not in REPLAN:
            raise refusal

    async def delete_many(
        self,
        bucket_name: str,
        keys: Sequence[tuple[str, str | None]],
        *,
        owner: str = "",
        if_match: Mapping[int, Sequence[str]] = NO_ETAGS,
    ) -> list[Deleted | Exception]:
        """All plans go into one batch; those that lose a race, or to a neighbour, are done again one by one."""
        bucket = await self._buckets.open_for_writing(bucket_name)
        answers: list[Deleted | Exception] = []
        plans: list[tuple[int, Plan]] = []
        again: list[int] = []
        for index, (key, version_id) in enumerate(keys):
            try:
                check_key(self._core, key)
                plan, answer = self._plan_delete(bucket, key, version_id, owner, if_match.get(index, ()))
            except Rejected:
                again.append(index)
                answers.append(Deleted(key))
            except OstrakaError as error:
                answers.append(error)
            else:
                answers.append(answer)
                if plan is not None:
                    plans.append((index, plan))
        outcomes = await self._core.state.commit_many(
            [Mutation(plan.preconditions, plan.operations) for _, plan in plans]
        )
        for (index, _), outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                again.append(index)
            elif isinstance(outcome, OstrakaError):
                answers[index] = outcome
            else:
                answers[index] = self._deleted(bucket, answers[index], outcome.sequence)  # type: ignore[arg-type]
        for index in again:
            key, version_id = keys[index]
            try:
                answers[index] = await self.delete(
                    bucket_name, key, version_id, owner=owner, if_match=if_match.get(index, ())
                )
            except OstrakaError as error:
                answers[index] = error
        return answers

    def _plan_delete(
        self, bucket: Open, key: str, version_id: str | None, owner: str, if_match: Sequence[str]
    ) -> tuple[Plan | None, Deleted]:
        """What to commit, or None when there is nothing to do, and the answer (of a new marker, its nonce)."""
        core = self._core
        key_tail = bucket.tail(key)
        plan = Plan(core.fence, bucket.gate)
        if version_id is not None:
            found = self._named(key_tail, version_id)
            answer = Deleted(key, version_id, found is not None and found[1].marker)
            if found is None:
                return None, answer
            plan_delete_version(plan, core.state, key_tail, found[0], found[1])
            plan.bury()
            return plan, answer
        versioning = bucket.record.versioning
        flags = rows.MARKER if versioning == "Enabled" else rows.MARKER | rows.IS_NULL
        nonce = core.host.random(8)
        marker = VersionRecord(flags, nonce, 0, "", core.host.clock.time(), owner, "", b"")
        if if_match:
            judge_current(plan, core.state, key, key_tail, WriteConditions(if_match=tuple(if_match)))
        if not plan_delete(plan, core.state, bucket, key_tail, marker):
            return None, Deleted(key)
        plan.bury()
        if not versioning:
            return plan, Deleted(key)
        return plan, Deleted(key, NULL_VERSION if versioning == "Suspended" else _NEW + nonce.hex(), True)

    def _deleted(self, bucket: Open, answer: Deleted, sequence: int) -> Deleted:
        """The answer, with the id of the marker that the commit made."""
        if not answer.version_id.startswith(_NEW):
            return answer
        nonce = bytes.fromhex(answer.version_id[len(_NEW) :])
        return Deleted(answer.key, self._core.identity.version_id(sequence, nonce), True)

    # -- tags

    async def update_tags(
        self, bucket_name: str, key: str, version_id: str | None, tags: Mapping[str, str]
    ) -> ObjectInfo:
        core = self._core
        check_key(core, key)
        if len(tags) > core.limits.tags_per_object_max:
            raise TooLarge(f"more than {core.limits.tags_per_object_max} tags", reason="tags")
        for _ in range(core.limits.commit_attempts_max):
            bucket = self._buckets.open(bucket_name)
            sequence, record, value, latest = self._find(bucket, key, version_id)
            changed = with_tags(record, rows.plain(tags))
            row = rows.version_key(bucket.tail(key), sequence)
            same: list[Precondition] = [Equals(row, value, "version")]
            try:
                await core.commit(same, [Put(row, rows.encode(changed))])
            except Rejected:
                await asyncio.sleep(0)
                continue
            return self._publisher.info(bucket, key, changed, sequence, latest)
        raise contended()


_NEW = "new:"  # a marker whose id the commit decides


def with_tags(record: VersionRecord, tags: dict[str, str]) -> VersionRecord:
    return replace(record, tags=tags)
