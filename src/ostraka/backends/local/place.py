"""The root of a local backend and the ways into it: directories entered by name, links never followed (tree.py).

What stands at a path is a regular file or nothing. A link, pipe or device there is Forbidden, not absent: it is not
ours to read, replace or delete. A directory is nothing, to who reads, and a Conflict to who writes.

The root is made by the first call, if it may be. From then on it must be the same directory: where it has gone, or
another stands in its place (a disk that is not mounted any more), everything is Unavailable rather than absent.
"""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostraka.backends.backend import Stat
from ostraka.errors import Absent, Conflict, Forbidden, Full, Invalid, OstrakaError, Refused, Unavailable
from ostraka.host import Files
from ostraka.tree import Directory, Status, TreeFile

Opening = Callable[[Path], Directory]


def etag_of(status: Status) -> str:
    """Different after every write, whoever wrote.

    Our own writes give each file a modification time that its path never had before (staging.py), which also lasts
    where inode numbers do not. The time of change is the kernel's: another program that writes into the file, or puts
    its own in its place, cannot keep it, though it sets the modification time back (``cp -p``, ``rsync --inplace -t``).
    """
    return f"{status.modified:x}-{status.changed:x}-{status.size:x}"


def stat_of(status: Status) -> Stat:
    return Stat(status.size, status.modified / 1e9, etag_of(status))


@contextmanager
def translated(path: str) -> Iterator[None]:
    """OSError from the block becomes one of ours."""
    try:
        yield
    except OSError as error:
        raise error_of(error, path) from error


def error_of(error: OSError, path: str) -> OstrakaError:
    """What an error of the kernel is to the caller."""
    said = f"{path}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Full(said, reason="disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Forbidden(said, reason="access")
    if error.errno == errno.ELOOP:
        return Forbidden(f"{path}: a symbolic link is on the way, and none is followed", reason="access")
    if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
        return Invalid(f"{path}: this file system has no such name ({error.strerror})", reason="path")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return Conflict(f"{path}: a file stands where a directory should be, or the other way round", reason="path")
    if error.errno == errno.EXDEV:
        return Refused(f"{path}: on another file system than the root; make that a backend of its own", reason="config")
    return Unavailable(said, reason="service")


def check_regular(status: Status | None, path: str) -> Status | None:
    """The status of a file; None for nothing and for a directory; Forbidden for what is neither."""
    if status is None or status.kind == "directory":
        return None
    if status.kind != "file":
        what = "a symbolic link" if status.kind == "link" else "no regular file"
        raise Forbidden(f"{path}: {what} is there, and is left alone", reason="access")
    return status


class Place:
    """The root, and what is in it. Used from threads; its calls raise OSError but for what is said."""

    def __init__(self, root: Path, files: Files, *, create: bool, open_root: Opening = Directory.at) -> None:
        self.root = root
        self.files = files
        self._create = create
        self._open_root = open_root
        self._identity: tuple[int, int] | None = None
        self._mutex = threading.Lock()

    def enter_root(self) -> Directory:
        """Unavailable (reason "service") if it is not there or another one."""
        try:
            here = self._open_root(self.root)
        except FileNotFoundError:
            here = self._made()
        except NotADirectoryError:
            raise Invalid(f"{self.root}: no directory, and so no root of a backend", reason="config") from None
        with self._mutex:
            self._identity = self._identity or here.identity
            if here.identity == self._identity:
                return here
        here.close()
        message = f"{self.root} is another directory than it was: was something mounted there, or unmounted?"
        raise Unavailable(message, reason="service")

    def _made(self) -> Directory:
        with self._mutex:
            if not self._create or self._identity is not None:
                raise Unavailable(f"{self.root} is not there", reason="service")
        missing = [self.root]
        while not missing[-1].parent.exists():
            missing.append(missing[-1].parent)
        self.files.mkdir(self.root)
        for directory in missing:
            self.files.sync_directory(directory.parent)
        return self._open_root(self.root)

    def enter(self, names: list[str]) -> Directory:
        """The directory that these names lead to. ENOENT, ENOTDIR or ELOOP if they lead to none."""
        here = self.enter_root()
        for name in names:
            try:
                below = here.enter(name)
            finally:
                here.close()
            here = below
        return here

    def find(self, path: str) -> Status | None:
        """The status of the file at path; None if there is none. Forbidden for what is no regular file."""
        *names, last = path.split("/")
        try:
            with self.enter(names) as parent:
                return check_regular(parent.status(last), path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, path: str) -> tuple[TreeFile, Status]:
        """The file at path. Absent (reason "path") if there is none."""
        *names, last = path.split("/")
        try:
            with self.enter(names) as parent:
                check_regular(parent.status(last), path)  # a pipe is not even opened
                file = parent.open(last)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Absent(f"{path}: nothing is there", reason="path") from None
        status = file.status()
        if status.kind != "file":
            file.close()
            raise Absent(f"{path}: nothing is there", reason="path")
        return file, status
