"""Removing the objects that nobody needs any more: settled entries, and snapshots that no head can name.

What is garbage stays garbage, so it is removed in no hurry, by whoever made it or, later, by anybody; a crash in
between costs nothing. Where removing is denied it is tried ever more seldom.
"""

import logging
from collections.abc import Iterable
from typing import Final

from ostraka.errors import Forbidden
from ostraka.metadatadb.copy import Copy
from ostraka.metadatadb.objects import Listing, Objects

log = logging.getLogger("ostraka.metadatadb")

OURS_AFTER_SYNCS: Final = 2
ANY_AFTER_SYNCS: Final = 10
AT_ONCE_MAX: Final = 1000  # objects that one sweep removes
PAUSE_SYNCS_MAX: Final = 256


class Garbage:
    """What of the objects of a namespace has been garbage, and for how many syncs."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._ours: set[str] = set()
        self._since: dict[str, int] = {}  # names, and the sync at which they were first seen to be garbage
        self._syncs = 0
        self._denied = 0  # times in a row
        self._again = 0  # not before this sync

    def made(self, names: Iterable[str]) -> None:
        """These are garbage because of us."""
        self._ours.update(names)

    def look(self, listing: Listing, copy: Copy) -> None:
        """After a sync: what of what was listed is garbage."""
        self._syncs += 1
        names = [
            f"entry-{id}" for id, (stamp, writer) in listing.entries.items() if copy.writers.settled(stamp, writer)
        ]
        named = copy.head.about.snapshot.name if copy.head and copy.head.about.snapshot else ""
        names += [name for name, commit in listing.snapshots.items() if commit <= copy.commit and name != named]
        self._since = {name: self._since.get(name, self._syncs) for name in names}
        self._ours &= self._since.keys() | {f"entry-{id}" for id in listing.entries} | listing.snapshots.keys()

    async def sweep(self, *, all: bool) -> None:
        """Remove what is old enough."""
        if self._syncs < self._again:
            return
        old = [
            name
            for name, since in self._since.items()
            if all or self._syncs - since >= (OURS_AFTER_SYNCS if name in self._ours else ANY_AFTER_SYNCS)
        ]
        failure = await self._objects.remove(old[:AT_ONCE_MAX]) if old else None
        if failure is None:
            self._denied = 0
            return
        self._denied += 1
        self._again = self._syncs + min(1 << self._denied, PAUSE_SYNCS_MAX)
        if self._denied == 1 and isinstance(failure, Forbidden):
            log.warning("objects that are not needed any more cannot be removed, and cost listing: %s", failure)
