"""The backend that forgets: everything in this process's memory, for tests and for what need not outlive it."""

import itertools
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self

import msgspec

from ostraka.backends.backend import Backend, Capability, DeleteFailure, Entry, Reading, Source, Stat
from ostraka.backends.configs import decode, encode
from ostraka.backends.iterators import ended
from ostraka.backends.paths import check_path, check_prefix, encoded
from ostraka.backends.streams import check_range, exactly
from ostraka.errors import Absent, Invalid, OstrakaError, PreconditionFailed, Unavailable
from ostraka.host import Buffer, Clock, SystemClock

_numbers = itertools.count(1)  # of all memories: an ETag is never met twice


class MemoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: a memory is found by nobody else."""


class MemoryBackend(Backend):
    """Bytes in a dictionary. Of one event loop; a configuration makes another, empty one."""

    type: ClassVar[str] = "memory"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._kept: dict[str, tuple[bytes, Stat]] = {}
        self._order: list[bytes] = []  # the paths as UTF-8, in order
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(
            {
                Capability.BATCH_DELETE,
                Capability.DIRECTORIES,
                Capability.CONDITIONAL,
                Capability.CONDITIONAL_DELETE,
                Capability.COPY,
                Capability.NEW_ETAGS,
            }
        )

    def to_config(self) -> dict[str, Any]:
        return encode(self.type, MemoryConfig())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        decode(config, MemoryConfig)
        return cls()

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the backend was closed", reason="closed")

    def _at(self, path: str) -> tuple[bytes, Stat] | None:
        self._check_open()
        return self._kept.get(check_path(path))

    def _keep(self, path: str, data: bytes) -> str:
        if self._at(path) is None:
            insort(self._order, path.encode())
        stat = Stat(len(data), self._clock.time(), f"{next(_numbers):x}")
        self._kept[path] = data, stat
        return stat.etag

    async def write(self, path: str, data: Buffer) -> str:
        return self._keep(path, bytes(data))

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        self._at(path)
        return self._keep(path, b"".join([bytes(piece) async for piece in exactly(source, size)]))

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        kept = self._at(path)
        if kept is None:
            raise Absent(f"{path}: nothing is there", reason="path")
        data, stat = kept
        if if_match not in (None, stat.etag):
            raise PreconditionFailed(f"{path}: it was changed", reason="changed")
        end = check_range(path, stat.size, offset, size)

        async def pieces() -> AsyncIterator[Buffer]:
            if offset < end:
                yield memoryview(data)[offset:end]

        yield Reading(stat, pieces())

    async def stat(self, path: str) -> Stat | None:
        kept = self._at(path)
        return kept and kept[1]

    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        begin, last = check_prefix(prefix).encode(), encoded(start_after)
        while True:  # found anew each time: the order may have changed while the caller had the turn
            self._check_open()
            at = max(bisect_left(self._order, begin), bisect_right(self._order, last))
            if at >= len(self._order) or not self._order[at].startswith(begin):
                return
            last = self._order[at]
            yield Entry(last.decode(), self._kept[last.decode()][1])

    async def delete(self, path: str) -> None:
        if self._at(path) is not None:
            del self._kept[path]
            del self._order[bisect_left(self._order, path.encode())]

    async def delete_batch(self, paths: Iterable[str]) -> list[DeleteFailure]:
        self._check_open()
        failures = []
        for path in paths:
            try:
                await self.delete(path)
            except OstrakaError as error:
                failures.append(DeleteFailure(path, error))
        return failures

    async def list_directories(self, prefix: str = "") -> AsyncIterator[str]:
        if prefix and not prefix.endswith("/"):
            raise Invalid(f"{prefix!r}: a directory's prefix ends with '/'", reason="path")
        last = None
        async with ended(self.list_entries(prefix)) as entries:
            async for entry in entries:
                name, slash, _ = entry.path[len(prefix) :].partition("/")
                if slash and name != last:
                    last = name
                    yield prefix + name

    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        kept = self._at(path)
        if match is None and kept is not None:
            raise PreconditionFailed(f"{path}: it is there already", reason="exists")
        if match is not None and (kept is None or kept[1].etag != match):
            raise PreconditionFailed(f"{path}: it was changed", reason="changed")
        return self._keep(path, bytes(data))

    async def delete_if(self, path: str, *, match: str) -> None:
        kept = self._at(path)
        if kept is not None and kept[1].etag != match:
            raise PreconditionFailed(f"{path}: it was changed", reason="changed")
        await self.delete(path)

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        data, _ = await self.read_with_stat(source)
        return await (self.write_if(target, data, match=None) if if_absent else self.write(target, data))
