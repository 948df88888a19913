"""The conformance suite can fail: each way in which a store of the field was once wrong is noticed by a case."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ostraka.backends import Backend, Capability, DeleteFailure, Entry, MemoryBackend, Reading, Source, Stat
from ostraka.errors import Absent, OstrakaError
from ostraka.host import Buffer
from ostraka.testing.backends import CASES


class PrefixIsADirectory(MemoryBackend):
    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        directory = prefix if not prefix or prefix.endswith("/") else prefix + "/"
        async for entry in super().list_entries(directory, start_after=start_after):
            yield entry


class HidesDotfiles(MemoryBackend):
    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        async for entry in super().list_entries(prefix, start_after=start_after):
            if not entry.path.rpartition("/")[2].startswith("."):
                yield entry


class ListsInOrderOfNames(MemoryBackend):
    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        entries = [entry async for entry in super().list_entries(prefix, start_after=start_after)]
        for entry in sorted(entries, key=lambda entry: entry.path.split("/")):
            yield entry


class TagsByContent(MemoryBackend):
    def _keep(self, path: str, data: bytes) -> str:
        super()._keep(path, data)
        stat = self._kept[path][1]
        tag = hashlib.sha256(data).hexdigest()
        self._kept[path] = data, Stat(stat.size, stat.modified, tag)
        return tag


class KeepsWhatCame(MemoryBackend):
    """Takes the part of a source that came for the whole."""

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        data = b""
        try:
            async for piece in source() if callable(source) else source:
                data += bytes(piece)
        finally:
            await self.write(path, data)
        return (await self.read_with_stat(path))[1].etag


class ReadsNothingBeyondTheEnd(MemoryBackend):
    @asynccontextmanager
    async def open(self, path: str, *, offset: int = 0, **options: Any) -> AsyncIterator[Reading]:
        stat = await self.stat(path)
        if stat is None:
            raise Absent(path, reason="path")
        async with super().open(path, offset=min(offset, stat.size), **options) as reading:
            yield reading


class RewritesDots(MemoryBackend):
    async def write(self, path: str, data: Buffer) -> str:
        return await super().write(path.replace("..", "_"), data)


class SwallowsFailures(MemoryBackend):
    async def delete_batch(self, paths: Iterable[str]) -> list[DeleteFailure]:
        await super().delete_batch(paths)
        return []


class ChecksThenWrites(MemoryBackend):
    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        stat = await self.stat(path)
        await asyncio.sleep(0)
        if (stat and stat.etag) != match:
            return await super().write_if(path, data, match=match)
        return await self.write(path, data)


class ClaimsTooMuch(MemoryBackend):
    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.PRESIGN}


class ClaimsTooLittle(MemoryBackend):
    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - {Capability.COPY}


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        (PrefixIsADirectory, "a_prefix_is_a_string"),
        (HidesDotfiles, "every_path_is_kept_as_it_is"),
        (ListsInOrderOfNames, "a_list_is_in_byte_order_of_whole_paths"),
        (TagsByContent, "every_write_gives_a_new_etag"),
        (KeepsWhatCame, "a_source_that_breaks_changes_nothing"),
        (ReadsNothingBeyondTheEnd, "a_range_ends_with_the_bytes"),
        (RewritesDots, "what_is_no_path_is_refused"),
        (SwallowsFailures, "a_batch_tells_what_was_not_deleted"),
        (ChecksThenWrites, "of_many_who_count_nobody_is_forgotten"),
        (ClaimsTooMuch, "what_is_claimed_is_there_and_nothing_else"),
        (ClaimsTooLittle, "what_is_claimed_is_there_and_nothing_else"),
    ],
)
def test_a_backend_that_differs_is_noticed(kind: type[MemoryBackend], case: str) -> None:
    @asynccontextmanager
    async def factory() -> AsyncIterator[Backend]:
        async with kind() as backend:
            yield backend

    (named,) = [c for c in CASES if c.name == case]
    with pytest.raises((AssertionError, OstrakaError)):
        asyncio.run(named(factory))
