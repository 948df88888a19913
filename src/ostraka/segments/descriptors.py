"""Open segment files for reading, a bounded number of them, shared by the threads of a process.

An open descriptor is what pins a segment: compaction unlinks the file, readers that hold it finish (ENGINE 20).
That is also why descriptors must go when their file has gone: until then unlinking frees nothing.
"""

import threading
from collections.abc import Container
from pathlib import Path

from ostraka.host import File, Files
from ostraka.segments.format import SegmentId, segment_name


class Descriptor:
    """A borrowed file; give it back."""

    __slots__ = ("doomed", "file", "users")

    def __init__(self, file: File) -> None:
        self.file = file
        self.users = 0
        self.doomed = False


class Descriptors:
    def __init__(self, directory: Path, files: Files, open_max: int) -> None:
        self._directory = directory
        self._files = files
        self._open_max = open_max
        self._lock = threading.Lock()
        self._open: dict[SegmentId, Descriptor] = {}  # in the order of use, the oldest first

    def __len__(self) -> int:
        return len(self._open)

    def take(self, segment: SegmentId) -> Descriptor:
        """The segment's file. Raises FileNotFoundError when it has gone: look it up once again."""
        found = self.take_cached(segment)
        if found is not None:
            return found
        fresh = Descriptor(self._files.open(self._directory / segment_name(segment)))
        with self._lock:
            found = self._open.pop(segment, None)
            if found is None:
                found, fresh = fresh, None  # type: ignore[assignment]
            self._open[segment] = found
            found.users += 1
            surplus = []
            while len(self._open) > self._open_max:
                surplus.append(self._open.pop(next(iter(self._open))))
            closing = self._doom(surplus)
        if fresh is not None:
            fresh.file.close()
        for descriptor in closing:
            descriptor.file.close()
        return found

    def take_cached(self, segment: SegmentId) -> Descriptor | None:
        """The segment's file if it is open already."""
        with self._lock:
            found = self._open.pop(segment, None)
            if found is not None:
                self._open[segment] = found
                found.users += 1
            return found

    def give(self, descriptor: Descriptor) -> None:
        with self._lock:
            descriptor.users -= 1
            closing = descriptor.doomed and descriptor.users == 0
        if closing:
            descriptor.file.close()

    def keep_only(self, segments: Container[SegmentId]) -> None:
        """Close, as soon as their readers are done, the files of all other segments."""
        with self._lock:
            gone = [self._open.pop(segment) for segment in list(self._open) if segment not in segments]
            closing = self._doom(gone)
        for descriptor in closing:
            descriptor.file.close()

    def close(self) -> None:
        self.keep_only(())

    @staticmethod
    def _doom(descriptors: list[Descriptor]) -> list[Descriptor]:
        for descriptor in descriptors:
            descriptor.doomed = True
        return [descriptor for descriptor in descriptors if descriptor.users == 0]
