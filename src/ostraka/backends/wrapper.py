"""A backend around another one: all of its calls and capabilities, each of which goes through a few places.

Who counts, retries or fails calls says in ``_call`` what happens around one, and gives the calls that are longer than
one question and one answer (``open``, ``write_stream``, ``append``, the listings) a form of their own.
"""

import enum
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from ostraka.backends.backend import (
    Backend,
    Capability,
    Copies,
    DeleteFailure,
    DeletesBatches,
    DeletesConditionally,
    Entry,
    ListsDirectories,
    Partial,
    Presigns,
    Reading,
    RemovesDirectories,
    Resumes,
    Source,
    Stat,
    WritesConditionally,
    require,
)
from ostraka.backends.iterators import ended
from ostraka.backends.paths import encoded
from ostraka.host import Buffer

T = TypeVar("T")
Failures = list[DeleteFailure]


class Operation(enum.Enum):
    """What is asked of a backend, as metrics, timeouts and faults name it."""

    WRITE = "write"
    WRITE_STREAM = "write-stream"
    READ = "read"
    STAT = "stat"
    LIST = "list"
    DELETE = "delete"
    DELETE_BATCH = "delete-batch"
    LIST_DIRECTORIES = "list-directories"
    REMOVE_DIRECTORY = "remove-directory"
    WRITE_IF = "write-if"
    DELETE_IF = "delete-if"
    COPY = "copy"
    PRESIGN = "presign"
    PARTIAL = "partial"
    APPEND = "append"
    PROMOTE = "promote"
    ABANDON = "abandon"
    SWEEP = "sweep"


class Wrapper(Backend):
    """Forwards everything to ``inner``."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.inner.capabilities

    async def close(self) -> None:
        await self.inner.close()

    @abstractmethod
    async def _call(self, operation: Operation, path: str, call: Callable[[], Awaitable[T]]) -> T:
        """One question with one answer. ``call`` may be made again."""

    # -- long calls

    def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AbstractAsyncContextManager[Reading]:
        return self.inner.open(path, offset=offset, size=size, if_match=if_match)

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        return await self.inner.write_stream(path, source, size)

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        return await require(self.inner, Resumes).append(path, token, offset, source)

    def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        def begin(after: str) -> AsyncIterator[Entry]:
            return self.inner.list_entries(prefix, start_after=after)

        return self._listing(Operation.LIST, prefix, begin, lambda entry: entry.path, start_after)

    def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[str]:
        def begin(after: str) -> AsyncIterator[str]:
            return self.inner.list(prefix, start_after=after)

        return self._listing(Operation.LIST, prefix, begin, lambda path: path, start_after)

    def list_directories(self, prefix: str = "") -> AsyncIterator[str]:
        inner = require(self.inner, ListsDirectories)

        async def begin(after: str) -> AsyncIterator[str]:
            async with ended(inner.list_directories(prefix)) as directories:
                async for directory in directories:
                    if encoded(directory + "/") > encoded(after):
                        yield directory

        return self._listing(Operation.LIST_DIRECTORIES, prefix, begin, lambda directory: directory + "/")

    async def _listing(
        self,
        operation: Operation,
        prefix: str,
        begin: Callable[[str], AsyncIterator[T]],
        key: Callable[[T], str],
        start_after: str = "",
    ) -> AsyncIterator[T]:
        """What ``begin`` gives of what is greater than its argument, in the order of ``key``."""
        async with ended(begin(start_after)) as items:
            async for item in items:
                yield item

    # -- one question, one answer

    async def write(self, path: str, data: Buffer) -> str:
        return await self._call(Operation.WRITE, path, lambda: self.inner.write(path, data))

    async def stat(self, path: str) -> Stat | None:
        return await self._call(Operation.STAT, path, lambda: self.inner.stat(path))

    async def delete(self, path: str) -> None:
        await self._call(Operation.DELETE, path, lambda: self.inner.delete(path))

    async def delete_batch(self, paths: Iterable[str]) -> Failures:
        batches, these = require(self.inner, DeletesBatches), [*paths]
        return await self._call(Operation.DELETE_BATCH, "", lambda: batches.delete_batch(these))

    async def remove_directory(self, path: str) -> bool:
        directories = require(self.inner, RemovesDirectories)
        return await self._call(Operation.REMOVE_DIRECTORY, path, lambda: directories.remove_directory(path))

    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        writes = require(self.inner, WritesConditionally)
        return await self._call(Operation.WRITE_IF, path, lambda: writes.write_if(path, data, match=match))

    async def delete_if(self, path: str, *, match: str) -> None:
        deletes = require(self.inner, DeletesConditionally)
        await self._call(Operation.DELETE_IF, path, lambda: deletes.delete_if(path, match=match))

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        copies = require(self.inner, Copies)
        return await self._call(Operation.COPY, target, lambda: copies.copy(source, target, if_absent=if_absent))

    async def presign(self, path: str, *, method: str = "GET", seconds: float = 3600.0) -> str:
        presigns = require(self.inner, Presigns)
        return await self._call(Operation.PRESIGN, path, lambda: presigns.presign(path, method=method, seconds=seconds))

    async def partial(self, path: str, token: str) -> Partial | None:
        uploads = require(self.inner, Resumes)
        return await self._call(Operation.PARTIAL, path, lambda: uploads.partial(path, token))

    async def promote(self, path: str, token: str, *, size: int, sha256: str) -> str:
        uploads = require(self.inner, Resumes)
        return await self._call(Operation.PROMOTE, path, lambda: uploads.promote(path, token, size=size, sha256=sha256))

    async def abandon(self, path: str, token: str) -> None:
        uploads = require(self.inner, Resumes)
        await self._call(Operation.ABANDON, path, lambda: uploads.abandon(path, token))

    async def sweep(self, older_than: float) -> int:
        uploads = require(self.inner, Resumes)
        return await self._call(Operation.SWEEP, "", lambda: uploads.sweep(older_than))


def innermost(backend: Backend) -> Backend:
    """What all the wrappers are around."""
    while isinstance(backend, Wrapper):
        backend = backend.inner
    return backend
