"""Pools over backends are opened by each process when it meets the first stripe of one."""

import logging
from typing import TYPE_CHECKING

from ostraka.backends.backend import Backend
from ostraka.backends.resilience import ResilientBackend
from ostraka.backends.urls import address
from ostraka.errors import OstrakaError, Unavailable
from ostraka.objects.tiers import PoolRow, decode, pool_key
from ostraka.pools.backend_pool import BackendPool
from ostraka.pools.cache import Cache

if TYPE_CHECKING:
    from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")


def open_pool(store: "Store", number: int) -> BackendPool:
    """A pool that the state knows. Raises Unavailable: what is in it cannot be had now."""
    value = store.state.get(pool_key(number))
    if value is None:
        raise Unavailable(f"pool {number} is not known to this store", reason="pool")
    _, row = decode(pool_key(number), value)
    try:
        backend = backend_at(row.url)
    except OstrakaError as error:
        raise Unavailable(f"pool {row.name} ({row.url}) cannot be opened: {error.message}", reason="pool") from error
    return BackendPool(
        number,
        backend,
        store.pool,
        store.host,
        writer=store.incarnation[:8],
        cell_size=store.limits.cell_size,
        executor=store.threads,
        cache=_cache(store, number, row),
    )


def backend_at(url: str) -> Backend:
    return ResilientBackend(address(url).place().open())


def _cache(store: "Store", number: int, row: PoolRow) -> Cache | None:
    """On the first disk that is here: what is in it can be lost."""
    if not row.cache_bytes:
        return None
    path = next((disk.path for _, disk in sorted(store.disks.items())), None)
    if path is None:
        return None
    try:
        directory = path / "cache" / str(number)
        return Cache(directory, row.cache_bytes, store.row, store.shared.rows, store.host)
    except OSError as error:
        log.warning("pool %s is not cached: %s", row.name, error)
        return None
