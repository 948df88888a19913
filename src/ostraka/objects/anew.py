"""Bytes that are stored already, stored again: a copy under another key reads its source and encrypts it anew.

Reader and receiver run at once and both take memory for bodies, so that only a few such copies run in one process at
a time: those who wait hold none.
"""

from collections.abc import AsyncIterator

from ostraka.chunks.sealing import Domain
from ostraka.chunks.types import Recipe
from ostraka.errors import Absent
from ostraka.host import Buffer
from ostraka.objects.core import Core
from ostraka.objects.intake import Intake
from ostraka.objects.plans import Plan
from ostraka.objects.reader import Reader
from ostraka.objects.receive import receive
from ostraka.objects.rows import VersionRecord
from ostraka.objects.types import Digest, Digested, ObjectInfo
from ostraka.state import Precondition


class NoDigest:
    """For bytes whose digests are known."""

    def update(self, data: Buffer) -> None:
        pass

    def finish(self) -> Digested:
        raise AssertionError("the digests of these bytes are known")


class _Range:
    """A range of an open version as the source of a body (`objects.types.Source`)."""

    def __init__(self, reader: Reader, offset: int, length: int) -> None:
        self._reader = reader
        self._span = offset, length
        self._pieces: AsyncIterator[Buffer] | None = None
        self._piece = memoryview(b"")
        self.length: int | None = length

    def read_now(self) -> Buffer | None:
        return None

    async def read_into(self, view: memoryview) -> int:
        if self._pieces is None:
            self._pieces = self._reader.read(*self._span)
        while not len(self._piece):
            self._piece = memoryview(b"")  # not held while the next one is waited for
            piece = await anext(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    async def close(self) -> None:
        self._piece = memoryview(b"")
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()


async def place_anew(
    core: Core,
    info: ObjectInfo,
    record: VersionRecord,
    span: tuple[int, int],
    domain: Domain | None,
    digest: Digest,
    recipe: Recipe,
    *,
    inline_max: int,
) -> Intake:
    """Store [offset, offset + length) of a version once more, by another recipe. ``domain``: of the customer's key that
    the version takes. As `receive` otherwise."""
    async with core.copies:
        reader = Reader(core, info, record, core.pins.enter(), domain)
        source = _Range(reader, *span)
        try:
            return await receive(core, source, digest, recipe, inline_max=inline_max)
        finally:
            await source.close()
            reader.close()


class AnewBody:
    """A body that was placed anew, while the version that it was read from stands (`publish.Body`)."""

    def __init__(self, intake: Intake, stands: Precondition) -> None:
        self._intake = intake
        self._stands = stands

    @property
    def unsure(self) -> bool:
        return self._intake.unsure

    @unsure.setter
    def unsure(self, value: bool) -> None:
        self._intake.unsure = value

    def stage_into(self, plan: Plan) -> None:
        plan.preconditions.append(self._stands)
        self._intake.stage_into(plan)

    async def rejected(self, tag: str, key: bytes) -> bool:
        if tag == "source":
            raise Absent("the version to copy is gone", reason="version")
        return await self._intake.rejected(tag, key)
