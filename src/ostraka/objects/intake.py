"""A body on its way in: stored durably, not yet visible, and given back whole if it never becomes so.

By size a body rides inline in its version's row, in a pack, as a few chunks that the version's row names, or under a
manifest of which every few chunks are committed invisibly, so that neither memory nor any commit grows with it.
"""

from ostraka.chunks.types import Entry, Kind, Placed
from ostraka.objects.core import CERTAINLY_NOT, Core, contended
from ostraka.objects.manifest import Draft
from ostraka.objects.plans import Plan
from ostraka.state import Rejected


class Intake:
    """What the last commit of a write needs to know of its body.

    ``placed`` is on stable storage and named by no commit yet; ``draft`` is the manifest, if there is one.
    """

    __slots__ = ("core", "draft", "inline", "placed", "size", "unsure")

    def __init__(self, core: Core, size: int = 0, inline: bytes | None = None) -> None:
        self.core = core
        self.size = size
        self.inline = inline
        self.placed: list[Placed] = []
        self.draft: Draft | None = None
        self.unsure = False  # whether a commit that names ``placed`` may have landed

    def entries(self) -> tuple[Entry, ...]:
        """What the version's or part's row names."""
        if self.draft is not None:
            return (Entry(Kind.MANIFEST, self.draft.id, 0, self.size),)
        return tuple(placed.entry for placed in self.placed)

    def new_draft(self) -> Draft:
        core = self.core
        self.draft = Draft(core.host.random(16), core.incarnation, core.limits.manifest_page_entries_max)
        return self.draft

    def stage_into(self, plan: Plan) -> None:
        """Add to the last commit what references the bytes and makes them visible."""
        preconditions, operations = plan.preconditions, plan.operations
        for placed in self.placed:
            preconditions.extend(placed.preconditions)
            operations.extend(placed.operations)
        if self.draft is not None:
            visible, released = self.draft.visibly()
            preconditions.extend(visible)
            operations.extend(released)
            operations.extend(self.draft.stage([placed.entry for placed in self.placed]))

    async def commit_increment(self, batch: list[Placed]) -> None:
        """Reference a batch from the manifest, invisibly. The caller releases it; after a failure that is done."""
        try:
            await self._commit_increment(batch)
        except CERTAINLY_NOT:
            for placed in batch:
                placed.abandon()
            raise
        except BaseException:
            for placed in batch:
                placed.release()
            raise

    async def _commit_increment(self, batch: list[Placed]) -> None:
        draft = self.draft
        assert draft is not None
        for _ in range(self.core.limits.commit_attempts_max):
            precondition, operations = draft.invisibly()
            preconditions = [precondition]
            for placed in batch:
                preconditions.extend(placed.preconditions)
                operations.extend(placed.operations)
            entries = [placed.entry for placed in batch]
            operations.extend(draft.stage(entries))
            before, draft.pending = draft.pending, True  # from now on the row may stand
            try:
                await self.core.commit(preconditions, operations)
            except Rejected as refusal:
                draft.pending = before
                if refusal.tag == "pending" or not await again(batch, refusal.key):
                    raise
            except CERTAINLY_NOT:
                draft.pending = before
                raise
            else:
                draft.adopt(entries)
                return
        raise contended()

    async def rejected(self, tag: str, key: bytes) -> bool:
        """After a rejected commit: place anew what the row at key belongs to. False if it is none of ours."""
        return await again(self.placed, key)

    def landed(self) -> None:
        """The commit that makes the body visible is done: give memory back."""
        for placed in self.placed:
            placed.release()

    def discard(self) -> None:
        """The body will not be visible by us: give back what was stored, now or later."""
        for placed in self.placed:
            placed.release() if self.unsure else placed.abandon()
        self.placed = []
        if self.draft is not None and self.draft.pending:
            self.core.spawn(self.core.give_up(self.draft.id))


async def again(batch: list[Placed], key: bytes) -> bool:
    """Place anew those of a batch whose precondition on the row at key did not hold."""
    found = False
    for index, placed in enumerate(batch):
        if any(condition.key == key for condition in placed.preconditions):
            found = True
            batch[index] = await placed.again()
    return found
