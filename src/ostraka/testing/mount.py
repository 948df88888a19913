"""The file system of ``powercut``: what runs in the process that holds the mount.

Orders come as JSON lines on stdin and are answered on stdout; the end of stdin ends the mount. Started by
``powercut.PowerCutDisk``, never by hand.

Two things of libfuse shape this module. It hides an open file by renaming it to ``.fuse_hidden*`` before an unlink or
before a rename onto it: the hidden name is not an entry here, only a way to the open inode, and a rename that follows
on the same name replaces the hidden file in one step, as the process asked. And a write through an O_DSYNC descriptor
is followed by an fsync from the kernel, which must not count for the rest of the file.
"""

import errno
import fcntl
import json
import os
import random
import resource
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

# mfusepy chooses its library when it is imported
os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
import mfusepy

from ostraka.testing.faults import Rule, failure
from ostraka.testing.survival import ROOT, OpenFile, Resize, Strictness, Write
from ostraka.testing.volume import Handle, Inode, Volume

HIDDEN = ".fuse_hidden"
PENDING_BYTES_MAX = 256 << 20  # per file: beyond it the oldest unsynced writes count as written back
SYNCED_OPENS = os.O_DSYNC  # O_SYNC includes its bit
AUTO_INVALIDATE = 1 << 12  # libfuse's capability bits: the pages we serve change only through the mount
SPLICES = (1 << 7) | (1 << 8) | (1 << 9)
BLOCK = 4096


def caller() -> tuple[int, int]:
    """The user and group whose operation this is."""
    uid, gid, _ = mfusepy.fuse_get_context()
    return uid, gid


class Disk(Volume, mfusepy.Operations):  # type: ignore[misc]
    """The operations, each under one lock; faults are waited for outside of it."""

    use_ns = True

    # -- attributes

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        self._enter("getattr", path)
        with self.mutex:
            inode = self._inode(path) if fh is None else self.handles[fh].inode
            atime, mtime = inode.times
            return {
                "st_ino": inode.number,
                "st_mode": inode.mode,
                "st_nlink": 2 if stat.S_ISDIR(inode.mode) else self.names.links[inode.number],
                "st_uid": inode.uid,
                "st_gid": inode.gid,
                "st_size": len(inode.target) or inode.size,
                "st_blocks": (inode.size + 511) // 512,
                "st_blksize": BLOCK,
                "st_atime": atime,
                "st_mtime": mtime,
                "st_ctime": mtime,
            }

    def chmod(self, path: str, mode: int) -> int:
        self._enter("chmod", path)
        with self.mutex:
            inode = self._inode(path)
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._enter("chown", path)
        with self.mutex:
            inode = self._inode(path)
            inode.uid, inode.gid = (inode.uid if uid < 0 else uid), (inode.gid if gid < 0 else gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._enter("utimens", path)
        with self.mutex:
            now = time.time_ns()
            self._inode(path).times = times or (now, now)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        self._enter("statfs", path)
        real = os.statvfs(self.backing)
        free = real.f_bavail * real.f_frsize // BLOCK
        with self.mutex:
            if self.room is not None:
                free = max(0, self.room) // BLOCK
            used = sum(i.size for i in self.inodes.values() if not i.freed) // BLOCK
        return {
            "f_bsize": BLOCK,
            "f_frsize": BLOCK,
            "f_blocks": used + free,
            "f_bfree": free,
            "f_bavail": free,
            "f_files": 1 << 20,
            "f_ffree": 1 << 20,
            "f_favail": 1 << 20,
            "f_namemax": 255,
        }

    # -- directories

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        self._enter("readdir", path)
        with self.mutex:
            here = self._inode(path).number
            entries = {".": here, "..": ROOT, **self.names.live[here]}
            return [(name, {"st_ino": n, "st_mode": self.inodes[n].mode}, 0) for name, n in entries.items()]

    def mkdir(self, path: str, mode: int) -> int:
        self._enter("mkdir", path)
        with self.mutex:
            directory, name = self._parent(path)
            inode = self._new(stat.S_IFDIR | stat.S_IMODE(mode), caller())
            self.names.add_directory(inode.number)
            self.names.step((directory, name, inode.number))
        return 0

    def rmdir(self, path: str) -> int:
        self._enter("rmdir", path)
        with self.mutex:
            if self.names.live[self._inode(path).number]:
                raise failure(errno.ENOTEMPTY)
            self.names.step((*self._parent(path), None))
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._enter("symlink", target)
        with self.mutex:
            directory, name = self._parent(target)
            self.names.step((directory, name, self._new(stat.S_IFLNK | 0o777, caller(), source).number))
        return 0

    def readlink(self, path: str) -> str:
        self._enter("readlink", path)
        with self.mutex:
            return self._inode(path).target

    def link(self, target: str, source: str) -> int:
        self._enter("link", target)
        with self.mutex:
            number = self._inode(source).number
            self.names.step((*self._parent(target), number))
        return 0

    def unlink(self, path: str) -> int:
        self._enter("unlink", path)
        with self.mutex:
            if path in self.hidden:  # the last handle of a hidden file was closed
                self.names.release(self.hidden.pop(path))
            else:
                number = self._inode(path).number
                self.names.hold(number)
                self.names.step((*self._parent(path), None))
                self._free(number)
                self.names.release(number)
        return 0

    def rename(self, old: str, new: str) -> int:
        if new.rpartition("/")[2].startswith(HIDDEN):
            return self._hide(old, new)
        self._enter("rename", new)
        with self.mutex:
            inode = self._inode(old)
            source = self._parent(old)
            directory, name = new.rpartition("/")[0], new.rpartition("/")[2]
            target = (self._inode(directory or "/").number, name)
            there = None
            if self.hiding.pop(target, None) is None:
                there = self.names.live[target[0]].get(name)
                if there is not None and self.names.live.get(there):
                    raise failure(errno.ENOTEMPTY)
                if there == inode.number:
                    return 0
            self.names.step((*source, None), (*target, inode.number))
            self._free(there)
        return 0

    def _hide(self, old: str, new: str) -> int:
        """libfuse: ``old`` is open, and is to be unlinked or replaced. Which of the two, the next step tells."""
        self._enter("unlink", old)
        with self.mutex:
            inode = self._inode(old)
            key = self._parent(old)
            self.names.hold(inode.number)
            self.hidden[new] = inode.number
            self.names.hide(*key)
            self.hiding[key] = inode.number
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._enter("fsyncdir", path)
        with self.mutex:
            if self._synced("fsyncdir", path):
                self.settle_hiding()
                self.names.sync_directory(self._inode(path).number)
        return 0

    # -- files

    def open(self, path: str, flags: int) -> int:
        self._enter("open", path)
        with self.mutex:
            inode = self._inode(path)
            if flags & os.O_TRUNC and flags & os.O_ACCMODE:
                self._resize(inode, 0)
            return self._handle(inode, flags, path)

    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        self._enter("create", path)
        with self.mutex:
            if self.room is not None and self.room < BLOCK:
                raise failure(errno.ENOSPC)
            directory, name = self._parent(path)
            inode = self._new(stat.S_IFREG | stat.S_IMODE(mode), caller())
            self._fd(inode)
            self.names.step((directory, name, inode.number))
            return self._handle(inode, flags, path)

    def _handle(self, inode: Inode, flags: int, path: str) -> int:
        self._fd(inode)
        self.names.hold(inode.number)
        inode.opens += 1
        handle, self.next_handle = self.next_handle, self.next_handle + 1
        self.handles[handle] = Handle(inode, flags, path=path)
        return handle

    def release(self, path: str, fh: int) -> int:
        with self.mutex:
            inode = self.handles.pop(fh).inode
            inode.opens -= 1
            self._free(inode.number)
            self.names.release(inode.number)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._enter("read", path)
        data = os.pread(self.handles[fh].inode.fd, size, offset)
        return self.faults.spoil(path, data, self.counts)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._enter("write", path)
        with self.mutex:
            handle = self.handles[fh]
            inode = handle.inode
            end = offset + len(data)
            if end > inode.size:
                self._grow(end - inode.size)
            durable = bool(handle.flags & SYNCED_OPENS) and self._synced("dsync", handle.path)
            handle.implied_sync = bool(handle.flags & SYNCED_OPENS)
            old = os.pread(inode.fd, len(data), offset) if offset < inode.size else b""
            OpenFile(inode.fd).write(data, offset)
            if not (durable and not inode.pending.records):
                inode.pending.add(Write(offset, old, data, inode.size, durable))
                inode.pending.write_back(PENDING_BYTES_MAX)
            inode.size = max(inode.size, end)
            inode.times = (inode.times[0], time.time_ns())
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._enter("truncate", path)
        with self.mutex:
            self._resize(self._inode(path) if fh is None else self.handles[fh].inode, length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._enter("fallocate", path)
        if mode & ~1:  # FALLOC_FL_KEEP_SIZE
            raise failure(errno.EOPNOTSUPP)
        with self.mutex:
            inode = self.handles[fh].inode
            if not mode and offset + size > inode.size:
                self._resize(inode, offset + size)
        return 0

    def _resize(self, inode: Inode, size: int) -> None:
        if size == inode.size:
            return
        self._grow(size - inode.size)
        fd = self._fd(inode)
        tail = os.pread(fd, inode.size - size, size) if size < inode.size else b""
        os.ftruncate(fd, size)
        inode.pending.add(Resize(inode.size, size, tail))
        inode.size = size
        inode.times = (inode.times[0], time.time_ns())

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self.mutex:
            handle = self.handles[fh]
            if handle.implied_sync and not self.off:
                handle.implied_sync = False
                self.counts["implied"] += 1
                return 0
        self._enter("fsync", path)
        with self.mutex:
            if self._synced("fdatasync" if datasync else "fsync", path):
                handle.inode.pending.sync()
                self.settle_hiding()
                self.names.sync_file()
        return 0

    # -- the mount's start and end

    def init_with_config(self, conn: Any, config: Any) -> None:
        conn.want &= ~(AUTO_INVALIDATE | SPLICES)
        config.kernel_cache = 1  # a page stays cached over close and open: LMDB's map and its writes agree
        config.use_ino = 1
        config.entry_timeout = config.negative_timeout = config.attr_timeout = 0.0
        answer({"ready": True})


def answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def obey(disk: Disk, order: dict[str, Any]) -> dict[str, Any]:
    """One order of powercut.PowerCutDisk."""
    match order.pop("do"):
        case "cut":
            return disk.cut(order["seed"], order["forget_all"])
        case "counts":
            return dict(disk.counts)
        case "rule":
            disk.faults.add(Rule(**order))
        case "heal":
            disk.faults.heal()
            disk.room, disk.off_at_sync = None, -1
        case "room":
            disk.room = order["size"]
        case "flips":
            disk.faults.flips = (random.Random(order["seed"]), order["one_in"], order["pattern"])
        case "ignore_syncs":
            disk.faults.ignored_syncs.append(order["pattern"])
        case "off_at_sync":
            disk.off_at_sync = disk.counts["syncs"] + order["after"]
        case "save":
            with disk.mutex:
                disk.off = True
                disk.settle_hiding()
                disk.save(disk.names.live)
        case other:
            return {"error": f"unknown order {other}"}
    return {}


def take_orders(disk: Disk) -> None:
    for line in sys.stdin:
        try:
            answer(obey(disk, json.loads(line)))
        except Exception as e:  # the asker must hear of it
            answer({"error": repr(e)})
    os._exit(0)  # whoever ordered the mount is gone: so are we; the kernel aborts the connection


def main(backing: str, mountpoint: str, strictness: Strictness) -> None:
    """Hold the mount until the orders end."""
    lock = os.open(backing, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    disk = Disk(Path(backing), strictness)
    threading.Thread(target=take_orders, args=(disk,), daemon=True).start()
    mfusepy.FUSE(disk, mountpoint, foreground=True, fsname="powercut", subtype="ostraka", max_idle_threads=16)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "ext4" if sys.argv[3] == "ext4" else "posix")
