"""A directory as the keys that its files would have, in the order in which a store lists them; and the way back.

Symbolic links are followed, as `aws s3` does; one that leads into itself, or nowhere, is told of and passed over, and
so is what is no ordinary file. A file's name that is no UTF-8 can be no key, and a key that could leave the directory
can be no file's name.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from ostraka.client.transfer import STAGING
from ostraka.errors import Invalid

NAME_BYTES_MAX = 255

OnProblem = Callable[[str], None]


class Found(msgspec.Struct, frozen=True, gc=False):
    """A file under a directory. ``key``: its path from there, with slashes."""

    key: str
    path: str
    size: int
    modified: float


class Filter:
    """Which keys are meant: all; without those that an exclusion matches, unless an inclusion does; with inclusions
    alone, only what one of them matches. Patterns are a shell's, and ``*`` matches slashes as well."""

    def __init__(self, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> None:
        self._exclude = [re.compile(fnmatch.translate(pattern)).match for pattern in exclude]
        self._include = [re.compile(fnmatch.translate(pattern)).match for pattern in include]

    def __call__(self, key: str) -> bool:
        if any(matches(key) for matches in self._include):
            return True
        return not any(matches(key) for matches in self._exclude) if self._exclude else not self._include


def files(directory: Path, on_problem: OnProblem) -> Iterator[Found]:
    """Every file in the directory and below, in the order of keys. Raises OSError for the directory itself."""
    status = os.stat(directory)
    yield from _below(str(directory), "", on_problem, ((status.st_dev, status.st_ino),))


def _below(directory: str, prefix: str, on_problem: OnProblem, above: tuple[tuple[int, int], ...]) -> Iterator[Found]:
    try:
        with os.scandir(directory) as entries:
            found = [(entry, _status(entry, on_problem)) for entry in entries if not entry.name.endswith(STAGING)]
    except OSError as e:
        if len(above) == 1:
            raise
        on_problem(f"{directory}: {e.strerror}")
        return
    rows = [(entry.name + "/" * stat.S_ISDIR(s.st_mode), entry, s) for entry, s in found if s is not None]
    for name, entry, status in sorted(rows, key=lambda row: row[0].encode("utf-8", "surrogateescape")):
        key = prefix + name
        if not name.isascii() and "\ufffd" in os.fsencode(entry.name).decode("utf-8", "replace"):
            on_problem(f"{entry.path}: its name is no UTF-8, and so no key: rename it")
        elif stat.S_ISDIR(status.st_mode):
            itself = (status.st_dev, status.st_ino)
            if itself in above:
                on_problem(f"{entry.path}: a link into itself is not followed")
            else:
                yield from _below(entry.path, key, on_problem, (*above, itself))
        elif stat.S_ISREG(status.st_mode):
            yield Found(key, entry.path, status.st_size, status.st_mtime)
        else:
            on_problem(f"{entry.path}: no ordinary file")


def _status(entry: "os.DirEntry[str]", on_problem: OnProblem) -> os.stat_result | None:
    try:
        return entry.stat()
    except FileNotFoundError:
        if entry.is_symlink():
            on_problem(f"{entry.path}: a link that leads nowhere")
    except OSError as e:
        on_problem(f"{entry.path}: {e.strerror}")
    return None


def path_in(directory: Path, key: str) -> Path:
    """Where a key's file lies in the directory. Raises Invalid for a key that can be no file there."""
    names = key.split("/")
    for name in names:
        why = ""
        if name in ("", ".", ".."):
            why = f"{name!r} is no file's name"
        elif "\0" in name:
            why = "a file's name has no NUL"
        elif len(name.encode()) > NAME_BYTES_MAX:
            why = f"a file's name has at most {NAME_BYTES_MAX} bytes"
        elif name.endswith(STAGING):
            why = f"names that end in {STAGING} are our own"
        if why:
            raise Invalid(f"the key {key!r} can be no file in {directory}: {why}", reason="key")
    return directory.joinpath(*names)
