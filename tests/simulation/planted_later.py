"""More defects, of another day: what a careless hand might do to code that had just been changed."""

from collections.abc import Callable, Iterable
from typing import Any

from planting import Without, plant

Put = Callable[..., None]


@plant("1+0/1")
def a_sync_that_had_begun_before_the_write(put: Put) -> None:
    """Who comes while a sync is under way is told that it was his."""
    from ostraka.segments.writer import OpenSegment

    right = OpenSegment._lead

    def wrong(self: Any, batch: Any, publish: Any) -> None:
        right(self, batch, publish)
        with self._changed:
            late, self._waiting = self._waiting, []
        error: BaseException | None = None
        try:
            publish([extent for member in late for extent in member.extents])
        except BaseException as failed:
            error = failed
        with self._changed:
            for member in late:
                member.state, member.error = 2, error
                self.records.extend(member.headers)
            self._changed.notify_all()

    put(OpenSegment, "_lead", wrong)


@plant("1+0/1")
def a_segment_that_goes_on_after_a_failed_write(put: Put) -> None:
    from ostraka.segments.writer import OpenSegment

    put(OpenSegment, "fail", lambda self, error: None)


@plant("1+0/1")
def a_move_that_brings_back_what_was_released(put: Put) -> None:
    """A shard that was released while compaction moved it is named again."""
    from ostraka.nodes.shard_index import ShardIndex

    right = ShardIndex.move

    def wrong(self: Any, moves: Any) -> None:
        right(self, moves)
        self.put([new for _, new in moves if self.get(new.header.write_id, new.header.index) is None])

    put(ShardIndex, "move", wrong)


@plant("1+0/1")
def a_segment_that_is_settled_by_its_first_write(put: Put) -> None:
    from ostraka.nodes.settling import Settling

    def wrong(self: Any, write_ids: Iterable[bytes]) -> None:
        with self._lock:
            for write_id in write_ids:
                for segment in self._writes.pop(write_id, ()):
                    self._owing.pop(segment, None)
                    if segment in self._sealed:
                        self._sealed.discard(segment)
                        self._settled.append(segment)

    put(Settling, "settle", wrong)


@plant("1+0/1")
def a_commit_that_is_not_read_to_its_end(put: Put) -> None:
    """A record of the log counts if its head verifies, whatever became of its rows."""
    from ostraka.state import log

    def wrong(self: Any, at: int) -> Any:
        head = log._decode_head(self._bytes(at, log.RECORD_HEADER_SIZE), self._seed)
        if head is None:
            return None
        body = self._bytes(at + log.RECORD_HEADER_SIZE, head.payload_size + len(log.RECORD_END))
        if len(body) < head.payload_size + len(log.RECORD_END):
            return None
        r = head.record
        payload = body[: head.payload_size]
        record = log.Record(
            r.commit, r.epoch, r.first_sequence, r.mutations, r.digest, r.row_count, r.ids_size, payload, r.close
        )
        return log.Found(at, log.RECORD_HEADER_SIZE + len(body), record)

    put(log.LogReader, "_record_at", wrong)


@plant("1+0/1")
def a_checkpoint_that_begins_no_new_log(put: Put) -> None:
    """The log that is still written is dropped with those that the snapshot replaces."""
    from pathlib import Path

    from ostraka.state import checkpoint
    from ostraka.state.log import parse_log_name

    def wrong(host: Any, index: Any, engine: Any) -> dict[bytes, list[str]]:
        with engine.writing() as (_, meta):
            return {p.disk: [n for n in host.files.names(Path(p.path)) if parse_log_name(n)] for p in meta.copies}

    put(checkpoint, "_begin_new_logs", wrong)


@plant("2+1/3")
def a_copy_that_joins_without_the_last_commits(put: Put) -> None:
    from ostraka.state import checkpoint

    put(checkpoint, "write_log", lambda *arguments: None)


@plant("1+0/1")
def a_write_that_is_given_up_though_its_commit_may_land(put: Put) -> None:
    """An answer that was lost is taken for a refusal."""
    from ostraka.objects.intake import Intake

    right = Intake.discard

    def wrong(self: Any) -> None:
        self.unsure = False
        right(self)

    put(Intake, "discard", wrong)


@plant("2+1/3")
def a_repair_that_lands_over_a_change(put: Put) -> None:
    """The row is what was repaired, whatever it has become since."""
    from ostraka.jobs import stripes
    from ostraka.state.types import Equals

    put(stripes, "Equals", lambda key, value: Equals(b"\xffnothing", None))


@plant("2+1/3")
def a_healing_that_forgets_packs(put: Put) -> None:
    from ostraka.chunks.rows import CHUNKS
    from ostraka.jobs import heal

    right = heal.pages

    def wrong(state: Any, after: bytes, size: int) -> Any:
        return (page for page in right(state, after, size) if page[0][0][:1] == CHUNKS)

    put(heal, "pages", wrong)


@plant("1+0/1")
def a_part_whose_earlier_bytes_are_forgotten(put: Put) -> None:
    """A part that is put again leaves what it replaced where it is, with its references."""
    from ostraka.objects import multipart

    class Forgetful(multipart.Plan):
        def bury(self) -> None:
            self.dead = ()
            super().bury()

    put(multipart, "Plan", Forgetful)


@plant("1+0/1")
def a_part_of_an_upload_that_has_gone(put: Put) -> None:
    """A part lands though the upload was aborted or completed meanwhile."""
    from ostraka.objects import multipart

    class Careless(multipart.Plan):
        def __init__(self, *preconditions: Any) -> None:
            super().__init__(*preconditions)
            self.preconditions = [p for p in preconditions if p.tag != multipart.UPLOAD_TAG]

    put(multipart, "Plan", Careless)


@plant("1+0/1")
def a_completed_upload_whose_other_parts_stay(put: Put) -> None:
    """Parts that the caller did not name are left with nobody to name them."""
    from ostraka.objects import completing

    right = completing._Root.stage_into

    def wrong(self: Any, plan: Any) -> None:
        before = plan.uploads
        right(self, plan)
        plan.uploads = before

    put(completing._Root, "stage_into", wrong)


@plant("2+1/3")
def an_epoch_that_is_not_synced(put: Put) -> None:
    from ostraka.nodes import membership, superblock

    class Unsynced(Without):
        def publish(self, path: Any, content: bytes, *, mode: int = 0o644) -> None:
            staging = path.with_name(".superblock.unsynced.tmp")
            if self.exists(staging):
                self.unlink(staging)
            file = self.open(staging, write=True, create=True)
            file.pwritev([content], 0)
            file.close()
            self.rename(staging, path)

    def write(files: Any, disk: Any, block: Any) -> None:
        superblock.write(Unsynced(files), disk, block)  # type: ignore[arg-type]

    put(membership, "superblock", Without(superblock, write=write))
