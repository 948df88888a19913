"""All paths under a root in byte order, one after the other, in memory that does not grow with their number.

A directory's names are put in order with "/" behind those of directories: that is the order of whole paths. Of a
directory with more names than are held at once, the smallest are taken, and when they are used up the next ones, by
reading the directory again. So what is created or deleted meanwhile may be met or missed, and nothing else is.
"""

import heapq
import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ostraka.backends.paths import NAME_BYTES_MAX, PATH_BYTES_MAX, RESERVED
from ostraka.tree import Directory, Status

Enter = Callable[[list[str]], Directory]


@dataclass(frozen=True, slots=True)
class Found:
    """A path, and the status of its file if that was wanted."""

    path: str
    status: Status | None


class Walk:
    """The paths that begin with ``prefix`` and are greater than ``after``."""

    def __init__(self, prefix: bytes, after: bytes, names_held_max: int, *, with_status: bool) -> None:
        self._prefix = prefix
        self._after = after
        self._names_held_max = names_held_max
        self._with_status = with_status

    def paths(self, enter: Enter) -> Iterator[Found]:
        """``enter`` gives the directory that names lead to. Raises OSError; to be closed, as it holds directories."""
        with self._top(enter) as top:
            if top is not None:
                yield from self._under(top, self._above())

    def directories(self, enter: Enter) -> Iterator[str]:
        """Those right under the prefix, which ends with "/", through which a path goes."""
        with self._top(enter) as top:
            if top is None:
                return
            for key in self._keys(top, self._above()):
                if key.endswith(b"/") and _holds_path(top, key, self._above()):
                    yield (self._above() + key[:-1]).decode()

    def _above(self) -> bytes:
        return self._prefix[: self._prefix.rfind(b"/") + 1]

    @contextmanager
    def _top(self, enter: Enter) -> Iterator[Directory | None]:
        """The directory that the prefix leads into; None if there is none."""
        try:
            top = enter(self._above().decode().split("/")[:-1])
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        with top:
            yield top

    def _under(self, here: Directory, above: bytes) -> Iterator[Found]:
        for key in self._keys(here, above):
            name, whole = key.rstrip(b"/").decode(), above + key
            if not key.endswith(b"/"):
                status = here.status(name) if self._with_status else None
                if not self._with_status or (status is not None and status.kind == "file"):
                    yield Found(whole.decode(), status)
                continue
            try:
                below = here.enter(name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has gone since
            with below:
                yield from self._under(below, whole)

    def _keys(self, here: Directory, above: bytes) -> Iterator[bytes]:
        """The wanted names in it, in order; a directory's ends with "/"."""
        last, count_max = b"", self._names_held_max
        while True:
            wanted = (k for k in _all_keys(here, above) if k > last and self._wanted(above + k))
            keys = list(itertools.islice(wanted, count_max + 1))
            if len(keys) <= count_max:
                yield from sorted(keys)
                return
            keys = heapq.nsmallest(count_max, itertools.chain(keys, wanted))
            yield from keys
            last = keys[-1]

    def _wanted(self, whole: bytes) -> bool:
        """Whether it is, or may lead to, a path that is asked for."""
        if not whole.endswith(b"/"):
            return whole.startswith(self._prefix) and whole > self._after
        if not (whole.startswith(self._prefix) or self._prefix.startswith(whole)):
            return False
        return whole > self._after or self._after.startswith(whole)


def _all_keys(here: Directory, above: bytes) -> Generator[bytes, None, None]:
    for name, kind in here.entries():
        try:
            key = name.encode()
        except UnicodeEncodeError:
            continue
        if kind in ("file", "directory") and _can_be_written(name, key, above):
            yield key + b"/" if kind == "directory" else key


def _holds_path(parent: Directory, key: bytes, above: bytes) -> bool:
    """Whether a path goes through this directory; looks no further than the first."""
    try:
        here = parent.enter(key[:-1].decode())
    except (FileNotFoundError, NotADirectoryError):
        return False
    with here, closing(_all_keys(here, above + key)) as keys:
        return any(not k.endswith(b"/") or _holds_path(here, k, above + key) for k in keys)


def _can_be_written(name: str, key: bytes, above: bytes) -> bool:
    """Whether check_path would take it: what other programs put there under other names is not ours to show."""
    if len(above) + len(key) > PATH_BYTES_MAX or (not above and name == RESERVED):
        return False
    return len(key) <= NAME_BYTES_MAX and not any(c < " " or "\x7f" <= c < "\xa0" for c in name)
