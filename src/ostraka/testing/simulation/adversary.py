"""What goes wrong while a store is used, drawn by seed: processes that die, power cuts, disks that fail in every way.

A store of k+m promises to bear m bad disks. What a *bad* disk says of its past may be wrong (bits flipped at rest,
syncs that did nothing), or it is thrown away for an empty one. A disk is *shaken* when calls failed on it for a while:
the store may have gone on without it, so that it counts among the m until it has caught up. So while there is a bad
disk, no more than m are bad or shaken before the store was made whole again; without one, any number may be shaken.
"""

import errno
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ostraka.testing.simulation.disk import Disk, Trouble
from ostraka.testing.simulation.machine import Machine
from ostraka.testing.simulation.service import Service

log = logging.getLogger("ostraka.testing")

CALLS_BEFORE_POWER_GOES = (50, 200, 800)  # on average; a phase on one disk makes some three hundred
FAILING_CALLS = (
    "sync_data",
    "sync_data",
    "sync_data",
    "pwritev",
    "preadv",
    "open",
    "rename",
    "sync_directory",
    "unlink",
    "names",
    "statfs",
)
PLACES = ("", "", "/segments/", "/segments/", "log-", "snapshot", "superblock", "keys", "mark", "index", "data.mdb")
ERRNOS = (errno.EIO, errno.EIO, errno.ENOSPC, errno.EROFS)


@dataclass
class Menu:
    """How likely each kind of trouble is, in a phase."""

    power: float = 0.5
    kill: float = 0.4
    hiccups: float = 0.0  # of each call, whichever disk it goes to: that it takes seconds
    blackout: float = 0.0  # disks that are away for a while
    vanish: float = 0.0  # a bad disk goes for good, and is replaced by an empty one
    errors: float = 0.15  # calls that fail with EIO, for a while
    fails_once: float = 0.2  # a single call that fails
    lies: float = 0.0  # a bad disk's syncs do nothing
    flips_at_rest: float = 0.0
    flips_on_read: float = 0.0
    slow: float = 0.15
    hangs: float = 0.1
    full: float = 0.1


@dataclass
class Mischief:
    """What was done and is not mended yet."""

    bad: set[str] = field(default_factory=set)  # disks whose content is not to be relied upon
    shaken: set[str] = field(default_factory=set)  # disks that may have been left out for a while
    thrown_away: set[str] = field(default_factory=set)
    needs_fsck: bool = False  # something is damaged that nobody has met yet


class Adversary:
    """Plans and makes trouble. Runs as a strand of nobody's, beside the processes."""

    def __init__(self, machine: Machine, service: Service, menu: Menu, bad_max: int) -> None:
        self._machine = machine
        self._service = service
        self._rng: random.Random = machine.rng
        self._menu = menu
        self._bad_max = bad_max
        self._round = 0
        self._busy = False
        self.done = Mischief()

    @property
    def busy(self) -> bool:
        """Whether trouble may be about."""
        return self._busy

    # -- planning

    def begin(self) -> None:
        """Trouble for one phase; `end` ends it."""
        rng, menu = self._rng, self._menu
        self._round += 1
        self._busy = True
        actions: list[Callable[[], None]] = []
        self._machine.hiccups = menu.hiccups
        if rng.random() < menu.power:
            calls = rng.expovariate(1 / rng.choice(CALLS_BEFORE_POWER_GOES))
            self._machine.power_goes_at = self._machine.calls + int(calls) + 1
        for kind, action in self._kinds().items():
            if rng.random() < getattr(menu, kind):
                actions.append(action)
        rng.shuffle(actions)
        number = self._round
        for action in actions:
            self._later(rng.choice((0.0, rng.uniform(0, 3.0), rng.uniform(0, 30.0))), number, action)

    def end(self) -> None:
        """No new trouble, and what was only for a while is over. Bad disks stay what they are."""
        self._round += 1
        self._busy = False
        self._machine.power_goes_at = -1
        self._machine.hiccups = 0.0
        for process in self._machine.processes:
            process.calls_left = -1
        for name, disk in self._machine.disks.items():
            gone = name in self.done.thrown_away
            disk.trouble = Trouble(gone=gone)
            disk.make_room()

    def strike_at_rest(self) -> None:
        """No process runs: the power may go all the same, and bits may rot."""
        if self._rng.random() < self._menu.power / 2:
            log.info("the power goes while the store is not in use")
            self._machine.cut()
            self._machine.events.clear()  # it concerns nobody
        if self._rng.random() < self._menu.flips_at_rest:
            self._flip_at_rest()

    def mended(self) -> None:
        """The store is whole: other disks may turn bad now."""
        self.done = Mischief(thrown_away=self.done.thrown_away)

    def _later(self, seconds: float, number: int, action: Callable[[], None]) -> None:
        def run() -> None:
            self._machine.scheduler.sleep(seconds)
            if self._round == number:
                action()

        self._machine.scheduler.spawn(None, "adversary", run)

    # -- kinds of trouble

    def make(self, kind: str) -> None:
        """Trouble of one kind (a name of `Menu`, but "power"), now."""
        self._busy = True
        self._kinds()[kind]()

    def _kinds(self) -> dict[str, Callable[[], None]]:
        return {
            "kill": self._kill,
            "blackout": self._blackout,
            "vanish": self._vanish,
            "errors": self._errors,
            "fails_once": self._fails_once,
            "lies": self._lies,
            "flips_at_rest": self._flip_at_rest,
            "flips_on_read": self._flip_on_read,
            "slow": self._slow,
            "hangs": self._hangs,
            "full": self._full,
        }

    def _kill(self) -> None:
        living = [child.process for child in self._service.children if child.alive and child.process is not None]
        if living:
            process = self._rng.choice(living)
            process.calls_left = int(self._rng.expovariate(1 / 150)) + 1
            log.info("%s is going to be killed in %d calls", process.name, process.calls_left)

    def _in_use(self) -> list[str]:
        return [path.name for path in self._service.paths if path.name not in self.done.thrown_away]

    def _shaken(self) -> list[Disk]:
        """Some of the disks that may be shaken now."""
        done, names = self.done, self._in_use()
        count = min(self._rng.choice((1, 1, 1, 2, len(names))), len(names))
        chosen = set(self._rng.sample(names, count))
        if done.bad and len(done.bad | done.shaken | chosen) > self._bad_max:
            chosen &= done.bad | done.shaken
        done.shaken |= chosen
        return [self._machine.disks[name] for name in sorted(chosen)]

    def _bad(self) -> Disk | None:
        """A disk that may be made bad, if there is one."""
        done, names = self.done, self._in_use()
        if len(done.bad | done.shaken) >= self._bad_max:
            names = [name for name in names if name in done.bad | done.shaken]
        if not names or len(done.bad | done.shaken) > self._bad_max:
            return None
        name = self._rng.choice(names)
        done.bad.add(name)
        return self._machine.disks[name]

    def _for_a_while(self, disk: Disk, seconds: float, **changes: object) -> None:
        for name, value in changes.items():
            setattr(disk.trouble, name, value)
        log.info("%s: %s for %.1f seconds", disk.root, changes, seconds)
        number, calm = self._round, Trouble()

        def over() -> None:
            for name in changes:
                setattr(disk.trouble, name, getattr(calm, name))

        self._later(seconds, number, over)

    def _blackout(self) -> None:
        seconds = self._rng.choice((0.1, 5.0, 100.0))
        for disk in self._shaken():
            self._for_a_while(disk, seconds, gone=True)

    def _vanish(self) -> None:
        disk = self._bad()
        if disk is not None:
            log.info("%s is gone for good", disk.root)
            disk.trouble = Trouble(gone=True)
            self.done.thrown_away.add(Path(disk.root).name)

    def _errors(self) -> None:
        for disk in self._shaken():
            self._for_a_while(disk, self._rng.uniform(0.1, 20.0), errors=self._rng.choice((0.02, 0.3, 1.0)))

    def _fails_once(self) -> None:
        for disk in self._shaken():
            for call in self._rng.sample(FAILING_CALLS, self._rng.choice((1, 1, 3))):
                number, where = self._rng.choice(ERRNOS), self._rng.choice(PLACES)
                log.info("%s: the next %s of %s fails with errno %d", disk.root, call, where or "any", number)
                disk.trouble.fails_on[call] = number, where

    def _lies(self) -> None:
        disk = self._bad()
        if disk is not None:
            self.done.needs_fsck = True
            self._for_a_while(disk, 1000.0, lies=self._rng.choice((0.1, 1.0)))

    def _flip_at_rest(self) -> None:
        disk = self._bad()
        if disk is not None:
            self.done.needs_fsck = True
            for _ in range(self._rng.choice((1, 3))):
                log.info("a bit was flipped in %s", disk.flip(self._rng, self._rng.choice(PLACES)))

    def _flip_on_read(self) -> None:
        disk = self._bad()
        if disk is not None:
            self.done.needs_fsck = True
            self._for_a_while(disk, self._rng.uniform(1.0, 30.0), flips=self._rng.choice((0.01, 0.3)))

    def _slow(self) -> None:
        for name in self._in_use():
            if self._rng.random() < 0.3:
                seconds, mean = self._rng.uniform(1.0, 60.0), self._rng.choice((0.001, 0.05, 0.5))
                self._for_a_while(self._machine.disks[name], seconds, slow=mean)

    def _hangs(self) -> None:
        for disk in self._shaken():
            self._for_a_while(disk, self._rng.choice((0.5, 20.0, 200.0)), hangs=True)

    def _full(self) -> None:
        for disk in self._shaken():
            disk.capacity = disk.used + self._rng.choice((0, 2000, 20_000))
            log.info("%s has %d bytes left", disk.root, disk.room)
            self._later(self._rng.choice((1.0, 60.0)), self._round, disk.make_room)
