"""What crosses the door of a pool: stripes, the buffers they are written from, and what a pool can do.

A pool is a place where chunks live. It stores *bodies* (the stored bytes of one chunk or one pack) and knows
nothing of what is in them: frames, compression and references are the business of ``chunks``. It never touches the
state: it returns a ``Stripe``, which the caller puts into its own commit.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from ostraka.host import Buffer
from ostraka.nodes.types import Owner as Owner


class Stripe(msgspec.Struct, frozen=True, array_like=True):
    """The k+m shards of one body, with the geometry it was written with (ENGINE 2). Immutable.

    ``disks[i]`` is the number of the disk that holds shard i; disk numbers are small, given once, never reused.
    Shard i (i < k) is the run ``[i * shard_size, (i + 1) * shard_size)`` of the body, padded with zeros.
    """

    write_id: bytes  # 16 random bytes, never reused: law 1
    k: int
    m: int
    length: int  # bytes of the body
    shard_size: int  # bytes of each shard; in a pool over a backend: of each cell
    disks: tuple[int, ...]
    pool: int = 0  # 0: the store's own disks; else the number of a pool over a backend, which has no shards of ours


class StripeBuffer(Protocol):
    """Memory of a body that can be written without a copy: page-aligned, counted against limits.buffers_bytes_max."""

    view: memoryview  # writable, as many bytes as were asked for

    def release(self) -> None:
        """Give the memory back; the view must not be used afterwards. Idempotent."""
        ...


class ShardHealth(msgspec.Struct, frozen=True, array_like=True):
    """What verification found of one shard."""

    index: int
    disk: int
    state: str  # "good", "missing" (the disk answers and has it not), "damaged", "unreachable"


class Pool(Protocol):
    """A place where bodies live: an erasure-coded set of disks, or a backend."""

    async def buffer(self, size: int) -> StripeBuffer:
        """Memory for a body of up to ``size`` bytes; waits for room, Overloaded after the deadline."""
        ...

    def scarce(self, size: int) -> bool:
        """Whether `buffer` would have to wait. Who holds buffers lets go of them before it waits for another (by
        finishing what they are for), or requests would wait for one another until all of them fail."""
        ...

    def scratch(self, size: int) -> memoryview:
        """Memory at once, for who holds some already and may not wait for more: counted, so that others wait for it.
        It comes back by itself when nobody refers to the view any more."""
        ...

    def spare(self, size: int) -> StripeBuffer:
        """As `buffer`, at once: for a body that is made from one in a buffer already. Counted, so that others wait."""
        ...

    async def write(
        self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int, pool: int = 0
    ) -> Stripe:
        """Store the first ``length`` bytes of body; when it returns, all k+m shards are on stable storage. ``pool``:
        which of the store's pools, for one that stands for all of them.

        Raises Unavailable (too few disks even for a narrower stripe), Full. A cancelled or failed write leaves
        only unreferenced shards, which compaction reclaims.
        """
        ...

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        """Exactly those bytes of the body, every cell of them verified; degraded where it must be.

        Raises Corrupt when fewer than k shards verify and Unavailable when disks that may hold them are away.
        """
        ...

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        """As read, if it can be answered at once from the page cache without waiting; else None."""
        ...

    def settle(self, stripes: Iterable[Stripe]) -> None:
        """Writes or repairs that returned these stripes were committed, or given up by the caller. Until then no
        compaction touches their shards (ENGINE 19); so every stripe is settled, or released, once. Cheap."""
        ...

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        """The state no longer names these stripes (committed): their shards are dead bytes now."""
        ...

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        """Read every cell of every shard and say how each is."""
        ...

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        """Rebuild shards that are not good, in place where the disk is up, else on another disk.

        Returns the stripe that the caller must commit in place of the old one, or None when nothing was wrong.
        """
        ...
