"""What a pool needs of the disks under it, wherever they are: a disk, and the set of them.

A ``Disk`` serves shards of one failure domain. Here it is in this process (``nodes/local.py``); behind a transport
it will be the same protocol. ``Members`` is the committed view of which disks exist and which are up: only a
committed epoch may take a disk out of writes (ENGINE 1).
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from ostraka.host import Buffer


class Owner(IntEnum):
    """Whose bytes a stripe holds; each shard says so too, so that a disk explains itself without the state."""

    CHUNK = 1
    PACK = 2


class ShardWrite(msgspec.Struct, frozen=True):
    """One shard to be appended. ``data`` is shard_size bytes, possibly in several buffers."""

    write_id: bytes
    index: int
    k: int
    m: int
    owner: Owner
    owner_id: bytes
    body_length: int
    data: Sequence[Buffer]


class Disk(Protocol):
    """One disk's shards. Methods are synchronous and are called in worker threads, except where said.

    OSError means that the device failed; Absent, that this disk certainly has no such shard; Corrupt, that it has
    one whose cells do not verify.
    """

    number: int

    def write(self, shards: Sequence[ShardWrite]) -> None:
        """Append and sync: when it returns, the shards (and what is needed to find them) survive a power cut."""
        ...

    def read(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview:
        """Those bytes of the shard, every cell that they touch verified."""
        ...

    def read_into(self, write_id: bytes, index: int, offset: int, into: memoryview) -> None:
        """As read, filling ``into`` (whole cells without a copy)."""
        ...

    def read_now(self, write_id: bytes, index: int, offset: int, length: int) -> memoryview | None:
        """As read, on the loop thread, if the page cache has it; else None."""
        ...

    def verify(self, write_id: bytes, index: int) -> None:
        """Read every cell and the record's header; raises as read does if anything is not good."""
        ...

    def settle(self, write_ids: Iterable[bytes]) -> None:
        """These writes were committed, or given up: until told, compaction leaves their segments alone. On the loop
        thread; never waits."""
        ...

    def tend(self) -> bool:
        """Let go of files that nobody reads, or that compaction unlinked; False when nothing is held any more."""
        ...

    def release(self, shards: Sequence[tuple[bytes, int]]) -> None:
        """These (write id, index) are dead: forget them in the index, count their bytes as dead. Unknown ones are
        ignored."""
        ...

    def free(self) -> tuple[int, int]:
        """(free, total) bytes of the file system, as last known: it never waits for the disk."""
        ...

    def close(self) -> None: ...


class Members(Protocol):
    """The disks of a store as the newest committed epoch has them."""

    @property
    def k(self) -> int: ...

    @property
    def m(self) -> int: ...

    def up(self) -> Sequence[Disk]:
        """Disks that new stripes may use."""
        ...

    def disk(self, number: int) -> Disk | None:
        """The disk of that number if it can be asked now; None while it is missing, down or replaced."""
        ...

    def gone(self, number: int) -> bool:
        """Whether that disk was replaced or forgotten: its shards are certainly lost, not merely away."""
        ...

    async def failed(self, number: int, error: BaseException) -> None:
        """A disk failed: when this returns, a synced epoch on a strict majority says that it is down, or the
        store has become read-only (then it raises Unavailable)."""
        ...
