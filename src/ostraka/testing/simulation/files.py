"""The files of a simulated process: `ostraka.host.Files` over the disks of its machine.

Every method that a real one would answer by system calls makes the same calls here, one by one, so that the power can
go, the process die, or the disk fail at each of them.
"""

import contextlib
import errno
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostraka.host import Buffer, File
from ostraka.testing.simulation.disk import Disk, Inode, Parts, failure

if TYPE_CHECKING:
    from ostraka.testing.simulation.machine import Process

_TOP = "simulated"
ROOT = f"/{_TOP}"  # disks are mounted below it
_PAGE = 4096
_NOT_CACHED = 0.3  # how often the page cache has not what is read


class SimulatedFile:
    """An open file. It stays readable when its name has gone."""

    __slots__ = ("_closed", "_disk", "_inode", "_process", "path")

    def __init__(self, process: "Process", disk: Disk, inode: Inode, path: str) -> None:
        self._process = process
        self._disk = disk
        self._inode = inode
        self._closed = False
        self.path = path
        disk.hold(inode)
        process.handles[self] = None

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        self._enter("preadv")
        return self._read(buffers, offset)

    def preadv_now(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int | None:
        if self._disk.trouble.gone or self._disk.trouble.hangs or self._process.rng.random() < _NOT_CACHED:
            return None
        return self._read(buffers, offset)

    def _read(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        data = self._disk.bytes_of(self._inode)
        done = 0
        for buffer in buffers:
            view = memoryview(buffer)
            part = data[offset + done : offset + done + len(view)]
            view[: len(part)] = part
            done += len(part)
            if len(part) < len(view):
                break
        rng = self._process.rng
        if self._disk.trouble.flips and done and rng.random() < self._disk.trouble.flips:
            _flip(buffers, rng.randrange(done), rng)
        return done

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(buffers)
        try:
            self._enter("pwritev", len(data))
        except OSError:  # it may come when a part is written
            part = self._process.rng.randrange(len(data) + 1) // _PAGE * _PAGE
            if part and not self._disk.trouble.gone:
                with contextlib.suppress(OSError):
                    self._disk.write(self._inode, data[:part], offset)
            raise
        self._disk.write(self._inode, data, offset)

    def sync_data(self) -> None:
        rng = self._process.rng
        try:
            self._enter("sync_data")
        except OSError:
            self._disk.drop_pages(self._inode, rng)
            raise
        if not self._disk.lies_now(rng):
            self._disk.sync(self._inode)

    def size(self) -> int:
        self._enter("fstat")
        return len(self._disk.bytes_of(self._inode))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._process.handles.pop(self, self) is None:
                self._disk.release(self._inode)

    def _enter(self, call: str, size: int = 0) -> None:
        if self._closed:
            raise failure(errno.EBADF, self.path)
        self._process.enter(call, self._disk, self.path, size)


def _flip(buffers: Sequence[bytearray | memoryview], at: int, rng: random.Random) -> None:
    for buffer in buffers:
        if at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
            return
        at -= len(buffer)


class SimulatedFiles:
    """The file systems of a machine, as one process uses them."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def _at(self, path: Path) -> tuple[Disk, Parts]:
        parts = str(path).split("/")
        disk = self._process.machine.disks.get(parts[2]) if len(parts) > 2 and parts[1] == _TOP else None
        if disk is None:
            raise failure(errno.ENOENT, path)
        return disk, parts[3:]

    def _enter(self, call: str, path: Path) -> tuple[Disk, Parts]:
        disk, parts = self._at(path)
        self._process.enter(call, disk, str(path))
        return disk, parts

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        disk, parts = self._enter("open", path)
        inode = disk.create(parts) if create else disk.find(parts)
        if inode.directory:
            raise failure(errno.EISDIR, path)
        return SimulatedFile(self._process, disk, inode, str(path))

    def publish(self, path: Path, content: bytes, *, mode: int = 0o644) -> None:
        staging = path.with_name(f".{path.name}.{self._process.number}.{self._process.rng.randbytes(4).hex()}.tmp")
        file = self.open(staging, write=True, create=True)
        try:
            file.pwritev([content], 0)
            file.sync_data()
            self.rename(staging, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(staging)
            raise
        finally:
            file.close()
        self.sync_directory(path.parent)

    def read(self, path: Path) -> bytes:
        file = self.open(path)
        try:
            found = bytearray(file.size())
            done = file.preadv([found], 0) if found else 0
            return bytes(found[:done])
        finally:
            file.close()

    def rename(self, old: Path, new: Path) -> None:
        disk, parts = self._enter("rename", new)
        disk.rename(self._at(old)[1], parts)

    def unlink(self, path: Path) -> None:
        disk, parts = self._enter("unlink", path)
        disk.unlink(parts)

    def remove_tree(self, path: Path) -> None:
        disk, parts = self._enter("stat", path)
        if disk.find(parts).directory:
            for name in self.names(path):
                self.remove_tree(path / name)
        self.unlink(path)

    def exists(self, path: Path) -> bool:
        try:
            disk, parts = self._enter("stat", path)
            disk.find(parts)
        except OSError:
            return False
        return True

    def mkdir(self, path: Path) -> None:
        disk, parts = self._enter("mkdir", path)
        disk.make_directories(parts)

    def sync_directory(self, path: Path) -> None:
        if str(path) == ROOT:  # where disks are mounted: of the machine, and always there
            return
        disk, parts = self._enter("sync_directory", path)
        if not disk.lies_now(self._process.rng):
            disk.sync_directory(parts)

    def names(self, path: Path) -> list[str]:
        disk, parts = self._enter("names", path)
        return disk.entries(parts)

    def free(self, path: Path) -> tuple[int, int]:
        disk, _ = self._enter("statfs", path)
        return disk.room, disk.capacity

    def device(self, path: Path) -> int:
        disk, parts = self._enter("stat", path)
        disk.find(parts)
        return disk.device

    def shared(self, path: Path, size: int, *, create: bool = False) -> memoryview:
        disk, parts = self._enter("open", path)
        if create:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(parts)
            inode = disk.create(parts)
            inode.shared = bytearray(size)
        else:
            inode = disk.find(parts)
            if inode.shared is None:  # made before the machine was started anew
                inode.shared = bytearray(inode.memory.data)
            if len(inode.shared) < size:
                raise ValueError("mmap length is greater than file size")
        return memoryview(inode.shared)[:size]

    @contextlib.contextmanager
    def lock(self, path: Path, *, wait: bool = False) -> Iterator[None]:
        if str(path).startswith(ROOT):
            disk, parts = self._enter("open", path)
            with contextlib.suppress(FileExistsError):
                disk.create(parts)
        with self._process.machine.locks.hold(str(path), self._process, wait=wait):
            yield
