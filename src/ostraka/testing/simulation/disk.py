"""A disk in memory: what processes see of it, what of that survives the power, and how it fails.

The model of survival is `ostraka.testing.survival`, as for the mounted power-cut disk; here the bytes are in memory and
no file system is between. Nothing here waits or takes a turn: `files` does that, on behalf of a process.
"""

import errno
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ostraka.testing.survival import ROOT, Namespace, PendingFile, Write

BLOCK = 4096

Parts = Sequence[str]  # of a path, below the disk's root


def failure(number: int, where: object = "") -> OSError:
    """The error that the kernel would give for this errno."""
    return OSError(number, os.strerror(number), str(where))


class Memory:
    """The bytes of a file (`survival.Content`)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes, offset: int) -> None:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        if size < len(self.data):
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))


class Environment(Protocol):
    """A key-value library's environment that lives in a file: its pages are the file's bytes."""

    def image(self) -> bytes:
        """The file as a process that reads it sees it."""
        ...

    def survivor(self, rng: random.Random) -> bytes:
        """The file as a power cut leaves it."""
        ...

    def flip(self, rng: random.Random) -> None:
        """One bit goes wrong."""
        ...


@dataclass(slots=True, eq=False)
class Inode:
    """A file or directory."""

    number: int
    directory: bool = False
    memory: Memory = field(default_factory=Memory)
    pending: PendingFile = field(default_factory=PendingFile)
    environment: Environment | None = None
    shared: bytearray | None = None  # memory that processes have mapped; never synced
    lost: bool = False  # a sync failed, the kernel believes the pages clean: no later sync makes them durable


@dataclass(slots=True)
class Trouble:
    """How a disk fails now. Probabilities are per call."""

    gone: bool = False  # every call fails with EIO
    lies: float = 0.0  # syncs that do nothing, and say nothing
    errors: float = 0.0  # calls that fail with EIO
    flips: float = 0.0  # reads that come with one bit wrong
    slow: float = 0.0  # seconds that a call takes, on average
    hangs: bool = False  # calls do not return
    fails_on: dict[str, tuple[int, str]] = field(default_factory=dict)  # operation to (errno, part of a path), once

    @property
    def any(self) -> bool:
        return bool(self.gone or self.hangs or self.slow or self.errors or self.fails_on)


class Disk:
    """One failure domain, mounted at ``root``. Paths are given as their parts below it."""

    def __init__(self, root: str, device: int, capacity: int) -> None:
        self.root = root
        self.device = device
        self.capacity = self.full_capacity = capacity
        self.trouble = Trouble()
        self.used = 0
        self.ever_lied = False
        self._inodes: dict[int, Inode] = {ROOT: Inode(ROOT, directory=True)}
        self._names = Namespace(self._gone)
        self._next = ROOT + 1

    # -- the tree

    def find(self, parts: Parts) -> Inode:
        number = ROOT
        live = self._names.live
        for name in parts:
            entries = live.get(number)
            if entries is None:
                raise failure(errno.ENOTDIR, self._path(parts))
            found = entries.get(name)
            if found is None:
                raise failure(errno.ENOENT, self._path(parts))
            number = found
        return self._inodes[number]

    def _path(self, parts: Parts) -> str:
        return "/".join((self.root, *parts))

    def _directory(self, parts: Parts) -> int:
        inode = self.find(parts)
        if not inode.directory:
            raise failure(errno.ENOTDIR, self._path(parts))
        return inode.number

    def entries(self, parts: Parts) -> list[str]:
        return sorted(self._names.live[self._directory(parts)])

    def create(self, parts: Parts) -> Inode:
        """A new file. FileExistsError."""
        directory, name = self._directory(parts[:-1]), parts[-1]
        if name in self._names.live[directory]:
            raise failure(errno.EEXIST, self._path(parts))
        if self.room < BLOCK:
            raise failure(errno.ENOSPC, self._path(parts))
        inode = self._new(directory=False)
        self._names.step((directory, name, inode.number))
        return inode

    def _new(self, *, directory: bool) -> Inode:
        inode = self._inodes[self._next] = Inode(self._next, directory)
        self._next += 1
        return inode

    def make_directories(self, parts: Parts) -> None:
        """As mkdir -p."""
        for count in range(1, len(parts) + 1):
            directory = self._directory(parts[: count - 1])
            found = self._names.live[directory].get(parts[count - 1])
            if found is None:
                inode = self._new(directory=True)
                self._names.add_directory(inode.number)
                self._names.step((directory, parts[count - 1], inode.number))
            elif not self._inodes[found].directory:
                raise failure(errno.ENOTDIR, self._path(parts))

    def unlink(self, parts: Parts) -> None:
        """Also an empty directory."""
        inode = self.find(parts)
        if inode.directory and self._names.live[inode.number]:
            raise failure(errno.ENOTEMPTY, self._path(parts))
        self._names.step((self._directory(parts[:-1]), parts[-1], None))

    def rename(self, old: Parts, new: Parts) -> None:
        inode = self.find(old)
        source, target = self._directory(old[:-1]), self._directory(new[:-1])
        self._names.step((source, old[-1], None), (target, new[-1], inode.number))

    def sync_directory(self, parts: Parts) -> None:
        self._names.sync_directory(self._directory(parts))

    # -- bytes

    @property
    def room(self) -> int:
        return max(0, self.capacity - self.used)

    def make_room(self) -> None:
        """It has as much room as when it was new."""
        self.capacity = self.full_capacity

    def hold(self, inode: Inode) -> None:
        """A handle to it is open."""
        self._names.hold(inode.number)

    def release(self, inode: Inode) -> None:
        self._names.release(inode.number)

    def _gone(self, number: int) -> None:
        self.used -= self._inodes.pop(number).memory.size()

    def bytes_of(self, inode: Inode) -> bytes | bytearray:
        """What a process reads."""
        if inode.environment is not None:
            return inode.environment.image()
        return inode.memory.data if inode.shared is None else inode.shared

    def write(self, inode: Inode, data: bytes, offset: int) -> None:
        """Visible at once, durable after `sync`. OSError when the disk is full, and nothing was written."""
        memory = inode.memory
        size = memory.size()
        grown = max(0, offset + len(data) - size)
        if grown > self.room:
            raise failure(errno.ENOSPC)
        old = bytes(memory.data[offset : offset + len(data)])
        inode.pending.add(Write(offset, old, data, size))
        memory.write(data, offset)
        self.used += grown

    def write_whole(self, inode: Inode, data: bytes) -> None:
        """The file becomes this, durably: for a library that keeps its pages in it."""
        self.used += len(data) - inode.memory.size()
        inode.memory.data[:] = data
        inode.pending.sync()

    def sync(self, inode: Inode) -> None:
        if not inode.lost:
            inode.pending.sync()

    def lies_now(self, rng: random.Random) -> bool:
        """Whether a sync does nothing, and says nothing of it."""
        lies = self.trouble.lies > 0 and rng.random() < self.trouble.lies
        self.ever_lied |= lies
        return lies

    def drop_pages(self, inode: Inode, rng: random.Random) -> None:
        """A sync failed. Either the pages went with it, and reads show what the disk holds; or they stay, and the
        next sync believes that they are clean."""
        if rng.random() < 0.5:
            inode.lost = True
            return
        before = inode.memory.size()
        inode.pending.cut(inode.memory, rng)
        self.used += inode.memory.size() - before

    # -- power, and time

    def cut(self, rng: random.Random) -> None:
        """The power goes and comes back: the disk holds what survived, and nobody has anything open."""
        for inode in list(self._inodes.values()):
            if inode.environment is not None:
                inode.memory.data[:] = inode.environment.survivor(rng)
                inode.environment = None
                inode.pending.sync()
            elif inode.shared is not None:
                inode.memory.data[:] = bytes(len(inode.shared)) if rng.random() < 0.5 else inode.shared
                inode.shared = None
            elif inode.pending.records:
                inode.pending.cut(inode.memory, rng)
            inode.lost = False
        tree = self._names.cut(rng)
        self._names = Namespace(self._gone)
        self._names.load(tree)
        reached = {ROOT, *(number for entries in tree.values() for number in entries.values())}
        self._inodes = {number: inode for number, inode in self._inodes.items() if number in reached}
        self.used = sum(inode.memory.size() for inode in self._inodes.values())

    def copy(self, root: str, device: int) -> "Disk":
        """A disk that holds the same; nothing may be pending."""
        twin = Disk(root, device, self.full_capacity)
        twin.used, twin._next = self.used, self._next
        for number, inode in self._inodes.items():
            twin._inodes[number] = Inode(number, inode.directory, Memory(bytes(self.bytes_of(inode))))
        twin._names.load({number: dict(entries) for number, entries in self._names.live.items()})
        return twin

    def flip(self, rng: random.Random, wanted: str) -> str:
        """One bit of a file whose path contains ``wanted`` goes wrong at rest; the path, or "" if there is none."""
        files = [(path, inode) for path, inode in self._files(ROOT, self.root) if wanted in path]
        files = [(path, inode) for path, inode in files if inode.memory.data or inode.environment is not None]
        if not files:
            return ""
        path, inode = files[rng.randrange(len(files))]
        if inode.environment is not None:
            inode.environment.flip(rng)
        else:
            inode.memory.data[rng.randrange(inode.memory.size())] ^= 1 << rng.randrange(8)
        return path

    def _files(self, directory: int, path: str) -> list[tuple[str, Inode]]:
        found: list[tuple[str, Inode]] = []
        for name, number in sorted(self._names.live[directory].items()):
            inode = self._inodes[number]
            if inode.directory:
                found += self._files(number, f"{path}/{name}")
            elif inode.shared is None:
                found.append((f"{path}/{name}", inode))
        return found

    def listing(self) -> list[str]:
        """Every file with its size, for a person."""
        return [f"{path} {inode.memory.size()}" for path, inode in self._files(ROOT, self.root)]
