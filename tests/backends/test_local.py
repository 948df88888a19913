"""The backend in a directory: what only a directory can bring about. What all backends do is in test_conformance.py."""

import asyncio
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from ostraka.backends import Backend, LocalBackend, from_config
from ostraka.backends.paths import RESERVED
from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Full,
    Invalid,
    OstrakaError,
    PreconditionFailed,
    Refused,
    Unavailable,
)
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.tree import Directory, TreeFile


async def paths_of(backend: Backend, prefix: str = "", start_after: str = "") -> list[str]:
    return [path async for path in backend.list(prefix, start_after=start_after)]


def staged_in(root: Path) -> list[Path]:
    return [p for part in ("writes", "uploads") for p in (root / RESERVED / part).iterdir()]


# -- ETags


def in_place(file: Path) -> None:
    with file.open("r+b") as f:
        f.write(b"X")


def in_place_with_its_old_time(file: Path) -> None:
    before = file.stat()
    in_place(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_file_with_its_old_time(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"X" * file.stat().st_size)
    shutil.copystat(file, other)
    other.rename(file)


def appended(file: Path) -> None:
    with file.open("ab") as f:
        f.write(b"more")


@pytest.mark.parametrize("edit", [in_place, in_place_with_its_old_time, another_file_with_its_old_time, appended])
def test_what_other_programs_change_has_another_etag(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            etag = await backend.write("a/b", b"bytes")
            edit(backend.full_path("a/b"))
            stat = await backend.stat("a/b")
            assert stat is not None
            assert stat.etag != etag
            with pytest.raises(PreconditionFailed):
                await backend.write_if("a/b", b"mine", match=etag)
            await backend.write_if("a/b", b"mine", match=stat.etag)

    asyncio.run(main())


class CoarseFile(TreeFile):
    """A file system that keeps whole seconds, of a kernel that does not tell when a file was changed."""

    def status(self):  # type: ignore[no-untyped-def]
        return super().status()._replace(changed=0)

    def set_modified(self, nanoseconds: int) -> None:
        super().set_modified(nanoseconds // 10**9 * 10**9)


class CoarseDirectory(Directory):
    def _opened(self, fd: int) -> TreeFile:
        return CoarseFile(fd, Path())

    def status(self, name: str):  # type: ignore[no-untyped-def]
        status = super().status(name)
        return status and status._replace(changed=0)


class StoppedClock:
    """Stands, and now and then goes back."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return 0.0


def test_etags_differ_though_times_are_coarse_and_the_clock_stands_or_goes_back(tmp_path: Path) -> None:
    async def main() -> None:
        clock = StoppedClock()
        async with LocalBackend(tmp_path, host=Host(clock=clock), open_root=CoarseDirectory.at) as backend:
            seen = []
            for turn in range(30):
                seen.append(await backend.write("a", b"equal"))
                if turn % 3 == 0:
                    await backend.delete("a")
                if turn == 15:
                    clock.now -= 3600
            assert len(set(seen)) == len(seen)
        async with LocalBackend(tmp_path, host=Host(clock=clock), open_root=CoarseDirectory.at) as later:
            assert await later.write("a", b"equal") not in seen

    asyncio.run(main())


def test_a_clock_that_was_far_ahead_once_does_not_date_files_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        clock = StoppedClock()
        async with LocalBackend(tmp_path, host=Host(clock=clock)) as backend:
            clock.now += 10 * 365 * 86400
            first = await backend.write("a", b"equal")
            clock.now = time.time()
            assert await backend.write("a", b"equal") != first
            stat = await backend.stat("a")
            assert stat is not None
            assert abs(stat.modified - clock.now) < 1

    asyncio.run(main())


# -- what stands in the way


def test_links_are_never_followed_listed_or_replaced(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "inside/kept").write_bytes(b"kept")
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to("inside")
    (root / "file").symlink_to(outside / "secret")
    (root / "loop").symlink_to(".")

    async def main() -> None:
        async with LocalBackend(root) as backend:
            assert await paths_of(backend) == ["inside/kept"]
            assert [d async for d in backend.list_directories()] == ["inside"]
            for path in ("out/secret", "in/kept", "file", "loop/inside/kept"):
                for call in (backend.read, backend.stat, backend.delete):
                    with pytest.raises(Forbidden):
                        await call(path)
                with pytest.raises(Forbidden):
                    await backend.write(path, b"x")
                with pytest.raises(Forbidden):
                    await backend.copy("inside/kept", path)
            with pytest.raises(Forbidden):
                await paths_of(backend, "out/")
            assert [f.path for f in await backend.delete_batch(["out/secret", "inside/kept"])] == ["out/secret"]

    asyncio.run(main())
    assert (outside / "secret").read_bytes() == b"secret"
    assert (root / "file").is_symlink()


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    async def main() -> None:
        async with LocalBackend(tmp_path / "link") as backend:
            await backend.write("a", b"x")
        assert (tmp_path / "real/a").read_bytes() == b"x"

    asyncio.run(main())


def test_pipes_and_names_that_are_no_paths_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (b"not-\xff-text", b"line\nbreak"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    (tmp_path / "plain").write_bytes(b"x")

    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            for call in (backend.read, backend.stat, backend.delete):
                with pytest.raises(Forbidden):
                    await call("pipe")
            with pytest.raises(Forbidden):
                await backend.write("pipe", b"x")
            assert await paths_of(backend) == ["plain"]
            assert await backend.remove_directory("pipe")

    asyncio.run(main())
    assert (tmp_path / "pipe").is_fifo()


def test_an_empty_directory_is_in_the_way_of_a_path_until_it_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            await backend.write("a/b/c", b"x")
            await backend.delete("a/b/c")
            assert (tmp_path / "a/b").is_dir()
            with pytest.raises(Conflict) as conflict:
                await backend.write("a", b"x")
            assert conflict.value.reason == "path"
            assert await backend.remove_directory("a")
            await backend.write("a", b"x")
        assert staged_in(tmp_path) == []

    asyncio.run(main())


class FoldingDirectory(Directory):
    """As on file systems for which names that differ in case are one."""

    def status(self, name: str):  # type: ignore[no-untyped-def]
        return super().status(name.lower())


def test_a_file_system_that_takes_two_names_for_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path, open_root=FoldingDirectory.at) as backend:
            with pytest.raises(Refused, match="letter case"):
                await backend.write("a", b"x")

    asyncio.run(main())


# -- the root


def test_the_root_is_made_when_it_may_be_and_missed_when_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        root = tmp_path / "not/yet"
        async with LocalBackend(root, create=False) as backend:
            with pytest.raises(Unavailable, match="not there"):
                await backend.write("a", b"x")
            assert not root.exists()
        async with LocalBackend(root) as backend:
            assert await paths_of(backend) == []
            await backend.write("a", b"x")
            root.rename(tmp_path / "away")
            for gone in (False, True):  # nothing is there; then another directory is, as where a disk was unmounted
                if gone:
                    root.mkdir()
                for call in (backend.read, backend.stat, backend.delete):
                    with pytest.raises(Unavailable):
                        await call("a")
                with pytest.raises(Unavailable):
                    await paths_of(backend)
                with pytest.raises(Unavailable):
                    await backend.write("a", b"y")
            root.rmdir()
            (tmp_path / "away").rename(root)
            assert await backend.read("a") == b"x"
        (tmp_path / "file").write_bytes(b"")
        async with LocalBackend(tmp_path / "file") as backend:
            with pytest.raises(Invalid, match="no directory"):
                await backend.stat("a")

    asyncio.run(main())


def test_another_process_makes_it_from_its_configuration(tmp_path: Path) -> None:
    async def write() -> str:
        async with LocalBackend(tmp_path) as backend:
            await backend.write("a/b", b"from one process to another")
            return json.dumps(backend.to_config())

    program = """
import asyncio, json, sys
from ostraka.backends import from_config
async def main():
    async with from_config(json.loads(sys.argv[1])) as backend:
        print((await backend.read("a/b")).decode(), end="")
asyncio.run(main())
"""
    config = asyncio.run(write())
    done = subprocess.run([sys.executable, "-c", program, config], capture_output=True, text=True, check=True)
    assert done.stdout == "from one process to another"
    for bad in ({"root": "relative"}, {"root": 1}, {}, {"root": "/x", "more": 1}):
        with pytest.raises(Invalid, match="local"):
            from_config({"type": "local", **bad})


# -- listing


def test_a_directory_of_more_names_than_are_held_is_listed_in_several_readings(tmp_path: Path) -> None:
    limits = replace(LIMITS, local_names_held_max=7, local_batch_max=16)

    async def main() -> None:
        async with LocalBackend(tmp_path, limits=limits) as backend:
            paths = sorted(
                f"{d}{n:02d}{tail}" for d in ("", "a/", "a-", "b/c/") for n in range(40) for tail in ("", "x/y")
            )
            for path in paths:
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).touch()
            assert await paths_of(backend) == paths
            assert await paths_of(backend, "a", "a/20") == [p for p in paths if p.startswith("a") and p > "a/20"]
            directories = [d async for d in backend.list_directories("a/")]
            assert directories == [f"a/{n:02d}x" for n in range(40)]

    asyncio.run(main())


def test_a_list_that_is_left_gives_its_directories_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            for n in range(200):
                (tmp_path / f"a/b{n}").mkdir(parents=True)
                (tmp_path / f"a/b{n}/c").touch()
            await backend.stat("a")
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                listing = backend.list("a/")
                await anext(listing)
                await listing.aclose()  # type: ignore[attr-defined]
        for thread in [t for t in threading.enumerate() if t.name.startswith("ostraka-local")]:
            thread.join()
        assert len(os.listdir("/proc/self/fd")) <= before

    asyncio.run(main())


def test_a_batch_over_many_directories_holds_few_of_them_open(tmp_path: Path) -> None:
    async def main() -> None:
        paths = [f"{n}/file" for n in range(1000)]
        for path in paths:
            (tmp_path / path).parent.mkdir()
            (tmp_path / path).touch()
        async with LocalBackend(tmp_path) as backend:
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, before[1]))
            try:
                assert await backend.delete_batch(paths) == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert await paths_of(backend) == []

    asyncio.run(main())


# -- cancellation


class WatchedDirectory(Directory):
    """Tells when a rename begins, and waits there until it may go on."""

    reached = threading.Event()
    go_on = threading.Event()

    def rename(self, name: str, target: Directory, new: str) -> None:
        self.reached.set()
        assert self.go_on.wait(60)
        super().rename(name, target, new)


def test_who_is_cancelled_while_it_is_published_finds_it_published(tmp_path: Path) -> None:
    WatchedDirectory.reached.clear()
    WatchedDirectory.go_on.clear()

    async def main() -> None:
        async with LocalBackend(tmp_path, open_root=WatchedDirectory.at) as backend:
            task = asyncio.create_task(backend.write("a", b"x"))
            await asyncio.to_thread(WatchedDirectory.reached.wait, 60)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=0.05)
            assert not done
            WatchedDirectory.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await backend.read("a") == b"x"

    asyncio.run(main())


def test_who_is_cancelled_before_leaves_nothing_and_is_not_overtaken_by_it(tmp_path: Path) -> None:
    WatchedDirectory.go_on.set()

    async def main() -> None:
        async with LocalBackend(tmp_path) as backend, LocalBackend(tmp_path, open_root=WatchedDirectory.at) as other:
            await backend.write("a", b"before")
            WatchedDirectory.reached.clear()
            WatchedDirectory.go_on.clear()
            holder = asyncio.create_task(other.write("a", b"holder"))  # holds the lock of the path
            await asyncio.to_thread(WatchedDirectory.reached.wait, 60)
            task = asyncio.create_task(backend.write("a", b"cancelled"))
            while len(staged_in(tmp_path)) < 2:  # noqa: ASYNC110 - it is staged, and then waits for the lock
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            WatchedDirectory.go_on.set()
            await holder
            await backend.write("b", b"after")
        for thread in [t for t in threading.enumerate() if t.name.startswith("ostraka-local")]:
            thread.join()
        assert (tmp_path / "a").read_bytes() == b"holder"
        assert staged_in(tmp_path) == []

    asyncio.run(main())


# -- directories that go


class BusyDirectory(Directory):
    """Somebody removes the empty directory between its making and the rename into it, a few times."""

    times = 0

    def rename(self, name: str, target: Directory, new: str) -> None:
        if BusyDirectory.times:
            BusyDirectory.times -= 1
            with Directory.at(self.root) as root:
                root.remove("a")
        super().rename(name, target, new)

    root = Path()


def test_a_directory_that_is_removed_under_a_writer_is_made_again(tmp_path: Path) -> None:
    BusyDirectory.root, BusyDirectory.times = tmp_path, 3  # once more, and it is taken for malice

    async def main() -> None:
        async with LocalBackend(tmp_path, open_root=BusyDirectory.at) as backend:
            await backend.write("a/b", b"x")
            assert await backend.read("a/b") == b"x"
        assert BusyDirectory.times == 0

    asyncio.run(main())


def test_writers_and_removers_of_one_directory_lose_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as one, LocalBackend(tmp_path) as two:
            over = False

            async def remove() -> None:
                while not over:
                    await two.remove_directory("a")

            remover = asyncio.create_task(remove())
            for n in range(30):
                await one.write(f"a/b/{n}", b"x")
                assert await two.read(f"a/b/{n}") == b"x"
                await one.delete(f"a/b/{n}")
            over = True
            await remover

    asyncio.run(main())


# -- the machine says no


class FailingDirectory(Directory):
    failing: ClassVar[dict[str, int]] = {}

    def _opened(self, fd: int) -> TreeFile:
        return FailingFile(fd, Path())

    def sync(self) -> None:
        check("sync-directory")
        super().sync()

    def unlink(self, name: str) -> None:
        check("unlink")
        super().unlink(name)


class FailingFile(TreeFile):
    def pwritev(self, buffers, offset: int) -> None:  # type: ignore[no-untyped-def]
        check("write")
        super().pwritev(buffers, offset)

    def sync_data(self) -> None:
        check("sync")
        super().sync_data()

    def preadv(self, buffers, offset: int) -> int:  # type: ignore[no-untyped-def]
        check("read")
        return super().preadv(buffers, offset)

    def pread(self, size: int, offset: int) -> bytes:
        check("read")
        return super().pread(size, offset)


def check(what: str) -> None:
    number = FailingDirectory.failing.get(what)
    if number:
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("what", "number", "kind", "reason"),
    [
        ("write", errno.ENOSPC, Full, "disk"),
        ("write", errno.EDQUOT, Full, "disk"),
        ("write", errno.EIO, Unavailable, "service"),
        ("sync", errno.EIO, Unavailable, "service"),
        ("sync", errno.EROFS, Forbidden, "access"),
    ],
)
def test_a_write_that_the_disk_refuses_changes_nothing(
    tmp_path: Path, what: str, number: int, kind: type[OstrakaError], reason: str
) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1_000_000

    async def main() -> None:
        FailingDirectory.failing = {}
        async with LocalBackend(tmp_path, open_root=FailingDirectory.at) as backend:
            etag = await backend.write("a", b"before")
            calls = [
                lambda: backend.write("a", b"after"),
                lambda: backend.write_stream("a", source()),
                lambda: backend.write_if("a", b"after", match=etag),
            ]
            for call in calls:
                FailingDirectory.failing = {what: number}
                with pytest.raises(kind) as error:
                    await call()
                assert error.value.reason == reason
                assert "a:" in str(error.value)
                FailingDirectory.failing = {}
                assert await backend.read("a") == b"before"
        for thread in [t for t in threading.enumerate() if t.name.startswith("ostraka-local")]:
            thread.join()
        assert staged_in(tmp_path) == []

    asyncio.run(main())


def test_a_condition_that_held_and_may_not_last_is_unknown(tmp_path: Path) -> None:
    async def main() -> None:
        FailingDirectory.failing = {}
        async with LocalBackend(tmp_path, open_root=FailingDirectory.at) as backend:
            etag = await backend.write("a", b"before")
            FailingDirectory.failing = {"sync-directory": errno.EIO}
            with pytest.raises(Unavailable) as error:
                await backend.write_if("a", b"after", match=etag)
            assert error.value.reason == "unknown"
            with pytest.raises(Unavailable) as error:
                await backend.write("a", b"after")
            assert error.value.reason == "service"
            failures = await backend.delete_batch(["a", "b/c"])
            assert [(f.path, type(f.error)) for f in failures] == [("a", Unavailable)]

    asyncio.run(main())


def test_a_disk_that_fails_while_it_is_read_is_not_absent(tmp_path: Path) -> None:
    async def main() -> None:
        FailingDirectory.failing = {}
        async with LocalBackend(tmp_path, open_root=FailingDirectory.at) as backend:
            await backend.write("a", b"x" * 3_000_000)
            FailingDirectory.failing = {"read": errno.EIO}
            with pytest.raises(Unavailable):
                await backend.read("a")
            with pytest.raises(Absent):
                await backend.read("b")
            FailingDirectory.failing = {}
            got = 0
            with pytest.raises(Unavailable):
                async with backend.open("a") as reading:
                    async for piece in reading.pieces:
                        got += len(piece)
                        FailingDirectory.failing = {"read": errno.EIO}
            assert got in (1 << 20, 2 << 20)  # one piece was read ahead, perhaps, before it failed

    asyncio.run(main())


def test_a_file_that_is_changed_in_place_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            await backend.write("a", b"x" * 4_000_000)
            with pytest.raises(PreconditionFailed):
                async with backend.open("a") as reading:
                    async for _ in reading.pieces:
                        in_place(tmp_path / "a")

    asyncio.run(main())


# -- what writers leave behind


def test_what_killed_writers_left_is_swept_and_what_living_ones_use_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as backend:
            await backend.write("a", b"x")
            (tmp_path / RESERVED / "writes" / "of-a-killed-writer").write_bytes(b"half of it")
            waiting, go_on = asyncio.Event(), asyncio.Event()

            async def source() -> AsyncIterator[bytes]:
                yield b"x" * 1_000_000
                waiting.set()
                await go_on.wait()

            living = asyncio.create_task(backend.write_stream("b", source()))
            await waiting.wait()
            assert await backend.sweep(3600.0) == 0
            assert await backend.sweep(0.0) == 1
            go_on.set()
            await living
            (tmp_path / RESERVED / "writes" / "of-another").write_bytes(b"half of it")
        async with LocalBackend(tmp_path) as again:
            await again.write("c", b"x")
            assert staged_in(tmp_path) == []
            assert await paths_of(again) == ["a", "b", "c"]

    asyncio.run(main())


def test_two_who_append_to_one_upload_do_not_mix(tmp_path: Path) -> None:
    async def main() -> None:
        async with LocalBackend(tmp_path) as one, LocalBackend(tmp_path) as two:
            waiting, go_on = asyncio.Event(), asyncio.Event()

            async def source() -> AsyncIterator[bytes]:
                yield b"x"
                waiting.set()
                await go_on.wait()

            async def at_once() -> AsyncIterator[bytes]:
                yield b"y"

            first = asyncio.create_task(one.append("a", "t", 0, source()))
            await waiting.wait()
            for call in (two.append("a", "t", 0, at_once()), two.promote("a", "t", size=0, sha256="")):
                with pytest.raises(Conflict):
                    await call
            go_on.set()
            assert await first == 1
            assert await two.append("a", "t", 1, at_once()) == 2

    asyncio.run(main())


def test_modes_are_those_that_the_umask_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        before = os.umask(0o027)
        try:
            async with LocalBackend(tmp_path / "root") as backend:
                await backend.write("a/b", b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "root/a/b").stat().st_mode & 0o777 == 0o640
        assert (tmp_path / "root/a").stat().st_mode & 0o777 == 0o750

    asyncio.run(main())


def test_memory_does_not_grow_with_what_passes(tmp_path: Path) -> None:
    """A file of 128 MiB is written, copied and read, and ten thousand are listed, within 64 MiB more than it took to
    begin."""
    program = """
import asyncio, resource, sys
from ostraka.backends import LocalBackend, MeteredBackend, ResilientBackend
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
async def source():
    piece = bytes(4 << 20)
    for _ in range(32):
        yield piece
async def sink(piece):
    pass
async def main():
    async with MeteredBackend(ResilientBackend(LocalBackend(sys.argv[1])), "m") as backend:
        await backend.write("small", bytes(1000))
        before = peak()
        await backend.write_stream("large", source())
        await backend.copy("large", "copy")
        assert (await backend.read_to("large", sink)).size == 128 << 20
        assert len([1 async for _ in backend.list("many/")]) == 10_000
        print(peak() - before)
asyncio.run(main())
"""
    (tmp_path / "many").mkdir()
    for number in range(10_000):
        (tmp_path / f"many/{number:05d}").touch()
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64, f"{done.stdout.strip()} MiB more"
