"""What a copy remembers of itself between two runs: which upload it began, and how far that has come.

A journal is a file of lines, one a step, appended as it goes; it is named after all that the copy depends on, so that a
source that changed is another copy. It is memory and no truth: whoever goes on asks the store whether what is
remembered is there. A line that was torn is the last that counts.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ostraka.host import File, Host

AGE_SECONDS_MAX: Final = 30 * 86400.0  # a journal that nobody came back to


class Step(msgspec.Struct, array_like=True, frozen=True):
    """``number`` and what is known of it: of a part the word that the store gave, of a length its SHA-256; 0 stands
    for the upload's name."""

    number: int
    word: str


class Journal:
    """One copy's. Where no file can be kept, nothing is remembered, and the copy goes on."""

    def __init__(self, directory: Path | None, identity: Sequence[object], host: Host) -> None:
        self.token = hashlib.sha256(msgspec.json.encode([str(i) for i in identity])).hexdigest()[:32]
        self.steps: dict[int, str] = {}
        self._host = host
        self._path = directory and directory / f"{self.token}.copy"
        self._file: File | None = None
        self._size = 0
        if self._path is not None:
            self._read(self._path)

    def _read(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            self._host.files.mkdir(path.parent)
            self._sweep(path.parent)
            known = path.name in self._host.files.names(path.parent)
            for line in self._host.files.read(path).splitlines(keepends=True) if known else ():
                step = _decoded(line)
                if step is None:
                    break
                self.steps[step.number] = step.word
                self._size += len(line)
            self._file = self._host.files.open(path, write=True, create=not known)

    def _sweep(self, directory: Path) -> None:
        oldest = self._host.clock.time() - AGE_SECONDS_MAX
        for name in self._host.files.names(directory):
            path = directory / name
            if name.endswith(".copy") and path.stat().st_mtime < oldest:
                self._host.files.unlink(path)

    def add(self, number: int, word: str) -> None:
        self.steps[number] = word
        if self._file is not None:
            line = msgspec.json.encode(Step(number, word)) + b"\n"
            with contextlib.suppress(OSError):
                self._file.pwritev([line], self._size)
                self._size += len(line)

    def forget(self) -> None:
        """It is done, or begun anew."""
        self.steps.clear()
        self._size = 0
        self.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._host.files.unlink(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _decoded(line: bytes) -> Step | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=Step)
    except msgspec.DecodeError:
        return None
