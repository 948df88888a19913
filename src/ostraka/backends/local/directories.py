"""Directories of a root: when their names are durable, and how those are removed that no path goes through."""

import contextlib
import errno
import threading
from collections import OrderedDict

from ostraka.tree import Directory

_Name = tuple[tuple[int, int], str, tuple[int, int]]  # the parent's identity, the name, its own identity


class Settled:
    """Directories whose names are durable. They are held open: as long as they are, no other has their identity, so
    that one that was removed and made anew, or moved, is not taken for the one that was synced."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._held: OrderedDict[_Name, Directory] = OrderedDict()
        self._mutex = threading.Lock()

    def settle(self, parent: Directory, name: str, child: Directory) -> None:
        """Make the child's name in the parent durable, unless it is known to be."""
        key = parent.identity, name, child.identity
        with self._mutex:
            if key in self._held:
                self._held.move_to_end(key)
                return
        parent.sync()
        with self._mutex:
            if key not in self._held:
                self._held[key] = child.again()
            if len(self._held) > self._count_max:
                self._held.popitem(last=False)[1].close()

    def close(self) -> None:
        with self._mutex:
            while self._held:
                self._held.popitem()[1].close()


def remove_empty(parent: Directory, name: str) -> bool:
    """Remove it with the empty directories in it. False, and it stays whole, if anything else is in it; False as well
    if something came into it meanwhile. ENOENT or ENOTDIR if it is no directory."""
    with parent.enter(name) as here:
        if _holds_anything(here) or not _cleared(here):
            return False
    return _removed(parent, name)


def _holds_anything(directory: Directory) -> bool:
    """Whether anything but directories is in it, at any depth."""
    for name, kind in directory.entries():
        if kind != "directory":
            return True
        with contextlib.suppress(FileNotFoundError), directory.enter(name) as below:
            if _holds_anything(below):
                return True
    return False


def _cleared(directory: Directory) -> bool:
    """Remove the directories in it; False as soon as one is not empty any more."""
    return all(remove_empty(directory, name) for name, _ in list(directory.entries()))


def _removed(parent: Directory, name: str) -> bool:
    try:
        parent.remove(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
            return False
        raise
    return True
