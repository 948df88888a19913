"""Real files that fail on demand, behind the seam of `ostraka.host.Files`: for tests that need no mount.

A rule names an operation and a part of the path, and is used up as it fires. What was not synced can be forgotten,
as a power cut does, file by file (`FaultyFiles.tear`); the FUSE disk of this package does that for everything.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostraka.host import Buffer, File, SystemFiles


@dataclass(slots=True)
class Rule:
    """The next ``count`` calls of ``op`` on paths that contain ``part`` fail, after ``skip`` that pass."""

    op: str  # "pwritev", "preadv", "sync_data", "open", "sync_directory", "unlink", "names"
    part: str
    errno: int
    count: int = 1
    skip: int = 0


class FaultyFile:
    """A file of `FaultyFiles`. Remembers which ranges were written since the last sync."""

    def __init__(self, owner: "FaultyFiles", inner: File, path: Path) -> None:
        self._owner = owner
        self._inner = inner
        self._path = path

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        self._owner.meet("preadv", self._path)
        return self._inner.preadv(buffers, offset)

    def preadv_now(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int | None:
        try:
            self._owner.meet("preadv", self._path)
        except OSError:
            return None
        return self._inner.preadv_now(buffers, offset)

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        with self._owner.mutex:
            self._owner.unsynced.setdefault(self._path, []).append(
                (offset, sum(memoryview(buffer).nbytes for buffer in buffers))
            )
        try:
            self._owner.meet("pwritev", self._path)
        except OSError:
            half = memoryview(buffers[0]).nbytes // 2 // 4096 * 4096  # an error may come when a part is written
            if half:
                self._inner.pwritev([memoryview(buffers[0])[:half]], offset)
            raise
        self._inner.pwritev(buffers, offset)

    def sync_data(self) -> None:
        self._owner.meet("sync_data", self._path)
        with self._owner.mutex:
            self._owner.syncs += 1
            written = self._owner.unsynced.pop(self._path, [])
        try:
            self._inner.sync_data()
        except OSError:
            with self._owner.mutex:
                self._owner.unsynced.setdefault(self._path, []).extend(written)
            raise

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()


class FaultyFiles(SystemFiles):
    """The real file system, with rules."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.mutex = threading.Lock()
        self.syncs = 0  # data syncs that succeeded
        self.directory_syncs: list[Path] = []
        self.unsynced: dict[Path, list[tuple[int, int]]] = {}
        self.room: tuple[int, int] | None = None  # what free() answers

    def fail(self, op: str, part: str, errno: int, *, count: int = 1, skip: int = 0) -> None:
        with self.mutex:
            self.rules.append(Rule(op, part, errno, count, skip))

    def heal(self) -> None:
        with self.mutex:
            self.rules.clear()

    def meet(self, op: str, path: Path) -> None:
        with self.mutex:
            for rule in self.rules:
                if rule.op != op or rule.part not in str(path) or not rule.count:
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.count -= 1
                raise OSError(rule.errno, os.strerror(rule.errno), str(path))

    def tear(self) -> None:
        """As a power cut may: what was written and not synced reads as zeros now."""
        with self.mutex:
            for path, ranges in self.unsynced.items():
                if not path.exists():
                    continue
                size = path.stat().st_size
                with path.open("r+b") as file:
                    for offset, length in ranges:
                        file.seek(offset)
                        file.write(bytes(max(0, min(length, size - offset))))
            self.unsynced.clear()

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        self.meet("open", path)
        return FaultyFile(self, super().open(path, write=write, create=create, direct=direct), path)

    def unlink(self, path: Path) -> None:
        self.meet("unlink", path)
        super().unlink(path)

    def names(self, path: Path) -> list[str]:
        self.meet("names", path)
        return super().names(path)

    def sync_directory(self, path: Path) -> None:
        self.meet("sync_directory", path)
        super().sync_directory(path)
        self.directory_syncs.append(path)

    def free(self, path: Path) -> tuple[int, int]:
        self.meet("free", path)
        return self.room or super().free(path)
