"""All pools of a store as one: a stripe says which pool it is in, and a write which one it wants.

Pool 0 are the store's own disks. The others are opened when a stripe of theirs is met first: so a process that came up
before a pool was added needs to be told nothing.
"""

from collections.abc import Callable, Iterable, Sequence

from ostraka.host import Buffer
from ostraka.pools.backend_pool import BackendPool
from ostraka.pools.pool import ErasurePool
from ostraka.pools.types import Owner, Pool, ShardHealth, Stripe, StripeBuffer


class Pools:
    """Implements pools.types.Pool over all of them. ``open_pool`` raises Unavailable for one that cannot be opened."""

    def __init__(self, disks: ErasurePool, open_pool: Callable[[int], BackendPool]) -> None:
        self.disks = disks
        self._open_pool = open_pool
        self._backends: dict[int, BackendPool] = {}

    def of(self, number: int) -> Pool:
        if not number:
            return self.disks
        return self.backend(number)

    def backend(self, number: int) -> BackendPool:
        """A pool over a backend."""
        pool = self._backends.get(number)
        if pool is None:
            pool = self._backends[number] = self._open_pool(number)
        return pool

    async def forget(self, number: int) -> None:
        """Let go of a pool; it is opened anew if it is wanted again."""
        pool = self._backends.pop(number, None)
        if pool is not None:
            await pool.close()

    # -- memory: of one place for all of them

    async def buffer(self, size: int) -> StripeBuffer:
        return await self.disks.buffer(size)

    def scarce(self, size: int) -> bool:
        return self.disks.scarce(size)

    def scratch(self, size: int) -> memoryview:
        return self.disks.scratch(size)

    def spare(self, size: int) -> StripeBuffer:
        return self.disks.spare(size)

    # -- bodies

    async def write(
        self, owner: Owner, owner_id: bytes, body: StripeBuffer | Buffer, length: int, pool: int = 0
    ) -> Stripe:
        return await self.of(pool).write(owner, owner_id, body, length)

    async def read(self, stripe: Stripe, offset: int, length: int) -> memoryview:
        if not stripe.pool:
            return await self.disks.read(stripe, offset, length)
        return await self.of(stripe.pool).read(stripe, offset, length)

    def read_now(self, stripe: Stripe, offset: int, length: int) -> memoryview | None:
        return None if stripe.pool else self.disks.read_now(stripe, offset, length)

    def settle(self, stripes: Iterable[Stripe]) -> None:
        self.disks.settle([stripe for stripe in stripes if not stripe.pool])

    async def release(self, stripes: Sequence[tuple[Owner, bytes, Stripe]]) -> None:
        by_pool: dict[int, list[tuple[Owner, bytes, Stripe]]] = {}
        for each in stripes:
            by_pool.setdefault(each[2].pool, []).append(each)
        for number, own in by_pool.items():
            await self.of(number).release(own)

    async def verify(self, stripe: Stripe) -> list[ShardHealth]:
        return await self.of(stripe.pool).verify(stripe)

    async def repair(self, owner: Owner, owner_id: bytes, stripe: Stripe) -> Stripe | None:
        return await self.of(stripe.pool).repair(owner, owner_id, stripe)

    async def pay(self) -> None:
        """Do what backends are owed."""
        for pool in list(self._backends.values()):
            await pool.pay()

    async def close(self) -> None:
        for number in list(self._backends):
            await self.forget(number)
        await self.disks.close()
