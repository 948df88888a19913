"""A directory whose power can be cut, and that can be made to fail (ENGINE 24).

``kill -9`` keeps the page cache, so it cannot see a missing fsync. Here it is seen::

    with PowerCutDisk(tmp / "backing", tmp / "disk") as disk:
        server = serve(disk.path)
        ...
        disk.cut(seed=7)     # from here on the server's files fail, as if the machine had gone
        server.kill9()
        serve(disk.path)     # finds what a disk could hold: synced data, and by seed some of the rest, or parts of it

What may survive is modelled in ``survival``; the mount itself is in ``mount``, a process of its own, so that neither
a deadlock nor a crash of the process under test can take it along. Needs Linux, /dev/fuse, libfuse3 and the right to
mount (root, or fusermount3).
"""

import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ostraka.errors import NotSupported
from ostraka.testing.survival import Strictness

MNT_DETACH = 2


def missing() -> str:
    """Why a power-cut disk cannot be made here; empty if it can. Meant for ``pytest.mark.skipif``."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as e:
        return f"no FUSE library: {e}"
    return ""


class PowerCutDisk:
    """One disk, mounted while the context is open.

    ``backing`` keeps its content (private layout) and may be opened again later; ``path`` is where it is mounted.
    Leaving the context ends the mount as a clean shutdown does: everything is kept.
    Only one operation of this object runs at a time; all may be called from any thread.
    """

    def __init__(self, backing: Path, mountpoint: Path, *, strictness: Strictness = "posix") -> None:
        if reason := missing():
            raise NotSupported(f"power-cut disk: {reason}", reason="fuse")
        self.backing = backing
        self.path = mountpoint
        self.strictness = strictness
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        self.backing.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self._ask(do="save")
        finally:
            self._unmount()

    # -- power

    def cut(self, seed: int, *, forget_all: bool = False) -> dict[str, int]:
        """Cut the power and switch it on again: ``path`` then shows what survived.

        Descriptors and maps from before fail for ever. Returns how many files and directory steps were not synced.
        The same operations and the same seed give the same survivors; with ``forget_all`` nothing unsynced survives.
        """
        lost: dict[str, int] = self._ask(do="cut", seed=seed, forget_all=forget_all)
        self._unmount()
        self._mount()
        return lost

    def off_at_sync(self, after: int) -> None:
        """The power goes by itself right before the sync that follows ``after`` more: that one and all else fails.

        ``cut`` must still be called, to switch on again. To try every sync point of a piece of work: count its syncs
        with ``syncs``, then repeat it with ``after`` from 0 to that.
        """
        self._ask(do="off_at_sync", after=after)

    def ignore_syncs(self, pattern: str = "*") -> None:
        """The disk lies: a sync that matches succeeds, and nothing is durable.

        ``pattern`` is matched (fnmatch) against ``<kind>:<path in the mount>``; kinds are fsync, fdatasync, dsync
        (a write through O_DSYNC) and fsyncdir. It shows that a test would notice the sync's absence.
        """
        self._ask(do="ignore_syncs", pattern=pattern)

    # -- faults, until heal()

    def fail(
        self,
        number: int = errno.EIO,
        *,
        ops: Sequence[str] = (),
        pattern: str = "*",
        count: int = -1,
        after: int = 0,
    ) -> None:
        """Operations fail with this errno: all, or those named; ``after`` that many matches, ``count`` times.

        Operations: getattr open create read write truncate fallocate fsync fsyncdir mkdir rmdir unlink rename link
        symlink readlink readdir chmod chown utimens statfs. ``pattern`` is matched against the path in the mount.
        """
        self._ask(do="rule", errno=number, ops=list(ops), pattern=pattern, count=count, skip=after)

    def slow(self, seconds: float, *, ops: Sequence[str] = (), pattern: str = "*") -> None:
        """Each matching operation takes that much longer (up to 10 wait at once)."""
        self._ask(do="rule", delay=seconds, ops=list(ops), pattern=pattern)

    def stall(self, *, ops: Sequence[str] = (), pattern: str = "*") -> None:
        """Matching operations hang until heal() or cut(). A process that hangs in one cannot be killed before."""
        self._ask(do="rule", stall=True, ops=list(ops), pattern=pattern)

    def limit_space(self, size: int) -> None:
        """``size`` more bytes fit, then ENOSPC; what is removed or truncated gives room. statvfs tells the same."""
        self._ask(do="room", size=size)

    def flip_reads(self, seed: int, *, one_in: int = 1, pattern: str = "*") -> None:
        """One in so many reads from the disk has one bit wrong. What the page cache holds is not read again."""
        self._drop_cache()
        self._ask(do="flips", seed=seed, one_in=one_in, pattern=pattern)

    def vanish(self) -> None:
        """The disk is gone: every operation fails with EIO, as does reading what is not mapped by a process."""
        self._drop_cache()
        self.fail(errno.EIO)

    def heal(self) -> None:
        """All faults end; what was stalled goes on."""
        self._ask(do="heal")

    # -- what was seen

    def counts(self) -> dict[str, int]:
        """Operations since the mount (or the last cut), by name; ``syncs`` is the number of sync points,
        ``stalled`` and ``flipped`` count those faults."""
        counts: dict[str, int] = self._ask(do="counts")
        return counts

    def syncs(self) -> int:
        return self.counts().get("syncs", 0)

    # -- the mount

    def _mount(self) -> None:
        # -P: the directory of the caller must not shadow a library
        command = [sys.executable, "-P", "-m", "ostraka.testing.mount"]
        self._process = subprocess.Popen(
            [*command, str(self.backing), str(self.path), self.strictness],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a signal to the group of the tests must not unmount the disk under a server
        )
        if not self._answer().get("ready"):
            raise RuntimeError("the mount did not come up; its standard error says why")

    def _unmount(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # the connection breaks: operations in flight end with an error
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(self.path), MNT_DETACH) != 0:
            subprocess.run(["fusermount3", "-u", "-z", str(self.path)], check=True)  # we are not root

    def _ask(self, **order: Any) -> Any:
        with self._asking:
            process = self._process
            assert process is not None, "the disk is not mounted"
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = self._answer()
        if "error" in answer:
            raise RuntimeError(f"power-cut disk: {answer['error']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the mount ended (status {self._process.wait()}); its standard error says why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _drop_cache(self) -> None:
        for directory, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(OSError):
                    fd = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
                    try:
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(fd)
