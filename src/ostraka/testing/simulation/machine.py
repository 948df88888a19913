"""A simulated machine: disks, a boot, and processes that may be killed at any of their system calls.

The power may go at any system call of any process: then all processes are gone at once, each disk keeps what survived,
and the machine has another boot id. Whoever directs the schedule is told by `Machine.events`.
"""

import contextlib
import errno
import random
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import lmdb
from greenlet import GreenletExit, getcurrent

from ostraka.errors import InUse
from ostraka.host import Host
from ostraka.testing.simulation.disk import Disk, failure
from ostraka.testing.simulation.files import ROOT, SimulatedFile, SimulatedFiles
from ostraka.testing.simulation.loop import SimulatedLoop
from ostraka.testing.simulation.maps import Library, SimulatedMap
from ostraka.testing.simulation.scheduler import Scheduler, Strand
from ostraka.testing.simulation.threads import Threads, Waiters

HICCUP_SECONDS = (0.1, 1.0, 3.0, 10.0)
WALL_TIME = 1.7e9  # of the moment 0


class Clock:
    """Virtual time, as `host.Clock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def time(self) -> float:
        return WALL_TIME + self._scheduler.now

    def monotonic(self) -> float:
        return self._scheduler.now


class SimulatedHost(Host):
    """The seams of one process."""

    __slots__ = ("_rng",)

    def __init__(self, process: "Process") -> None:
        super().__init__(process.files, Clock(process.machine.scheduler), process.machine.boot_id)
        self._rng = process.rng

    def random(self, size: int) -> bytes:
        return self._rng.randbytes(size)


class Locks:
    """Locks that the kernel keeps for processes, by name; they go with their holder."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._holders: dict[str, Process] = {}
        self._waiters: dict[str, Waiters] = {}

    @contextlib.contextmanager
    def hold(self, name: str, process: "Process", *, wait: bool) -> Iterator[None]:
        """Have it while the context is open. InUse unless it may wait."""
        self._scheduler.pause()
        while (holder := self._holders.get(name)) is not None:
            if not wait:
                raise InUse(f"{name} is in use by process {holder.number}")
            self._waiters.setdefault(name, Waiters(self._scheduler)).wait()
        self._holders[name] = process
        try:
            yield
        finally:
            if not process.dead and self._holders.get(name) is process:
                self._free(name)

    def _free(self, name: str) -> None:
        del self._holders[name]
        waiters = self._waiters.get(name)
        if waiters is not None:
            waiters.wake_all()

    def forget(self, process: "Process") -> None:
        """The process is gone, and with it what it held."""
        for name in [name for name, holder in self._holders.items() if holder is process]:
            self._free(name)


class Process:
    """One simulated process. Its strands are its threads; it has one event loop."""

    def __init__(self, machine: "Machine", number: int, name: str) -> None:
        self.machine = machine
        self.number = number
        self.name = name
        self.rng = machine.rng
        self.dead = False
        self.handles: dict[SimulatedFile, None] = {}
        self.files = SimulatedFiles(self)
        self.host = SimulatedHost(self)
        self.loop: SimulatedLoop | None = None
        self.calls_left = -1  # system calls until it is killed; -1: it is not

    def start(self, main: Callable[["Process"], Coroutine[Any, Any, Any]]) -> Strand:
        """Run a coroutine on an event loop of the process; its strand's end is the end of the process."""

        def run() -> Any:
            self.loop = SimulatedLoop(self.machine.threads)
            try:
                return self.loop.serve(main(self))
            except Exception as error:
                if not self.dead:
                    trace = "".join(traceback.format_exception(error))
                    self.machine.failures.append(f"{self.name} ended by an error that is none of ours: {trace}")
                return None
            finally:
                if not self.dead:
                    self._exit()

        strand: Any = self.machine.scheduler.spawn(self, self.name, run)
        return strand  # type: ignore[no-any-return]

    def _exit(self) -> None:
        """It ended by itself; threads that it left go with it."""
        self.machine.note_failures(self)
        self.dead = True
        self.machine.forget(self)
        self.machine.scheduler.drop(self, but=self.machine.scheduler.current())

    def kill(self, why: str = "kill -9") -> None:
        """SIGKILL: nothing of it runs any more. Does not return if the process kills itself."""
        if self.dead:
            return
        self.machine.note_failures(self)
        self.dead = True
        self.machine.forget(self)
        self.machine.tell(f"{self.name}: {why}")
        self.machine.scheduler.drop(self)

    def enter(self, call: str, disk: Disk, path: str, size: int = 0) -> None:
        """What every system call does first: it may be the last, be overtaken, take its time, and fail."""
        machine = self.machine
        if self.dead:
            raise GreenletExit
        machine.calls += 1
        if machine.on_call is not None:
            machine.on_call(self, call, path, size)
        if machine.calls == machine.power_goes_at:
            machine.cut()
        if self.calls_left > 0:
            self.calls_left -= 1
            if not self.calls_left:
                self.kill(f"killed before {call} {path}")
        if machine.hiccups and self.rng.random() < machine.hiccups:
            machine.scheduler.sleep(self.rng.choice(HICCUP_SECONDS))
        elif machine.latency:
            machine.scheduler.sleep(self.rng.expovariate(1.0 / machine.latency))
        else:
            machine.scheduler.pause()
        if not disk.trouble.any:
            return
        machine.wait_for_disk(disk)
        trouble = disk.trouble
        if trouble.gone:
            raise failure(errno.EIO, path)
        if trouble.fails_on and trouble.fails_on.get(call, (0, "\0"))[1] in path:
            raise failure(trouble.fails_on.pop(call)[0], path)
        if trouble.errors and self.rng.random() < trouble.errors:
            raise failure(errno.EIO, path)

    def touch_map(self, disk: Disk, path: Path) -> None:
        """Memory that is mapped from a file is touched: of a disk that went away, that is SIGBUS, or an error."""
        if self.dead:
            raise GreenletExit
        machine = self.machine
        if machine.hiccups and self.rng.random() < machine.hiccups:  # the page is not there
            machine.scheduler.sleep(self.rng.choice(HICCUP_SECONDS))
        else:
            machine.scheduler.pause()
        if disk.trouble.gone:
            if self.rng.random() < 0.5:
                self.kill(f"SIGBUS in {path}")
            raise lmdb.Error(f"{path}: Input/output error")


class Machine:
    """Disks and processes under one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.rng = scheduler.rng
        self.threads = Threads(scheduler, self._thread_died)
        self.lmdb = Library(self.current)
        self.locks = Locks(scheduler)
        self.disks: dict[str, Disk] = {}
        self.processes: list[Process] = []
        self.boot = 1
        self.calls = 0  # system calls so far
        self.latency = 0.0  # seconds that each takes, on average
        self.hiccups = 0.0  # how many of all calls take much longer than others
        self.power_goes_at = -1  # at that call
        self.on_call: Callable[[Process, str, str, int], None] | None = None
        self.failures: list[str] = []  # what should not have happened in any process
        self.events: list[str] = []  # deaths, power cuts; the director takes them
        self._director = Waiters(scheduler)

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def add_disk(self, capacity: int, like: Disk | None = None) -> Path:
        """A disk more, blank or a twin of another; where it is mounted."""
        number = len(self.disks)
        root = f"{ROOT}/d{number}"
        self.disks[f"d{number}"] = like.copy(root, number) if like else Disk(root, number, capacity)
        return Path(root)

    def disk_at(self, path: Path) -> Disk:
        return self.disks[path.name]

    def new_process(self, name: str) -> Process:
        process = Process(self, len(self.processes), name)
        self.processes.append(process)
        return process

    def current(self) -> Process:
        """The process that runs."""
        owner = self.scheduler.current().owner
        assert isinstance(owner, Process), "no process runs"
        return owner

    def open_map(self, path: Path, size_max: int) -> SimulatedMap:
        """`state.ordered.OpenMap` of the process that runs."""
        return SimulatedMap(self.current(), path)

    # -- power and death

    def cut(self) -> None:
        """The power goes now. Does not return if a process of this machine asks."""
        self.power_goes_at = -1
        for process in self.processes:
            if not process.dead:
                self.note_failures(process)
                process.dead = True
                process.handles.clear()
                self.locks.forget(process)
        for _, disk in sorted(self.disks.items()):
            disk.cut(self.rng)
        self.boot += 1
        self.tell("power")
        gone = list(self.processes)
        for process in gone:
            if process is not self._running():
                self.scheduler.drop(process)
        running = self._running()
        if running is not None:
            self.scheduler.drop(running)

    def _running(self) -> Process | None:
        strand = getcurrent()
        owner = strand.owner if isinstance(strand, Strand) else None
        return owner if isinstance(owner, Process) else None

    def forget(self, process: Process) -> None:
        """The kernel takes back what a process had open."""
        handles, process.handles = process.handles, {}
        for handle in handles:
            handle._disk.release(handle._inode)
        self.locks.forget(process)

    def tell(self, event: str) -> None:
        self.events.append(event)
        self._director.wake_all()

    def wait_for_event(self, seconds: float) -> list[str]:
        """For the director: what happened, as soon as anything has, or so many seconds have passed."""
        if not self.events:
            self._director.wait(seconds)
        events, self.events = self.events, []
        return events

    def wait_for_disk(self, disk: Disk) -> None:
        while disk.trouble.hangs:
            self.scheduler.sleep(1.0)
        if disk.trouble.slow:
            self.scheduler.sleep(self.rng.expovariate(1.0 / disk.trouble.slow))

    def shut_down(self) -> None:
        """The schedule is over: nothing of what still stands counts for anything."""
        for process in self.processes:
            if not process.dead:
                self.note_failures(process)
                process.dead = True

    # -- what should not happen

    def _thread_died(self, strand: Strand, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error))
        self.failures.append(f"{strand.name}: a thread ended by an error: {trace}")

    def note_failures(self, process: Process) -> None:
        """What the loop of a process caught, and nobody else; the process is about to end."""
        if process.loop is None:
            return
        process.loop.dead = True
        for context in process.loop.failures:
            self.failures.append(f"{process.name}: {context.get('message')}: {context.get('exception')!r}")
        process.loop.failures.clear()


def seeded(seed: int | str) -> random.Random:
    """The one generator of a schedule."""
    return random.Random(f"ostraka/{seed}")
