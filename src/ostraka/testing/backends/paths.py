"""Cases: which paths are kept, exactly as they are, and which are refused."""

from collections.abc import Awaitable, Callable
from typing import Final

from ostraka.backends import Backend, Capability
from ostraka.backends.paths import RESERVED
from ostraka.errors import Conflict, Invalid
from ostraka.testing.backends.case import Case, collector, listed, pieces, refused, same

CASES: list[Case] = []
case = collector(CASES)

BAD: Final = (
    *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "./a", "a/./b"),
    *("a\0b", "a\nb", "a\x7fb", "a\x85b", "\ud800", "x" * 256, "ab/" * 350 + "a", RESERVED, f"{RESERVED}/a"),
)
ODD: Final = (
    *(
        ".hidden",
        ".hidden-too/.file",
        "a b",
        " a",
        "a+b",
        "a%2Fb",
        "a%b",
        "a&b=c?d#e",
        "a..b",
        "~",
    ),
    *(
        "a'b\"c",
        "a*b",
        "a:b",
        "a|b<c>",
        "-",
        "a,b;c",
        "{a}",
        "[a]",
        "ü",
        "u\u0308",
        "名前/ファイル",
        "\U0001f3fa",
        "A b",
    ),
    *("x" * 255, "/".join(["y" * 150] * 5), f"a/{RESERVED}", f"{RESERVED}.not", "file.part", "file.tmp"),
)
UNPLAIN: Final = ("a\\b", "...", "a.", "b./c")


@case()
async def every_path_is_kept_as_it_is(backend: Backend) -> None:
    odd = ODD if Capability.PLAIN_NAMES in backend.capabilities else ODD + UNPLAIN
    for number, path in enumerate(odd):
        await backend.write(path, b"%d" % number)
    for number, path in enumerate(odd):
        same(await backend.read(path), b"%d" % number, f"what is at {path!r}")
        same(await backend.exists(path), True, f"exists of {path!r}")
        same(await listed(backend, path), [p for p in _in_order(odd) if p.startswith(path)], f"list of {path!r}")
    same(await listed(backend), _in_order(odd), "all that was written")
    for path in odd:
        await backend.delete(path)
    same(await listed(backend), [], "what is left")


def _in_order(paths: tuple[str, ...]) -> list[str]:
    return sorted(paths, key=str.encode)


@case()
async def what_is_no_path_is_refused(backend: Backend) -> None:
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "write": lambda path: backend.write(path, b"x"),
        "write_stream": lambda path: backend.write_stream(path, pieces(b"x")),
        "read": backend.read,
        "stat": backend.stat,
        "exists": backend.exists,
        "delete": backend.delete,
    }
    for path in BAD:
        for name, call in calls.items():
            with refused(Invalid, "path", what=f"{name} of {path[:40]!r}"):
                await call(path)
    for prefix in ("/", "/a", "a//", "../", "a/../b", "a\0", "\ud800", "x" * 256):
        with refused(Invalid, "path", what=f"list of {prefix[:40]!r}"):
            await listed(backend, prefix)
    with refused(Invalid, "path", what="a start that is no text"):
        await listed(backend, start_after="\ud800")
    same(await listed(backend), [], "what was written")


@case(Capability.PLAIN_NAMES)
async def a_name_that_would_be_rewritten_is_refused(backend: Backend) -> None:
    for path in UNPLAIN:
        for call in (backend.write(path, b"x"), backend.stat(path)):
            with refused(Invalid, "path", what=f"a call of {path!r}"):
                await call
    same(await listed(backend), [], "all there is")


@case(Capability.PATH_CONFLICT)
async def a_path_below_a_path_is_a_conflict(backend: Backend) -> None:
    await backend.write("a/b", b"1")
    for path in ("a/b/c", "a/b/c/d", "a"):
        for call in (backend.write(path, b"x"), backend.write_stream(path, pieces(b"x"))):
            with refused(Conflict, "path", what=f"a write of {path} beside a/b"):
                await call
    same(await backend.read("a/b"), b"1", "what was there before")
    same(await listed(backend), ["a/b"], "all there is")
    await backend.delete("a/b")
    await backend.write("a/b/c", b"2")
    same(await backend.read("a/b/c"), b"2", "what took the place of a/b")
