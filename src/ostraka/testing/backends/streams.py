"""Cases: what is written from a source, known or unknown in size, whole or broken."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

from ostraka.backends import Backend
from ostraka.errors import Truncated
from ostraka.host import Buffer
from ostraka.testing.backends.case import (
    Broken,
    Case,
    breaking,
    collector,
    content,
    listed,
    pieces,
    refused,
    same,
    stat_of,
)

CASES: list[Case] = []
case = collector(CASES)

LARGE: Final = 40 << 20  # bytes of a stream that is sent in several parts where there are parts


@case()
async def a_source_is_kept_whole(backend: Backend) -> None:
    parts = (b"ab", b"", bytearray(b"cde"), memoryview(b"xxfghxx")[2:5], memoryview(b"12345678").cast("I"))
    for size in (16, None):
        etag = await backend.write_stream("a", pieces(*parts), size)
        same(await backend.read("a"), b"abcdefgh12345678", f"what was given with a size of {size}")
        same((await stat_of(backend, "a")).etag, etag, "its ETag")
        await backend.write_stream("a", lambda: pieces(b"once ", b"more"), size and 9)
        same(await backend.read("a"), b"once more", "what a function gave")
    for nothing in (0, None):
        await backend.write_stream("empty", pieces(), nothing)
        same(await backend.read("empty"), b"", f"nothing with a size of {nothing}")


@case()
async def a_source_may_use_its_buffer_again(backend: Backend) -> None:
    buffer = bytearray(70_000)

    async def source() -> AsyncIterator[Buffer]:
        for number in range(100):
            buffer[:] = bytes([number]) * len(buffer)
            yield buffer

    await backend.write_stream("a", source())
    same(
        await backend.read("a"), b"".join(bytes([n]) * len(buffer) for n in range(100)), "what one buffer held in turn"
    )


@case()
async def a_source_of_another_length_changes_nothing(backend: Backend) -> None:
    await backend.write("a", b"before")
    for size in (0, 5, 7):
        for path in ("a", "b"):
            with refused(Truncated, "body", what=f"6 bytes that should be {size}"):
                await backend.write_stream(path, pieces(b"123", b"456"), size)
    same(await backend.read("a"), b"before", "what was there before")
    same(await listed(backend), ["a"], "all there is")


@case()
async def a_source_that_breaks_changes_nothing(backend: Backend) -> None:
    await backend.write("a", b"before")
    for size in (None, 6_000_000):
        for path in ("a", "b"):
            with refused(Broken, what="a source that breaks"):
                await backend.write_stream(path, breaking(content(3_000_000)), size)
    same(await backend.read("a"), b"before", "what was there before")
    same(await listed(backend), ["a"], "all there is")


@case()
async def a_source_that_is_left_early_is_closed(backend: Backend) -> None:
    left: list[str] = []
    begun = asyncio.Event()

    async def source(name: str) -> AsyncIterator[Buffer]:
        try:
            while True:
                yield content(500_000)
                begun.set()
                await asyncio.sleep(0)
        finally:
            left.append(name)

    with refused(Truncated, "body"):
        await backend.write_stream("a", source("too long"), 700_000)
    same(left, ["too long"], "the sources that were closed when the write was over")
    begun.clear()
    task = asyncio.create_task(backend.write_stream("a", source("cancelled"), 1 << 40))
    await begun.wait()
    task.cancel()
    with refused(asyncio.CancelledError):
        await task
    same(left, ["too long", "cancelled"], "the sources that were closed when the write was over")


@case()
async def a_write_that_is_cancelled_changes_nothing(backend: Backend) -> None:
    await backend.write("a", b"before")
    waiting = asyncio.Event()

    async def source() -> AsyncIterator[Buffer]:
        yield content(3_000_000)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(backend.write_stream("a", source()))
    await waiting.wait()
    task.cancel()
    with refused(asyncio.CancelledError):
        await task
    same(await backend.read("a"), b"before", "what was there before")
    same(await listed(backend), ["a"], "all there is")
    await backend.write("a", b"after")
    same(await backend.read("a"), b"after", "what was written after that")


@case()
async def a_large_stream_of_unknown_size(backend: Backend) -> None:
    wanted = hashlib.sha256()

    async def source() -> AsyncIterator[Buffer]:
        for number in range(LARGE // 1_000_000):
            piece = content(1_000_000, number)
            wanted.update(piece)
            yield piece

    etag = await backend.write_stream("large", source())
    got = hashlib.sha256()

    async def sink(piece: Buffer) -> None:
        got.update(piece)

    stat = await backend.read_to("large", sink)
    same((got.hexdigest(), stat.etag), (wanted.hexdigest(), etag), "hash and ETag of what was read")
    same(stat.size, LARGE // 1_000_000 * 1_000_000, "its size")
    middle = await backend.read("large", offset=20_500_000, size=1_000_000)
    same(middle, content(1_000_000, 20)[500_000:] + content(1_000_000, 21)[:500_000], "a range across the middle")
