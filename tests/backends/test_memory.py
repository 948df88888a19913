"""The backend in memory: what the interface says, by the one that has nothing in its way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ostraka.backends import DeletesConditionally, MemoryBackend, Presigns, WritesConditionally, require
from ostraka.errors import Absent, Invalid, NotSupported, PreconditionFailed, Truncated


def test_what_is_written_is_read_listed_and_gone_when_deleted() -> None:
    async def main() -> None:
        async with MemoryBackend() as backend:
            first = await backend.write("a/b", b"bytes")
            assert await backend.write("a/b", b"bytes") != first
            await backend.write("a/b-c", b"")
            await backend.write("a/b/c", b"more")
            assert [p async for p in backend.list("a/b")] == ["a/b", "a/b-c", "a/b/c"]
            assert [p async for p in backend.list("a/b", start_after="a/b-c")] == ["a/b/c"]
            assert [p async for p in backend.list_directories("a/")] == ["a/b"]
            assert await backend.read("a/b", offset=1, size=3) == b"yte"
            assert await backend.read("a/b", offset=5) == b""
            with pytest.raises(Invalid):
                await backend.read("a/b", offset=6)
            await backend.delete("a/b")
            await backend.delete("a/b")
            assert await backend.stat("a/b") is None
            with pytest.raises(Absent):
                await backend.read("a/b")

    asyncio.run(main())


def test_conditions_hold_and_what_is_not_claimed_is_refused() -> None:
    async def main() -> None:
        backend = MemoryBackend()
        conditional = require(backend, WritesConditionally)
        etag = await conditional.write_if("k", b"1", match=None)
        with pytest.raises(PreconditionFailed):
            await conditional.write_if("k", b"2", match=None)
        await conditional.write_if("k", b"2", match=etag)
        with pytest.raises(PreconditionFailed):
            await require(backend, DeletesConditionally).delete_if("k", match=etag)
        assert await backend.read("k") == b"2"
        with pytest.raises(NotSupported, match="memory"):
            require(backend, Presigns)

    asyncio.run(main())


def test_a_source_that_is_shorter_than_was_said_changes_nothing() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[bytes]:
            yield b"abc"

        backend = MemoryBackend()
        await backend.write("k", b"before")
        for size in (2, 4):
            with pytest.raises(Truncated):
                await backend.write_stream("k", source(), size)
        assert await backend.read("k") == b"before"
        await backend.write_stream("k", source, 3)
        assert await backend.read("k") == b"abc"

    asyncio.run(main())


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a/./b", "a\0b", "a\nb", "\ud800", "x" * 256])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        asyncio.run(MemoryBackend().write(path, b""))
