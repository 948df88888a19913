"""Telling watchers what has changed. Changes that nobody took yet are one change, so a slow watcher costs no memory."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from weakref import WeakSet

from ostraka.errors import OstrakaError
from ostraka.metadatadb.copy import Touched


@dataclass(frozen=True, slots=True)
class Touch:
    """A name that may have changed, and which of its keys or members (canonical JSON); None: all of it."""

    name: str
    keys: frozenset[str] | None


class Watcher:
    """What has changed since it was asked last, one name at a time."""

    def __init__(self, names: Collection[str], keys_max: int) -> None:
        self._names = frozenset(names)
        self._keys_max = keys_max
        self._touched: Touched = {}
        self._news = asyncio.Event()
        self._ended: OstrakaError | None = None

    def tell(self, touched: Touched) -> None:
        for name, keys in touched.items():
            if self._names and name not in self._names:
                continue
            old = self._touched.setdefault(name, set())
            whole = keys is None or old is None or len(old) + len(keys) > self._keys_max
            self._touched[name] = None if whole else old | keys  # type: ignore[operator]
            self._news.set()

    def end(self, error: OstrakaError) -> None:
        self._ended = error
        self._news.set()

    async def next(self) -> Touch:
        """The next name that changed. Raises what ended the watching."""
        while not self._touched:
            if self._ended:
                raise self._ended
            self._news.clear()
            await self._news.wait()
        name = next(iter(self._touched))
        keys = self._touched.pop(name)
        return Touch(name, None if keys is None else frozenset(keys))


class Watchers:
    """All watchers of a namespace."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._all: WeakSet[Watcher] = WeakSet()  # who asked and never looked is forgotten

    def __bool__(self) -> bool:
        return len(self._all) > 0

    def tell(self, touched: Touched) -> None:
        for watcher in self._all:
            watcher.tell(touched)

    def end(self, error: OstrakaError) -> None:
        for watcher in self._all:
            watcher.end(error)

    def add(self, names: Collection[str]) -> Watcher:
        watcher = Watcher(names, self._keys_max)
        self._all.add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        self._all.discard(watcher)


async def changes(watchers: Watchers, watcher: Watcher) -> AsyncIterator[Touch]:
    """What it sees, until it is left."""
    try:
        while True:
            yield await watcher.next()
    finally:
        watchers.remove(watcher)
