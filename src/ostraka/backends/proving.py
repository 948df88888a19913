"""Whether a backend works, here and now: each thing it promises is tried below a path of its own, and taken away again.

Less than the conformance suite (ostraka.testing.backends), and harmless to a store in use: nothing else is read, listed
or touched."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ostraka.backends.backend import (
    Backend,
    Capability,
    Copies,
    DeletesBatches,
    DeletesConditionally,
    ListsDirectories,
    Presigns,
    RemovesDirectories,
    Resumes,
    Stat,
    WritesConditionally,
    require,
)
from ostraka.backends.iterators import ended
from ostraka.errors import Absent, NotSupported, OstrakaError, PreconditionFailed
from ostraka.host import Buffer, Host
from ostraka.limits import MIB

LARGE: Final = 17 * MIB + 1  # more than one part of an upload, and than two ranges of a read
ODD: Final = (".hidden", "a b", "a%2Fb", "a+b", "é", "\U0001f3fa", "\uff01", "x" * 200)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was tried, whether it works (None: it is not there, and not claimed), and what there is to say."""

    what: str
    works: bool | None
    said: str = ""


class _Wrong(Exception):
    """It answered, and not as it must."""


Trial = Callable[["Proof"], Awaitable[str | None]]


class Proof:
    """The trials, on paths that begin with ``stem``."""

    def __init__(self, backend: Backend, stem: str, host: Host | None = None) -> None:
        self._backend = backend
        self._stem = f"{stem}ostraka-check-{(host or Host()).random(6).hex()}"

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other. If nothing can be written, that is the only one."""
        try:
            for what, capability, trial in TRIALS:
                finding = await self._tried(what, capability, trial)
                yield finding
                if what == "write" and not finding.works:
                    return
        finally:
            await self._remove_all()

    async def _tried(self, what: str, capability: Capability | None, trial: Trial) -> Finding:
        if capability is not None and capability not in self._backend.capabilities:
            return Finding(what, None, "not claimed")
        try:
            return Finding(what, True, await trial(self) or "")
        except OstrakaError as error:
            if capability is not None and isinstance(error, NotSupported):
                return Finding(what, None, error.message)
            return Finding(what, False, error.message)
        except (_Wrong, OSError) as error:
            return Finding(what, False, str(error))

    def path(self, name: str) -> str:
        return f"{self._stem}/{name}"

    async def _remove_all(self) -> None:
        with suppress(OstrakaError):  # the findings have said why
            for path in [path async for path in self._backend.list(self._stem)]:
                await self._backend.delete(path)
            if Capability.REMOVE_DIRECTORY in self._backend.capabilities:
                await require(self._backend, RemovesDirectories).remove_directory(self._stem)

    # -- trials: what is to be said, or an error

    async def write(self) -> None:
        etag = await self._backend.write(self.path("a"), b"0123456789")
        self._same((await self._stat("a")).etag, etag, "the ETag")
        self._same((await self._stat("a")).size, 10, "the size")

    async def read(self) -> None:
        self._same(await self._backend.read(self.path("a")), b"0123456789", "what was read")
        self._same(await self._backend.read(self.path("a"), offset=4, size=3), b"456", "a range")
        self._same(await self._backend.read(self.path("a"), offset=10), b"", "what is behind the end")

    async def absent(self) -> None:
        self._same(await self._backend.stat(self.path("nothing")), None, "what stat says of nothing")
        with self._refused(Absent, "a read of nothing"):
            await self._backend.read(self.path("nothing"))
        await self._backend.delete(self.path("nothing"))

    async def stream(self) -> str:
        block = self._stem.encode().ljust(MIB, b".")

        async def pieces() -> AsyncIterator[Buffer]:
            for _ in range(LARGE // MIB):
                yield block
            yield b"!"

        before = sha256(block * (LARGE // MIB) + b"!").hexdigest()
        await self._backend.write_stream(self.path("large"), pieces())
        self._same(sha256(await self._backend.read(self.path("large"))).hexdigest(), before, "the SHA-256 of a stream")
        await self._backend.delete(self.path("large"))
        return f"{LARGE // MIB} MiB of unknown size"

    async def names(self) -> str:
        for name in ODD:
            await self._backend.write(self.path(f"odd/{name}"), name.encode())
        wanted = sorted((self.path(f"odd/{name}") for name in ODD), key=str.encode)
        async with ended(self._backend.list(self.path("odd/"))) as paths:
            self._same([path async for path in paths], wanted, "the names, in byte order")
        for name in ODD:
            self._same(await self._backend.read(self.path(f"odd/{name}")), name.encode(), f"what is at {name!r}")
            await self._backend.delete(self.path(f"odd/{name}"))
        return f"{len(ODD)} odd ones, kept as they are and listed in byte order"

    async def prefixes(self) -> None:
        for name in ("p/q", "p/qr", "p/q-/s"):
            await self._backend.write(self.path(name), b"")
        wanted = [self.path(name) for name in ("p/q", "p/q-/s", "p/qr")]
        self._same([p async for p in self._backend.list(self.path("p/q"))], wanted, "a prefix that ends in a name")
        after = [p async for p in self._backend.list(self.path("p/"), start_after=wanted[0])]
        self._same(after, wanted[1:], "what comes after the first")

    async def directories(self) -> None:
        found = require(self._backend, ListsDirectories).list_directories(self.path("p/"))
        self._same([d async for d in found], [self.path("p/q-")], "the directories")

    async def create_only(self) -> None:
        writes = require(self._backend, WritesConditionally)
        await writes.write_if(self.path("new"), b"1", match=None)
        with self._refused(PreconditionFailed, "a second creation"):
            await writes.write_if(self.path("new"), b"2", match=None)
        self._same(await self._backend.read(self.path("new")), b"1", "what was there")

    async def if_match(self) -> None:
        writes = require(self._backend, WritesConditionally)
        old = await self._backend.write(self.path("a"), b"old")
        await writes.write_if(self.path("a"), b"new", match=old)
        with self._refused(PreconditionFailed, "a write over what was changed"):
            await writes.write_if(self.path("a"), b"lost", match=old)
        self._same(await self._backend.read(self.path("a")), b"new", "what was there")

    async def delete_if(self) -> None:
        deletes = require(self._backend, DeletesConditionally)
        old = await self._backend.write(self.path("d"), b"old")
        new = await self._backend.write(self.path("d"), b"new")
        with self._refused(PreconditionFailed, "a deletion of what was changed"):
            await deletes.delete_if(self.path("d"), match=old)
        await deletes.delete_if(self.path("d"), match=new)
        self._same(await self._backend.exists(self.path("d")), False, "whether it is there")

    async def new_etags(self) -> None:
        etags = {await self._backend.write(self.path("a"), b"equal") for _ in range(3)}
        self._same(len(etags), 3, "different ETags of equal bytes")

    async def copies(self) -> None:
        await self._backend.write(self.path("a"), b"copied")
        copies = require(self._backend, Copies)
        await copies.copy(self.path("a"), self.path("c"))
        self._same(await self._backend.read(self.path("c")), b"copied", "the copy")

    async def copy_if_absent(self) -> None:
        with self._refused(PreconditionFailed, "a copy over what is there"):
            await require(self._backend, Copies).copy(self.path("a"), self.path("c"), if_absent=True)

    async def batches(self) -> None:
        paths = [self.path(f"b/{n}") for n in range(3)]
        for path in paths:
            await self._backend.write(path, b"")
        self._same(await require(self._backend, DeletesBatches).delete_batch(paths), [], "the failures")
        self._same([p async for p in self._backend.list(self.path("b/"))], [], "what is left")

    async def resume(self) -> None:
        uploads, path = require(self._backend, Resumes), self.path("resumed")

        async def pieces(data: bytes) -> AsyncIterator[Buffer]:
            yield data

        await uploads.append(path, "check", 0, pieces(b"first, "))
        left = await uploads.partial(path, "check")
        self._same(left and left.length, 7, "what is left of an upload")
        await uploads.append(path, "check", 7, pieces(b"second"))
        await uploads.promote(path, "check", size=13, sha256=sha256(b"first, second").hexdigest())
        self._same(await self._backend.read(path), b"first, second", "what was promoted")

    async def presign(self) -> None:
        url = await require(self._backend, Presigns).presign(self.path("a"), seconds=60)

        def fetched() -> bytes:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return bytes(answer.read())

        await self._backend.write(self.path("a"), b"for whoever has the URL")
        try:
            self._same(await asyncio.to_thread(fetched), b"for whoever has the URL", "what the URL gave")
        except OSError as error:
            raise _Wrong(f"the URL could not be fetched: {getattr(error, 'reason', error)}") from None

    async def delete(self) -> None:
        await self._backend.delete(self.path("a"))
        self._same(await self._backend.stat(self.path("a")), None, "what stat says after it")

    async def _stat(self, name: str) -> Stat:
        stat = await self._backend.stat(self.path(name))
        if stat is None:
            raise _Wrong("what was written is not there")
        return stat

    @staticmethod
    def _same(found: object, wanted: object, what: str) -> None:
        if found != wanted:
            raise _Wrong(f"{what} should be {str(wanted)[:80]!r}, and is {str(found)[:80]!r}")

    @staticmethod
    @contextmanager
    def _refused(kind: type[OstrakaError], what: str) -> Iterator[None]:
        try:
            yield
        except kind:
            return
        raise _Wrong(f"{what} went through")


TRIALS: Final[tuple[tuple[str, Capability | None, Trial], ...]] = (
    ("write", None, Proof.write),
    ("read, ranges", None, Proof.read),
    ("absent is told", None, Proof.absent),
    ("large streams", None, Proof.stream),
    ("names, order", None, Proof.names),
    ("prefixes", None, Proof.prefixes),
    ("directories", Capability.DIRECTORIES, Proof.directories),
    ("create only", Capability.CONDITIONAL, Proof.create_only),
    ("write if match", Capability.CONDITIONAL, Proof.if_match),
    ("delete if match", Capability.CONDITIONAL_DELETE, Proof.delete_if),
    ("new ETags", Capability.NEW_ETAGS, Proof.new_etags),
    ("copy", Capability.COPY, Proof.copies),
    ("copy if absent", Capability.COPY, Proof.copy_if_absent),
    ("batch delete", Capability.BATCH_DELETE, Proof.batches),
    ("resume", Capability.RESUME, Proof.resume),
    ("presigned URLs", Capability.PRESIGN, Proof.presign),
    ("delete", None, Proof.delete),
)
