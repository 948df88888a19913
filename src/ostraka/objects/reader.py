"""Reading a version: its slices in order, verified by chunks, with a short read-ahead, pinned until close."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator

from ostraka.chunks.sealing import Domain
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt, Invalid
from ostraka.host import Buffer
from ostraka.objects import rows
from ostraka.objects.core import Core
from ostraka.objects.encryption import open_inline
from ostraka.objects.manifest import leaves
from ostraka.objects.rows import VersionRecord
from ostraka.objects.types import ObjectInfo, PartInfo
from ostraka.state import prefix_end


class _Ahead:
    """A slice that is read, or will be. ``early``: the memory it may hold before its turn has come."""

    __slots__ = ("early", "first", "left", "pieces")

    def __init__(
        self, pieces: AsyncIterator[Buffer], first: "asyncio.Task[Buffer | None]", left: int, early: int
    ) -> None:
        self.pieces = pieces
        self.first = first
        self.left = left
        self.early = early


class Reader:
    """An open version (`ObjectReader`). Holds a pin while its bytes lie outside its row."""

    __slots__ = ("_core", "_domain", "_inline", "_record", "_token", "info")

    def __init__(
        self, core: Core, info: ObjectInfo, record: VersionRecord, token: int | None, domain: Domain | None
    ) -> None:
        """``domain``: of the customer's key that it takes, if it takes one."""
        self.info = info
        self._domain = domain
        self._inline: Buffer | None = None
        self._core = core
        self._record = record
        self._token = token

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """All of it at once if that needs no waiting; else None. Raises Invalid("range") outside the body."""
        record = self._record
        self._check(offset, length)
        if record.inline is not None:
            inline = self._opened(record.inline)
            return inline if length == len(inline) else memoryview(inline)[offset : offset + length]
        entries = record.entries
        if len(entries) == 1 and entries[0].kind != Kind.MANIFEST:
            return self._core.chunks.read_now(entries[0], offset, length, self._domain)
        return None

    async def read(self, offset: int = 0, length: int | None = None) -> AsyncIterator[Buffer]:
        """Verified pieces of [offset, offset + length), in order. Raises Corrupt or Unavailable, never short."""
        if length is None:
            length = self._record.size - offset
        self._check(offset, length)
        if not length:
            return
        if self._record.inline is not None:
            yield memoryview(self._opened(self._record.inline))[offset : offset + length]
            return
        slices = leaves(self._core.state, self._record.entries, offset, length)
        async for piece in read_slices(self._core, slices, self._domain):
            yield piece
            del piece  # not held while the next one is waited for

    def slices(self) -> Iterator[Entry]:
        """What the body is made of: CHUNK and SLOT slices in order; none when it rides in its row. Raises Corrupt."""
        record = self._record
        return iter(()) if record.inline is not None else leaves(self._core.state, record.entries, 0, record.size)

    def _opened(self, inline: bytes) -> Buffer:
        """The inline body, opened once."""
        record = self._record
        if self._inline is None:
            self._inline = open_inline(self._core.keyring, inline, record.seal, record.size, self._domain)
        return self._inline

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._record.size:
            raise Invalid(f"bytes {offset}+{length} of a body of {self._record.size}", reason="range")

    async def part(self, number: int) -> tuple[int, int]:
        """(offset, length) of a part; parts are numbered from 1. Invalid("part-number") when there is none."""
        if not self._record.part_count:
            if number != 1:
                raise Invalid(f"there is no part {number}", reason="part-number")
            return 0, self._record.size
        value = None
        if 0 < number <= self._record.part_count:
            value = self._core.state.get(rows.completed_key(self._manifest(), number))
            if value is None:
                raise Corrupt(f"part {number} has no row", reason="manifest")
        if value is None:
            raise Invalid(f"there is no part {number}", reason="part-number")
        part = rows.completed_of(value)
        return part.offset, part.size

    async def parts(self, after: int, limit: int) -> tuple[list[PartInfo], bool]:
        """Parts numbered above ``after`` (from 1, as completed), and whether more follow."""
        if not self._record.part_count:
            return [], False
        prefix = rows.COMPLETED + self._manifest()
        start = rows.completed_key(self._manifest(), max(after, 0) + 1)
        found = []
        for key, value in self._core.state.scan(start, prefix_end(prefix), limit):
            part = rows.completed_of(value)
            number = int.from_bytes(key[-4:], "big")
            found.append(PartInfo(number, part.size, part.etag, part.modified, part.checksums))
        return found, max(after, 0) + len(found) < self._record.part_count

    def _manifest(self) -> bytes:
        return parts_owner(self._record)

    def close(self) -> None:
        """Let go of the bytes. Idempotent."""
        token, self._token = self._token, None
        if token is not None:
            self._core.pins.leave(token)


def parts_owner(record: VersionRecord) -> bytes:
    """The manifest beside which the rows of a multipart object's parts stand."""
    if len(record.entries) != 1 or record.entries[0].kind != Kind.MANIFEST:
        raise Corrupt("a multipart object without a manifest", reason="manifest")
    return record.entries[0].id


async def read_slices(core: Core, slices: Iterator[Entry], domain: Domain | None) -> AsyncIterator[Buffer]:
    """The bytes of CHUNK and SLOT slices in order; the first pieces of the next few are fetched ahead.

    What is fetched ahead takes a quarter of the memory for bodies at most, all readers together, and a piece is let go
    of before the next is waited for: so readers never wait for memory that only readers who wait hold.
    """
    ahead: deque[_Ahead] = deque()
    limits = core.limits
    cost = 5 * limits.read_piece_max // 2  # the first piece and the one that chunks fetch behind it, rounded up
    try:
        while True:
            while len(ahead) <= limits.read_ahead_slices_max:
                early = cost if ahead else 0
                if early and core.ahead_bytes + early > limits.buffers_bytes_max // 4:
                    break
                entry = next(slices, None)
                if entry is None:
                    break
                core.ahead_bytes += early
                pieces = core.chunks.read(entry, 0, entry.length, domain)
                ahead.append(_Ahead(pieces, asyncio.ensure_future(_first(pieces)), entry.length, early))
            if not ahead:
                return
            now = ahead[0]
            core.ahead_bytes -= now.early
            now.early = 0
            piece, left = await now.first, now.left
            ahead.popleft()
            pieces = now.pieces
            del now
            try:
                while piece is not None:
                    left -= len(piece)
                    yield piece
                    piece = None
                    if left > 0:
                        piece = await anext(pieces, None)
            finally:
                await _close(pieces)
            if left:
                raise Corrupt(f"a slice came {left} bytes short", reason="slice")
    finally:
        for later in ahead:
            later.first.cancel()
        for later in ahead:
            await asyncio.gather(later.first, return_exceptions=True)
            await _close(later.pieces)
            core.ahead_bytes -= later.early
            later.early = 0


async def _first(pieces: AsyncIterator[Buffer]) -> Buffer | None:
    return await anext(pieces, None)


async def _close(pieces: AsyncIterator[Buffer]) -> None:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
