"""Where the index lives: a directory with one LMDB file, replaced as a whole when it is built anew.

``current`` is memory that every process maps. It holds the generation in use: a rebuild writes the file of the next
generation and then that number, and everybody changes over at the next read or commit. And it holds the last commit
that became durable: it outlives a killed process, so that a log whose end was damaged is not taken for one that a crash
cut. ``index-<generation>.clean``
is left by a clean stop: with it, and only with it, is an index used again without being rebuilt. It holds a checksum
over all pages, since LMDB's pages carry none.
"""

import contextlib
import re
from pathlib import Path

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_digest

from ostraka.host import Files
from ostraka.state.ordered import file_checksum
from ostraka.state.rows import TRAILER_SIZE

_NAME = re.compile(r"index-([0-9a-f]{8})\.(mdb|mdb-lock|clean)")
_CURRENT_SIZE = 24
_ALL_BITS = 2**64 - 1


class CleanStop(Struct, frozen=True, array_like=True):
    """What the index was when it was closed with nobody else at it."""

    store: bytes
    commit: int
    digest: bytes
    size: int
    checksum: int


def generations(files: Files, directory: Path) -> list[Path]:
    """The LMDB files in an index directory, the newest first."""
    names = files.names(directory)
    found = sorted(((m[1], name) for name in names if (m := _NAME.fullmatch(name)) and m[2] == "mdb"), reverse=True)
    return [directory / name for _, name in found]


class IndexFiles:
    """The files of one index directory, and the generation that all processes share."""

    def __init__(self, files: Files, directory: Path) -> None:
        self.files = files
        self.directory = directory
        files.mkdir(directory)
        # Shared memory, not storage: what it says is worthless after a restart, and recovery writes it anew. Recovery
        # is also who makes it, alone under the store's lock, before any other process opens the state.
        current = directory / "current"
        try:
            words = files.shared(current, _CURRENT_SIZE)
        except (FileNotFoundError, ValueError):  # none yet, or one that a crash left too short
            words = files.shared(current, _CURRENT_SIZE, create=True)
        self.shared = words.cast("Q")  # the generation in use; the last commit, and its bits inverted

    def map_path(self, generation: int) -> Path:
        return self.directory / f"index-{generation:08x}.mdb"

    def next_generation(self) -> int:
        """A number above every generation that has left files."""
        found = [int(m[1], 16) for name in self.files.names(self.directory) if (m := _NAME.fullmatch(name))]
        return max([*found, self.shared[0]]) + 1 if found else 1

    def use(self, generation: int) -> None:
        """From now on, every process uses that generation; older files go."""
        self.shared[0] = generation
        for name in self.files.names(self.directory):
            match = _NAME.fullmatch(name)
            if match and int(match[1], 16) != generation:
                with contextlib.suppress(FileNotFoundError):
                    self.files.unlink(self.directory / name)

    def became_durable(self, commit: int) -> None:
        """That commit is on stable storage, on every copy of the state. Only in the order of commits."""
        self.shared[1] = commit
        self.shared[2] = commit ^ _ALL_BITS

    @property
    def durable(self) -> int:
        """The last commit that is known to have become durable, or 0. Whatever of it a power cut leaves is true: a
        commit is told here only after it was synced."""
        commit, inverted = self.shared[1], self.shared[2]
        return commit if commit == inverted ^ _ALL_BITS else 0

    def mark_clean(self, generation: int, stop: CleanStop) -> None:
        data = msgspec.msgpack.encode(stop)
        self.files.publish(self._clean_path(generation), data + xxh3_64_digest(data), mode=0o600)

    def clean_stops(self) -> dict[int, CleanStop]:
        """What clean stops have left, by generation. They stay until `drop_clean`: a start that is refused for what
        they say must be refused the next time as well."""
        found = {generation: self._read_clean(path) for generation, path in self._marks()}
        return {generation: stop for generation, stop in found.items() if stop is not None}

    def drop_clean(self) -> None:
        """The marks are gone. A power cut may bring one back: it then vouches for exactly the pages and the commit
        that it names, or for nothing."""
        for _, path in self._marks():
            self.files.unlink(path)

    def _marks(self) -> list[tuple[int, Path]]:
        found = [(_NAME.fullmatch(name), self.directory / name) for name in self.files.names(self.directory)]
        return [(int(match[1], 16), path) for match, path in found if match and match[2] == "clean"]

    def close(self) -> None:
        self.shared.release()

    def _clean_path(self, generation: int) -> Path:
        return self.directory / f"index-{generation:08x}.clean"

    def _read_clean(self, path: Path) -> CleanStop | None:
        raw = self.files.read(path)
        data = raw[:-TRAILER_SIZE]
        if xxh3_64_digest(data) != raw[-TRAILER_SIZE:]:
            return None
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.msgpack.decode(data, type=CleanStop)
        return None

    def pages_are(self, generation: int, stop: CleanStop) -> bool:
        with contextlib.suppress(OSError), contextlib.closing(self.files.open(self.map_path(generation))) as pages:
            return file_checksum(pages.preadv, stop.size) == stop.checksum
        return False
