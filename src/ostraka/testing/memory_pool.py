"""A pool whose bodies live in memory: the whole promise of ``pools.types.Pool``, for tests of the rooms above it.

It verifies as a real pool does (a checksum per body), counts and bounds its buffers, and can be told to damage or to
lose a body, or to hold writes back until the test lets them go.
"""

import asyncio
from collections.abc import Iterable, Sequence

from xxhash import xxh3_64_intdigest

from ostraka.errors import Corrupt, Overloaded, Unavailable
from ostraka.host import Buffer, Host
from ostraka.limits import LIMITS, Limits
from ostraka.pools.types import Owner, ShardHealth, Stripe, StripeBuffer


class MemoryStripeBuffer:
    """A buffer of a `MemoryPool`; its memory is wiped at release, so that a use after it is seen."""

    def __init__(self, pool: "MemoryPool", size: int) -> None:
        self._pool = pool
        self.view = memoryview(bytearray(size))
        self.released = False

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.view[:] = b"\xdd" * len(self.view)
            self._pool._returned(len(self.view))


class MemoryPool:
    """Bodies by write id. ``without_copy`` counts the writes that came in one of our own buffers."""

    def __init__(self, limits: Limits = LIMITS, host: Host | None = None) -> None:
        self._limits = limits
        self._host = host or Host()
        self._bodies: dict[bytes, tuple[Owner, bytes, bytes, int]] = {}
        self._freed = asyncio.Event()
        self.buffers_bytes = 0
        self.buffers_bytes_peak = 0
        self.writes = 0
        self.unsettled: set[bytes] = set()  # writes that were neither settled nor released yet
        self.without_copy = 0
        self.reads: list[tuple[bytes, int, int]] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.failing: Exception | None = None  # raised by writes instead of storing

    # -- what a test does to it

    def damage(self, write_id: bytes, at: int = 0) -> None:
        """Flip a bit at rest: reads answer Corrupt."""
        owner, owner_id, body, checksum = self._bodies[write_id]
        flipped = bytearray(body)
        flipped[at] ^= 1
        self._bodies[write_id] = (owner, owner_id, bytes(flipped), checksum)

    def damage_unseen(self, write_id: bytes, at: int = 0) -> None:
        """Flip a bit as if it had been flipped before the pool ever saw it: the pool verifies it as good."""
        self.damage(write_id, at)
        owner, owner_id, body, _ = self._bodies[write_id]
        self._bodies[write_id] = (owner, owner_id, body, xxh3_64_intdigest(body))

    def lose(self, write_id: bytes) -> None:
        """Every shard of it is gone: reads answer Corrupt."""
        del self._bodies[write_id]

    def move(self, stripe: Stripe) -> Stripe:
        """As a repair onto other disks does: the same body under a new stripe; the old one is gone."""
        owner, owner_id, body, _ = self._bodies.pop(stripe.write_id)
        return self._keep(owner, owner_id, body)

    def bodies(self) -> dict[bytes, bytes]:
        """What is stored, by write id."""
        return {write_id: body for write_id, (_, _, body, _) in self._bodies.items()}

    # -- Pool

    async def buffer(self, size: int) -> StripeBuffer:
        if size > self._limits.buffers_bytes_max:
            raise Overloaded("a buffer larger than all buffers together", reason="buffers")
        while self.buffers_bytes + size > self._limits.buffers_bytes_max:
            self._freed.clear()
            try:
                async with asyncio.timeout(self._limits.commit_wait_seconds_max):
                    await self._freed.wait()
            except TimeoutError:
                raise Overloaded("no buffer became free", reason="buffers") from None
        self.buffers_bytes += size
        self.buffers_bytes_peak = max(self.buffers_bytes_peak, self.buffers_bytes)
        return MemoryStripeBuffer(self, size)

    def scarce(self, size: int) -> bool:
        return self.buffers_bytes + size > self._limits.buffers_bytes_max

    def scratch(self, size: int) -> memoryview:
        return memoryview(bytearray(size))

    def spare(self, size: int) -> StripeBuffer:
        self.buffers_bytes += size
        return MemoryStripeBuffer(self, size)

    async def write(
        self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int, pool: int = 0
    ) -> Stripe:
        await self.may_write.wait()
        if self.failing is not None:
            raise self.failing
        if isinstance(body, MemoryStripeBuffer):
            self.without_copy += 1
            content = bytes(body.view[:length])
            body.view[length:] = b"\xee" * (len(body.view) - length)  # as a real one pads and encodes there
        else:
            content = bytes(memoryview(body)[:length])  # type: ignore[arg-type]
        assert len(content) == length > 0
        await asyncio.sleep(0)  # a real one always lets others run
        self.writes += 1
        stripe = self._keep(owner, owner_id, content)
        self.unsettled.add(stripe.write_id)
        return stripe

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        await asyncio.sleep(0)
        return self._read(stripe, offset, length)

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        return self._read(stripe, offset, length)

    def settle(self, stripes: Iterable[Stripe]) -> None:
        self.unsettled.difference_update(stripe.write_id for stripe in stripes)

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        for owner, owner_id, stripe in stripes:
            self.unsettled.discard(stripe.write_id)
            kept = self._bodies.pop(stripe.write_id, None)
            assert kept is None or kept[:2] == (owner, owner_id)

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        kept = self._bodies.get(stripe.write_id)
        if kept is None:
            return [ShardHealth(0, 0, "missing")]
        return [ShardHealth(0, 0, "good" if xxh3_64_intdigest(kept[2]) == kept[3] else "damaged")]

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        if (await self.verify(stripe))[0].state == "good":
            return None
        raise Unavailable("there is no second copy in memory", reason="disks")

    def _keep(self, owner: Owner, owner_id: bytes, body: bytes) -> Stripe:
        stripe = Stripe(self._host.random(16), 1, 0, len(body), len(body), (0,))
        self._bodies[stripe.write_id] = (owner, owner_id, body, xxh3_64_intdigest(body))
        return stripe

    def _read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        self.reads.append((stripe.write_id, offset, length))
        kept = self._bodies.get(stripe.write_id)
        if kept is None or xxh3_64_intdigest(kept[2]) != kept[3]:
            raise Corrupt("no shard of it verifies", reason="shards")
        assert 0 <= offset <= offset + length <= stripe.length
        return memoryview(kept[2])[offset : offset + length]

    def _returned(self, size: int) -> None:
        self.buffers_bytes -= size
        self._freed.set()
