"""What a change of one key takes: the preconditions it was judged on, and the operations.

Per key there are version rows, newest first, and three rows that say what is newest and which is null: LIVE (the
newest version is an object: what LIST prints), TOP (it is a delete marker), NULL (the null version). Sequences are
never reused, so (LIVE, TOP) names the newest version exactly: who finds both as read knows that the newest version is
the one it saw.

- A new version is newest by its stamp. Unless conditions were judged, or an old version is displaced, it needs no
  guard.
- A version is removed, and its body queued as dead, only by a commit that found its row: exactly once.
- Removing a version by id may change what is newest: guarded by (LIVE, TOP), by the removed row and by the row that
  follows it. The follower cannot change otherwise: new versions only ever come on top.
- In a bucket that never had versioning a key has one version at most, and LIVE names it: LIVE alone is the guard.
- In a bucket whose versioning was ever on, the null version is the one that NULL names; without that row it is the
  oldest version, if that was written before versioning.

Functions read the state and append to a plan; nothing is committed here.
"""

from ostraka.chunks.types import Entry
from ostraka.errors import Absent, PreconditionFailed
from ostraka.objects import rows
from ostraka.objects.buckets import Open
from ostraka.objects.rows import DeadRecord, VersionRecord
from ostraka.objects.types import WriteConditions
from ostraka.state import (
    Delete,
    Equals,
    Operation,
    Precondition,
    Present,
    Put,
    Rejected,
    State,
    key_sequence,
    prefix_end,
    value_sequence,
)

NEWEST = "newest"  # tags: what a rejected commit was judged on, and must judge anew
NULL = "null"
VERSION = "version"
REPLAN = frozenset(("gate", NEWEST, NULL, VERSION, "replay"))


class Plan:
    """Preconditions and operations of one mutation, and what it leaves for the collector."""

    __slots__ = ("dead", "operations", "preconditions", "uploads")

    def __init__(self, first: Precondition, second: Precondition) -> None:
        self.preconditions: list[Precondition] = [first, second]
        self.operations: list[Operation] = []
        self.dead: tuple[Entry, ...] = ()
        self.uploads: tuple[bytes, ...] = ()

    def bury(self) -> None:
        """Last of all: one dead row for all that this mutation gives up."""
        if self.dead or self.uploads:
            dead = DeadRecord(self.dead, self.uploads)
            self.operations.append(Put(rows.DEAD, rows.encode(dead), stamp_key=True))


def check_conditions(conditions: WriteConditions, live: bytes | None, key: str) -> None:
    """Raise PreconditionFailed, or Absent("key") for If-Match on nothing, unless the live row allows the write."""
    if conditions.if_none_match and live is not None:
        raise PreconditionFailed(f"{key!r} exists", reason="if-none-match")
    if conditions.if_match:
        if live is None:
            raise Absent(f"there is no key {key!r}", reason="key")
        if "*" not in conditions.if_match and rows.live_of(live).etag not in conditions.if_match:
            raise PreconditionFailed(f"the etag of {key!r} is another", reason="if-match")


def judge_current(plan: Plan, state: State, key: str, key_tail: bytes, conditions: WriteConditions) -> None:
    """Check conditions against the current object, and let the plan hold only while that is current."""
    live_key = rows.LIVE + key_tail
    live = state.get(live_key)
    check_conditions(conditions, live, key)
    plan.preconditions.append(Equals(live_key, live, NEWEST))


def plan_put(
    plan: Plan,
    state: State,
    bucket: Open,
    key: str,
    key_tail: bytes,
    record: VersionRecord,
    conditions: WriteConditions,
) -> None:
    """A new version becomes the newest."""
    versioning = bucket.record.versioning
    live_key = rows.LIVE + key_tail
    operations = plan.operations
    conditional = conditions.if_none_match or conditions.if_match
    if conditional or not versioning:
        live = state.get(live_key)
        if conditional:
            check_conditions(conditions, live, key)
        plan.preconditions.append(Equals(live_key, live, NEWEST))
        if live is not None and not versioning:
            _displace_only(plan, state, key_tail, live)
    if versioning:
        if versioning == "Suspended":
            _displace_null(plan, state, key_tail)
        operations.append(Delete(rows.TOP + key_tail))
    operations.append(Put(rows.VERSION + key_tail, rows.encode(record), stamp_key=True))
    operations.append(Put(live_key, rows.live_record(record), stamp_value=True))


def _displace_only(plan: Plan, state: State, key_tail: bytes, live: bytes) -> None:
    """The one version of a key in a bucket without versioning goes; LIVE as read is the guard."""
    old_key = rows.version_key(key_tail, value_sequence(live))
    plan.operations.append(Delete(old_key))
    if rows.live_of(live).held:
        old = state.get(old_key)
        if old is not None:  # else LIVE changed since, and the guard says so
            plan.dead += rows.version_of(old).entries


def _displace_null(plan: Plan, state: State, key_tail: bytes) -> None:
    """The null version goes, and the one that this mutation writes takes its name."""
    null_key = rows.NULL + key_tail
    named, found = find_null(state, key_tail)
    plan.preconditions.append(Equals(null_key, named, NULL))
    plan.operations.append(Put(null_key, b"", stamp_value=True))
    if found is not None:
        sequence, record = found
        old_key = rows.version_key(key_tail, sequence)
        plan.preconditions.append(Present(old_key, NULL))
        plan.operations.append(Delete(old_key))
        plan.dead += record.entries


def find_null(state: State, key_tail: bytes) -> tuple[bytes | None, tuple[int, VersionRecord] | None]:
    """The row that names the null version, as read, and (sequence, record) of the null version."""
    named = state.get(rows.NULL + key_tail)
    if named is not None:
        sequence = int.from_bytes(named, "big")
        value = state.get(rows.version_key(key_tail, sequence))
        return named, None if value is None else (sequence, rows.version_of(value))
    prefix = rows.VERSION + key_tail
    for key, value in state.scan(prefix, prefix_end(prefix), 1, True):
        record = rows.version_of(value)
        if record.null:
            return None, (key_sequence(key), record)
    return None, None


def plan_delete(plan: Plan, state: State, bucket: Open, key_tail: bytes, marker: VersionRecord) -> bool:
    """Delete without a version id; False when there is nothing to do. ``marker`` is used where there is versioning."""
    live_key = rows.LIVE + key_tail
    operations = plan.operations
    versioning = bucket.record.versioning
    if not versioning:
        live = state.get(live_key)
        if live is None:
            return False
        plan.preconditions.append(Equals(live_key, live, NEWEST))
        _displace_only(plan, state, key_tail, live)
        operations.append(Delete(live_key))
        return True
    if versioning == "Suspended":
        _displace_null(plan, state, key_tail)
    operations.append(Put(rows.VERSION + key_tail, rows.encode(marker), stamp_key=True))
    operations.append(Delete(live_key))
    operations.append(Put(rows.TOP + key_tail, b"", stamp_value=True))
    return True


def plan_delete_version(plan: Plan, state: State, key_tail: bytes, target: int, record: VersionRecord) -> None:
    """Remove the version of sequence ``target``, which was read as ``record``; what follows it may become newest.

    Raises Rejected when the reads here do not fit each other: the caller plans anew.
    """
    prefix, live_key, top_key = rows.VERSION + key_tail, rows.LIVE + key_tail, rows.TOP + key_tail
    live, top = state.get_many([live_key, top_key])
    newest = state.scan(prefix, prefix_end(prefix), 2)
    named = live if live is not None else top
    if not newest or named is None or newest[0][0] != rows.version_key(key_tail, value_sequence(named)):
        raise Rejected(NEWEST, live_key)  # somebody changed it between our reads
    target_key = rows.version_key(key_tail, target)
    plan.preconditions += (
        Equals(live_key, live, NEWEST),
        Equals(top_key, top, NEWEST),
        Present(target_key, VERSION),
    )
    plan.operations.append(Delete(target_key))
    plan.dead += record.entries
    if record.null:
        plan.operations.append(Delete(rows.NULL + key_tail))
    if newest[0][0] != target_key:
        return
    plan.operations += (Delete(live_key), Delete(top_key))
    if len(newest) == 2:
        follower_key, value = newest[1]
        plan.preconditions.append(Present(follower_key, VERSION))
        stamp = key_sequence(follower_key).to_bytes(8, "big")
        follower = rows.version_of(value)
        if follower.marker:
            plan.operations.append(Put(top_key, stamp))
        else:
            plan.operations.append(Put(live_key, rows.live_record(follower) + stamp))
