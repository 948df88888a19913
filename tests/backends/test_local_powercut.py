"""Power cuts on a disk that forgets, tears and reorders what was not synced: all that was acknowledged is there.

The loop has teeth: when the disk ignores one kind of our syncs, something acknowledged gets lost, and the loop sees it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ostraka.backends import LocalBackend
from ostraka.errors import OstrakaError
from ostraka.testing import powercut
from ostraka.testing.powercut import PowerCutDisk

pytestmark = pytest.mark.skipif(bool(powercut.missing()), reason=powercut.missing() or "-")

Kept = dict[str, bytes]
Step = tuple[str, bytes | None, Callable[[LocalBackend], Awaitable[object]]]  # path, what is there then, how


def body(number: int, size: int = 3000) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (size // 32)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def replace(backend: LocalBackend, path: str, data: bytes) -> None:
    stat = await backend.stat(path)
    assert stat is not None
    await backend.write_if(path, data, match=stat.etag)


async def upload(backend: LocalBackend, path: str, data: bytes) -> None:
    await backend.append(path, "t", 0, pieces(data))
    appended.add(backend.root)
    await backend.promote(path, "t", size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def go_on(backend: LocalBackend, path: str, data: bytes) -> None:
    """Finish an upload of these bytes, whatever is left of it: what was synced is as it was given; what was in flight
    when the power went may be anything, and its hash says so."""
    partial = await backend.partial(path, "t")
    done = partial.length if partial else 0
    if partial and hashlib.sha256(data[:done]).hexdigest() != partial.sha256:
        assert backend.root not in appended, "an acknowledged part of an upload is another than was given"
        await backend.abandon(path, "t")
        done = 0
    if partial and backend.root in appended:
        assert done == len(data), "an acknowledged part of an upload is shorter than it was"
    await backend.append(path, "t", done, pieces(data[done:]))
    await backend.promote(path, "t", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert await backend.read(path) == data


appended: set[Path] = set()  # roots in which the upload's bytes were acknowledged

STEPS: list[Step] = [
    ("a/b/c/first", body(1), lambda b: b.write("a/b/c/first", body(1))),
    ("a/b/c/second", body(2, 70_000), lambda b: b.write_stream("a/b/c/second", pieces(body(2, 70_000)))),
    ("a/b/c/first", body(3), lambda b: b.write("a/b/c/first", body(3))),
    ("a/b/c/first", body(4), lambda b: replace(b, "a/b/c/first", body(4))),
    ("a/x/created", body(5), lambda b: b.write_if("a/x/created", body(5), match=None)),
    ("a/x/copy", body(4), lambda b: b.copy("a/b/c/first", "a/x/copy")),
    ("a/b/c/first", None, lambda b: b.delete("a/b/c/first")),
    ("up/loaded", body(6, 9000), lambda b: upload(b, "up/loaded", body(6, 9000))),
    ("a/b/c/second", None, lambda b: b.delete("a/b/c/second")),
]
BATCH = ["a/x/created", "a/x/copy", "up/loaded"]


async def work(root: Path, kept: Kept, maybe: Kept) -> None:
    """All the steps, until one fails. ``kept``: what was acknowledged; ``maybe``: what was in flight besides."""
    async with LocalBackend(root) as backend:
        try:
            for path, data, step in STEPS:
                maybe[path] = data or b""
                await step(backend)
                del maybe[path]
                if data is None:
                    kept.pop(path)
                else:
                    kept[path] = data
            maybe.update(dict.fromkeys(BATCH, b""))
            if not await backend.delete_batch(BATCH):
                maybe.clear()
                kept.clear()
        except OstrakaError:
            return


async def check(root: Path, kept: Kept, maybe: Kept) -> None:
    async with LocalBackend(root) as backend:
        found = {path: await backend.read(path) async for path in backend.list()}
        for path in {*found, *kept, *maybe}:
            wanted = {kept.get(path, b"")} | ({maybe[path]} if path in maybe else set())
            assert found.get(path, b"") in wanted, f"{path}: {len(found.get(path, b''))} bytes that nobody wrote there"
        if root in appended and list(maybe) == ["up/loaded"] and "up/loaded" not in found:
            assert await backend.partial("up/loaded", "t"), "acknowledged bytes of an upload are gone"
        await go_on(backend, "up/loaded", body(6, 9000))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        yield disk


def cut_once(disk: PowerCutDisk, number: int, seed: int, after: int | None, *, forget_all: bool = False) -> None:
    root = disk.path / f"root{number}"
    kept: Kept = {}
    maybe: Kept = {}
    if after is not None:
        disk.off_at_sync(after)
    asyncio.run(work(root, kept, maybe))
    disk.cut(seed, forget_all=forget_all)
    asyncio.run(check(root, kept, maybe))


def test_a_cut_at_every_sync_loses_nothing_acknowledged(disk: PowerCutDisk, seed: int) -> None:
    before = disk.syncs()
    asyncio.run(work(disk.path / "counted", {}, {}))
    syncs = disk.syncs() - before
    assert syncs > 20
    for after in range(syncs + 1):
        cut_once(disk, after, seed + after, after, forget_all=after % 2 == 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_cuts_at_every_sync(disk: PowerCutDisk, seed: int) -> None:
    for turn in range(20 * 30):
        cut_once(disk, turn, seed + turn, turn % 30, forget_all=turn % 5 == 0)


@pytest.mark.parametrize(
    "ignored", ["fdatasync:*/writes/*", "fsyncdir:*/a/b/c", "fsyncdir:*/a", "fsyncdir:*/root0", "fsyncdir:/"]
)
def test_each_kind_of_sync_is_missed_when_the_disk_ignores_it(disk: PowerCutDisk, ignored: str) -> None:
    disk.ignore_syncs(ignored)
    kept: Kept = {}
    asyncio.run(work_first(disk.path / "root0", kept))
    disk.cut(1, forget_all=True)
    with pytest.raises((AssertionError, OstrakaError)):
        asyncio.run(check(disk.path / "root0", kept, {}))


async def work_first(root: Path, kept: Kept) -> None:
    async with LocalBackend(root) as backend:
        for path, data, step in STEPS[:2]:
            await step(backend)
            kept[path] = data or b""


def test_a_full_disk_says_so_and_keeps_what_was_there(disk: PowerCutDisk) -> None:
    async def main() -> None:
        async with LocalBackend(disk.path / "root") as backend:
            await backend.write("a", b"before")
            disk.limit_space(2_000_000)
            for _ in range(2):
                with pytest.raises(OstrakaError) as error:
                    await backend.write_stream("a", pieces(*[b"x" * 1_000_000] * 3))
                assert (type(error.value).__name__, error.value.reason) == ("Full", "disk")
                assert await backend.read("a") == b"before"
            disk.heal()
            await backend.write("a", b"after")

    asyncio.run(main())
