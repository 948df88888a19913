"""The state of a power-cut disk, without FUSE: inodes, the tree that names them, room, power.

Inodes are plain files ``inodes/<number>`` under the backing directory; the tree is in memory (model: ``survival``)
and written to ``tree.json`` when the power goes or the mount ends. What the mount writes goes to the inode files at
once, so the backing directory needs no sync: "durable" is a matter of the model alone.
"""

import errno
import json
import os
import random
import stat
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ostraka.testing.faults import Faults, failure
from ostraka.testing.survival import ROOT, Namespace, OpenFile, PendingFile, Strictness


@dataclass(slots=True)
class Inode:
    """One file, directory or symbolic link. ``fd`` is open while a handle is, or while changes are pending."""

    number: int
    mode: int
    uid: int = 0
    gid: int = 0
    times: tuple[int, int] = (0, 0)
    target: str = ""
    size: int = 0
    fd: int = -1
    opens: int = 0
    freed: bool = False  # its bytes count as free again: no process can reach it
    pending: PendingFile = field(default_factory=PendingFile)


@dataclass(slots=True)
class Handle:
    inode: Inode
    flags: int
    implied_sync: bool = False  # the kernel's fsync after an O_DSYNC write is still to come
    path: str = ""


class Volume:
    """Everything a disk is; callers hold ``mutex``, except where a fault is waited for (``_enter``)."""

    def __init__(self, backing: Path, strictness: Strictness) -> None:
        self.backing = backing
        self.strictness = strictness
        self.mutex = threading.RLock()
        self.inodes: dict[int, Inode] = {}
        self.names = Namespace(self._drop, strictness)
        self.handles: dict[int, Handle] = {}
        self.hidden: dict[str, int] = {}  # libfuse's hidden path -> inode
        self.hiding: dict[tuple[int, str], int] = {}  # names hidden a moment ago: unlinked, or about to be replaced
        self.next_number = ROOT + 1
        self.next_handle = 1
        self.counts: Counter[str] = Counter()
        self.off = False  # the power is gone
        self.off_at_sync = -1
        self.faults = Faults()
        self.room: int | None = None  # bytes that may still be added; None: as much as the backing has
        self._load()

    # -- the tree on the backing directory

    def _load(self) -> None:
        store = self.backing / "inodes"
        store.mkdir(parents=True, exist_ok=True)
        saved = self.backing / "tree.json"
        if not saved.exists():
            now = time.time_ns()
            self.inodes[ROOT] = Inode(ROOT, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), (now, now))
            return
        record = json.loads(saved.read_text())
        self.next_number = record["next"]
        for number, mode, uid, gid, atime, mtime, target in record["inodes"]:
            size = self._file(number).stat().st_size if stat.S_ISREG(mode) else 0
            self.inodes[number] = Inode(number, mode, uid, gid, (atime, mtime), target, size)
        self.names.load({int(d): entries for d, entries in record["tree"].items()})

    def save(self, tree: dict[int, dict[str, int]]) -> None:
        """Write the tree down; files that it does not name are removed."""
        reached = {ROOT} | {ino for entries in tree.values() for ino in entries.values()}
        inodes = [(i.number, i.mode, i.uid, i.gid, *i.times, i.target) for i in self.inodes.values()]
        record = {"next": self.next_number, "tree": tree, "inodes": [i for i in inodes if i[0] in reached]}
        (self.backing / "tree.json").write_text(json.dumps(record))
        for name in os.listdir(self.backing / "inodes"):
            if int(name) not in reached:
                self._file(int(name)).unlink()

    def _file(self, number: int) -> Path:
        return self.backing / "inodes" / str(number)

    def _drop(self, number: int) -> None:
        inode = self.inodes.pop(number)
        if inode.fd >= 0:
            os.close(inode.fd)
        if stat.S_ISREG(inode.mode):
            self._file(number).unlink()

    # -- the power, and faults

    def cut(self, seed: int, forget_all: bool) -> dict[str, int]:
        """The power goes: from now on every operation fails, and the backing directory holds what survived."""
        with self.mutex:
            self.off = True
            self.settle_hiding()
            lost = {"files": 0, "steps": len(self.names.steps)}
            for number, inode in sorted(self.inodes.items()):
                if inode.pending.records:
                    lost["files"] += 1
                    rng = random.Random(f"{seed}/{number}")
                    inode.pending.cut(OpenFile(self._fd(inode)), rng, self.strictness, forget_all=forget_all)
            self.save(self.names.cut(random.Random(f"{seed}/names"), forget_all=forget_all))
            return lost

    def _enter(self, op: str, path: str) -> None:
        """What every operation does first: count it, and meet the faults that were ordered."""
        self.counts[op] += 1
        if self.off:
            raise failure(errno.EIO)
        self.faults.meet(op, path, self.counts)

    def _synced(self, op: str, path: str) -> bool:
        """Count a sync, and say whether it does anything: the power may go right before, or the disk may lie."""
        if self.off or self.counts["syncs"] == self.off_at_sync:
            self.off = True
            raise failure(errno.EIO)
        self.counts["syncs"] += 1
        return not self.faults.ignores(op, path)

    def _grow(self, size: int) -> None:
        if self.room is not None:
            if size > self.room:
                raise failure(errno.ENOSPC)
            self.room -= size

    def _free(self, number: int | None) -> None:
        """Called when a name or a handle of an inode went: the last of them gives its room back."""
        inode = self.inodes.get(number or 0)
        if inode is not None and not inode.freed and not inode.opens and not self.names.links[inode.number]:
            inode.freed = True
            self._grow(-inode.size)

    # -- paths

    def _inode(self, path: str) -> Inode:
        if path in self.hidden:
            return self.inodes[self.hidden[path]]
        number = ROOT
        for name in path.split("/"):
            if name:
                entries = self.names.live.get(number)
                if entries is None:
                    raise failure(errno.ENOTDIR)
                if name not in entries:
                    raise failure(errno.ENOENT)
                number = entries[name]
        return self.inodes[number]

    def _parent(self, path: str) -> tuple[int, str]:
        """(directory, name); a name that libfuse hid before, and nobody took since, is unlinked for good."""
        head, _, name = path.rpartition("/")
        directory = self._inode(head or "/").number
        if directory not in self.names.live:
            raise failure(errno.ENOTDIR)
        if (directory, name) in self.hiding:
            self._unlink_hidden((directory, name))
        return directory, name

    def _unlink_hidden(self, key: tuple[int, str]) -> None:
        del self.hiding[key]
        self.names.step((*key, None))

    def settle_hiding(self) -> None:
        """Names that libfuse hid and nothing replaced were unlinked."""
        for key in list(self.hiding):
            self._unlink_hidden(key)

    def _new(self, mode: int, owner: tuple[int, int], target: str = "") -> Inode:
        now = time.time_ns()
        inode = Inode(self.next_number, mode, *owner, (now, now), target)
        self.next_number += 1
        self.inodes[inode.number] = inode
        return inode

    def _fd(self, inode: Inode) -> int:
        if inode.fd < 0:
            inode.fd = os.open(self._file(inode.number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return inode.fd
