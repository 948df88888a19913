"""A copy from a backend to another that goes on where it was interrupted.

What is large goes in steps: to a local backend as an upload that grows, to S3 and Azure in parts. A journal remembers
the steps; the next run asks the store which of them are there, and does the rest. What is published is whole, and of
one version of the source: all of it is read under its ETag. Until then nothing of it is under the target's path.

After an interruption what was sent stays with the store until the copy is done, or the store forgets it by its rules.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from ostraka.backends.backend import Backend, Partial, Resumes, Stat
from ostraka.backends.journal import Journal
from ostraka.backends.resilience.policy import Budget, Resilience, is_break
from ostraka.backends.wrapper import innermost
from ostraka.errors import Absent, OstrakaError, PreconditionFailed, Truncated
from ostraka.host import Buffer, Host
from ostraka.limits import LIMITS, Limits

STEPS_MAX: Final = 10_000  # that a journal remembers of one growing upload

T = TypeVar("T")
Progress = Callable[[int], None]  # so many bytes more are done; fewer than 0 take some back


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a backend; ``name`` says which, the same in every run."""

    backend: Backend
    path: str
    name: str


@runtime_checkable
class TakesParts(Protocol):
    """A backend whose uploads in parts outlive who began them, as those of S3 and Azure do."""

    def part_size(self, size: int) -> int:
        """Of an upload of so many bytes; 0 if that is not sent in parts."""
        ...

    async def begin_parts(self, path: str) -> str:
        """The new upload's name."""
        ...

    async def parts_there(self, path: str, upload: str) -> dict[int, str]:
        """What was told of each part that is there. Absent (reason "upload") if the upload is not."""
        ...

    async def write_part(self, path: str, upload: str, number: int, data: bytes) -> str:
        """Keep a part; what ``finish_parts`` and a later run want to know of it."""
        ...

    async def finish_parts(self, path: str, upload: str, told: list[str]) -> str:
        """Publish the parts; the ETag."""
        ...

    async def abort_parts(self, path: str, upload: str) -> None:
        """Forget the upload and its parts."""
        ...


class Copier:
    """Copies, several at a time if wanted. ``state``: the directory of the journals; None: nothing is remembered, and
    what breaks off leaves nothing."""

    def __init__(
        self, progress: Progress, state: Path | None = None, host: Host | None = None, limits: Limits = LIMITS
    ) -> None:
        self._progress = progress
        self._state = state
        self._host = host or Host()
        self._limits = limits
        self._large = asyncio.Lock()  # one in parts at a time: it has several on their way itself

    async def copy(self, source: Place, target: Place) -> str:
        """Make target hold what source holds; the new ETag. Absent (reason "path") if there is nothing."""
        stat = await source.backend.stat(source.path)
        if stat is None:
            raise Absent(f"{source.name}: nothing is there", reason="path")
        inner = innermost(target.backend)
        if self._state is None:
            return await self._at_once(source, stat, target)
        if isinstance(inner, TakesParts) and inner.part_size(stat.size):
            async with self._large:
                return await self._in_parts(source, stat, inner, target)
        if isinstance(inner, Resumes) and stat.size >= self._limits.copy_resume_size_min:
            return await self._growing(source, stat, inner, target)
        return await self._at_once(source, stat, target)

    async def _at_once(self, source: Place, stat: Stat, target: Place) -> str:
        counted = 0

        async def pieces() -> AsyncIterator[Buffer]:
            nonlocal counted
            self._progress(-counted)
            counted = 0
            async with source.backend.open(source.path, if_match=stat.etag) as reading:
                async for piece in reading.pieces:
                    yield piece
                    counted += len(piece)
                    self._progress(len(piece))

        return await target.backend.write_stream(target.path, pieces, stat.size)

    # -- to a local backend

    async def _growing(self, source: Place, stat: Stat, uploads: Resumes, target: Place) -> str:
        journal = Journal(self._state, (source.name, stat.etag, stat.size, target.name), self._host)
        budget = self._budget()
        try:
            while True:
                try:
                    digest = await self._grown(source, stat, uploads, target, journal)
                    break
                except OstrakaError as error:
                    if not is_break(error) or not await budget.allows_another():
                        raise
            etag = await uploads.promote(target.path, journal.token, size=stat.size, sha256=digest)
            journal.forget()
            return etag
        except PreconditionFailed:  # nobody will go on: there is another version to copy now
            await uploads.abandon(target.path, journal.token)
            journal.forget()
            raise
        finally:
            journal.close()

    async def _grown(self, source: Place, stat: Stat, uploads: Resumes, target: Place, journal: Journal) -> str:
        """Append what the upload lacks; the SHA-256 of what it should hold."""
        left = await uploads.partial(target.path, journal.token)
        if left is not None and (left.digest is None or not await self._is_of(source, stat, left, journal)):
            await uploads.abandon(target.path, journal.token)
            left = None
        digest, done = (left.digest.copy(), left.length) if left and left.digest else (hashlib.sha256(), 0)
        known = done
        self._progress(done)

        async def pieces() -> AsyncIterator[Buffer]:
            nonlocal done, known
            async with source.backend.open(source.path, offset=done, if_match=stat.etag) as reading:
                async for piece in reading.pieces:
                    digest.update(piece)
                    done += len(piece)
                    if done - known >= stat.size // STEPS_MAX:
                        known = done
                        journal.add(done, digest.hexdigest())  # before it is written: what is there is then known
                    yield piece
                    self._progress(len(piece))

        try:
            if done < stat.size or left is None:
                await uploads.append(target.path, journal.token, done, pieces())
        except BaseException:
            self._progress(-done)
            raise
        if done != stat.size:
            raise Truncated(f"{source.name}: {done} of {stat.size} bytes came", reason="body")
        return digest.hexdigest()

    async def _is_of(self, source: Place, stat: Stat, left: Partial, journal: Journal) -> bool:
        """Whether what an interrupted run left is the beginning of the source: as remembered, or read again."""
        if left.length > stat.size:
            return False
        if left.length in journal.steps:
            return journal.steps[left.length] == left.sha256
        digest = hashlib.sha256()
        async with source.backend.open(source.path, size=left.length, if_match=stat.etag) as reading:
            async for piece in reading.pieces:
                digest.update(piece)
        return digest.hexdigest() == left.sha256

    # -- in parts

    async def _in_parts(self, source: Place, stat: Stat, parts: TakesParts, target: Place) -> str:
        size = parts.part_size(stat.size)
        journal = Journal(self._state, (source.name, stat.etag, stat.size, target.name, size), self._host)
        try:
            upload, told = await self._gone_on(parts, target, journal)
            begins = range(0, stat.size, size)
            missing = [(n, begin) for n, begin in enumerate(begins, 1) if n not in told]
            self._progress(stat.size - sum(min(size, stat.size - begin) for _, begin in missing))
            left = iter(missing)

            async def send() -> None:
                for number, begin in left:
                    data = await self._again(partial(self._block, source, stat, begin, size))
                    write = partial(parts.write_part, target.path, upload, number, data)
                    told[number] = await self._again(write)
                    journal.add(number, told[number])
                    self._progress(len(data))

            held_max = max(1, self._limits.remote_upload_bytes_max // size)  # parts of what is very large are large
            await beside([send() for _ in range(min(self._limits.remote_parts_at_once_max, held_max))])
            etag = await parts.finish_parts(target.path, upload, [told[n] for n, _ in enumerate(begins, 1)])
            journal.forget()
            return etag
        except PreconditionFailed:  # nobody will go on: there is another version to copy now
            await parts.abort_parts(target.path, journal.steps[0])
            journal.forget()
            raise
        finally:
            journal.close()

    async def _gone_on(self, parts: TakesParts, target: Place, journal: Journal) -> tuple[str, dict[int, str]]:
        """The upload, and the parts of it that are there and are ours."""
        upload = journal.steps.get(0, "")
        if upload:
            try:
                there = await self._again(lambda: parts.parts_there(target.path, upload))
                return upload, {n: word for n, word in journal.steps.items() if n and there.get(n) == word}
            except Absent:  # completed, aborted, or forgotten
                journal.steps.clear()
        upload = await self._again(lambda: parts.begin_parts(target.path))
        journal.add(0, upload)
        return upload, {}

    async def _block(self, source: Place, stat: Stat, begin: int, size: int) -> bytes:
        async with source.backend.open(source.path, offset=begin, size=size, if_match=stat.etag) as reading:
            return b"".join([bytes(piece) async for piece in reading.pieces])

    # -- again

    def _budget(self) -> Budget:
        return Budget(Resilience(), self._host.clock, self._chance, asyncio.sleep)

    def _chance(self) -> float:
        return int.from_bytes(self._host.random(4), "big") / (1 << 32)

    async def _again(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer, over several attempts: a part is the same however often it is sent."""
        budget = self._budget()
        while True:
            try:
                return await call()
            except OstrakaError as error:
                if not is_break(error) or not await budget.allows_another():
                    raise


async def beside(calls: list[Coroutine[Any, Any, None]]) -> None:
    """All of them beside each other; the first that fails ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
