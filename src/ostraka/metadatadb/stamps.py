"""Stamps: moments that never run behind what was seen, and what is remembered of each writer's last one.

A stamp is 16 hexadecimal digits: milliseconds since 1970 and a counter of 16 bits, so that text and time sort alike. A
writer's stamps rise, and are greater than every stamp that it has seen: whoever writes after having read comes later
in the order, whatever the clocks say. Clocks that agree make it the order in which things happened; clocks that do not
(minutes, or years) cost nothing else.
"""

from collections.abc import Mapping
from typing import Final

from ostraka.errors import Refused
from ostraka.host import Clock
from ostraka.metadatadb.format import NEVER, Entry

_COUNTER_BITS: Final = 16
_END: Final = 1 << 64


class Stamps:
    """The clock of one writer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def see(self, stamp: str) -> None:
        """From now on every stamp is greater than this one."""
        self._last = max(self._last, int(stamp, 16))

    def next(self) -> str:
        self._last = max(int(self._clock.time() * 1000) << _COUNTER_BITS, self._last + 1)
        if self._last >= _END:
            raise Refused("a replica wrote with a clock beyond the end of time: no later moment is left")
        return f"{self._last:016x}"


class Writers:
    """Which entries are settled: the stamp of each writer's last one.

    Their number is bounded: the writers with the oldest stamps are forgotten. Of a writer that is not known all entries
    up to the newest stamp that was ``forgotten`` count as settled, and one that comes later may follow an entry that
    nobody remembers. A writer's first stamp is greater than all that it found: for it to count as settled unseen, as
    many others must have come and written, with greater stamps, as are remembered.
    """

    def __init__(self, last: Mapping[str, str] | None = None, forgotten: str = NEVER) -> None:
        self.last = dict(last or {})
        self.forgotten = forgotten

    def settle(self, entry: Entry) -> None:
        self.last[entry.writer] = entry.stamp

    def trim(self, limit: int) -> None:
        """Forget the ones with the oldest stamps."""
        if len(self.last) > limit:
            for writer in sorted(self.last, key=lambda w: self.last[w])[: len(self.last) - limit]:
                self.forgotten = max(self.forgotten, self.last.pop(writer))

    def settled(self, stamp: str, writer: str) -> bool:
        """Whether that writer's entry of that stamp is settled."""
        return stamp <= self.last.get(writer, self.forgotten)

    def follows(self, entry: Entry, reached: Mapping[str, str]) -> bool:
        """Whether the entry comes right after what is settled of its writer, or after what was ``reached`` since."""
        before = reached.get(entry.writer) or self.last.get(entry.writer)
        return entry.after <= self.forgotten if before is None else entry.after == before
