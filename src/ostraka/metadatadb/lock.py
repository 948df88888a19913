"""The lock object: advice that keeps replicas from changing the head at the same moment. Nothing depends on it.

It names its owner, and changes hands by compare-and-set: whoever takes it over replaces the very lock that it looked
at, and whoever releases it replaces the one that it wrote, by a lock that nobody owns. So two that both find it expired
do not both get it, nobody releases another's, and no right to delete is needed.

No clock is compared with another one's: a lock has expired when its very bytes were seen for as long as it may be held,
by the watch of the one who waits.
"""

import asyncio
import logging
import random

from ostraka.errors import OstrakaError
from ostraka.host import Host
from ostraka.metadatadb.format import LockLine
from ostraka.metadatadb.objects import Objects

log = logging.getLogger("ostraka.metadatadb")

WAIT_SECONDS = 0.1  # between two looks, doubled up to the following
WAIT_SECONDS_MAX = 1.0


class Lock:
    """The lock of one namespace, as one replica sees it. ``seconds``: how long it may be held."""

    def __init__(self, objects: Objects, host: Host, chance: random.Random, owner: str, seconds: float) -> None:
        self._objects = objects
        self._host = host
        self._chance = chance
        self._owner = owner
        self._seconds = seconds
        self._seen: tuple[str, float] | None = None  # an ETag, and since when it is there
        self.held: str | None = None  # the ETag of our lock

    async def acquire(self, patience: float) -> bool:
        """Wait for it, for at most so many seconds; whether we have it. Never raises: without it work goes on."""
        clock = self._host.clock
        end, wait = clock.monotonic() + patience, WAIT_SECONDS
        mine = LockLine(self._owner, self._host.random(16).hex(), self._seconds)
        try:
            while not await self._take(mine):
                left = end - clock.monotonic()
                if left <= 0:
                    return False
                await asyncio.sleep(min(left, wait * self._chance.uniform(0.5, 1.5)))
                wait = min(2 * wait, WAIT_SECONDS_MAX)
        except OstrakaError as e:
            log.warning("%s is not used: %s", self._objects.lock_path, e)
            return False
        return True

    async def release(self) -> None:
        """Give it back, if it is still ours. Never raises: it expires by itself."""
        etag, self.held = self.held, None
        if etag is not None:
            nobody = LockLine("", self._host.random(16).hex(), 0.0)
            try:
                await self._objects.write_lock(nobody, etag)
            except OstrakaError as e:
                log.debug("%s was not released: %s", self._objects.lock_path, e)

    async def _take(self, mine: LockLine) -> bool:
        found = await self._objects.read_lock()
        if found is not None:
            lock, etag = found
            if lock.nonce == mine.nonce:  # our write was answered by an error, and happened
                self.held = etag
                return True
            if lock.owner and not self._expired(lock, etag):
                return False
        try:
            self.held = await self._objects.write_lock(mine, found and found[1])
        except OstrakaError as e:
            if not (e.retry or e.reason in ("exists", "changed")):
                raise
            return False
        return True

    def _expired(self, lock: LockLine, etag: str) -> bool:
        now = self._host.clock.monotonic()
        if self._seen is None or self._seen[0] != etag:
            self._seen = etag, now
        return now - self._seen[1] >= min(lock.seconds, self._seconds)
