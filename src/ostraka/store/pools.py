"""Pools over backends: added, listed and removed by an operator's word.

`add` in order: the place gets a marker that says whose it is (a place that is another store's, or another pool's, is
refused), then one commit makes the pool known to all processes. Given again after a crash, it finds its own marker.
Secrets are not in the state: a backend finds its credentials in the environment of the process, as `ostraka backend`
does.
"""

import logging
import re
from typing import Any

import msgspec

from ostraka.backends.backend import Backend, Capability, WritesConditionally, require
from ostraka.backends.urls import address
from ostraka.chunks.rows import CHUNK_TOTAL, PACK_TOTAL, pool_total
from ostraka.errors import Absent, Invalid, PreconditionFailed, Refused
from ostraka.objects.tiers import (
    ACTIVE,
    GONE,
    LEAVING,
    STANDARD,
    VERSION,
    PoolRow,
    encode,
    pool_key,
    pools,
)
from ostraka.state import Absent as NoRow
from ostraka.state import Equals, Mutation, Put, Rejected, totals
from ostraka.store.pool_opening import backend_at
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

MARKER = "ostraka-pool.json"
NUMBER_MAX = (1 << 16) - 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_CLASS = re.compile(r"[A-Z][A-Z0-9_]{0,31}")


class Marker(msgspec.Struct, frozen=True):
    """Whose a place is."""

    store: str
    pool: int


# -- what an operator says


async def list_pools(store: Store) -> dict[str, Any]:
    """The store's own disks, and every pool over a backend that is not gone."""
    disks = {"name": "disks", "status": "default", "storage_class": STANDARD, "url": None, "cache": 0}
    found = [{"number": 0, **disks, **_held(store, 0)}]
    for number, row in sorted(pools(store.state).items()):
        if row.status != GONE:
            told = {"name": row.name, "status": row.status, "storage_class": row.storage_class, "url": row.url}
            found.append({"number": number, **told, "cache": row.cache_bytes, **_held(store, number)})
    return {"pools": found}


def _held(store: Store, number: int) -> dict[str, int]:
    chunks = totals.read(store.state, pool_total(CHUNK_TOTAL, number), 4) or (0,) * 4
    packs = totals.read(store.state, pool_total(PACK_TOTAL, number), 5) or (0,) * 5
    return {"chunks": chunks[0], "packs": packs[0], "stored_bytes": chunks[2] + packs[3]}


async def add(store: Store, *, name: str, url: str, storage_class: str, cache_bytes: int = 0) -> dict[str, Any]:
    """Make a place a pool. Raises Invalid and Refused, each with the way out, before anything is changed."""
    _check(name, storage_class, cache_bytes)
    url = address(url).place().url()
    known = pools(store.state)
    for number, row in known.items():
        if row.status == GONE:
            continue
        if (row.name, row.url, row.storage_class) == (name, url, storage_class) and row.status == ACTIVE:
            return {"number": number, **_told(row)}
        for what, mine, theirs in (
            ("name", name, row.name),
            ("storage class", storage_class, row.storage_class),
            ("place", url, row.url),
        ):
            if mine == theirs:
                raise Refused(f"the {what} {mine} is that of pool {row.name} already: choose another", reason="pool")
    number = max(known, default=0) + 1
    if number > NUMBER_MAX:
        raise Refused(f"a store has at most {NUMBER_MAX} pools", reason="pool")
    async with backend_at(url) as backend:
        await _mark(store, backend, url, number)
    row = PoolRow(VERSION, name, url, storage_class, ACTIVE, cache_bytes)
    try:
        await store.state.commit(Mutation([NoRow(pool_key(number))], [Put(pool_key(number), encode(row))]))
    except Rejected:
        raise Refused("another pool was added at the same time: give the command again", reason="pool") from None
    log.info("pool %s (%s) takes objects of class %s", name, url, storage_class)
    return {"number": number, **_told(row)}


def _told(row: PoolRow) -> dict[str, Any]:
    return {"name": row.name, "url": row.url, "storage_class": row.storage_class, "cache": row.cache_bytes}


def _check(name: str, storage_class: str, cache_bytes: int) -> None:
    if not _NAME.fullmatch(name) or name == "disks":
        raise Invalid(f"{name!r} is no name for a pool: small letters, digits, dots and dashes", reason="pool")
    if not _CLASS.fullmatch(storage_class) or storage_class == STANDARD:
        raise Invalid(
            f"{storage_class!r} can be no class of a pool: one of S3's other than STANDARD, such as STANDARD_IA or "
            "GLACIER_IR",
            reason="storage-class",
        )
    if cache_bytes < 0:
        raise Invalid(f"a cache of {cache_bytes} bytes: 0 is none", reason="cache")


async def _mark(store: Store, backend: Backend, url: str, number: int) -> None:
    """Write whose the place is; it must be nobody's, or this pool's from before a crash. The backend is proven by it:
    what was written is read back."""
    mine = Marker(store.membership.store_id.hex(), number)
    content = msgspec.json.encode(mine)
    try:
        found = msgspec.json.decode(await backend.read(MARKER), type=Marker)
    except Absent:
        found = None
    except msgspec.MsgspecError:
        raise Refused(f"{url} holds a {MARKER} that cannot be read: name another place", reason="foreign") from None
    if found is not None:
        if found != mine:
            whose = "another pool of this store" if found.store == mine.store else f"store {found.store}"
            raise Refused(f"{url} belongs to {whose}: name another place", reason="foreign")
        return
    async for path in backend.list(""):
        raise Refused(f"{url} is not empty (it holds {path}): name an empty place below it", reason="foreign")
    try:
        if Capability.CONDITIONAL in backend.capabilities:
            await require(backend, WritesConditionally).write_if(MARKER, content, match=None)
        else:
            await backend.write(MARKER, content)
    except PreconditionFailed:
        raise Refused(f"{url} was taken by another store meanwhile: name another place", reason="foreign") from None
    if await backend.read(MARKER) != content:
        raise Refused(f"{url} does not give back what was written to it", reason="pool")


async def remove(store: Store, *, name: str) -> dict[str, Any]:
    """Let a pool leave: nothing new goes there, and the tier job moves what is there to the disks. Idempotent."""
    named = [(number, row) for number, row in pools(store.state).items() if row.name == name and row.status != GONE]
    if not named:
        raise Absent(f"there is no pool {name!r}: see `ostraka pool ls`", reason="pool")
    number, row = named[0]
    if row.status == ACTIVE:
        key = pool_key(number)
        after = msgspec.structs.replace(row, status=LEAVING)
        try:
            await store.state.commit(Mutation([Equals(key, encode(row))], [Put(key, encode(after))]))
        except Rejected:
            raise Refused("the pool was changed at the same time: give the command again", reason="pool") from None
    return {"number": number, "name": name, "status": LEAVING, **_held(store, number)}
