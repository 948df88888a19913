"""Uploads that may be interrupted: staging files with a name of their own, which outlive their writer.

An upload is the file ``uploads/<hash of path and token>.part`` and nothing else: its bytes, in order, from the first.
What of them reached the disk before a power cut is not remembered but looked at: ``partial`` syncs the file, reads it
and says its length and hash. Who appends or publishes has it locked, so that there is one at a time.
"""

import contextlib
import hashlib

from ostraka.backends.backend import Partial
from ostraka.backends.local.staging import Staged, Staging, is_at, sweep
from ostraka.backends.local.threads import Turn
from ostraka.errors import Absent, Conflict, Corrupt
from ostraka.host import Clock
from ostraka.tree import Directory, TreeFile


def name_of(path: str, token: str) -> str:
    """No path and no token holds a NUL: different ones have different names."""
    return hashlib.sha256(f"{path}\0{token}".encode()).hexdigest() + ".part"


class Uploads:
    """All uploads of one root. Used from threads; its calls raise OSError but for what is said."""

    def __init__(self, staging: Staging, clock: Clock, buffer_size: int) -> None:
        self._staging = staging
        self._clock = clock
        self._buffer_size = buffer_size

    def partial(self, path: str, token: str) -> Partial | None:
        """What is there, on stable storage."""
        try:
            file = self._staging.part("uploads").open(name_of(path, token))
        except FileNotFoundError:
            return None
        try:
            file.sync_data()
            return self._measured(file)
        finally:
            file.close()

    def begin(self, path: str, token: str, offset: int) -> Staged:
        """Its file, ours alone, to be written from ``offset`` on. Conflict (reason "offset") if that is not its length
        or somebody else has it."""
        directory, name = self._staging.part("uploads"), name_of(path, token)
        file = self._mine(directory, name, path, create=offset == 0)
        staged = Staged(directory, name, file)
        if file.size() != offset:
            message = f"{path}: the upload has {file.size()} bytes, and cannot go on at {offset}"
            staged.keep()
            raise Conflict(message, reason="offset")
        return staged

    def _mine(self, directory: Directory, name: str, path: str, *, create: bool) -> TreeFile:
        while True:
            try:
                file = directory.open(name, write=True)
            except FileNotFoundError:
                if not create:
                    raise Conflict(f"{path}: there is no such upload to go on with", reason="offset") from None
                try:
                    file = directory.create(name)
                except FileExistsError:
                    continue
                directory.sync()
            if not file.lock(wait=False):
                file.close()
                raise Conflict(f"{path}: somebody else is at this upload", reason="offset")
            if is_at(directory, name, file):
                return file
            file.close()  # published or swept in the moment before it was locked

    def promote(self, path: str, token: str, turn: Turn, size: int, sha256: str) -> str:
        """Publish it if it has that length and hash. Absent (reason "upload"), Corrupt, Conflict."""
        directory, name = self._staging.part("uploads"), name_of(path, token)
        if directory.status(name) is None:
            raise Absent(f"{path}: there is no such upload", reason="upload")
        staged = Staged(directory, name, self._mine(directory, name, path, create=False))
        try:
            if staged.file.size() != size:
                raise Corrupt(f"{path}: the upload has {staged.file.size()} bytes, and should have {size}")
            found = self._measured(staged.file)
            if found != Partial(size, sha256.lower()):
                raise Corrupt(f"{path}: the upload's SHA-256 is {found.sha256}, and should be {sha256}")
            staged.sync()
            return self._staging.publish(staged, path, turn)
        finally:
            staged.keep()

    def _measured(self, file: TreeFile) -> Partial:
        digest, length = hashlib.sha256(), 0
        buffer = memoryview(bytearray(self._buffer_size))
        while size := file.preadv([buffer], length):
            digest.update(buffer[:size])
            length += size
        return Partial(length, digest.hexdigest(), digest)

    def abandon(self, path: str, token: str) -> None:
        """Its file is gone. Who is appending to it goes on into nothing."""
        with contextlib.suppress(FileNotFoundError):
            self._staging.part("uploads").unlink(name_of(path, token))

    def sweep(self, older_than: float) -> int:
        """Remove what nobody has locked or touched for so many seconds, of uploads and of other staging files."""
        newest = (self._clock.time() - older_than) * 1e9
        return sum(
            sweep(self._staging.part(part), lambda status: status.modified <= newest) for part in ("uploads", "writes")
        )
