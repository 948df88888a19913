"""What every byte store is to its callers: one interface, small capabilities beside it, and one meaning everywhere.

A backend keeps bytes under paths. Whatever lies below it - a directory, S3, Azure, memory -

- a path is written whole or not at all: a reader sees the bytes before or the bytes after, never a mixture, and a
  write that returned is durable by the store's own promise (a local one has been synced: law 9);
- every write of other bytes gives the path another ETag; a write of equal bytes does so where NEW_ETAGS is claimed.
  Elsewhere (S3) an ETag says which bytes are there, not which write: a condition on it holds again when the same bytes
  have come back in the meantime. Whom that would mislead puts a counter or a nonce into the bytes;
- a prefix is a string, not a directory: ``list("a/b")`` finds ``a/b``, ``a/bc`` and ``a/b/c``, in byte order;
- every path that can be written is listed, and one that cannot be kept as it is is refused, never rewritten (paths.py);
- absent is an answer: ``stat`` and ``exists`` say it with a value, reading raises Absent, deleting what is absent is
  no error. A store that cannot be reached, or may not be, is Unavailable or Forbidden, never absent (law 3).

What not every store can do is a protocol of its own below, named in ``capabilities``. ``require`` gives a backend as
that protocol or raises NotSupported; so does a call of it on a backend that lacks it. Methods are coroutines of one
event loop; errors are those of ostraka.errors with the reasons named here.

Errors beyond Absent ("path"; "upload" for one that was never begun): Invalid ("path", "range", "request", "config": a
bucket that does not exist is that, and no absent path), Forbidden ("credentials", "access"), Unavailable ("connection",
"throttled", "timeout", "service", "circuit", "closed"; "unknown" for a conditional call that may or may not have been
the one that changed things), PreconditionFailed ("exists", "changed"), Truncated ("body": the source held fewer or more
bytes than were declared, or the store ended early), Conflict ("path": a directory stands where a file should be, or a
file on the way; "offset" of an upload; "rival": another write of the path was under way, and this one did nothing),
Full ("disk"), Corrupt. What was asked by a call that raised Unavailable may have happened, or happen yet. What a source
or a sink raises goes through as it is, and nothing was written.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast, runtime_checkable

from ostraka.backends.iterators import ended
from ostraka.errors import NotSupported
from ostraka.host import Buffer

Source = AsyncIterable[Buffer] | Callable[[], AsyncIterable[Buffer]]
"""Bytes to be written: pieces that come once, or a function that begins them anew and so allows a retry (law 7). A
piece is the backend's only until it asks for the next one."""

Sink = Callable[[Buffer], Awaitable[None]]
"""Takes the next piece; the buffer is the sink's only until it returns."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of the bytes at a path. ``modified``: seconds since 1970, UTC, as the store tells it."""

    size: int
    modified: float
    etag: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A path in a listing, and what is known of its bytes."""

    path: str
    stat: Stat


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes on their way: ``stat`` is of the whole, the pieces are of the range that was asked for."""

    stat: Stat
    pieces: AsyncIterator[Buffer]


class Capability(enum.Enum):
    """What not every store can do; the protocol of each is in PROTOCOLS."""

    RESUME = "resume"
    BATCH_DELETE = "batch-delete"
    DIRECTORIES = "directories"
    REMOVE_DIRECTORY = "remove-directory"
    CONDITIONAL = "conditional"
    CONDITIONAL_DELETE = "conditional-delete"
    COPY = "copy"
    PRESIGN = "presign"
    # claims without a call
    PATH_CONFLICT = "path-conflict"  # `a/b` and `a` cannot both be kept (Conflict, "path")
    PLAIN_NAMES = "plain-names"  # a name that holds a backslash or ends in a dot is refused (Azure would rewrite it)
    NEW_ETAGS = "new-etags"  # every write gives a new ETag, that of equal bytes too


class Backend(ABC):
    """A byte store addressed by path."""

    type: ClassVar[str]  # "local", "s3", "azure", "memory"

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this one can do beyond the methods here."""

    @abstractmethod
    async def write(self, path: str, data: Buffer) -> str:
        """Keep the bytes at path, in place of what is there; the new ETag."""

    @abstractmethod
    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        """Keep all of the source's bytes at path; the new ETag. Truncated if it does not give exactly ``size`` bytes
        (None: unknown), and whatever was there before stays. Memory does not grow with the size."""

    @abstractmethod
    def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AbstractAsyncContextManager[Reading]:
        """The bytes from ``offset``, ``size`` of them or (None) up to the end, all of one version. A range that ends
        beyond the last byte ends with it; Invalid (reason "range") for an offset below 0 or beyond the end, while one
        that equals the size reads nothing. PreconditionFailed (reason "changed") if the ETag is not ``if_match``,
        or from ``pieces`` if it is replaced while it is read and the store no longer has what was there; Truncated if
        the store ended before it had sent all."""

    @abstractmethod
    async def stat(self, path: str) -> Stat | None:
        """None if nothing is there, and only then."""

    @abstractmethod
    def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        """Every path that begins with the string ``prefix`` and is greater than ``start_after``, in byte order of
        UTF-8. What is written or deleted meanwhile may or may not be in it; all else is, once."""

    @abstractmethod
    async def delete(self, path: str) -> None:
        """Nothing is there any more. No error if nothing was."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """What ``ostraka.backends.from_config`` makes an equal backend of, in another process too: values that JSON
        has, ``{"type": ...}`` among them. Secrets are in it by reference only (the name of a variable or a file)."""

    @abstractmethod
    async def close(self) -> None:
        """Give back what is held; calls after it raise Unavailable (reason "closed"). May be called twice."""

    # What follows from the above

    async def read(self, path: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """The bytes of a range, in memory at once."""
        return (await self.read_with_stat(path, offset=offset, size=size))[0]

    async def read_with_stat(self, path: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, Stat]:
        """The bytes of a range and what is known of the whole: the ETag is of the version that the bytes are of."""
        async with self.open(path, offset=offset, size=size) as reading:
            return b"".join([bytes(piece) async for piece in reading.pieces]), reading.stat

    async def read_to(self, path: str, sink: Sink, *, offset: int = 0) -> Stat:
        """Hand all bytes from ``offset`` to the sink, piece by piece."""
        async with self.open(path, offset=offset) as reading:
            async for piece in reading.pieces:
                await sink(piece)
            return reading.stat

    async def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[str]:
        """The paths of ``list_entries``."""
        async with ended(self.list_entries(prefix, start_after=start_after)) as entries:
            async for entry in entries:
                yield entry.path

    async def exists(self, path: str) -> bool:
        return await self.stat(path) is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


# -- capabilities


@dataclass(frozen=True, slots=True)
class Partial:
    """What an interrupted upload has left: the bytes that were verified when this was asked."""

    length: int
    sha256: str  # lower-case hex, of those bytes
    digest: Any = field(default=None, compare=False, repr=False)  # hashlib's object that took them in, to go on from


@dataclass(frozen=True, slots=True)
class DeleteFailure:
    """A path of a batch that was not deleted, and why."""

    path: str
    error: Exception


@runtime_checkable
class Resumes(Protocol):
    """Uploads that go on after an interruption, each under a token of its owner's choice (a name, as in paths.py):
    two writers of one path never share what they have sent."""

    async def partial(self, path: str, token: str) -> Partial | None:
        """What that upload has left on stable storage, read anew and hashed; None if there is none."""
        ...

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        """Add the source's bytes at ``offset``, which must be the length that is there (Conflict, reason "offset",
        if it is not, or if somebody else is appending); begins the upload at 0. The new length, synced. If the source
        raises, what it gave before is kept and synced, and its error goes through."""
        ...

    async def promote(self, path: str, token: str, *, size: int, sha256: str) -> str:
        """Publish the upload at path if its length and hash are these (Corrupt if not: it stays, and ``abandon`` ends
        it; Absent, reason "upload", if there is none); the new ETag."""
        ...

    async def abandon(self, path: str, token: str) -> None:
        """Forget the upload. No error if there is none."""
        ...

    async def sweep(self, older_than: float) -> int:
        """Remove uploads and staging files that nobody touched for so many seconds; how many."""
        ...


@runtime_checkable
class DeletesBatches(Protocol):
    async def delete_batch(self, paths: Iterable[str]) -> list[DeleteFailure]:
        """Delete all of them, as many at once as the store takes; those that failed. Never raises for a path."""
        ...


@runtime_checkable
class ListsDirectories(Protocol):
    def list_directories(self, prefix: str = "") -> AsyncIterator[str]:
        """What stands between ``prefix`` ("" or ending in "/") and the next "/" in the paths under it, each once, in
        the order of the paths, with the prefix and without the "/"."""
        ...


@runtime_checkable
class RemovesDirectories(Protocol):
    async def remove_directory(self, path: str) -> bool:
        """Remove it if it is empty; whether it is gone. True for what is absent."""
        ...


@runtime_checkable
class WritesConditionally(Protocol):
    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        """Keep the bytes if the ETag at path is ``match``, or (None) if nothing is there; the new ETag. Atomic between
        all processes. PreconditionFailed (reason "changed" or "exists") if it does not hold: then nothing happened."""
        ...


@runtime_checkable
class DeletesConditionally(Protocol):
    async def delete_if(self, path: str, *, match: str) -> None:
        """Delete what has that ETag. PreconditionFailed (reason "changed") if another has taken its place; no error if
        nothing is there. Atomic between all processes, as ``write_if``."""
        ...


@runtime_checkable
class Copies(Protocol):
    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        """Make target hold what source holds, without the bytes passing through here; the new ETag.
        PreconditionFailed (reason "exists") if something is there and must not be."""
        ...


@runtime_checkable
class Presigns(Protocol):
    async def presign(self, path: str, *, method: str = "GET", seconds: float = 3600.0) -> str:
        """A URL that does this one thing without credentials, for so long."""
        ...


PROTOCOLS: dict[Capability, type] = {
    Capability.RESUME: Resumes,
    Capability.BATCH_DELETE: DeletesBatches,
    Capability.DIRECTORIES: ListsDirectories,
    Capability.REMOVE_DIRECTORY: RemovesDirectories,
    Capability.CONDITIONAL: WritesConditionally,
    Capability.CONDITIONAL_DELETE: DeletesConditionally,
    Capability.COPY: Copies,
    Capability.PRESIGN: Presigns,
}

P = TypeVar("P")


def require(backend: Backend, protocol: Callable[..., P]) -> P:
    """The backend as this protocol; NotSupported, naming both, if it does not claim that. (The protocol's class itself
    is to be given: as ``type[P]`` the type checkers would take concrete classes only.)"""
    for capability, known in PROTOCOLS.items():
        if known is protocol and capability in backend.capabilities and isinstance(backend, known):
            return cast(P, backend)
    name = getattr(protocol, "__name__", repr(protocol))
    raise NotSupported(f"a backend of type {backend.type} has no {name}", reason="capability")
