"""The pools of a store, for a program that owns one: its own disks, and places elsewhere for other storage classes."""

import msgspec

from ostraka.library import asked
from ostraka.store import pools
from ostraka.store.store import Store


class PoolInfo(msgspec.Struct, frozen=True):
    """``status``: default (the store's own disks), active, or leaving. ``cache``: bytes of the local cache.
    ``stored_bytes``: of what it keeps, as it is stored."""

    name: str
    status: str
    storage_class: str
    url: str
    cache: int
    chunks: int
    packs: int
    stored_bytes: int


class AsyncPools:
    """The pools of a store. Made by `AsyncStore.pools`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> list[PoolInfo]:
        """All of them; the store's own disks first."""
        listed = (await pools.list_pools(self._store))["pools"]
        return [msgspec.convert({**row, "url": row["url"] or ""}, PoolInfo) for row in listed]

    async def add(self, name: str, url: str, storage_class: str, *, cache: int = 0) -> None:
        """Keep objects of a storage class at ``url`` (as for `ostraka.backends`), an empty place.

        ``cache``: bytes of what was read lately that are kept on a disk of the store. Credentials come from the
        environment, never from the URL. Raises Invalid, Refused, Unavailable, Forbidden; the same again is no error.
        """
        for what, said in (("a pool's name", name), ("a URL", url), ("a storage class", storage_class)):
            asked.text(what, said)
        asked.number("a cache", cache)
        await pools.add(self._store, name=name, url=url, storage_class=storage_class, cache_bytes=cache)

    async def remove(self, name: str) -> None:
        """Let a pool go: nothing new is kept there, and what is there moves to the disks. Raises Absent."""
        asked.text("a pool's name", name)
        await pools.remove(self._store, name=name)

    async def move(self) -> int:
        """Have what belongs in another pool moved there now; how many bodies that were."""
        jobs = self._store.jobs
        assert jobs is not None, "an open store of a program has its jobs"
        return (await jobs.run("tier", lambda piece: None)).done
