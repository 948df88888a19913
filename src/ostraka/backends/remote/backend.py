"""A backend made of a store's service: paths to keys and back, ranges, uploads, batches.

The physical prefix stands before every key and is never seen above. A key of somebody else's that is no path by our
rules (``a//b``, ``dir/``) could not be asked for, so it is left out of listings; it disturbs nobody.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from ostraka.backends.backend import Backend, Capability, DeleteFailure, Entry, Reading, Source, Stat
from ostraka.backends.paths import PATH_BYTES_MAX, check_path, check_prefix, encoded
from ostraka.backends.remote.reading import Ranges, whole
from ostraka.backends.remote.service import Got, Listed, Service
from ostraka.backends.remote.uploads import Uploads
from ostraka.backends.remote.wire import Wire
from ostraka.backends.streams import check_range, exactly
from ostraka.errors import Absent, Invalid, NotSupported, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Buffer
from ostraka.limits import Limits

SECRET_GIVEN = (
    "a secret that was given in a program is in no configuration: name a variable or a file that holds it instead"
)


def checked_prefix(prefix: str) -> str:
    """A physical prefix as it is configured, "" or ending in "/"; Invalid (reason "config") if no path is below it."""
    if not prefix:
        return ""
    try:
        return check_path(prefix.removesuffix("/")) + "/"
    except Invalid as error:
        raise Invalid(f"the prefix {error.message}", reason="config") from None


class RemoteBackend(Backend):
    """What S3 and Azure share. What the store behind the service cannot do is not claimed, and refused when called."""

    def __init__(
        self, service: Service, lender: Wire, prefix: str, capabilities: Iterable[Capability], limits: Limits
    ) -> None:
        """``lender``: what else must be closed, the way to who lends credentials."""
        self._service = service
        self._lender = lender
        self._prefix = checked_prefix(prefix)
        self._capabilities = frozenset(capabilities)
        self._limits = limits
        self._uploads = Uploads(service, limits)
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    def _check_claimed(self, capability: Capability) -> None:
        if capability not in self._capabilities:
            raise NotSupported(
                f"{self.name} cannot do this, or was not said to: {capability.value}", reason="capability"
            )

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return self._service.name

    async def close(self) -> None:
        self._closed = True
        await self._uploads.close()
        await self._service.close()
        await self._lender.close()

    # -- paths and keys

    @property
    @abstractmethod
    def place(self) -> str:
        """The URL of the bucket or the container, with a "/" at its end."""

    def outside(self, path: str = "") -> str:
        """As other programs name it (partitions.SeenOutside)."""
        return self.place + (self._key(path) if path else self._prefix)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the backend was closed", reason="closed")

    def _key(self, path: str) -> str:
        self._check_open()
        key = self._prefix + self._checked(path)
        if self._prefix and len(key.encode()) > PATH_BYTES_MAX:
            raise Invalid(f"{path[:40]!r}...: too long below the prefix {self._prefix!r}", reason="path")
        return key

    def _path(self, key: str) -> str | None:
        """The path behind a key; None if it is none of ours."""
        try:
            return self._checked(key[len(self._prefix) :])
        except Invalid:
            return None

    def _checked(self, path: str) -> str:
        """The path; Invalid (reason "path") if it is none, or none that the store keeps as it is."""
        return check_path(path)

    # -- writing

    async def write(self, path: str, data: Buffer) -> str:
        key, body = self._key(path), memoryview(data).cast("B")
        if len(body) < self._limits.remote_multipart_size_min:
            return await self._service.put(key, bytes(data))
        return await self._uploads.store(key, _sliced(body, self._limits.remote_part_size), len(body))

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        key = self._key(path)
        async with aclosing(exactly(source, size)) as pieces:
            return await self._uploads.store(key, pieces, size)

    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        self._check_claimed(Capability.CONDITIONAL)
        return await self._service.put(self._key(path), bytes(data), if_match=match, if_absent=match is None)

    # -- writing in parts, by who will remember them (copying.TakesParts)

    def part_size(self, size: int) -> int:
        return self._uploads.part_size(size)

    async def begin_parts(self, path: str) -> str:
        return await self._service.begin(self._key(path))

    async def parts_there(self, path: str, upload: str) -> dict[int, str]:
        return await self._service.parts(self._key(path), upload)

    async def write_part(self, path: str, upload: str, number: int, data: bytes) -> str:
        return await self._service.put_part(self._key(path), upload, number, body=data)

    async def finish_parts(self, path: str, upload: str, told: list[str]) -> str:
        return await self._service.complete(self._key(path), upload, told)

    async def abort_parts(self, path: str, upload: str) -> None:
        await self._service.abort(self._key(path), upload)

    # -- reading

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        key = self._key(path)
        async with AsyncExitStack() as stack:
            got = await self._begun(stack, key, offset, size, if_match)
            if got is None:  # nothing is in the range, or it is none
                stat = await self._service.stat(key)
                if if_match not in (None, stat.etag):
                    raise PreconditionFailed(f"{path}: it was changed", reason="changed")
                if check_range(path, stat.size, offset, size) > offset:
                    raise Unavailable(f"{path}: it changes too often to be read", reason="service")
                yield Reading(stat, _nothing())
                return
            end = check_range(path, got.stat.size, offset, size)
            ranges = Ranges(self._service, key, got, offset, end, self._limits)
            stack.push_async_callback(ranges.close)
            yield Reading(got.stat, await stack.enter_async_context(aclosing(ranges.pieces())))

    async def read_with_stat(self, path: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, Stat]:
        """What one range brings is taken as it comes: most objects are small, and what makes a long reading out of
        several ranges costs more than they do."""
        wanted = self._limits.remote_range_size
        if offset < 0 or (size is not None and not 0 < size <= wanted):
            return await super().read_with_stat(path, offset=offset, size=size)
        key = self._key(path)
        try:
            async with self._service.get(key, offset, size or wanted) as got:
                end = check_range(path, got.stat.size, offset, size)
                if end - offset <= wanted:
                    return await whole(got.pieces, end - offset, key), got.stat
                ranges = Ranges(self._service, key, got, offset, end, self._limits)
                try:
                    return b"".join([piece async for piece in ranges.pieces()]), got.stat
                finally:
                    await ranges.close()
        except Invalid as error:
            if error.reason != "range":
                raise
            return await super().read_with_stat(path, offset=offset, size=size)

    async def _begun(
        self, stack: AsyncExitStack, key: str, offset: int, size: int | None, if_match: str | None
    ) -> Got | None:
        """The first range; None if a store that is asked for it would have nothing to send."""
        if offset < 0 or (size is not None and size <= 0):
            return None
        wanted = self._limits.remote_range_size if size is None else min(size, self._limits.remote_range_size)
        try:
            return await stack.enter_async_context(self._service.get(key, offset, wanted, if_match=if_match))
        except Invalid as error:
            if error.reason != "range":
                raise
            return None

    async def stat(self, path: str) -> Stat | None:
        try:
            return await self._service.stat(self._key(path))
        except Absent:
            return None

    # -- listing

    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        self._check_open()
        check_prefix(prefix)
        after = encoded(start_after)
        begin = self._prefix + prefix
        # what is not greater than the prefix's own beginning excludes nothing, and need not be sent
        physical = self._prefix + start_after if after >= prefix.encode() else ""
        async with aclosing(self._entries(begin, physical)) as entries:
            async for key, stat in entries:
                path = self._path(key)
                if path is not None and path.encode() > after:
                    yield Entry(path, stat)

    async def list_directories(self, prefix: str = "") -> AsyncIterator[str]:
        self._check_open()
        if prefix and not check_prefix(prefix).endswith("/"):
            raise Invalid(f"{prefix!r}: a directory's prefix ends with '/'", reason="path")
        async with aclosing(self._directories(self._prefix + prefix)) as directories:
            async for directory in directories:
                path = self._path(directory.removesuffix("/"))
                if path is not None:
                    yield path

    async def _entries(self, prefix: str, start_after: str) -> AsyncGenerator[tuple[str, Stat], None]:
        """Keys in byte order."""
        async with aclosing(self._pages(prefix, start_after=start_after)) as pages:
            async for page in pages:
                for entry in page.entries:
                    yield entry

    async def _directories(self, prefix: str) -> AsyncGenerator[str, None]:
        """What stands up to the next "/", with it, in byte order."""
        async with aclosing(self._pages(prefix, delimiter="/")) as pages:
            async for page in pages:
                for directory in page.directories:
                    yield directory

    async def _pages(self, prefix: str, *, delimiter: str = "", start_after: str = "") -> AsyncGenerator[Listed, None]:
        """All pages; each is asked for while the one before it is used."""
        asked = asyncio.create_task(self._service.page(prefix, delimiter=delimiter, start_after=start_after))
        try:
            while True:
                page = await asked
                if page.cursor:
                    asked = asyncio.create_task(self._service.page(prefix, delimiter=delimiter, cursor=page.cursor))
                yield page
                if not page.cursor:
                    return
                self._check_open()
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    # -- deleting

    async def delete(self, path: str) -> None:
        await self._service.delete(self._key(path))

    async def delete_if(self, path: str, *, match: str) -> None:
        self._check_claimed(Capability.CONDITIONAL_DELETE)
        await self._service.delete(self._key(path), if_match=match)

    async def delete_batch(self, paths: Iterable[str]) -> list[DeleteFailure]:
        self._check_claimed(Capability.BATCH_DELETE)
        self._check_open()
        failures: list[DeleteFailure] = []
        turns = asyncio.Semaphore(self._limits.remote_batches_at_once_max)
        async with asyncio.TaskGroup() as group:
            for batch in self._batches(paths, failures):
                await turns.acquire()
                task = group.create_task(self._deleted(batch, failures))
                task.add_done_callback(lambda _: turns.release())
        return failures

    def _batches(self, paths: Iterable[str], failures: list[DeleteFailure]) -> Iterator[dict[str, str]]:
        """Keys and their paths, as many as one request takes; what is no path is a failure."""
        batch: dict[str, str] = {}
        for path in paths:
            try:
                batch[self._key(path)] = path
            except Invalid as error:
                failures.append(DeleteFailure(path, error))
            if len(batch) == self._service.batch_count_max:
                yield batch
                batch = {}
        if batch:
            yield batch

    async def _deleted(self, batch: dict[str, str], failures: list[DeleteFailure]) -> None:
        try:
            failed = await self._service.delete_many(list(batch))
        except OstrakaError as error:
            failed = dict.fromkeys(batch, error)
        failures += [DeleteFailure(batch[key], error) for key, error in failed.items()]

    async def presign(self, path: str, *, method: str = "GET", seconds: float = 3600.0) -> str:
        self._check_claimed(Capability.PRESIGN)
        return await self._service.presign(self._key(path), method, seconds)


async def _sliced(body: memoryview, size: int) -> AsyncIterator[Buffer]:
    for offset in range(0, len(body), size):
        yield body[offset : offset + size]


async def _nothing() -> AsyncIterator[Buffer]:
    return
    yield b""
