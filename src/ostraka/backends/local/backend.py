"""The calls of a local backend: what is checked on the loop, what waits in threads, and in which order."""

import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import msgspec

from ostraka.backends.backend import Backend, Capability, DeleteFailure, Entry, Partial, Reading, Source, Stat
from ostraka.backends.configs import decode, encode
from ostraka.backends.iterators import ended
from ostraka.backends.local.flow import Flow, Spool, whole
from ostraka.backends.local.place import Opening, Place, error_of, stat_of, translated
from ostraka.backends.local.staging import Condition, Staged, Staging, matches, unconditional
from ostraka.backends.local.threads import Steps, Threads, Turn
from ostraka.backends.local.uploads import Uploads
from ostraka.backends.local.walk import Found, Walk
from ostraka.backends.paths import check_name, check_path, check_prefix, encoded
from ostraka.backends.streams import check_range, exactly
from ostraka.errors import Invalid, PreconditionFailed
from ostraka.host import Buffer, Host
from ostraka.limits import LIMITS, Limits
from ostraka.tree import Directory

T = TypeVar("T")
Failures = list[DeleteFailure]  # inside the class, `list` is the method

CAPABILITIES: Final = frozenset(
    {
        Capability.RESUME,
        Capability.BATCH_DELETE,
        Capability.DIRECTORIES,
        Capability.REMOVE_DIRECTORY,
        Capability.CONDITIONAL,
        Capability.CONDITIONAL_DELETE,
        Capability.COPY,
        Capability.PATH_CONFLICT,
        Capability.NEW_ETAGS,
    }
)


class LocalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``root``: an absolute path. ``create``: whether the first call may make it."""

    root: str
    create: bool = True


class LocalBackend(Backend):
    """A directory and the files in it, one for each path.

    What a write that returned wrote is synced, and so are its name and the directories above it. Conditions hold
    between all processes of one machine that use the directory through here; what other programs change is seen, has
    an ETag of its own, and is not locked out. Directories that become empty stay until ``remove_directory``.
    """

    type: ClassVar[str] = "local"

    def __init__(
        self,
        root: str | Path,
        *,
        create: bool = True,
        host: Host | None = None,
        limits: Limits = LIMITS,
        open_root: Opening = Directory.at,
    ) -> None:
        """``root``: the directory; made by the first call if it is absent and ``create`` is true. Where it is a mount,
        say false: it must then be there."""
        host = host or Host()
        self.root = Path(root).absolute()
        self._create = create
        self._limits = limits
        self._threads = Threads(limits.local_threads)
        self._place = Place(self.root, host.files, create=create, open_root=open_root)
        self._staging = Staging(self._place, host, limits.local_directories_held_max)
        self._uploads = Uploads(self._staging, host.clock, limits.local_piece_size)
        self._closed = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        return CAPABILITIES

    def to_config(self) -> dict[str, Any]:
        return encode(self.type, LocalConfig(str(self.root), self._create))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        fields = decode(config, LocalConfig)
        if not fields.root.startswith("/"):
            raise Invalid(f"the root of a local backend is an absolute path, not {fields.root!r}", reason="config")
        return cls(fields.root, create=fields.create)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._threads.later(self._staging.close)
            self._threads.close()

    def full_path(self, path: str) -> Path:
        """Where the file of this path is, for programs that read files."""
        return self.root / check_path(path)

    def outside(self, path: str = "") -> str:
        """As other programs name it (partitions.SeenOutside)."""
        return str(self.full_path(path) if path else self.root).rstrip("/") + ("" if path else "/")

    async def _run(self, path: str, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        with translated(path):
            return await self._threads.run(work, undo)

    async def _change(self, path: str, work: Callable[[Turn], T]) -> T:
        with translated(path):
            return await self._threads.change(work)

    # -- writing

    async def write(self, path: str, data: Buffer) -> str:
        return await self._write_at_once(path, data, unconditional)

    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        return await self._write_at_once(path, data, matches(path, match))

    async def _write_at_once(self, path: str, data: Buffer, condition: Condition) -> str:
        check_path(path)

        def work(turn: Turn) -> str:
            if condition is not unconditional:
                self._staging.check(path, condition)  # before the work of staging it
            staged = self._staging.create()
            try:
                staged.write(data, 0)
                staged.sync()
                return self._staging.publish(staged, path, turn, condition)
            finally:
                staged.discard()

        return await self._change(path, work)

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        check_path(path)
        staged = await self._run(path, self._staging.create, Staged.discard)
        spool = Spool(self._threads, staged, self._limits.local_gather_size)

        def publish(turn: Turn) -> str:
            spool.write_rest()
            staged.sync()
            return self._staging.publish(staged, path, turn)

        try:
            async with ended(exactly(source, size)) as pieces:
                async for piece in pieces:
                    with translated(path):
                        await spool.add(piece)
            return await self._change(path, publish)
        except BaseException:
            self._threads.later(staged.discard)
            raise

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        check_path(source)
        check_path(target)
        condition = matches(target, None) if if_absent else unconditional

        def work(turn: Turn) -> str:
            file, status = self._place.open(source)
            staged = self._staging.create()
            try:
                staged.copy(file)
                now = file.status()
                if (now.size, now.modified) != (status.size, status.modified):
                    raise PreconditionFailed(f"{source}: another program changed it in place", reason="changed")
                staged.sync()
                return self._staging.publish(staged, target, turn, condition)
            finally:
                file.close()
                staged.discard()

        return await self._change(target, work)

    # -- reading

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        check_path(path)

        def work() -> Flow:
            file, status = self._place.open(path)
            try:
                if if_match is not None:
                    matches(path, if_match)(status)
                end = check_range(path, status.size, offset, size)
                return Flow(path, file, status, offset, end, self._limits.local_piece_size)
            except BaseException:
                file.close()
                raise

        flow = await self._run(path, work, Flow.close)
        try:
            yield Reading(stat_of(flow.status), self._pieces(path, flow))
        finally:
            flow.close()

    async def read_with_stat(self, path: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, Stat]:
        """In one visit to a thread and into one buffer: pieces are for who passes them on."""
        check_path(path)

        def work() -> tuple[bytes, Stat]:
            file, status = self._place.open(path)
            try:
                end = check_range(path, status.size, offset, size)
                return whole(path, file, status, offset, end), stat_of(status)
            finally:
                file.close()

        return await self._run(path, work)

    async def _pieces(self, path: str, flow: Flow) -> AsyncIterator[Buffer]:
        with translated(path):
            async for piece in flow.pieces(self._threads):
                yield piece

    async def stat(self, path: str) -> Stat | None:
        check_path(path)
        status = await self._run(path, lambda: self._place.find(path))
        return None if status is None else stat_of(status)

    # -- listing

    async def list_entries(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[Entry]:
        async with ended(self._walk(prefix, start_after, with_status=True)) as walk:
            async for found in walk:
                assert found.status is not None
                yield Entry(found.path, stat_of(found.status))

    async def list(self, prefix: str = "", *, start_after: str = "") -> AsyncIterator[str]:
        async with ended(self._walk(prefix, start_after, with_status=False)) as walk:
            async for found in walk:
                yield found.path

    def _walk(self, prefix: str, start_after: str, *, with_status: bool) -> AsyncIterator[Found]:
        begin, after = check_prefix(prefix).encode(), encoded(start_after)
        walk = Walk(begin, after, self._limits.local_names_held_max, with_status=with_status)
        return self._advanced(prefix, walk.paths(self._place.enter))

    async def list_directories(self, prefix: str = "") -> AsyncIterator[str]:
        if prefix and not prefix.endswith("/"):
            raise Invalid(f"{prefix!r}: a directory's prefix ends with '/'", reason="path")
        walk = Walk(check_prefix(prefix).encode(), b"", self._limits.local_names_held_max, with_status=False)
        async with ended(self._advanced(prefix, walk.directories(self._place.enter))) as directories:
            async for directory in directories:
                yield directory

    async def _advanced(self, prefix: str, items: Iterator[T]) -> AsyncIterator[T]:
        """The items, advanced in a thread: a few at first, for who wants no more, then many at once."""
        steps = Steps(items)
        count = self._limits.local_batch_max // 16
        try:
            while batch := await self._run(prefix or str(self.root), partial(steps.take, count)):
                for item in batch:
                    yield item
                count = self._limits.local_batch_max
        finally:
            self._threads.later(steps.close)

    # -- deleting

    async def delete(self, path: str) -> None:
        check_path(path)
        await self._change(path, lambda turn: self._staging.delete(path, turn))

    async def delete_if(self, path: str, *, match: str) -> None:
        check_path(path)
        await self._change(path, lambda turn: self._staging.delete(path, turn, matches(path, match)))

    async def delete_batch(self, paths: Iterable[str]) -> Failures:
        failures: Failures = []
        left = iter(paths)
        while batch := list(itertools.islice(left, self._limits.local_batch_max)):
            good = []
            for path in batch:
                try:
                    good.append(check_path(path))
                except Invalid as error:
                    failures.append(DeleteFailure(path, error))
            failed = await self._threads.run(partial(self._staging.delete_all, good))
            failures += [DeleteFailure(p, error_of(e, p) if isinstance(e, OSError) else e) for p, e in failed.items()]
        return failures

    async def remove_directory(self, path: str) -> bool:
        check_path(path)
        return await self._run(path, lambda: self._staging.remove_directory(path))

    # -- uploads

    async def partial(self, path: str, token: str) -> Partial | None:
        check_path(path)
        check_name(token)
        return await self._run(path, lambda: self._uploads.partial(path, token))

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        check_path(path)
        check_name(token)
        staged = await self._run(path, lambda: self._uploads.begin(path, token, offset), Staged.keep)
        spool = Spool(self._threads, staged, self._limits.local_gather_size, offset)
        try:
            async with ended(exactly(source, None)) as pieces:
                async for piece in pieces:
                    with translated(path):
                        await spool.add(piece)
        finally:
            with translated(path):
                await self._threads.finish(spool.end)
        return spool.offset

    async def promote(self, path: str, token: str, *, size: int, sha256: str) -> str:
        check_path(path)
        check_name(token)
        return await self._change(path, lambda turn: self._uploads.promote(path, token, turn, size, sha256))

    async def abandon(self, path: str, token: str) -> None:
        check_path(path)
        check_name(token)
        await self._run(path, lambda: self._uploads.abandon(path, token))

    async def sweep(self, older_than: float) -> int:
        return await self._run(str(self.root), lambda: self._uploads.sweep(older_than))
