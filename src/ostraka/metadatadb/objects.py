"""The objects of one namespace in a byte store: named, listed, read whole, written whole.

    <prefix><namespace>/entry-<stamp>-<writer>           an entry of the journal, until it is in the head
    <prefix><namespace>/head                             changed by compare-and-set only
    <prefix><namespace>/lock                             advice (lock.py)
    <prefix><namespace>/snapshot-<commit>-<nonce>[-void]  what the head of that commit, or a later one, stands on

Entries and snapshots are never changed: their names are never used twice. Objects of other names are nobody's business
here. ``head`` sorts after the entries, so that a listing says which head there was once the entries had been listed.
Knows the objects; what they mean is sharing.py's.
"""

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from ostraka.backends import Backend, Capability, DeletesBatches, WritesConditionally, require
from ostraka.backends.iterators import ended
from ostraka.errors import Absent, Corrupt, Forbidden, Invalid, NotSupported, OstrakaError, Truncated, Unavailable
from ostraka.limits import Limits
from ostraka.metadatadb import format as f
from ostraka.metadatadb.state import State

_ENTRY: Final = re.compile(r"entry-([0-9a-f]{16})-([0-9a-f]{32})")
_SNAPSHOT: Final = re.compile(r"snapshot-([0-9a-f]{16})-[0-9a-f]{32}(-void)?")


@dataclass(slots=True)
class Listing:
    """What lay there when it was listed."""

    entries: dict[str, tuple[str, str]] = field(default_factory=dict)  # ids: stamps and writers, in order
    snapshots: dict[str, int] = field(default_factory=dict)  # names: the commits that they were made for
    head: str | None = None  # its ETag

    def add(self, name: str, etag: str) -> None:
        if entry := _ENTRY.fullmatch(name):
            self.entries[name.removeprefix("entry-")] = entry[1], entry[2]
        elif snapshot := _SNAPSHOT.fullmatch(name):
            self.snapshots[name] = int(snapshot[1], 16)
        elif name == "head":
            self.head = etag

    @property
    def void(self) -> bool:
        """Whether its newest snapshot says that nothing is held."""
        return bool(self.snapshots) and not self.entries and max(self.snapshots).endswith("-void")


def snapshot_name(commit: int, nonce: str, *, void: bool) -> str:
    return f"snapshot-{commit:016x}-{nonce}{'-void' if void else ''}"


class Objects:
    """Reading and writing them. Errors are the byte store's; Corrupt and Refused for what is there and no good."""

    def __init__(self, backend: Backend, directory: str, limits: Limits) -> None:
        self._backend = backend
        self._conditional = require(backend, WritesConditionally)
        batches = Capability.BATCH_DELETE in backend.capabilities
        self._batches = require(backend, DeletesBatches) if batches else None
        self._directory = directory
        self._limits = limits
        self.head_path = self.path("head")
        self.lock_path = self.path("lock")

    def path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    async def list(self) -> Listing:
        found = Listing()
        async with ended(self._backend.list_entries(f"{self._directory}/")) as entries:
            async for entry in entries:
                found.add(entry.path.removeprefix(f"{self._directory}/"), entry.stat.etag)
        return found

    async def read_head(self) -> tuple[f.Head, str] | None:
        """The head and its ETag; None if there is none."""
        try:
            data, etag = await self._read(self.head_path)
        except Absent:
            return None
        return f.read_head(self.head_path, data), etag

    async def write_head(self, head: f.Head, match: str | None) -> str:
        """Put it in the place of the one with that ETag; the new ETag. PreconditionFailed if another was faster."""
        return await self._conditional.write_if(self.head_path, head.encode(), match=match)

    async def read_entry(self, id: str) -> f.Entry | None:
        """None if it is gone."""
        path = self.path(f"entry-{id}")
        try:
            data, _ = await self._read(path)
        except Absent:
            return None
        entry = f.only_record(path, data, "entry", f.Entry)
        if entry.id != id:
            raise Corrupt(f"{path}: holds the entry {entry.id}", reason="object")
        return entry

    async def write_entry(self, entry: f.Entry) -> None:
        """May be called again with the same one."""
        await self._backend.write(self.path(f"entry-{entry.id}"), f.seal("entry", [f.line_of(entry)]))

    async def read_snapshot(self, ref: f.SnapshotRef) -> tuple[f.SnapshotLine, State] | None:
        """None if it is gone: then another head stands on another one."""
        path = self.path(ref.name)
        try:
            data, _ = await self._read(path)
        except Absent:
            return None
        about, state = await asyncio.to_thread(f.read_snapshot, path, data)
        if about.sequence != ref.sequence:
            raise Corrupt(f"{path}: holds entries up to {about.sequence}, not {ref.sequence}", reason="object")
        return about, state

    async def write_snapshot(self, name: str, data: bytes) -> None:
        await self._backend.write(self.path(name), data)

    async def read_lock(self) -> tuple[f.LockLine, str] | None:
        try:
            data, etag = await self._read(self.lock_path)
        except Absent:
            return None
        return f.only_record(self.lock_path, data, "lock", f.LockLine), etag

    async def write_lock(self, lock: f.LockLine, match: str | None) -> str:
        return await self._conditional.write_if(self.lock_path, f.seal("lock", [f.line_of(lock)]), match=match)

    async def remove(self, names: Collection[str]) -> OstrakaError | None:
        """Remove as many of them as may be; why the others stay."""
        paths = [self.path(name) for name in names]
        if self._batches is not None:
            try:
                failures = await self._batches.delete_batch(paths)
                return next((e for e in (failed.error for failed in failures) if isinstance(e, OstrakaError)), None)
            except (NotSupported, Invalid):  # of some stores that say they are S3: one by one, then
                self._batches = None
            except OstrakaError as e:
                return e
        failure = None
        for path in paths:
            try:
                await self._backend.delete(path)
            except Forbidden as e:
                return e
            except OstrakaError as e:
                failure = e
        return failure

    async def _read(self, path: str) -> tuple[bytes, str]:
        limit = self._limits.metadatadb_object_bytes_max
        try:
            async with self._backend.open(path) as reading:
                stat = reading.stat
                if stat.size > limit:
                    raise Corrupt(f"{path}: {stat.size} bytes; at most {limit} are read", reason="object")
                data = b"".join([bytes(piece) async for piece in reading.pieces])
        except Truncated as e:
            raise Unavailable(e.message, reason="connection") from e
        if len(data) != stat.size:  # what arrived is not what is there: no damage
            raise Unavailable(f"{path}: {len(data)} of its {stat.size} bytes arrived", reason="connection")
        return data, stat.etag
