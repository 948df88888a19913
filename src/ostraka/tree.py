"""A directory tree that is entered from its root name by name, and never through a symbolic link.

The seam (law 12) for those whose names come from outside: every call takes one name in one open directory, so that no
name leads out of the tree, whatever somebody moves or links meanwhile. Only system calls live here; errors are OSError
as the kernel gave them, and a link on the way is ELOOP. A test or a simulator gives a ``Directory`` of its own.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from ostraka.host import SystemFile

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_NOWHERE = Path()  # files are named within their directory only
_COPY_BYTES_MAX = 1 << 30  # asked of the kernel in one call


class Status(NamedTuple):
    """What the file system says of a name or of an open file. Times are nanoseconds since 1970."""

    kind: str  # "file", "directory", "link", "other"
    size: int
    modified: int
    changed: int  # of contents or attributes, told by the kernel alone
    identity: tuple[int, int]  # device and inode: while one holds it open, nothing else has the same
    linked: bool  # whether any name leads to it still


_KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def _status(s: os.stat_result) -> Status:
    kind = _KINDS.get(stat.S_IFMT(s.st_mode), "other")
    return Status(kind, s.st_size, s.st_mtime_ns, s.st_ctime_ns, (s.st_dev, s.st_ino), s.st_nlink > 0)


class TreeFile(SystemFile):
    """A file of the tree; beyond reading and writing it can be locked, dated and copied into."""

    __slots__ = ()

    def status(self) -> Status:
        return _status(os.fstat(self._fd))

    def pread(self, size: int, offset: int) -> bytes:
        """Those bytes, fewer only at the end of the file; without the copy that reading into a buffer would need."""
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        pieces = [data]  # the kernel gives at most 2 GiB at once
        done = len(data)
        while done < size and (more := os.pread(self._fd, size - done, offset + done)):
            pieces.append(more)
            done += len(more)
        return b"".join(pieces)

    def set_modified(self, nanoseconds: int) -> None:
        os.utime(self._fd, ns=(nanoseconds, nanoseconds))

    def lock(self, *, wait: bool = True) -> bool:
        """Exclusive among all who open it, until it is closed or its process ends; False if it is taken and we do not
        wait."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def copy_from(self, other: Self) -> int:
        """Become what the other file holds, by the kernel alone; how many bytes."""
        done = 0
        copy = _copy_range
        while True:
            try:
                size = copy(other._fd, self._fd, done)
            except OSError as error:
                if copy is _send or error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
                copy = _send  # not every file system shares blocks or copies by itself
                continue
            if not size:
                return done
            done += size


def _copy_range(source: int, target: int, offset: int) -> int:
    return os.copy_file_range(source, target, _COPY_BYTES_MAX, offset, offset)


def _send(source: int, target: int, offset: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, offset, _COPY_BYTES_MAX)


class Directory:
    """An open directory. To be closed by whoever got it; a context closes it at its end."""

    __slots__ = ("_fd", "_identity")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity: tuple[int, int] | None = None

    @classmethod
    def at(cls, root: Path) -> Self:
        """The root of a tree; links on the way to it are followed."""
        return cls(os.open(root, _DIRECTORY & ~os.O_NOFOLLOW))

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode: as long as it is open, no other directory has the same."""
        if self._identity is None:
            self._identity = _status(os.fstat(self._fd)).identity
        return self._identity

    def enter(self, name: str) -> Self:
        """The directory of that name in this one. ENOENT if it is absent, ENOTDIR if it is none, ELOOP for a link."""
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
        except NotADirectoryError:
            if (found := self.status(name)) is not None and found.kind == "link":
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
            raise
        return type(self)(fd)

    def again(self) -> Self:
        """The same directory, open once more."""
        return type(self)(os.dup(self._fd))

    def make(self, name: str) -> None:
        """Make a directory, unless something of that name is there."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._fd)

    def create(self, name: str) -> TreeFile:
        """A new file, for reading and writing; EEXIST if there is one."""
        return self._opened(os.open(name, _NEW, 0o666, dir_fd=self._fd))

    def open(self, name: str, *, write: bool = False) -> TreeFile:
        """A file that is there. Never waits for who reads or writes a pipe."""
        return self._opened(os.open(name, _WRITE if write else _READ, dir_fd=self._fd))

    def _opened(self, fd: int) -> TreeFile:
        """Where a subclass puts its own kind of file."""
        return TreeFile(fd, _NOWHERE)

    def status(self, name: str) -> Status | None:
        """What is at the name itself, of a link the link; None if nothing is."""
        try:
            return _status(os.stat(name, dir_fd=self._fd, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def entries(self) -> Iterator[tuple[str, str]]:
        """(name, kind) of all that is in it, in no order. Bytes that are no UTF-8 are surrogates, as in os.fsdecode."""
        with os.scandir(self._fd) as found:
            for entry in found:
                if entry.is_symlink():
                    yield entry.name, "link"
                elif entry.is_dir(follow_symlinks=False):
                    yield entry.name, "directory"
                else:
                    yield entry.name, "file" if entry.is_file(follow_symlinks=False) else "other"

    def rename(self, name: str, target: Self, new: str) -> None:
        """Give it another name, in place of what is there."""
        os.rename(name, new, src_dir_fd=self._fd, dst_dir_fd=target._fd)

    def unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY if it is not."""
        os.rmdir(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Its names are on stable storage when this returns."""
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
