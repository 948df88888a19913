"""Which disks a key belongs to: weighted rendezvous hashing.

Every disk gets a score from a hash of (key, disk number) and its weight; the order of scores is the order of disks.
A disk that joins or leaves moves only the keys that it wins or had, and each disk gets keys in proportion to its
weight. Stripes record where they were put, so the ring is asked only when something is written.
"""

import math
from collections.abc import Collection, Iterable, Sequence

from xxhash import xxh3_64_intdigest

_SCALE = 1.0 / (1 << 53)


def order(key: bytes, disks: Iterable[tuple[int, float]]) -> list[int]:
    """Disk numbers, the best first. ``disks`` are (number, weight); a weight of zero or less is never chosen."""
    scores = []
    for number, weight in disks:
        if weight > 0:
            # 53 bits of hash as a number in (0, 1): -weight / log(u) is the score of weighted rendezvous
            uniform = ((xxh3_64_intdigest(key, seed=number) >> 11) + 0.5) * _SCALE
            scores.append((-weight / math.log(uniform), number))
    scores.sort(reverse=True)
    return [number for _, number in scores]


def moves(disks: Sequence[int], wanted: Sequence[int], leaving: Collection[int], *, level: bool) -> dict[int, int]:
    """The fewest shards that have to move (index to new disk) so that none is on a disk that is ``leaving`` and, if
    ``level``, all are on the first of the ``wanted`` disks. Fewer when there is no disk for one."""
    out = [index for index, number in enumerate(disks) if number in leaving]
    if level:
        wanted = wanted[: len(disks)]
        out += [index for index, number in enumerate(disks) if number not in wanted and number not in leaving]
    return dict(zip(out, (number for number in wanted if number not in disks), strict=False))
