"""Defects that are planted, one at a time, by putting a wrong function in the place of a right one.

The first five kinds are those of the systems that Ostraka follows; the others are what a careless hand might do to this
code. Nothing here knows how the simulation judges, and the simulation knows nothing of these.

    python tests/simulation/planted.py [NAME ...] [--schedules N] [--seconds S]

runs schedules with each of them until one fails, and prints how many it took, and why.
"""

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
import planted_later
from planting import PLANTS, Without, main, plant, planted

from ostraka.testing.simulation.running import with_fixed_hashes

__all__ = ["PLANTS", "planted", "planted_later"]

# -- the kinds of the reference


@plant("1+0/1")
def a_dedup_hit_without_a_lease(put: Callable[..., None]) -> None:
    """A hit counts on a chunk that the collector may take before the commit lands."""
    from ostraka.chunks.placing import PlacedChunk

    right = PlacedChunk._hit

    def wrong(self: Any, value: bytes, row: Any) -> None:
        right(self, value, row)
        self.preconditions = ()

    put(PlacedChunk, "_hit", wrong)


@plant("1+0/1")
def a_compaction_that_ignores_writers(put: Callable[..., None]) -> None:
    """Segments with writes that are not decided yet are judged, and what no row names is taken for dead."""
    from ostraka.jobs import compact
    from ostraka.nodes.local import LocalDisk
    from ostraka.nodes.settling import Settling

    put(compact, "closed", lambda disk, info, alive: info.sealed)
    put(compact, "undecided", lambda ground: set())
    put(Settling, "done", lambda self, segment: True)
    put(LocalDisk, "settle", lambda self, write_ids: None)


@plant("1+0/1")
def a_shard_name_that_is_used_again(put: Callable[..., None]) -> None:
    """A chunk that is written anew, after it was collected, gets the name that it had."""
    from ostraka.pools.pool import ErasurePool

    right = ErasurePool.write

    async def wrong(self: Any, owner: Any, owner_id: bytes, body: Any, length: int) -> Any:
        self._write_ids, self._write_ids_of = owner_id[:16] * 8, os.getpid()
        return await right(self, owner, owner_id, body, length)

    put(ErasurePool, "write", wrong)


@plant("1+0/1")
def a_reference_count_that_races(put: Callable[..., None]) -> None:
    """One more reference is what was read, and one: of two at the same time one is not counted."""
    from ostraka.chunks import placing
    from ostraka.chunks.placing import PlacedChunk
    from ostraka.state.types import Put, counter, counter_value

    right = PlacedChunk._hit

    def wrong(self: Any, value: bytes, row: Any) -> None:
        right(self, value, row)
        key = placing.chunk_counter_key(self.entry.id)
        known = self._writer.ground.state.get(key)
        self.operations = (Put(key, counter_value((counter(known) if known else 0) + 1)),)

    put(PlacedChunk, "_hit", wrong)


@plant("1+0/1")
def a_segment_that_is_not_synced(put: Callable[..., None]) -> None:
    from ostraka.segments.writer import OpenSegment

    right = OpenSegment.__init__

    def wrong(self: Any, file: Any, *rest: Any) -> None:
        right(self, Without(file, "sync_data"), *rest)

    put(OpenSegment, "__init__", wrong)


@plant("1+0/1")
def a_log_that_is_not_synced(put: Callable[..., None]) -> None:
    from ostraka.state import copies

    right = copies.Copies._current

    def wrong(self: Any, position: Any) -> Any:
        current = right(self, position)
        return current._replace(file=Without(current.file, "sync_data"))

    put(copies.Copies, "_current", wrong)


# -- others


@plant("1+0/1")
def a_new_log_whose_name_is_not_synced(put: Callable[..., None]) -> None:
    from ostraka.state import copies

    right = copies.Copies.__init__

    def wrong(self: Any, host: Any, *rest: Any) -> None:
        right(self, host, *rest)
        self._host = SimpleNamespace(files=Without(host.files, "sync_directory"), random=host.random)

    put(copies.Copies, "__init__", wrong)


@plant("1+0/1")
def a_new_segment_whose_name_is_not_synced(put: Callable[..., None]) -> None:
    from ostraka.segments.writer import SegmentWriter

    right = SegmentWriter._open

    def wrong(self: Any) -> Any:
        if not isinstance(self._files, Without):
            self._files = Without(self._files, "sync_directory")
        return right(self)

    put(SegmentWriter, "_open", wrong)


@plant("1+0/1")
def a_sync_that_failed_and_is_tried_again(put: Callable[..., None]) -> None:
    from ostraka.segments.writer import OpenSegment

    right = OpenSegment.__init__

    def wrong(self: Any, file: Any, *rest: Any) -> None:
        def again() -> None:
            try:
                file.sync_data()
            except OSError:
                file.sync_data()

        right(self, Without(file, sync_data=again), *rest)

    put(OpenSegment, "__init__", wrong)


@plant("1+0/1")
def a_collector_that_forgets_readers(put: Callable[..., None]) -> None:
    from ostraka.chunks.sweeping import Sweeper
    from ostraka.objects.collector import Collector
    from ostraka.state.types import SEQUENCE_MAX

    right = Sweeper.sweep

    async def wrong(self: Any, limit: int) -> int:
        self._pinned_before = lambda: SEQUENCE_MAX
        self._aged = self._ground.state.sequence
        return await right(self, limit)

    put(Sweeper, "sweep", wrong)
    put(Collector, "horizon", lambda self: self._core.state.sequence)


@plant("1+0/1")
def a_collector_that_does_not_look_again(put: Callable[..., None]) -> None:
    """What was queued is deleted, though it may be referred to again since it was looked at."""
    from ostraka.chunks import sweeping

    class Nothing:
        """In the place of the condition that nobody refers to it."""

        def __new__(cls, key: bytes) -> Any:
            return sweeping.Equals(b"\xffnothing", None)

    right = sweeping.Sweeper._chunk

    def wrong(self: Any, record: Any, queued: Any) -> Any:
        with mock.patch.object(sweeping, "Absent", Nothing):
            return right(self, record, queued)

    put(sweeping.Sweeper, "_chunk", wrong)


@plant("1+0/1")
def an_overwrite_that_forgets_what_it_displaced(put: Callable[..., None]) -> None:
    from ostraka.objects import plans

    right = plans._displace_only

    def wrong(plan: Any, state: Any, key_tail: bytes, live: bytes) -> None:
        before = plan.dead
        right(plan, state, key_tail, live)
        plan.dead = before

    put(plans, "_displace_only", wrong)


@plant("1+0/1")
def a_condition_that_is_checked_only_early(put: Callable[..., None]) -> None:
    """If-None-Match is looked at, and not part of the commit."""
    from ostraka.objects import plans, publish
    from ostraka.objects.types import WriteConditions

    right = plans.plan_put

    def wrong(
        plan: Any, state: Any, bucket: Any, key: str, key_tail: bytes, record: Any, conditions: WriteConditions
    ) -> None:
        right(plan, state, bucket, key, key_tail, record, conditions)
        if conditions.if_none_match or conditions.if_match:
            plan.preconditions[:] = [c for c in plan.preconditions if getattr(c, "tag", "") != plans.NEWEST]

    put(publish, "plan_put", wrong)


@plant("1+0/1")
def a_completed_upload_that_does_not_count_its_parts(put: Callable[..., None]) -> None:
    from ostraka.objects import completing
    from ostraka.state import Put

    put(completing, "more_references", lambda manifest: Put(b"\xffnothing", b""))


@plant("1+0/1")
def a_copy_of_a_version_that_has_gone(put: Callable[..., None]) -> None:
    from ostraka.objects.versions import SharedBody

    right = SharedBody.stage_into

    def wrong(self: Any, plan: Any) -> None:
        count = len(plan.preconditions)
        right(self, plan)
        del plan.preconditions[count]

    put(SharedBody, "stage_into", wrong)


@plant("1+0/1")
def a_shard_index_that_is_trusted_after_a_power_cut(put: Callable[..., None]) -> None:
    from ostraka.nodes import recovery

    put(recovery, "_trusted", lambda host, disk, mark, identity: mark.state in ("open", "clean"))


@plant("1+0/1")
def an_index_of_the_state_that_is_used_again_unseen(put: Callable[..., None]) -> None:
    from ostraka.state.index_files import IndexFiles

    put(IndexFiles, "pages_are", lambda self, generation, stop: True)


@plant("1+0/1")
def an_answer_before_the_commit(put: Callable[..., None]) -> None:
    """The index shows, and the client is told, what no log holds yet."""
    from ostraka.state import copies

    right = copies.Copies._append_one

    def wrong(self: Any, record: Any, position: Any) -> Any:
        from ostraka.state.log import encode_record

        if not position.name:
            return right(self, record, position)
        size = len(encode_record(record, 0))
        self._threads.submit(right, self, record, position)
        return msgspec.structs.replace(position, end=position.end + size)

    put(copies.Copies, "_append_one", wrong)


@plant("1+0/1")
def a_snapshot_that_replaces_the_log_too_early(put: Callable[..., None]) -> None:
    """The new snapshot is neither synced nor is its name, when the old logs go."""
    from ostraka.state.snapshot import StagedFile

    def wrong(self: Any) -> None:
        self._close()
        self._files.rename(self._staging, self._final)

    put(StagedFile, "publish", wrong)


@plant("1+0/1")
def a_moved_shard_that_is_not_synced(put: Callable[..., None]) -> None:
    """Compaction unlinks the old segment when the new one is written, and not yet synced."""
    from ostraka.nodes.local import LocalDisk
    from ostraka.segments.writer import SegmentWriter

    right, opened = LocalDisk.append_moved, SegmentWriter._open

    def wrong(self: Any, records: Any) -> Any:
        self._moved_buffered.unsynced = True
        return right(self, records)

    def unsynced(self: Any) -> Any:
        segment = opened(self)
        if getattr(self, "unsynced", False):
            segment.file = Without(segment.file, "sync_data")
        return segment

    put(LocalDisk, "append_moved", wrong)
    put(SegmentWriter, "_open", unsynced)


@plant("1+0/1")
def a_batch_whose_failures_leave_something_behind(put: Callable[..., None]) -> None:
    """A mutation whose precondition fails is refused, and its first operation is done."""
    from ostraka.state import batch
    from ostraka.state.types import Put, Rejected

    right = batch._resolve_one

    def wrong(mutation: Any, read: Any, into: Any) -> Any:
        try:
            return right(mutation, read, into)
        except Rejected:
            for operation in mutation.operations[:1]:
                if type(operation) is Put and not operation.stamp_key:
                    into.before.setdefault(operation.key, read(operation.key))
                    into.rows[operation.key] = operation.value + (b"\0" * 8 if operation.stamp_value else b"")
            raise

    put(batch, "_resolve_one", wrong)


@plant("2+1/3")
def an_acknowledgement_before_all_shards(put: Callable[..., None]) -> None:
    """A write is told to be done when as many shards are written as it takes to read it."""
    from ostraka.pools.pool import ErasurePool

    right = ErasurePool._write_shard

    def wrong(self: Any, number: int, owner: Any, owner_id: bytes, stripe: Any, index: int, *rest: Any) -> Any:
        import asyncio

        future = right(self, number, owner, owner_id, stripe, index, *rest)
        if index < stripe.k:
            return future
        self._forget(future)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    put(ErasurePool, "_write_shard", wrong)


@plant("2+1/3")
def parity_of_the_wrong_order(put: Callable[..., None]) -> None:
    """A reconstruction takes shards in the order in which they came."""
    from ostraka.pools.erasure import Codec

    right = Codec.reconstruct

    def wrong(self: Any, present: Any, wanted: Any, out: Any) -> None:
        numbers = sorted(present)
        right(self, dict(zip(numbers, [present[n] for n in reversed(numbers)], strict=True)), wanted, out)

    put(Codec, "reconstruct", wrong)


@plant("2+1/3")
def a_copy_of_the_state_that_was_away_and_is_believed(put: Callable[..., None]) -> None:
    """A disk that comes back counts as if it had never been away."""
    from ostraka.nodes import opening

    right = opening._match

    def wrong(found: Any, store_id: bytes, epoch: Any, joined: Any) -> Any:
        members = tuple(msgspec.structs.replace(d, up=True, since=0) for d in epoch.members)
        return right(found, store_id, msgspec.structs.replace(epoch, members=members), joined)

    put(opening, "_match", wrong)


@plant("2+1/3")
def an_epoch_on_too_few_disks(put: Callable[..., None]) -> None:
    """Disks are called down one after the other, until one is left."""
    from ostraka.nodes import membership

    put(membership, "majority_of", lambda count: 1)


@plant("2+1/3")
def a_disk_that_is_called_whole_unseen(put: Callable[..., None]) -> None:
    """Healing clears the flag, and looks at no stripe."""
    from ostraka.jobs.heal import Heal

    async def wrong(self: Any, budget: Any) -> bool:
        return True

    put(Heal, "_walk", wrong)


@plant("2+1/3")
def a_copy_of_the_state_that_lags_and_is_left(put: Callable[..., None]) -> None:
    """Recovery does not bring every copy to the end of what the others hold."""
    from ostraka.state import recover

    put(recover, "_heal_one", lambda opening, truth, base, scan: "")


@plant("2+1/3")
def cells_that_are_not_verified(put: Callable[..., None]) -> None:
    from ostraka.chunks import frames
    from ostraka.nodes import lookup
    from ostraka.segments import reader

    put(reader, "first_bad_cell", lambda *arguments: None)
    put(lookup, "first_bad_cell", lambda *arguments: None)
    put(frames, "_verify", lambda plain, checksum, frame: None)


if __name__ == "__main__":
    with_fixed_hashes([__file__])
    sys.exit(main())
