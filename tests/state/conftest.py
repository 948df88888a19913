"""Fixtures: a store of several copies in a temporary directory, and files that fail on command."""

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.host import Buffer, File, Host, SystemFiles
from ostraka.limits import LIMITS, MIB, Limits
from ostraka.state import Copy, EmbeddedState, open_owner

STORE = b"a store of tests"
SMALL = replace(LIMITS, state_index_size_max=256 * MIB)


class FailingFile:
    """A file that fails as its directory was told to."""

    def __init__(self, file: File, path: Path, files: "FailingFiles") -> None:
        self._file, self._path, self._files = file, path, files

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        self._files.check("read", self._path)
        return self._file.preadv(buffers, offset)

    def preadv_now(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int | None:
        return None  # never cached: what fails is not hidden

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        self._files.check("write", self._path, lambda: self._cut(buffers, offset))
        self._file.pwritev(buffers, offset)

    def _cut(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(bytes(b) for b in buffers)
        self._file.pwritev([data[: len(data) // 2]], offset)

    def sync_data(self) -> None:
        self._files.check("sync", self._path)
        self._files.syncs.append(self._path)
        self._file.sync_data()

    def size(self) -> int:
        return self._file.size()

    def close(self) -> None:
        self._file.close()


class FailingFiles(SystemFiles):
    """The real file system, where a directory may be told to fail; and a record of what was synced."""

    def __init__(self) -> None:
        self.failing: dict[tuple[str, Path], int] = {}
        self.syncs: list[Path] = []

    def fail(self, what: str, directory: Path, error: int = errno.EIO) -> None:
        """``what``: read, write, sync or directory."""
        self.failing[what, directory] = error

    def heal(self) -> None:
        self.failing.clear()

    def check(self, what: str, path: Path, before: Callable[[], None] = lambda: None) -> None:
        error = self.failing.get((what, path.parent))
        if error is not None:
            before()
            raise OSError(error, f"told to fail: {what} {path.name}")

    def open(self, path: Path, *, write: bool = False, create: bool = False, direct: bool = False) -> File:
        return FailingFile(super().open(path, write=write, create=create, direct=direct), path, self)

    def sync_directory(self, path: Path) -> None:
        self.check("directory", path / "x")
        self.syncs.append(path)
        super().sync_directory(path)

    def lock(self, path: Path) -> AbstractContextManager[None]:
        return super().lock(path)


class Store:
    """Copies and an index in one directory, opened as often as a test likes."""

    def __init__(self, root: Path, copy_count: int = 3) -> None:
        self.root = root
        self.store = STORE
        self.files = FailingFiles()
        self.host = Host(files=self.files)
        self.copies = [Copy(bytes([n + 1]) * 16, root / f"disk{n}" / "state") for n in range(copy_count)]
        self.index = root / "index"
        self.evicted: list[bytes] = []
        self.epoch = 1
        self._opened: list[EmbeddedState] = []

    def evict(self, disk: bytes, error: BaseException) -> int:
        self.evicted.append(disk)
        self.epoch += 1
        return self.epoch

    def open(self, *, limits: Limits = SMALL, **options: object) -> EmbeddedState:
        options.setdefault("copies", [c for c in self.copies if c.disk not in self.evicted])
        copies = options.pop("copies")
        state = open_owner(
            self.host,
            self.store,
            copies,  # type: ignore[arg-type]
            self.index,
            epoch=self.epoch,
            on_copy_failed=self.evict,
            limits=limits,
            **options,  # type: ignore[arg-type]
        )
        self._opened.append(state)
        return state

    def create(self, *, limits: Limits = SMALL) -> EmbeddedState:
        return self.open(create=True, limits=limits)

    def abandon(self, state: EmbeddedState) -> None:
        """Let go of a state as a killed process would: nothing is marked, nothing closed in order."""
        state.recovery = None  # only an owner's close leaves the mark of a clean stop
        asyncio.run(state.close())

    def close_all(self) -> None:
        self.files.heal()
        for state in self._opened:
            asyncio.run(state._committer.close())
            state.close_now()

    def logs(self, number: int = 0) -> list[Path]:
        return sorted(self.copies[number].path.glob("log-*.ost"))

    def snapshots(self, number: int = 0) -> list[Path]:
        return sorted(self.copies[number].path.glob("snapshot-*.ost"))


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(copy_count: int = 3, name: str = "store") -> Store:
        made.append(Store(tmp_path / name, copy_count))
        return made[-1]

    yield make
    for store in made:
        store.close_all()


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()
