"""What a disk may hold after the power went: the model, without any file system around it.

Two kinds of unsynced change are kept apart, because a disk keeps them apart:

- ``PendingFile``: writes and size changes of one file since its last fsync. At a cut each write is, by seed, kept,
  forgotten, or torn at 512-byte sectors, independently of the others (a disk reorders). Within one sector the order
  holds: the page cache writes a sector with everything that was in it.
- ``Namespace``: directory entries. Every change (create, unlink, rename, mkdir, link) is one atomic step; it is
  durable once the directory that it changes was fsynced, and before that kept or forgotten by seed.

Two levels of strictness:

``posix``  a directory entry is durable only by fsync of its directory, each step is kept or forgotten for itself
           (steps on one name keep their order), and a file may have grown without its data having arrived.
``ext4``   any fsync commits all directory steps so far, what is lost is lost from the end, and a file has not grown
           where its data did not arrive.

It knows nothing of FUSE, nor of where contents are kept. Not modelled: sectors that rot because a neighbour was
written, and times and modes (durable at once).
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

SECTOR = 512
ROOT = 1

Strictness = Literal["posix", "ext4"]


class Content(Protocol):
    """The bytes of one file, wherever they are kept."""

    def size(self) -> int: ...

    def write(self, data: bytes, offset: int) -> None: ...

    def resize(self, size: int) -> None: ...


class OpenFile:
    """Content behind a descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def write(self, data: bytes, offset: int) -> None:
        """pwrite, continued until all of it is written."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, offset)
            view, offset = view[done:], offset + done

    def resize(self, size: int) -> None:
        os.ftruncate(self._fd, size)


@dataclass(slots=True)
class Write:
    """``new`` was written at ``offset`` over ``old`` (shorter where the file ended: at ``old_size``)."""

    offset: int
    old: bytes
    new: bytes
    old_size: int
    durable: bool = False  # synced by itself (O_DSYNC) while older writes of the file were not

    @property
    def cost(self) -> int:
        return len(self.old) + len(self.new)


@dataclass(slots=True)
class Resize:
    """The size became ``new_size``; ``tail`` is what a truncation cut off."""

    old_size: int
    new_size: int
    tail: bytes

    @property
    def cost(self) -> int:
        return len(self.tail)


class PendingFile:
    """The unsynced changes of one file, oldest first, with all that is needed to take them back."""

    __slots__ = ("bytes_held", "records")

    def __init__(self) -> None:
        self.records: list[Write | Resize] = []
        self.bytes_held = 0

    def add(self, record: Write | Resize) -> None:
        self.records.append(record)
        self.bytes_held += record.cost

    def sync(self) -> None:
        """fsync: nothing is pending any more."""
        self.records.clear()
        self.bytes_held = 0

    def write_back(self, bytes_max: int) -> None:
        """As the kernel does with too many dirty pages: the oldest changes reach the disk without being asked."""
        done = 0
        while self.bytes_held > bytes_max and done < len(self.records):
            self.bytes_held -= self.records[done].cost
            done += 1
        del self.records[:done]

    def cut(
        self, content: Content, rng: random.Random, strictness: Strictness = "posix", *, forget_all: bool = False
    ) -> None:
        """Turn the file into what survived. Takes every pending change back, then replays by seed."""
        for record in reversed(self.records):
            _undo(content, record)
        _replay(content, self.records, rng, strictness, _mood(rng, forget_all))
        self.sync()


def _undo(content: Content, record: Write | Resize) -> None:
    if isinstance(record, Write):
        content.write(record.old, record.offset)
        if record.old_size < record.offset + len(record.new):
            content.resize(record.old_size)
    else:
        content.resize(record.old_size)
        content.write(record.tail, record.new_size)


def _mood(rng: random.Random, forget_all: bool) -> str:
    """Whether all, nothing or some of it survives: whole files early or late on the disk are likely, too."""
    mood = rng.choice(("all", "none", "mixed", "mixed"))
    return "none" if forget_all else mood


def _replay(
    content: Content, records: list[Write | Resize], rng: random.Random, strictness: Strictness, mood: str
) -> None:
    plans: list[tuple[Write | Resize, list[tuple[int, int]], bool]] = []
    forced: set[int] = set()  # sectors of which a later, partial write was kept: they hold what was there before it
    for record in reversed(records):
        if isinstance(record, Resize):
            if _coin(rng, mood):
                plans.append((record, [], False))
            continue
        runs = _surviving_runs(record, rng, mood, forced)
        for start, end in runs:
            forced.update(s for s in (start // SECTOR, (end - 1) // SECTOR) if not _covers(record, s))
        phantom = strictness == "posix" and mood == "mixed" and rng.random() < 0.25
        plans.append((record, runs, phantom))
    for record, runs, phantom in reversed(plans):
        if isinstance(record, Resize):
            content.resize(record.new_size)
        else:
            _apply(content, record, runs, phantom)


def _coin(rng: random.Random, mood: str) -> bool:
    return mood == "all" or (mood == "mixed" and rng.random() < 0.5)


def _covers(record: Write, sector: int) -> bool:
    return record.offset <= sector * SECTOR and (sector + 1) * SECTOR <= record.offset + len(record.new)


def _surviving_runs(record: Write, rng: random.Random, mood: str, forced: set[int]) -> list[tuple[int, int]]:
    """The byte ranges (start, end) of this write that reached the disk, cut at sector borders of the file."""
    start, end = record.offset, record.offset + len(record.new)
    fate = rng.random()  # always drawn, so that a durable record does not shift the fates of the others
    if record.durable or mood == "all" or (mood == "mixed" and fate < 0.33):
        return [(start, end)]
    first, last = start // SECTOR, (end - 1) // SECTOR
    kept = {s for s in forced if first <= s <= last}
    if mood == "mixed" and fate >= 0.66:
        if rng.random() < 0.5:  # a transfer that was interrupted
            point = rng.randint(first, last + 1)
            kept.update(range(first, point) if rng.random() < 0.5 else range(point, last + 1))
        else:  # sectors in any order
            share = rng.uniform(0.1, 0.9)
            kept.update(s for s in range(first, last + 1) if rng.random() < share)
    return [(max(start, a * SECTOR), min(end, (b + 1) * SECTOR)) for a, b in _runs(sorted(kept))]


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers as (first, last)."""
    begin = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[begin], numbers[i - 1]
            begin = i


def _apply(content: Content, record: Write, runs: list[tuple[int, int]], phantom: bool) -> None:
    for start, end in runs:
        content.write(record.new[start - record.offset : end - record.offset], start)
    grown = record.offset + len(record.new)
    if phantom and grown > record.old_size and content.size() < grown:
        content.resize(grown)  # the size arrived, the data did not


Change = tuple[int, str, int | None]  # (directory, name, inode or None for "no such name")


class Namespace:
    """Directory entries twice: ``live``, as processes see them, and ``synced``, as the disk surely has them.

    ``steps`` are the changes between the two, oldest first; each is a tuple of changes that happen together.
    ``links`` counts the live names of an inode.
    ``refs`` counts who still needs an inode: entries on either side, steps, and open handles (the caller's).
    ``dead`` is called with an inode that nobody needs any more.
    """

    __slots__ = ("dead", "links", "live", "refs", "steps", "strictness", "synced")

    def __init__(self, dead: Callable[[int], None], strictness: Strictness = "posix") -> None:
        self.live: dict[int, dict[str, int]] = {ROOT: {}}
        self.synced: dict[int, dict[str, int]] = {ROOT: {}}
        self.steps: list[tuple[Change, ...]] = []
        self.links: Counter[int] = Counter()
        self.refs: Counter[int] = Counter({ROOT: 1})
        self.dead = dead
        self.strictness = strictness

    def load(self, tree: dict[int, dict[str, int]]) -> None:
        """Start from a tree that is wholly durable."""
        self.live = {d: dict(entries) for d, entries in tree.items()}
        self.synced = {d: dict(entries) for d, entries in tree.items()}
        for entries in tree.values():
            for ino in entries.values():
                self.refs[ino] += 2
                self.links[ino] += 1

    def add_directory(self, ino: int) -> None:
        """A new directory, empty on both sides, before the step that names it."""
        self.live[ino] = {}
        self.synced[ino] = {}

    def step(self, *changes: Change) -> None:
        """Change entries, all together: visible at once, durable later."""
        for _, _, ino in changes:
            if ino is not None:
                self.refs[ino] += 1
        self._enter(self.live, changes)
        self.steps.append(changes)

    def hide(self, directory: int, name: str) -> None:
        """Take a name from the live side; the step that says why is still to come."""
        ino = self.live[directory].pop(name)
        self.links[ino] -= 1
        self.release(ino)

    def _enter(self, tree: dict[int, dict[str, int]], changes: Iterable[Change]) -> None:
        gone = []
        for directory, name, ino in changes:
            entries = tree.setdefault(directory, {})
            old = entries.pop(name, None)
            if old is not None:
                gone.append(old)
            if ino is not None:
                entries[name] = ino
                self.refs[ino] += 1
            if tree is self.live:
                self.links.update({i: n for i, n in ((old, -1), (ino, 1)) if i is not None})
        for ino in gone:
            self.release(ino)

    def hold(self, ino: int) -> None:
        self.refs[ino] += 1

    def release(self, ino: int) -> None:
        self.refs[ino] -= 1
        if self.refs[ino] == 0:
            del self.refs[ino]
            self.links.pop(ino, None)
            self.live.pop(ino, None)
            for entries in (self.synced.pop(ino, None) or {},):
                for child in entries.values():
                    self.release(child)
            self.dead(ino)

    def sync_directory(self, directory: int) -> None:
        """fsync of a directory: its creations and removals are durable, and renames into it.

        A rename out of it is not: that needs an fsync of the directory that has the new name.
        """
        if self.strictness == "ext4":
            self._settle(range(len(self.steps)))
            return
        self._settle(i for i, changes in enumerate(self.steps) if changes[-1][0] == directory)

    def sync_file(self) -> None:
        """fsync of a file: POSIX promises nothing about its name, ext4 commits every step."""
        if self.strictness == "ext4":
            self._settle(range(len(self.steps)))

    def _settle(self, chosen: Iterable[int]) -> None:
        """Make steps durable, with the older steps on the same names without which they make no sense."""
        wanted = _with_prerequisites(self.steps, set(chosen))
        settled = [changes for i, changes in enumerate(self.steps) if i in wanted]
        self.steps = [changes for i, changes in enumerate(self.steps) if i not in wanted]
        for changes in settled:
            self._enter(self.synced, changes)
        self._forget(settled)

    def _forget(self, steps: Iterable[tuple[Change, ...]]) -> None:
        for changes in steps:
            for _, _, ino in changes:
                if ino is not None:
                    self.release(ino)

    def cut(self, rng: random.Random, *, forget_all: bool = False) -> dict[int, dict[str, int]]:
        """The tree that survives: what was synced, and by seed some of the rest. Only what the root reaches."""
        if self.strictness == "ext4":
            chosen = set(range(0 if forget_all else rng.randint(0, len(self.steps))))
        else:
            mood = _mood(rng, forget_all)
            chosen = {i for i in range(len(self.steps)) if _coin(rng, mood)}
        self._settle(chosen)
        reached: dict[int, dict[str, int]] = {}
        waiting = [ROOT]
        while waiting:
            directory = waiting.pop()
            reached[directory] = dict(self.synced[directory])
            waiting.extend(i for i in reached[directory].values() if i in self.synced and i not in reached)
        return reached


def _with_prerequisites(steps: list[tuple[Change, ...]], chosen: set[int]) -> set[int]:
    wanted: set[int] = set()
    names: set[tuple[int, str]] = set()
    for i in range(len(steps) - 1, -1, -1):
        touched = {(directory, name) for directory, name, _ in steps[i]}
        if i in chosen or touched & names:
            wanted.add(i)
            names |= touched
    return wanted
