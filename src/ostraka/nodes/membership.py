"""Which disks are up: epochs, and how they change (ENGINE 1 and 3).

The rule that makes "any m may vanish" true at every moment: a write waits for every disk that the newest committed
epoch calls up; a disk is left out only after an epoch that calls it down was synced on a strict majority of the
members. Where no majority can be had the store is read-only, until an operator overrides with ``disk replace`` or
``disk forget``.

Several processes serve one store. They share the epoch's number through four words of shared memory
(``EpochWord``); whoever changes the epoch does so under one lock file, after taking over what others changed before.
This module knows nothing of stripes or state rows.
"""

import asyncio
import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import msgspec

from ostraka.errors import Corrupt, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.nodes import superblock
from ostraka.nodes.superblock import HISTORY_MAX, Epoch, Member, Superblock
from ostraka.nodes.types import Disk

log = logging.getLogger("ostraka.nodes")

_LOOK_SECONDS = 1.0  # how often a process in doubt looks whether another has got the epoch onto a majority
_ASK_SECONDS = 2.0  # for a superblock: a disk that takes longer is left out
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of this process or host: no disk is at fault


class EpochWord(Protocol):
    """A number that all processes of a store see: bumped whenever the epoch changed."""

    def load(self) -> int: ...

    def bump(self) -> int: ...


class LocalWord:
    """An EpochWord of a store that only this process serves."""

    def __init__(self) -> None:
        self._value = 0

    def load(self) -> int:
        return self._value

    def bump(self) -> int:
        self._value += 1
        return self._value


def succeed(
    epoch: Epoch,
    members: Sequence[Member],
    host: Host,
    next_number: int | None = None,
    geometry: tuple[int, int] | None = None,
) -> Epoch:
    """The epoch after this one, with those members."""
    k, m = geometry or (epoch.k, epoch.m)
    return Epoch(
        number=epoch.number + 1,
        id=host.random(16),
        k=k,
        m=m,
        members=tuple(members),
        next_number=epoch.next_number if next_number is None else next_number,
        history=(epoch.id, *epoch.history)[:HISTORY_MAX],
    )


def with_drains_called_off(members: Sequence[Member], m: int) -> list[Member]:
    """The members; none of them drains if that left too few disks for new stripes: to write comes first."""
    staying = sum(d.up and not d.draining for d in members)
    if staying > m or not any(d.draining and d.up for d in members):
        return list(members)
    log.warning("only %d other disks are up: disks that were being drained take new data again", staying)
    return [msgspec.structs.replace(d, draining=0) for d in members]


def majority(epoch: Epoch) -> int:
    """How many members a strict majority is."""
    return majority_of(len(epoch.members))


def majority_of(count: int) -> int:
    return count // 2 + 1


def _too_few(written: int, count: int, needed: int) -> str:
    return (
        f"only {written} of {count} disks can be written, {needed} are needed: the store is read-only; bring the disks "
        "back, or use `ostraka disk replace` or `ostraka disk forget`"
    )


class Membership:
    """The members of an open store. Thread-safe; one per process."""

    def __init__(
        self,
        store_id: bytes,
        epoch: Epoch,
        disks: Mapping[int, Disk],
        paths: Mapping[int, Path],
        host: Host,
        word: EpochWord | None = None,
        *,
        lock_path: Path | None = None,
    ) -> None:
        self.store_id = store_id
        self.epoch = epoch
        self._disks = dict(disks)
        self.paths = dict(paths)
        self._host = host
        self._word = word or LocalWord()
        self._seen = self._word.load()
        self._lock = threading.RLock()
        self._lock_path = lock_path
        self.open_disk: Callable[[int, Path], Disk] | None = None  # for a disk that another process brought in
        self.read_only = ""  # why, when the store must not be written
        self._doubt = ""  # why, when the newest epoch is not known to be on a majority
        self._look_at = 0.0  # monotonic; when a process in doubt looks again
        self.on_change: list[Callable[[Epoch], None]] = []
        self._up: tuple[Disk, ...] = ()
        self._reachable: dict[int, Disk] = {}  # the same by number: every read asks
        self._recompute()

    # -- what pools ask (nodes.types.Members)

    @property
    def k(self) -> int:
        return self.epoch.k

    @property
    def m(self) -> int:
        return self.epoch.m

    def up(self) -> Sequence[Disk]:
        """Disks that new shards may go to; raises Unavailable while the store is read-only."""
        if self._word.load() != self._seen or (self._doubt and self._host.clock.monotonic() >= self._look_at):
            self.refresh()
        if self.read_only:
            raise Unavailable(self.read_only, reason="read-only")
        return self._up

    def disk(self, number: int) -> Disk | None:
        if self._word.load() != self._seen:
            self.refresh()
        return self._reachable.get(number)

    def gone(self, number: int) -> bool:
        return self.epoch.member(number) is None

    def draining(self) -> dict[int, int]:
        """Disks that are to leave: number to the epoch since which they get nothing new."""
        return {d.number: d.draining for d in self.epoch.members if d.draining}

    async def failed(self, number: int, error: BaseException) -> None:
        await asyncio.to_thread(self.evict, number, error)

    # -- changes

    def evict(self, number: int, error: BaseException | str) -> None:
        """Record that a disk is down. Returns when a strict majority has it; idempotent.

        Raises Unavailable, and the store is read-only from then on, when no majority can be written. Raises it, and
        the disk stays, when this process lacks something that no disk can give it, as descriptors; and when the disk is
        the last in service that carries the state: its copy would never be read again.
        """
        if isinstance(error, OSError) and error.errno in _LACKING:
            raise Unavailable(f"disk {number} could not be asked: {error.strerror}", reason="resources")
        with self.exclusive():
            member = self.epoch.member(number)
            if member is None:
                return
            if not member.up and not self._doubt:
                if self.read_only:
                    raise Unavailable(self.read_only, reason="read-only")
                return
            log.error("disk %d (%s) failed and is taken out of service: %s", number, self.paths.get(number), error)
            self.change([msgspec.structs.replace(d, up=False) if d.number == number else d for d in self.epoch.members])

    def change(
        self,
        members: Sequence[Member],
        *,
        next_number: int | None = None,
        override: bool = False,
        geometry: tuple[int, int] | None = None,
    ) -> Epoch:
        """Commit a new membership: synced on a strict majority, or (``override``, an operator's word) on at least
        N-m members. Disks that cannot be written are called down in the same breath. Call it under `exclusive`
        or where nobody else can change it. ``geometry``: (k, m) of stripes that are written from now on. Of disks that
        carry the state one always stays in service.

        Raises Unavailable, and the store is read-only, when too few can be written. If that is plain before anything
        is, nothing is: the disks stay as they were, and only this process knows what it misses.
        """
        wanted = list(members)
        needed = len(wanted) - self.epoch.m if override else majority_of(len(wanted))
        there = sum(d.up and d.number in self.paths for d in wanted)
        if there < needed:
            if not self._doubt:
                known = {d.number: d for d in self.epoch.members}
                lost = {d.number for d in wanted if not d.up or d.number not in self.paths}
                seen = [msgspec.structs.replace(d, up=d.up and n not in lost) for n, d in known.items()]
                self.epoch = msgspec.structs.replace(self.epoch, members=tuple(seen))
            self._recompute()
            raise Unavailable(self.read_only or _too_few(there, len(wanted), needed), reason="read-only")
        last = {d.number for d in self.epoch.members if d.up and d.state}
        if last and not any(d.up and d.state for d in wanted):
            raise Unavailable(
                f"disk {', '.join(map(str, sorted(last)))} fails, and no other disk in service carries the state: "
                "it stays in service; bring it or the others back",
                reason="state",
            )
        while True:
            wanted = with_drains_called_off(wanted, (geometry or (0, self.epoch.m))[1])
            epoch = succeed(self.epoch, wanted, self._host, next_number, geometry)
            failed = self._publish(epoch)
            written = sum(1 for d in epoch.members if d.up) - len(failed)
            # adopted even if too few have it: some disks hold it now, and whatever comes next must descend from it
            self._doubt = _too_few(written, len(epoch.members), needed) if written < needed else ""
            self._adopt(epoch)
            self._seen = self._word.bump()
            if written < needed:
                raise Unavailable(self.read_only, reason="read-only")
            if failed.issuperset(d.number for d in epoch.members if d.up and d.state):
                failed -= {d.number for d in epoch.members if d.state}
            if not failed:
                return epoch
            wanted = [msgspec.structs.replace(d, up=False) if d.number in failed else d for d in epoch.members]

    def _publish(self, epoch: Epoch) -> set[int]:
        """Write the epoch to every disk that it calls up, state carriers first; returns those that failed."""
        failed: set[int] = set()
        for member in sorted(epoch.members, key=lambda d: not d.state):
            if not member.up:
                continue
            path = self.paths.get(member.number)
            if path is None:
                failed.add(member.number)
                continue
            try:
                block = Superblock(store_id=self.store_id, disk_id=member.disk_id, formed=True, epoch=epoch)
                superblock.write(self._host.files, path, block)
            except OSError as e:
                log.error("disk %d (%s): the superblock cannot be written: %s", member.number, path, e)
                failed.add(member.number)
        return failed

    def refresh(self) -> None:
        """Take over what another process changed."""
        with self._lock:
            seen = self._word.load()
            newest = self.epoch
            blocks, enough = self._blocks(self.epoch)
            for _, block in blocks:
                if block.store_id == self.store_id and block.epoch.number > newest.number:
                    newest = block.epoch
            if enough:  # else we ask once more: what was changed may be on those that have not answered
                self._seen = seen
            if newest is not self.epoch or self._doubt:
                self._judge(newest)
                self._adopt(newest)

    def _blocks(self, epoch: Epoch) -> tuple[list[tuple[Member, Superblock]], bool]:
        """What the disks that this epoch calls up say now, as far as they can be read; and whether that is all that
        there is, or so many that no epoch can be on a majority without being on one of them.

        Each is asked in a thread of its own: one of them may be the disk that hangs, and it may not hold up the others.
        """
        answers: SimpleQueue[tuple[Member, Superblock | None]] = SimpleQueue()

        def ask(member: Member, path: Path) -> None:
            block = None
            with contextlib.suppress(OSError, OstrakaError):
                block = superblock.read(self._host.files, path)
            answers.put((member, block))

        asked = 0
        for member in epoch.members:
            path = self.paths.get(member.number) or (Path(member.path) if member.path else None)
            if path is not None and member.up:
                threading.Thread(target=ask, args=(member, path), name="superblock", daemon=True).start()
                asked += 1
        found: list[tuple[Member, Superblock]] = []
        enough = False
        clock = self._host.clock
        until = clock.monotonic() + _ASK_SECONDS
        with contextlib.suppress(Empty):
            for _ in range(asked):
                member, block = answers.get(timeout=max(0.0, until - clock.monotonic()))
                if block is not None:
                    found.append((member, block))
            enough = True
        return found, enough or len(found) > len(epoch.members) - majority(epoch)

    def _judge(self, epoch: Epoch) -> None:
        """Whether an epoch that another process wrote is on a majority; until it is, nobody writes by it."""
        held = sum((b.disk_id, b.epoch.id) == (member.disk_id, epoch.id) for member, b in self._blocks(epoch)[0])
        needed = majority(epoch)
        self._doubt = _too_few(held, len(epoch.members), needed) if held < needed else ""
        self._look_at = self._host.clock.monotonic() + _LOOK_SECONDS

    def add_disk(self, number: int, path: Path, disk: Disk | None) -> None:
        """Make a disk known to this process before an epoch names it."""
        with self._lock:
            self.paths[number] = path
            if disk is not None:
                self._disks[number] = disk
            self._recompute()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else, thread or process, changes the epoch meanwhile; what they changed before is taken over."""
        with self._lock:
            if self._lock_path is None:
                yield
                return
            with self._host.files.lock(self._lock_path, wait=True):
                if self._word.load() != self._seen:
                    self.refresh()
                yield

    def join(self, open_disk: Callable[[int, Path], Disk]) -> None:
        """Open the disks that other processes brought in: from now on, and those that have joined before."""
        with self._lock:
            self.open_disk = open_disk
            for member in self.epoch.members:
                if member.number not in self.paths and member.path:
                    self._join(member)
            self._recompute()

    def settle(self) -> None:
        """Finish what a process that died may have left half done: an epoch that is not on all disks which it calls up
        is followed by one that is, and every process is told.

        Raises Unavailable, and the store is read-only, when no majority can be written.
        """
        with self.exclusive():
            self.refresh()
            blocks, _ = self._blocks(self.epoch)
            if self._doubt or any(block.epoch.id != self.epoch.id for _, block in blocks):
                log.warning("epoch %d was not on all disks: its writing was cut off", self.epoch.number)
                self.change(self.epoch.members)
            else:
                self._seen = self._word.bump()

    def _adopt(self, epoch: Epoch) -> None:
        if epoch.number <= self.epoch.number and epoch.id != self.epoch.id:
            raise Corrupt(f"epoch {epoch.number} after {self.epoch.number}", reason="epoch")
        self.epoch = epoch
        for member in epoch.members:
            if member.number not in self.paths and member.path:
                self._join(member)
        self._recompute()
        for tell in self.on_change:
            tell(epoch)

    def _join(self, member: Member) -> None:
        """Another process brought in a disk: serve it from here too, if it is where that process saw it."""
        path = Path(member.path)
        try:
            block = superblock.read(self._host.files, path)
            if block is None or block.disk_id != member.disk_id or self.open_disk is None:
                return
            self._disks[member.number] = self.open_disk(member.number, path)
            self.paths[member.number] = path
        except (OSError, OstrakaError) as e:
            log.error("disk %d (%s) cannot be opened: %s", member.number, path, e)

    def _recompute(self) -> None:
        up = [d for d in self.epoch.members if d.up]
        here = [d for d in up if d.number in self.paths]
        self._up = tuple(self._disks[d.number] for d in up if d.number in self._disks and not d.draining)
        self._reachable = {d.number: self._disks[d.number] for d in up if d.number in self._disks}
        self.read_only = self._doubt
        if len(here) < majority(self.epoch):
            self.read_only = (
                f"only {len(here)} of {len(self.epoch.members)} disks are up, {majority(self.epoch)} are needed to "
                "write: the store is read-only; bring the disks back, or use `ostraka disk replace` or `ostraka disk "
                "forget`"
            )
