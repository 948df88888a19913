"""A store inside a program, beside the same through HTTP and beside plain files; and how soon everything is ready.

    python bench/library.py [--quick] [--only NAME] [--json] [--dir DIR]

The same bodies go through `ostraka.open_async` in this process, through `ostraka serve` on the loopback interface (wrk
for small ones, plain sockets for large ones, one worker), and into plain files that are published as durably (staging
name, fsync, rename, fsync of the directory). Every PUT is on stable storage when it returns, every GET is compared
with what was stored. All of them take turns within each round, so that a busy machine is busy for all; the median of
the rounds is told, with its ratio to the plain files of the same run.

Starts are measured from the beginning of a process to its first answer: milliseconds, the fewer the better. "us CPU" is
of this process for one operation (in process, and files), of the server's processes (HTTP), or of the start.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from load import inside, starts, streams
from load.inside import Files, Round
from load.machine import Meter, describe
from load.report import HEAD, Figure, as_json, line
from load.small import Rig
from load.target import BUCKET, Target, ostraka
from load.wrk import WrongAnswers

from ostraka import open_async

T = TypeVar("T")
KIB, MIB = 1 << 10, 1 << 20
SMALL = 4 * KIB
PROGRAMS = {  # of load/begin.py
    "nothing": "an empty program",
    "library": "ostraka.open",
    "fixture": "ostraka.testing.serve",
    "moto-thread": "ThreadedMotoServer",
}
LIBRARY, HTTP, FILES = "in process", "through HTTP", "plain files"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    rounds: int
    seconds: float
    keys: int  # that are read again
    large: int  # bytes of a large body
    starts: int
    patience: float  # seconds that are waited for a quiet moment


FULL = Plan(5, 4.0, 20_000, 64 * MIB, 7, 5.0)
QUICK = Plan(1, 2.0, 4_000, 64 * MIB, 3, 3.0)
TINY = Plan(1, 0.3, 200, 2 * MIB, 1, 0.0)  # for a test that it runs


class Bench:
    """One run. ``loop`` is the event loop of the store in this process: it runs only while something is measured."""

    def __init__(self, plan: Plan, where: Path, only: str) -> None:
        self.plan = plan
        self.where = where
        self.only = only
        self.figures: dict[tuple[str, str], Figure] = {}

    def wanted(self, name: str) -> bool:
        return self.only.lower() in name.lower()

    def figure(self, target: str, name: str, unit: str, beside: str = "") -> Figure:
        found = self.figures.get((target, name))
        if found is None:
            found = self.figures[target, name] = Figure(target, name, unit, limit=beside)
        return found

    def finish(self) -> list[Figure]:
        """All figures, each with what it is compared with."""
        for figure in self.figures.values():
            beside = self.figures.get((figure.limit, figure.name))
            if beside is not None:
                figure.limit_rate = beside.rate
        return list(self.figures.values())

    # -- starts

    def starts(self) -> None:
        plan, meter = self.plan, Meter(patience=self.plan.patience)
        moto = starts.MOTO_PYTHON.exists()
        for _ in range(plan.starts):
            with tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=self.where) as made:
                store = Path(made) / "store"
                for kind in ("new", "existing"):
                    if (figure := self._start(f"ostraka serve, {kind} store")) is not None:
                        starts.serve(store, meter, figure)
            for what, target in PROGRAMS.items():
                if (moto or "moto" not in what) and (figure := self._start(target)) is not None:
                    starts.program(what, self.where, meter, figure)
            if moto and (figure := self._start("moto_server")) is not None:
                starts.moto_process(meter, figure)

    def _start(self, target: str) -> Figure | None:
        name = "start to first answer"
        return self.figure(target, name, "ms", PROGRAMS["nothing"]) if self.wanted(f"{target}, {name}") else None

    # -- bodies

    def bodies(self) -> None:
        plan = self.plan
        with ExitStack() as stack:
            made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=self.where)))
            runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            bucket = stack.enter_context(_opened(runner, made / "library"))
            served = stack.enter_context(ostraka(self.where, 1, 1))
            served.make_bucket()
            for number in range(plan.rounds):
                for tasks in (1, 32):
                    self._small(runner, bucket, served, made, tasks)
                for tasks in (1, 4):
                    self._large(runner, bucket, served, made, tasks, number)

    def _measured(self, runner: asyncio.Runner, work: Coroutine[Any, Any, T], figure: Figure | None) -> T:
        """Run what returns a Round, alone or before something else, and note it."""
        meter = Meter(patience=self.plan.patience)
        meter.wait_for_quiet()
        with meter.measure() as spent:
            result = runner.run(work)
        if figure is not None:
            found: Round = result[0] if isinstance(result, tuple) else result  # type: ignore[assignment]
            figure.add(found.rate, found.cpu, spent.foreign, found.p50, found.p99)
        return result

    def _small(self, runner: asyncio.Runner, bucket: Any, served: Target, made: Path, tasks: int) -> None:
        plan = self.plan
        words = f"{tasks} task{'s' if tasks > 1 else ''}"
        put, get = f"PUT 4 KiB, {words}", f"GET 4 KiB, {words}"
        if not self.wanted(put) and not self.wanted(get):
            return
        body = os.urandom(SMALL)
        files = Files(made / "files", tasks)
        for target, place in ((FILES, files), (LIBRARY, bucket)):
            name, figure = f"put-{os.urandom(4).hex()}", self.figure(target, put, "op/s", FILES)
            _, keys = self._measured(runner, inside.put_for(place, name, body, tasks, plan.seconds), figure)
            work = inside.get_for(place, keys[: plan.keys], body, tasks, plan.seconds)
            self._measured(runner, work, self.figure(target, get, "op/s", FILES))
        files.close()
        shutil.rmtree(made / "files")
        with tempfile.TemporaryDirectory(dir=made) as scratch:
            rig = Rig(served, Path(scratch), Meter(served.processes, patience=plan.patience))
            rig.put(SMALL, tasks, plan.seconds, self.figure(HTTP, put, "op/s", FILES))
            rig.prepare(SMALL, plan.keys)
            rig.get(SMALL, tasks, plan.seconds, self.figure(HTTP, get, "op/s", FILES))

    def _large(self, runner: asyncio.Runner, bucket: Any, served: Target, made: Path, tasks: int, number: int) -> None:
        plan = self.plan
        words = f"{tasks} task{'s' if tasks > 1 else ''}"
        put, get = f"PUT 64 MiB, {words}", f"GET 64 MiB, {words}"
        if not self.wanted(put) and not self.wanted(get):
            return
        seeds = [streams.new_seed() for _ in range(tasks)]
        bodies = [streams.make_body(plan.large, "random", seed)[:] for seed in seeds]
        keys = [f"large-{number}-{tasks}-{n}" for n in range(tasks)]
        size = plan.large * tasks
        files = Files(made / "files", tasks)
        for target, place in ((FILES, files), (LIBRARY, bucket)):
            puts = [place.put(key, body) for key, body in zip(keys, bodies, strict=True)]
            self._measured(runner, inside.together(puts, size), self.figure(target, put, "MB/s", FILES))
            for figure in (None, self.figure(target, get, "MB/s", FILES)):  # the second time from the page cache
                gets = [place.get(key) for key in keys]
                _, found = self._measured(runner, inside.together(gets, size), figure)
                if found != bodies:
                    raise WrongAnswers("what was read is not what was written")
                del found
        files.close()
        shutil.rmtree(made / "files")
        paths = [f"/{BUCKET}/{key}" for key in keys]
        self._streamed(served, "PUT", paths, seeds, self.figure(HTTP, put, "MB/s", FILES))
        self._streamed(served, "GET", paths, seeds, None)
        self._streamed(served, "GET", paths, seeds, self.figure(HTTP, get, "MB/s", FILES))

    def _streamed(
        self, served: Target, method: str, paths: Sequence[str], seeds: Sequence[int], figure: Figure | None
    ) -> None:
        """A client for each path, all at once."""
        jobs = [
            streams.Job(method, path, self.plan.large, "random", seed, False)
            for path, seed in zip(paths, seeds, strict=True)
        ]
        meter, size = Meter(served.processes, patience=self.plan.patience), self.plan.large * len(jobs) / 1e6
        meter.wait_for_quiet()
        with meter.measure() as spent:
            seconds = streams.run(served.host, served.port, jobs)
        if figure is not None:
            figure.add(size / seconds, spent.server / size * 1e6, spent.foreign)


@contextmanager
def _opened(runner: asyncio.Runner, directory: Path) -> Iterator[Any]:
    """A bucket of a store in this process, which works while the runner runs something."""
    opened = open_async(directory)
    store = runner.run(opened.__aenter__())
    try:
        yield runner.run(store.create_bucket(BUCKET))
    finally:
        runner.run(opened.__aexit__(None, None, None))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round of everything")
    options.add_argument("--tiny", action="store_true", help="only to see that it runs")
    options.add_argument("--only", default="", help="what has this in its name, such as 'PUT 4 KiB' or start")
    options.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
    options.add_argument("--dir", default="/var/tmp", help="a directory on the disk that is measured")
    chosen = options.parse_args()
    plan = TINY if chosen.tiny else QUICK if chosen.quick else FULL
    bench = Bench(plan, Path(chosen.dir), chosen.only)
    bench.starts()
    bench.bodies()
    figures = bench.finish()
    if not figures:
        sys.exit(f"nothing has {chosen.only!r} in its name")
    about = describe()
    if chosen.json:
        print(as_json(about, {}, figures))
        return
    print(" ".join(f"{name} {value}," for name, value in about.items()).rstrip(","))
    print(HEAD)
    for figure in figures:
        print(line(figure))


if __name__ == "__main__":
    main()
