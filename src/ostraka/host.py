"""What the machine gives: time, randomness and files, behind seams (law 12).

Production code takes a ``Host`` and never calls ``time``, ``os.urandom`` or ``os.open`` itself, so that a test
or a simulator can replace all of them. Network and threads have their own seams (http/, executors).
Only system calls live here; it knows nothing of records or stores.
"""

import contextlib
import fcntl
import mmap
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from ostraka.errors import InUse

Buffer = bytes | bytearray | memoryview


class File(Protocol):
    """An open file. All offsets and sizes are bytes. Errors are OSError, as the kernel gave them."""

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        """Read into the buffers in order; returns the bytes read, short only at the end of the file."""
        ...

    def preadv_now(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int | None:
        """As preadv, but only what the page cache holds: fewer bytes, or None, if the rest would have to wait."""
        ...

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all of the buffers at offset (a short write is continued)."""
        ...

    def sync_data(self) -> None:
        """fdatasync: contents and size are on stable storage when it returns. Never retried (ENGINE 23)."""
        ...

    def size(self) -> int: ...

    def close(self) -> None: ...


class Files(Protocol):
    """A file system. Paths are absolute."""

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        """Open; ``create`` demands that it is new; ``direct`` bypasses the page cache where that is possible."""
        ...

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Replace path atomically and durably: private staging name, sync, rename, directory sync (law 9)."""
        ...

    def read(self, path: Path) -> bytes: ...

    def rename(self, old: Path, new: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all that is in it, or a file."""
        ...

    def exists(self, path: Path) -> bool:
        """Whether something is there. Never raises: what cannot be asked is not there."""
        ...

    def mkdir(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None: ...

    def names(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        ...

    def free(self, path: Path) -> tuple[int, int]:
        """(free bytes for us, total bytes) of the file system that holds path."""
        ...

    def device(self, path: Path) -> int:
        """The device number, to see that two directories share one."""
        ...

    def shared(self, path: Path, size: int, *, create: bool = False) -> memoryview:
        """Memory that all who open path share, for counters; ``create`` makes it anew, all zeros. Never synced."""
        ...

    def lock(self, path: Path, *, wait: bool = False) -> contextlib.AbstractContextManager[None]:
        """Hold an exclusive lock on path (created if absent, our pid written in it); unless it may ``wait``,
        InUse names the holder."""
        ...


class Clock(Protocol):
    """Wall time is for people (LastModified, logs); intervals and deadlines use monotonic time."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemFile:
    """A file by its descriptor."""

    __slots__ = ("_fd", "fileno_path")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.fileno_path = path

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        return os.preadv(self._fd, buffers, offset)

    def preadv_now(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int | None:
        try:
            return os.preadv(self._fd, buffers, offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not cached; EOPNOTSUPP: this file system cannot say; a real error shows in preadv
            return None

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        total = sum(len(b) for b in buffers)
        done = os.pwritev(self._fd, buffers, offset)
        while done < total:  # a signal or a quota cut it short: continue where it stopped
            rest, skip = [], done
            for b in buffers:
                if skip >= len(b):
                    skip -= len(b)
                else:
                    rest.append(memoryview(b)[skip:])
                    skip = 0
            done += os.pwritev(self._fd, rest, offset + done)

    def sync_data(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SystemFiles:
    """The real file system."""

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        if direct:
            # some file systems (tmpfs) refuse O_DIRECT with EINVAL: buffered is as correct there
            with contextlib.suppress(OSError):
                return self.opened(os.open(path, flags | os.O_DIRECT, 0o600), path)
            if create:  # an EINVAL can come after the file was made
                flags &= ~os.O_EXCL
        return self.opened(os.open(path, flags, 0o600), path)

    def opened(self, fd: int, path: Path) -> File:
        """The file behind a descriptor; where a subclass puts its own kind of file."""
        return SystemFile(fd, path)

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        staging = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        file = self.opened(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), staging)
        try:
            file.pwritev([content], 0)
            file.sync_data()
            os.rename(staging, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staging)
            raise
        finally:
            file.close()
        self.sync_directory(path.parent)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def remove_tree(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def exists(self, path: Path) -> bool:
        return os.path.exists(path)

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))

    def free(self, path: Path) -> tuple[int, int]:
        s = os.statvfs(path)
        return s.f_bavail * s.f_frsize, s.f_blocks * s.f_frsize

    def device(self, path: Path) -> int:
        return os.stat(path).st_dev

    def shared(self, path: Path, size: int, *, create: bool = False) -> memoryview:
        if create:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.posix_fallocate(fd, 0, size)  # a hole without room behind it would be SIGBUS
            return memoryview(mmap.mmap(fd, size))
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def lock(self, path: Path, *, wait: bool = False) -> Iterator[None]:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise InUse(
                    f"{path.parent} is in use by process {holder}; stop it, or talk to it through its endpoint"
                ) from None
            with contextlib.suppress(OSError):  # on a full disk: only the message for the next one lacks it
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)


class SystemClock:
    """The machine's clocks; the calls themselves, for they are asked several times in each request."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def boot_id() -> str:
    """The kernel's id of this boot: what was not synced under another boot is not to be trusted (ENGINE 14).

    ``OSTRAKA_TEST_BOOT_ID`` stands in for it where a test simulates a power cut.
    """
    return os.environ.get("OSTRAKA_TEST_BOOT_ID") or Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Mount(NamedTuple):
    """What the kernel says of a mount. ``options``: of the mount and of its file system, as words."""

    kind: str  # "ext4", "xfs", "fuse.x"; "" where the kernel does not tell
    options: frozenset[str] = frozenset()


def mount_of(path: Path) -> Mount:
    """The mount that holds path. Raises OSError when there is no such path."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = line.split(" ")
            if fields[2] == wanted:
                after = fields.index("-")
                return Mount(fields[after + 1], frozenset(f"{fields[5]},{fields[after + 3]}".split(",")))
    return Mount("")


def file_system_of(path: Path) -> str:
    """The kind of file system that holds path ("ext4", "xfs", "fuse.x"), or "" where the kernel does not tell."""
    return mount_of(path).kind


class Host:
    """The seams that the rooms share, bundled: files, clock, randomness, boot id."""

    __slots__ = ("boot_id", "clock", "files")

    def __init__(self, files: Files | None = None, clock: Clock | None = None, boot: str | None = None) -> None:
        self.files: Files = files or SystemFiles()
        self.clock: Clock = clock or SystemClock()
        self.boot_id = boot or boot_id()

    def random(self, size: int) -> bytes:
        """``size`` unpredictable bytes."""
        return os.urandom(size)
