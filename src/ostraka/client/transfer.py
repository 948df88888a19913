"""One object on its way: upload, download, copy; verified from end to end, and never there in part.

Upload: what is small goes whole, what is large in parts beside each other; with each goes the checksum of what was read
from the file, so that the store refuses anything else, and the whole becomes visible at once at the end. A file that
changes meanwhile is not stored. Download: into a private name beside the target, in ranges beside each other, all of
the one version; then it is read back and held against the stored checksum, synced, and takes the target's name
(law 9). Whatever ends this early, an error or Ctrl-C, takes the upload or the private file away.
"""

import contextlib
import itertools
import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ostraka.client.bodies import BytesBody, FileBody
from ostraka.client.crew import Crew
from ostraka.client.types import Attributes, Client, Info, Part, Upload, place
from ostraka.client.verifying import Verifier
from ostraka.errors import Conflict, Full, Invalid, OstrakaError, TooLarge, Truncated
from ostraka.host import File, Host
from ostraka.limits import LIMITS, MIB

WHOLE_SIZE_MAX = 8 * MIB  # a file up to this is sent in one request
RANGE_SIZE = 16 * MIB
STREAM_PART_SIZE = 16 * MIB  # of a body of unknown length, at first
STREAM_PARTS_PER_SIZE = 500  # after so many, parts are longer by STREAM_PART_SIZE
STREAM_PARTS_AT_ONCE = 3  # they wait in memory
COPY_PART_SIZE = 1 << 30
STAGING = ".ostraka-part"  # what a private name ends in
STAGING_SECONDS_MAX = 24 * 3600.0  # older ones were left by a process that was killed


class Transfer:
    """Moves objects of one store, with the threads of a crew."""

    def __init__(self, client: Client, crew: Crew, host: Host) -> None:
        self._client = client
        self._crew = crew
        self._host = host
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._swept: set[Path] = set()

    # -- up

    def upload(self, path: Path, bucket: str, key: str, attributes: Attributes) -> None:
        """Store a file."""
        before = _regular(path)
        file = self._host.files.open(path)
        try:
            size = before.st_size
            if size > WHOLE_SIZE_MAX:
                self._upload_parts(path, file, before, bucket, key, attributes)
                return
            data = b"".join(bytes(piece) for piece in FileBody(file, path, 0, size).pieces())
            _unchanged(path, before)
            self._crew.check()
            self._client.put(bucket, key, BytesBody(data), attributes, self._crew.tell)
        finally:
            file.close()

    def _upload_parts(
        self, path: Path, file: File, before: os.stat_result, bucket: str, key: str, attributes: Attributes
    ) -> None:
        size = before.st_size
        if size > LIMITS.object_size_max:
            raise TooLarge(f"{path} has {size} bytes: an object has at most {LIMITS.object_size_max}", reason="entity")
        part_size = max(WHOLE_SIZE_MAX, -(-size // LIMITS.part_count_max // MIB) * MIB)
        with self._begun(bucket, key, attributes) as upload:
            works = (
                partial(
                    self._client.put_part,
                    upload,
                    number,
                    FileBody(file, path, offset, min(part_size, size - offset)),
                    self._crew.tell,
                )
                for number, offset in enumerate(range(0, size, part_size), 1)
            )
            parts = self._crew.parts(works)
            _unchanged(path, before)
            self._complete(upload, parts)

    def upload_stream(self, stream: BinaryIO, bucket: str, key: str, attributes: Attributes) -> None:
        """Store what a stream gives until it ends; it need not know its length."""
        pieces = self._stream_parts(stream.fileno())
        first = next(pieces, b"")
        if len(first) < STREAM_PART_SIZE:
            self._crew.check()
            self._client.put(bucket, key, BytesBody(first), attributes, self._crew.tell)
            return
        with self._begun(bucket, key, attributes) as upload:

            def works() -> Iterator[Callable[[], Part]]:
                number, data = 1, first
                while data:
                    if number > LIMITS.part_count_max:
                        raise TooLarge("the stream is longer than an upload of unknown length can be", reason="entity")
                    yield partial(self._client.put_part, upload, number, BytesBody(data), self._crew.tell)
                    number, data = number + 1, next(pieces, b"")

            self._complete(upload, self._crew.parts(works(), STREAM_PARTS_AT_ONCE))

    def _stream_parts(self, descriptor: int) -> Iterator[bytes]:
        """Parts of a stream, each full but the last."""
        for number in itertools.count():
            size = STREAM_PART_SIZE * (1 + number // STREAM_PARTS_PER_SIZE)
            part = bytearray()
            while len(part) < size and (data := self._stream_read(descriptor, size - len(part))):
                part += data
            if part:
                yield bytes(part)
            if len(part) < size:
                return

    def _stream_read(self, descriptor: int, size: int) -> bytes:
        """What is there next; waits for it, but not beyond an interruption."""
        while not select.select([descriptor], [], [], 0.2)[0]:
            self._crew.check()
        return os.read(descriptor, min(size, MIB))

    @contextlib.contextmanager
    def _begun(self, bucket: str, key: str, attributes: Attributes) -> Iterator[Upload]:
        """An upload that is aborted if this ends in an error."""
        self._crew.check()
        upload = self._client.begin(bucket, key, attributes)
        try:
            yield upload
        except BaseException as error:
            try:
                self._client.abort(upload)
            except (OstrakaError, OSError) as e:
                error.add_note(f"and the upload to {place(bucket, key)} could not be aborted: {e}")
            raise

    def _complete(self, upload: Upload, parts: Sequence[Part]) -> None:
        self._crew.check()
        self._client.complete(upload, sorted(parts, key=lambda part: part.number))

    # -- down

    def download(self, info: Info, target: Path) -> None:
        """Put the object's bytes in a file of that name, in place of one that is there."""
        if target.is_symlink():
            target = Path(os.path.realpath(target))
        if target.is_dir():
            raise Invalid(f"{target} is a directory: name a file in it", reason="directory")
        with _about(target):
            self._host.files.mkdir(target.parent)
            self._sweep(target.parent)
            free, _ = self._host.files.free(target.parent)
            if free < info.size:
                raise Full(
                    f"{target} needs {info.size} bytes, and there are {free} free: make room there, and try again",
                    reason="target",
                )
            name = f".{target.name.encode()[:200].decode(errors='ignore')}.{self._host.random(6).hex()}{STAGING}"
            staging = target.parent / name
            file = self._host.files.open(staging, write=True, create=True)
            try:
                self._fill(info, file)
                self._verify(info, file)
                self._publish(info, file, staging, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._host.files.unlink(staging)
                raise
            finally:
                file.close()

    def _fill(self, info: Info, file: File) -> None:
        if info.size <= RANGE_SIZE:
            self._fetch(info, file, 0, info.size)
            return
        self._crew.parts(
            partial(self._fetch, info, file, offset, min(RANGE_SIZE, info.size - offset))
            for offset in range(0, info.size, RANGE_SIZE)
        )

    def _fetch(self, info: Info, file: File, offset: int, length: int) -> None:
        self._crew.check()
        with self._client.read(info, offset, length) as pieces:
            for piece in pieces:
                file.pwritev([piece], offset)
                offset += len(piece)
                self._crew.tell(len(piece))

    def _verify(self, info: Info, file: File) -> None:
        """What lies in the file now, not what we believe to have written."""
        verifier = Verifier(self._client, info)
        for piece in FileBody(file, Path(place(info.bucket, info.key)), 0, info.size).pieces():
            verifier.update(piece)
            self._crew.check()
        verifier.finish()

    def _publish(self, info: Info, file: File, staging: Path, target: Path) -> None:
        try:
            mode = stat.S_IMODE(os.stat(target).st_mode)
        except FileNotFoundError:
            mode = 0o666 & ~self._umask
        os.chmod(staging, mode)
        os.utime(staging, (info.modified, info.modified))
        file.sync_data()
        self._crew.check()
        self._host.files.rename(staging, target)
        self._host.files.sync_directory(target.parent)

    def _sweep(self, directory: Path) -> None:
        """Private files that a killed process left there long ago."""
        if directory in self._swept:
            return
        self._swept.add(directory)
        oldest = self._host.clock.time() - STAGING_SECONDS_MAX
        for name in self._host.files.names(directory):
            if name.endswith(STAGING):
                with contextlib.suppress(OSError):
                    if os.stat(directory / name).st_mtime < oldest:
                        self._host.files.unlink(directory / name)

    def pour(self, info: Info, stream: BinaryIO) -> None:
        """Write the object's bytes to a stream; an error at the end if they were not what was stored."""
        verifier = Verifier(self._client, info)
        with self._client.read(info, 0, info.size) as pieces:
            for piece in pieces:
                verifier.update(piece)
                stream.write(piece)
                self._crew.tell(len(piece))
        stream.flush()
        verifier.finish()

    # -- across

    def copy(self, info: Info, bucket: str, key: str) -> None:
        """Copy within the store, which moves no bytes through here."""
        if info.size <= LIMITS.put_size_max:
            self._client.copy(info, bucket, key)
        else:
            with self._begun(bucket, key, info.attributes) as upload:
                works = (
                    partial(
                        self._client.copy_part, upload, number, info, offset, min(COPY_PART_SIZE, info.size - offset)
                    )
                    for number, offset in enumerate(range(0, info.size, COPY_PART_SIZE), 1)
                )
                self._complete(upload, self._crew.parts(works))
        self._crew.tell(info.size)


def _regular(path: Path) -> os.stat_result:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise Invalid(f"{path} is a directory: to copy all that is in it, add --recursive", reason="directory")
    if not stat.S_ISREG(status.st_mode):
        raise Invalid(f"{path} is no ordinary file: to store what it gives, pipe it in (`ostraka cp - s3://...`)")
    return status


def _unchanged(path: Path, before: os.stat_result) -> None:
    """Conflict if the file is another one now than it was when its reading began."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        raise Truncated(f"{path} vanished while it was read: it was not stored", reason="changed") from None
    if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
        raise Conflict(f"{path} changed while it was read: it was not stored; try again", reason="changed")


@contextlib.contextmanager
def _about(target: Path) -> Iterator[None]:
    """Errors of descriptors name the file that they are about."""
    try:
        yield
    except OSError as e:
        if e.filename is None or str(e.filename).endswith(STAGING):
            e.filename = str(target)
        raise
