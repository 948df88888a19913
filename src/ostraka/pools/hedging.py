"""When a read stops waiting for a disk and asks the others: hedging.

How long a disk usually takes is learnt from what readers met lately. A read waits for a high percentile of that, never
longer than a few times what disks usually take here, and within two bounds; then it reads around the disk, and the
first complete answer counts. What that may cost is a share of all shard reads, saved up to a bound, so that a store
under load does not make itself slower by it.

A disk that has answered nothing for as long as a read may wait at most is *silent*: it is read around from the start,
as one that is away, and at no cost but that. What it was asked before is left to it: when it answers, it is silent no
more.
"""

from bisect import bisect_left
from collections.abc import Iterable
from statistics import median
from typing import Final

from ostraka.limits import Limits

_FIRST: Final = 50e-6  # seconds; each class of times is half as long again as the one before
_CLASSES: Final = tuple(_FIRST * 1.5**n for n in range(32))
_SAMPLES_MIN: Final = 32  # fewer tell nothing
_SAMPLES_MAX: Final = 1024  # then the old count half
_TIMES_THE_OTHERS: Final = 4.0
_SAVED_MAX: Final = 64.0  # shard reads


class Times:
    """How long reads of one disk took lately."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._counts = [0] * (len(_CLASSES) + 1)
        self._count = 0
        self._fresh = 0
        self.high = seconds_max  # the percentile that is waited for

    def took(self, seconds: float) -> None:
        self._counts[bisect_left(_CLASSES, seconds)] += 1
        self._count += 1
        self._fresh += 1
        if self._fresh >= _SAMPLES_MIN:
            self._fresh = 0
            self._learn()

    def _learn(self) -> None:
        if self._count > _SAMPLES_MAX:
            self._counts = [count // 2 for count in self._counts]
            self._count = sum(self._counts)
        above = self._count // 100  # p99
        for number in range(len(self._counts) - 1, -1, -1):
            above -= self._counts[number]
            if above < 0:
                self.high = _CLASSES[number] if number < len(_CLASSES) else self._seconds_max
                return


class Hedges:
    """What the reads of one process know of its disks, and how much more they may ask for."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._times: dict[int, Times] = {}
        self._saved = _SAVED_MAX

    def took(self, disk: int, seconds: float) -> None:
        """A shard of that disk was read."""
        times = self._times.get(disk)
        if times is None:
            times = self._times[disk] = Times(self._limits.hedge_seconds_max)
        times.took(seconds)
        self._saved = min(_SAVED_MAX, self._saved + self._limits.hedge_share)

    def delay(self, disks: Iterable[int]) -> float:
        """Seconds that a read of these waits before it asks others."""
        limits = self._limits
        usual = [times.high for times in self._times.values()]
        most = _TIMES_THE_OTHERS * median(usual) if usual else limits.hedge_seconds_max
        longest = max((self._times[disk].high for disk in disks if disk in self._times), default=most)
        return min(max(min(longest, most), limits.hedge_seconds_min), limits.hedge_seconds_max)

    def take(self, shards: int) -> bool:
        """Whether so many shards may be read beyond what was asked for."""
        if self._saved < shards:
            return False
        self._saved -= shards
        return True
