"""Words of memory that all processes of one store see: the epoch's word, readers' pins, metrics.

The process that owns the store makes them before it forks; anonymous memory is used, not a file, so that a disk that
dies under the store cannot take them along. Each process writes only its own row, so that no lock is needed; every
word is 8 bytes, aligned, and written whole. Nothing here survives the processes, and nothing needs to.
"""

import mmap
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ostraka.metrics import Board

NOBODY = 2**64 - 1  # in a pin's word: no reader


class SharedWords:
    """``rows`` x ``columns`` unsigned 64-bit words, inherited over fork."""

    __slots__ = ("columns", "memory", "rows", "words")

    def __init__(self, rows: int, columns: int, fill: int = 0) -> None:
        self.rows = rows
        self.columns = columns
        self.memory = mmap.mmap(-1, max(1, rows * columns) * 8)
        self.words = memoryview(self.memory).cast("Q")
        if fill:
            for i in range(rows * columns):
                self.words[i] = fill


class SharedCount:
    """A number in shared memory that only grows. The epoch's is bumped only under the membership's lock file, that of
    the root account's changes only by the process that owns the store."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words = SharedWords(1, 1)

    def load(self) -> int:
        return self._words.words[0]

    def bump(self) -> int:
        self._words.words[0] += 1
        return self._words.words[0]


class Pins:
    """Who is reading since when, so that the collector frees nothing under a reader (law 6).

    A reader enters before it looks up what it will read, and leaves when it is done. The collector may free what died
    at sequence d if d <= `oldest`: every active reader then began after the death was visible, and never saw it.
    One object a process; `row` is the process's own row of the shared words.
    """

    __slots__ = ("_active", "_marks", "_next", "_row", "_sequence", "_words")

    def __init__(self, sequence: Callable[[], int], words: SharedWords | None = None, row: int = 0) -> None:
        self._words = words or SharedWords(1, 1, NOBODY)
        self._row = row
        self._sequence = sequence
        self._active: dict[int, int] = {}  # token to sequence; insertion order is sequence order
        self._marks: list[int] = []  # the newest token at each `age`, oldest first
        self._next = 0
        self._words.words[row] = NOBODY

    def enter(self) -> int:
        """Begin to read; returns the token for `leave`. Called on the loop thread."""
        sequence = self._sequence()
        if not self._active:
            self._words.words[self._row] = sequence
        self._next += 1
        self._active[self._next] = sequence
        return self._next

    @property
    def entered(self) -> int:
        """How many readers this process has had."""
        return self._next

    def leave(self, token: int) -> None:
        """Done. Idempotent."""
        if self._active.pop(token, None) is None:
            return
        self._words.words[self._row] = next(iter(self._active.values()), NOBODY)

    def age(self, ages_max: int) -> None:
        """Called at a steady pace: readers that were there ``ages_max`` calls ago hold nothing back any more.

        They were given time enough; what they still want may be gone, and then their connection is cut.
        """
        self._marks.append(self._next)
        if len(self._marks) > ages_max:
            expired = self._marks.pop(0)
            for token in [t for t in self._active if t <= expired]:
                self.leave(token)

    def oldest(self) -> int:
        """The sequence at which the oldest active reader of any process began; NOBODY when there is none."""
        return min(self._words.words)


class InFlight:
    """Writes whose stripes are not decided yet, by the epoch in which they chose their disks: a disk that was marked
    in epoch e gets no new row once nothing is in flight that chose before e.

    A write enters before it looks which disks there are, and leaves when its stripe was committed or given up. One
    object a process, on its loop thread; `row` is the process's own row of the shared words.
    """

    __slots__ = ("_active", "_epoch", "_named", "_next", "_row", "_words")

    def __init__(self, epoch: Callable[[], int], words: SharedWords, row: int) -> None:
        self._words = words
        self._row = row
        self._epoch = epoch
        self._active: dict[int, int] = {}  # token to epoch; insertion order is the order of epochs
        self._named: dict[bytes, int] = {}  # write id to token
        self._next = 0
        self._words.words[row] = NOBODY

    def enter(self) -> int:
        """Begin to write; returns a token, to `leave` with or to be `named`."""
        epoch = self._epoch()
        if not self._active:
            self._words.words[self._row] = epoch
        self._next += 1
        self._active[self._next] = epoch
        return self._next

    def named(self, token: int, write_id: bytes) -> None:
        """What was written is this stripe: in flight until it is `decided`."""
        self._named[write_id] = token

    def decided(self, write_ids: Iterable[bytes]) -> None:
        """Those were committed or given up. Unknown ones are ignored."""
        for write_id in write_ids:
            token = self._named.pop(write_id, None)
            if token is not None:
                self.leave(token)

    def leave(self, token: int) -> None:
        self._active.pop(token, None)
        self._words.words[self._row] = next(iter(self._active.values()), NOBODY)

    def oldest(self) -> int:
        """The lowest epoch in which an undecided write of any process began; NOBODY when there is none."""
        return min(self._words.words)


class Incarnations:
    """Which processes of a store are alive, by the id that their uncommitted writes carry (ENGINE 19).

    A process registers itself when it opens the store; the supervisor clears the row once it has buried the process,
    which is certain knowledge, unlike a heartbeat that stays away.
    """

    __slots__ = ("_words",)

    def __init__(self, rows: int = 1) -> None:
        self._words = SharedWords(rows, 2)

    def register(self, row: int, incarnation: bytes) -> None:
        """This process is alive. ``incarnation``: 16 bytes."""
        self._words.words[2 * row] = int.from_bytes(incarnation[:8], "big")
        self._words.words[2 * row + 1] = int.from_bytes(incarnation[8:], "big")

    def clear(self, row: int) -> None:
        """The process of that row is gone for certain."""
        self._words.words[2 * row] = self._words.words[2 * row + 1] = 0

    def alive(self) -> set[bytes]:
        """All that are registered."""
        words = self._words.words
        return {
            words[i].to_bytes(8, "big") + words[i + 1].to_bytes(8, "big") for i in range(0, len(words), 2) if words[i]
        }


class Shared:
    """Everything that the processes of one store share in memory. ``rows``: one for each process."""

    __slots__ = ("_epoch_lock", "board", "epoch", "incarnations", "pins", "root_changes", "rows", "writes")

    def __init__(self, rows: int, board: Board) -> None:
        self.rows = rows
        self.epoch = SharedCount()
        self.root_changes = SharedCount()
        self.pins = SharedWords(rows, 1, NOBODY)
        self.writes = SharedWords(rows, 1, NOBODY)
        self.incarnations = Incarnations(rows)
        self.board = board
        self._epoch_lock = os.memfd_create("ostraka-epoch")

    @property
    def epoch_lock(self) -> Path:
        """A file to lock while the epoch is changed: in memory, for the disk of any other may be the one that died."""
        return Path(f"/proc/self/fd/{self._epoch_lock}")

    def bury(self, row: int) -> None:
        """The process of that row is gone: it reads nothing any more, and will commit nothing."""
        self.pins.words[row] = NOBODY
        self.writes.words[row] = NOBODY
        self.incarnations.clear(row)
