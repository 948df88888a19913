"""Cases: one path is written, read, measured and deleted."""

import time
from collections.abc import Awaitable, Callable

from ostraka.backends import Backend, Capability
from ostraka.errors import Absent, Invalid, PreconditionFailed, Unavailable
from ostraka.host import Buffer
from ostraka.testing.backends.case import (
    Broken,
    Case,
    collector,
    content,
    holds,
    listed,
    pieces,
    refused,
    same,
    stat_of,
    together,
)

CASES: list[Case] = []
case = collector(CASES)


@case()
async def what_is_written_is_read(backend: Backend) -> None:
    for data in (b"bytes", b"", bytearray(b"\0\xff"), memoryview(b"a view of more")[2:6], content(300_000)):
        await backend.write("a/b", data)
        same(await backend.read("a/b"), bytes(data), "what was read")
    await backend.write("words", memoryview(b"12345678").cast("I"))
    same(await backend.read("words"), b"12345678", "a view of words")


@case()
async def stat_tells_size_time_and_etag(backend: Backend) -> None:
    before = time.time()
    etag = await backend.write("a/b", b"12345")
    stat = await stat_of(backend, "a/b")
    same((stat.size, stat.etag), (5, etag), "size and ETag")
    holds(before - 3600 < stat.modified < time.time() + 3600, f"it was written now, not at {stat.modified}")
    data, seen = await backend.read_with_stat("a/b", offset=1, size=2)
    same((data, seen.size, seen.etag), (b"23", 5, etag), "a range and what is known of the whole")


@case()
async def other_bytes_have_another_etag(backend: Backend) -> None:
    seen = [await backend.write("a", b"%d" % number) for number in range(20)]
    seen.append(await backend.write_stream("a", pieces(b"other"), 5))
    seen.append(await backend.write_stream("a", pieces(b"again"), None))
    same(len(set(seen)), len(seen), f"different ETags in {seen}")
    same((await stat_of(backend, "a")).etag, seen[-1], "the last write's ETag")


@case(Capability.NEW_ETAGS)
async def every_write_gives_a_new_etag(backend: Backend) -> None:
    seen = [await backend.write("a", b"equal") for _ in range(20)]
    await backend.delete("a")
    seen.append(await backend.write_stream("a", pieces(b"equal"), 5))
    same(len(set(seen)), len(seen), f"different ETags in {seen}")
    same((await stat_of(backend, "a")).etag, seen[-1], "the last write's ETag")


@case()
async def absent_is_a_value_except_for_a_reader(backend: Backend) -> None:
    await backend.write("a/b/c", b"x")
    for path in ("nothing", "a", "a/b", "a/b/c/d", "a/b/cc", "A/b/c"):
        same(await backend.stat(path), None, f"stat of {path}")
        same(await backend.exists(path), False, f"exists of {path}")
        for offset in (0, 5):
            with refused(Absent, "path", what=f"read of {path}"):
                await backend.read(path, offset=offset)
        await backend.delete(path)
    same(await backend.exists("a/b/c"), True, "exists of what is there")


@case()
async def deleting_is_done_when_nothing_is_there(backend: Backend) -> None:
    await backend.write("a/b", b"1")
    await backend.write("a/bc", b"2")
    for _ in range(2):
        await backend.delete("a/b")
        same(await backend.stat("a/b"), None, "what was deleted")
    same(await listed(backend), ["a/bc"], "what is left")
    await backend.write("a/b", b"again")
    same(await backend.read("a/b"), b"again", "what was written anew")


@case()
async def a_range_ends_with_the_bytes(backend: Backend) -> None:
    await backend.write("ten", b"0123456789")
    ranges: list[tuple[int, int | None, bytes]] = [
        *((0, None, b"0123456789"), (5, None, b"56789"), (10, None, b""), (9, None, b"9")),
        *((0, 3, b"012"), (7, 3, b"789"), (7, 100, b"789"), (10, 5, b""), (4, 0, b"")),
    ]
    for offset, size, wanted in ranges:
        same(await backend.read("ten", offset=offset, size=size), wanted, f"{size} bytes from {offset}")
    for offset, bad_size in ((-1, None), (11, None), (11, 1), (0, -1)):
        with refused(Invalid, "range", what=f"a range at {offset} of {bad_size}"):
            await backend.read("ten", offset=offset, size=bad_size)
    await backend.write("none", b"")
    same(await backend.read("none", offset=0), b"", "all of nothing")
    with refused(Invalid, "range"):
        await backend.read("none", offset=1)


@case()
async def a_sink_gets_each_byte_once(backend: Backend) -> None:
    data = content(3_000_000)
    etag = await backend.write("a", data)
    for offset in (0, 1_234_567, len(data)):
        got = bytearray()

        async def sink(piece: Buffer, got: bytearray = got) -> None:
            got.extend(piece)

        stat = await backend.read_to("a", sink, offset=offset)
        same((bytes(got), stat.etag), (data[offset:], etag), f"what a sink got from {offset}")

    async def broken(piece: Buffer) -> None:
        raise Broken

    with refused(Broken, what="a sink that breaks"):
        await backend.read_to("a", broken)
    with refused(Absent, "path"):
        await backend.read_to("nothing", broken)
    same(await backend.read("a", size=3), data[:3], "a read after that")


@case()
async def a_reader_may_ask_for_one_version(backend: Backend) -> None:
    old = await backend.write("a", b"old")
    async with backend.open("a", if_match=old) as reading:
        same(b"".join([bytes(p) async for p in reading.pieces]), b"old", "that version")
    await backend.write("a", b"new")
    with refused(PreconditionFailed, "changed"):
        async with backend.open("a", if_match=old):
            pass


@case()
async def a_reader_sees_one_version_while_it_is_replaced(backend: Backend) -> None:
    old, new = content(5_000_000, 1), content(5_000_000, 2)
    await backend.write("a", old)
    seen = bytearray()
    try:
        async with backend.open("a") as reading:
            async for piece in reading.pieces:
                if not seen:
                    seen.extend(piece)
                    await backend.write("a", new)
                else:
                    seen.extend(piece)
        same(bytes(seen), old, "what was being read when it was replaced")
    except (PreconditionFailed, Unavailable):  # a store that sends by ranges may only be able to say so
        same(bytes(seen), old[: len(seen)], "what was read before it was noticed")
    same(await backend.read("a"), new, "what is read after that")


@case()
async def a_reader_may_leave_early(backend: Backend) -> None:
    data = content(8_000_000)
    await backend.write("a", data)
    for _ in range(5):
        async with backend.open("a") as reading:
            async for piece in reading.pieces:
                same(bytes(piece), data[: len(memoryview(piece))], "the first piece")
                break
        async with backend.open("a"):
            pass
    same(len(await backend.read("a")), len(data), "bytes read after that")


@case()
async def many_readers_and_writers_at_once(backend: Backend) -> None:
    bodies = {f"p{n:02d}": content(50_000 + n, n) for n in range(40)}
    await together([lambda p=p, d=d: backend.write(p, d) for p, d in bodies.items()])  # type: ignore[misc]

    async def check(path: str) -> None:
        same(await backend.read(path), bodies[path], f"what is at {path}")

    await together([lambda p=p: check(p) for p in bodies for _ in range(3)])  # type: ignore[misc]


@case()
async def writers_of_one_path_leave_one_of_theirs_whole(backend: Backend) -> None:
    bodies = [content(100_000 + n, n) for n in range(16)]
    etags: list[str] = []

    async def write(body: bytes) -> None:
        etags.append(await backend.write("a", body))

    await together([lambda b=b: write(b) for b in bodies])  # type: ignore[misc]
    data, stat = await backend.read_with_stat("a")
    holds(data in bodies, "one of the bodies, whole")
    holds(stat.etag in etags, "the ETag of one of the writers")


@case()
async def a_closed_backend_says_so(backend: Backend) -> None:
    await backend.write("a", b"x")
    await backend.close()
    await backend.close()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "write": lambda: backend.write("a", b"y"),
        "write_stream": lambda: backend.write_stream("a", pieces(b"y")),
        "read": lambda: backend.read("a"),
        "stat": lambda: backend.stat("a"),
        "exists": lambda: backend.exists("a"),
        "list": lambda: listed(backend),
        "delete": lambda: backend.delete("a"),
    }
    for name, call in calls.items():
        with refused(Unavailable, "closed", what=f"{name} of a closed backend"):
            await call()
