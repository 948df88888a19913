"""Whose processor time it was: the server's, ours, or that of strangers on the same machine."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))


def describe() -> dict[str, object]:
    """What this ran on, without names."""
    model = next(
        (s.split(":")[1].strip() for s in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in s), "?"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": model,
        "cores": CORES,
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _all_busy() -> float:
    """Seconds of all cores that were not idle."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, words[:8])
    return (user + nice + system + irq + soft + steal) * TICK


@dataclass
class Processes:
    """The processes of one group (setpgid): CPU seconds, dead children included, and private memory."""

    group: int

    def pids(self) -> list[int]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    if int(_stat(int(name))[2]) == self.group:
                        found.append(int(name))
        return sorted(found)

    def cpu(self) -> float:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError, IndexError):
                total += sum(map(int, _stat(pid)[11:15]))  # utime, stime, and of buried children
        return total * TICK

    def anonymous(self) -> dict[int, int]:
        """RssAnon of each process, bytes."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        found[pid] = int(line.split()[1]) << 10
        return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name: state is [0], the group [2], utime [11]."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass
class Spent:
    """What one measurement cost. ``foreign``: share of one core that strangers took meanwhile."""

    seconds: float = 0.0
    server: float = 0.0
    foreign: float = 0.0


@dataclass
class Meter:
    """Measures who spends what, and waits for a quiet moment before."""

    server: Processes | None = None
    quiet: float = 0.3  # share of one core
    patience: float = 10.0  # seconds to wait for quiet; then it is measured all the same, and the share is told
    waited: float = field(default=0.0, init=False)

    def wait_for_quiet(self) -> None:
        until = time.monotonic() + self.patience
        while time.monotonic() < until:
            with self.measure() as spent:
                time.sleep(0.5)
            self.waited += 0.5
            if spent.foreign < self.quiet:
                return

    @contextlib.contextmanager
    def measure(self) -> Iterator[Spent]:
        spent = Spent()
        server = self.server.cpu() if self.server else 0.0
        own, busy, began = _own(), _all_busy(), time.monotonic()
        yield spent
        spent.seconds = time.monotonic() - began
        busy, own = _all_busy() - busy, _own() - own
        spent.server = self.server.cpu() - server if self.server else 0.0
        spent.foreign = max(0.0, busy - own - spent.server) / spent.seconds


def _own() -> float:
    times = os.times()  # our children are waited for inside of each measurement
    return times.user + times.system + times.children_user + times.children_system
