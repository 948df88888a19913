"""The one commit that makes a version visible, planned anew for as long as others change what it was judged on."""

from collections.abc import Callable
from typing import Protocol

from ostraka.chunks.keyring import gate_of
from ostraka.chunks.types import KEY_TAG
from ostraka.errors import Absent, PreconditionFailed
from ostraka.objects import rows
from ostraka.objects.buckets import Buckets, Open
from ostraka.objects.core import CERTAINLY_NOT, FENCE, Core, contended, fenced, rotated
from ostraka.objects.identity import NULL_VERSION
from ostraka.objects.plans import REPLAN, Plan, check_conditions, plan_put
from ostraka.objects.replay import Replays
from ostraka.objects.rows import VersionRecord
from ostraka.objects.types import ObjectInfo, WriteConditions
from ostraka.state import Mutation, Present, Rejected

NO_CONDITIONS = WriteConditions()


class Body(Protocol):
    """Where the bytes of the new version come from: an intake, a source version, a finished upload."""

    unsure: bool

    def stage_into(self, plan: Plan) -> None:
        """Add what references the bytes. May raise: the write has lost its ground."""
        ...

    async def rejected(self, tag: str, key: bytes) -> bool:
        """A precondition of ``stage_into`` did not hold: mend it, and say whether another attempt makes sense."""
        ...


class Write:
    """One write of one version. ``record`` is called with the flags that the bucket's versioning asks for."""

    __slots__ = ("body", "conditions", "record", "replay_body", "replay_must", "replay_name", "replayed")

    def __init__(
        self,
        record: Callable[[int], VersionRecord],
        body: Body | None = None,
        conditions: WriteConditions = NO_CONDITIONS,
        replay_name: bytes | None = None,
        replay_body: str = "",
        replay_must: bool = False,
    ) -> None:
        self.record = record
        self.body = body
        self.conditions = conditions
        self.replay_name = replay_name
        self.replay_body = replay_body
        self.replay_must = replay_must
        self.replayed = False  # the answer is that of an earlier attempt; nothing was committed for this one


class Publisher:
    """Commits writes."""

    def __init__(self, core: Core, buckets: Buckets) -> None:
        self._core = core
        self._buckets = buckets
        self.replays = Replays(core)

    def early(self, bucket: Open, key: str, write: Write) -> ObjectInfo | None:
        """Judge conditions before a body is received: the earlier answer, if this is a retry; else None, or raises."""
        conditions = write.conditions
        try:
            if conditions.if_none_match or conditions.if_match:
                live = self._core.state.get(rows.LIVE + bucket.tail(key))
                check_conditions(conditions, live, key)
        except (PreconditionFailed, Absent):
            found = self.replayed(bucket, key, write)
            if found is None:
                raise
            return found
        return self.replayed(bucket, key, write)

    def replayed(self, bucket: Open, key: str, write: Write) -> ObjectInfo | None:
        """The answer that an earlier attempt of the same write was given."""
        if write.replay_name is None:
            return None
        found = self.replays.find(write.replay_name, write.replay_body)
        if found is None:
            return None
        write.replayed = True
        return self.info(bucket, key, found[0], found[1], True)

    async def publish(self, bucket: Open, key: str, write: Write) -> ObjectInfo:
        """Make the version visible. Whatever is raised, the caller gives the body back (``unsure`` tells how)."""
        self._core.room()
        key_tail = bucket.tail(key)
        locks = self._core.locks
        if not locks.try_acquire(key_tail):
            await locks.acquire(key_tail)
        try:
            return await self._publish(bucket, key, key_tail, write)
        finally:
            locks.release(key_tail)

    async def _publish(self, bucket: Open, key: str, key_tail: bytes, write: Write) -> ObjectInfo:
        core, body = self._core, write.body
        for _ in range(core.limits.commit_attempts_max):
            record = write.record(0 if bucket.record.versioning == "Enabled" else rows.IS_NULL)
            plan = Plan(core.fence, bucket.gate)
            try:
                plan_put(plan, core.state, bucket, key, key_tail, record, write.conditions)
            except (PreconditionFailed, Absent):
                found = self.replayed(bucket, key, write)  # read after what refused us: an overlapping retry sees it
                if found is None:
                    raise
                return found
            if write.replay_name is not None:
                found = self.replayed(bucket, key, write)
                if found is not None:
                    return found
                kept = self.replays.record(write.replay_name, write.replay_body, record, write.replay_must)
                plan.preconditions.extend(kept[0])
                plan.operations.extend(kept[1])
            if record.seal is not None and (gate := gate_of(record.seal)):
                plan.preconditions.append(Present(gate, KEY_TAG))
            if body is not None:
                body.stage_into(plan)
                body.unsure = True
            if plan.dead or plan.uploads:
                plan.bury()
            try:
                sequence = (await core.state.commit(Mutation(plan.preconditions, plan.operations))).sequence
            except Rejected as refusal:
                if body is not None:
                    body.unsure = False
                if refusal.tag == FENCE:
                    raise fenced() from refusal
                if refusal.tag == KEY_TAG:
                    raise rotated() from refusal
                if refusal.tag in REPLAN:
                    bucket = await self._buckets.open_for_writing(bucket.name)
                    key_tail = bucket.tail(key)
                elif body is None or not await body.rejected(refusal.tag, refusal.key):
                    raise
            except CERTAINLY_NOT:
                if body is not None:
                    body.unsure = False
                raise
            else:
                return self.info(bucket, key, record, sequence, True)
        raise contended()

    def info(self, bucket: Open, key: str, record: VersionRecord, sequence: int, latest: bool) -> ObjectInfo:
        """A version of an open bucket as the doors see it."""
        versioned = bucket.ever_versioned
        version_id = (
            NULL_VERSION if record.flags & rows.IS_NULL else self._core.identity.version_id(sequence, record.nonce)
        )
        return rows.info_of(bucket.name, key, record, sequence, version_id, versioned, latest)
