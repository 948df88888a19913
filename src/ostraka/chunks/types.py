"""What ``chunks`` and ``objects`` say to each other: entries of a manifest, and bytes that were placed.

``chunks`` never commits. It stores bytes durably through a pool and hands back, with each entry, the
preconditions and operations that make the entry *referenced*; ``objects`` puts them into its own one commit
(laws 2 and 4, ENGINE 7). If that commit is rejected because a chunk changed under it, ``again()`` decides anew
while the bytes are still held.
"""

from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from ostraka.chunks.sealing import DataKey, Domain
from ostraka.errors import Forbidden
from ostraka.host import Buffer
from ostraka.limits import LIMITS
from ostraka.state.types import Operation, Precondition, Present

KEY_TAG = "key"


class Kind(IntEnum):
    """What an entry points to."""

    CHUNK = 1  # id: 32 bytes, the keyed BLAKE3 of the chunk's plaintext (ENGINE 17)
    SLOT = 2  # id: 16 bytes of the pack, and the slot's number
    MANIFEST = 3  # id: 16 bytes of another manifest (Complete and Copy count manifests, ENGINE 13)


class Codec(IntEnum):
    """How a frame or a slot is stored: these numbers are on disk."""

    RAW = 0
    ZSTD = 1
    LZ4 = 2


class Cut(msgspec.Struct, frozen=True, gc=False):
    """Where a body is cut into chunks: every ``size`` bytes; or ``by_content``, where its bytes say so, ``size`` bytes
    apart on average. A process whose limits.chunk_size is smaller cuts in proportion to that."""

    size: int = LIMITS.chunk_size
    by_content: bool = False


class Recipe(msgspec.Struct, frozen=True, gc=False):
    """How a body is to be kept. ``level``: of the codec, in its own scale. What does not shrink is stored raw.
    ``domain``: what it is sealed under; None: it is not encrypted."""

    codec: Codec = Codec.ZSTD
    level: int = 1
    cut: Cut = Cut()
    domain: Domain | None = None
    pool: int = 0  # where it is kept: 0 are the store's own disks

    @property
    def gate(self) -> tuple[Precondition, ...]:
        """What must hold when something that was sealed is committed (tag: KEY_TAG): its key was not rotated away."""
        return (Present(self.domain.gate, KEY_TAG),) if self.domain is not None and self.domain.gate else ()


RECIPE = Recipe()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A slice: ``length`` bytes at ``offset`` of what (kind, id, slot) names."""

    kind: int
    id: bytes
    offset: int
    length: int
    slot: int = 0


class Placed(Protocol):
    """One run of bytes that is on stable storage, not yet referenced."""

    entry: Entry
    preconditions: Sequence[Precondition]
    operations: Sequence[Operation]

    async def again(self) -> "Placed":
        """After a commit that was certainly rejected: look again, and write anew if what was found is gone.

        After an outcome that is unknown (Unavailable, a cancelled commit) never: `release`, and start anew.
        """
        ...

    def release(self) -> None:
        """The commit landed, or nobody knows whether it did: give the memory back. Idempotent."""
        ...

    def abandon(self) -> None:
        """No commit that names this landed or ever will, certainly: what was stored is dead, give all back.

        What is only released without a commit stays on disk until compaction or fsck finds it. Idempotent, and
        without effect after `release`.
        """
        ...


class ChunkBuffer(Protocol):
    """Where a body is received: room for limits.chunk_size bytes of plaintext, written to disk without a copy.

    Digests may go on reading ``view`` until `Placed.release`: storing never changes the plaintext in it. What lies
    behind that plaintext is the pool's from `Chunks.place` on, for padding and parity.
    """

    view: memoryview

    def release(self) -> None: ...


class Keyring(Protocol):
    """Knows the wrapping keys of the store's own domains."""

    def open(self, seal: bytes, of: bytes) -> DataKey:
        """The data key of a seal. Unavailable("master-key") without the key that it takes, Forbidden("key") for a seal
        of a key that is not the store's, Corrupt for one that does not open."""
        ...


class NoKeys:
    """The keyring of a store that has none."""

    def open(self, seal: bytes, of: bytes) -> DataKey:
        raise Forbidden("sealed under a key that is not known here", reason="key")


class Chunks(Protocol):
    """Cut runs of bytes into what pools hold, and read them back verified."""

    async def buffer(self, size: int | None = None) -> ChunkBuffer:
        """A buffer to receive one chunk's plaintext into; waits for room.

        ``size``: how much will come at most, when that is known to be less than limits.chunk_size.
        """
        ...

    def scarce(self, size: int | None = None) -> bool:
        """Whether `buffer` would have to wait: then let go of what you hold first, by committing it."""
        ...

    async def place(self, buffer: ChunkBuffer, length: int, recipe: Recipe = RECIPE) -> Placed:
        """Store the first ``length`` bytes as one chunk; takes over the buffer (Placed.release gives it back)."""
        ...

    async def place_small(self, body: Buffer, recipe: Recipe = RECIPE) -> Placed:
        """Store a body of at most limits.pack_size_max bytes in a pack with others that arrive together."""
        ...

    def read(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> AsyncIterator[Buffer]:
        """Verified pieces of the entry's bytes [offset, offset + length), in order; CHUNK and SLOT entries only.

        ``domain``: that of a customer's key, which the store cannot know; all other keys it finds by itself.
        Raises Corrupt or Unavailable, never zeros and never short (law 3).
        """
        ...

    def read_now(self, entry: Entry, offset: int, length: int, domain: Domain | None = None) -> Buffer | None:
        """As read, when all of it is in the page cache and small; else None."""
        ...

    def reference(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        """What one more reference to each of these CHUNK and SLOT entries takes (copy is metadata only).

        The caller adds a precondition that the source which names them still stands, in the same mutation.
        """
        ...

    async def dismantle(self, entries: Sequence[Entry]) -> tuple[list[Precondition], list[Operation]]:
        """What one reference less to each takes: the collector commits it with the removal of the dead row.

        What falls to no reference is queued in the same mutation, for ``sweep``. All that one mutation gives up
        goes through one call. `state.Rejected`: somebody else changed a count; call again.
        """
        ...

    async def sweep(self, limit: int) -> int:
        """Delete chunks and empty packs that stayed unreferenced past their grace, re-checked in the commit;
        rewrite packs that are mostly dead. Returns how many rows it settled. Called by jobs only."""
        ...
