"""`ostraka serve` on a simulated machine: a supervisor that holds the store, an owner with its jobs, workers.

The processes run what the real ones run (server/worker.py), without sockets: clients are tasks of the workers. What the
supervisor does is done here by whoever directs the schedule: it buries the dead and replaces them, and after a memory
fault or a lost index it stops all and has the store recovered once more (server/supervisor.py).
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ostraka.errors import OstrakaError, Unavailable
from ostraka.jobs.scheduler import Scheduler as Jobs
from ostraka.limits import Limits
from ostraka.nodes.opening import still_disks
from ostraka.server.supervisor import FAST_DEATHS_MAX
from ostraka.shared import Shared
from ostraka.store.recovery import Recovered, hold
from ostraka.store.store import TEND_SECONDS, Store, new_shared, open_owner, open_worker
from ostraka.testing.simulation.machine import Machine, Process
from ostraka.testing.simulation.scheduler import Strand

log = logging.getLogger("ostraka.testing")

RECOVERY_SECONDS_MAX = 3600.0  # of virtual time, for anything that has to come to an end
Serve = Callable[[Store, int], Awaitable[None]]


class PowerCut(Exception):
    """The power went while the director waited for something."""


class Hangs(Exception):
    """Something that has to end does not."""


class Child:
    """A process of the service, as its supervisor knows it."""

    def __init__(self, name: str, row: int) -> None:
        self.name = name
        self.row = row
        self.process: Process | None = None
        self.strand: Strand | None = None
        self.store: Store | None = None
        self.ready = False
        self.error: OstrakaError | None = None
        self.stop: asyncio.Event | None = None
        self.lost_index = False
        self.fast_deaths = 0  # one after the other, before it was ready

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead


class Service:
    """A served store. All methods are called by the director's strand; each may raise `PowerCut`."""

    def __init__(
        self, machine: Machine, paths: Sequence[Path], limits: Limits, workers: int, ec: tuple[int, int], serve: Serve
    ) -> None:
        self.machine = machine
        self.paths = list(paths)
        self.limits = limits
        self.ec = ec
        self._serve = serve
        self.owner = Child("owner", workers)
        self.workers = [Child(f"worker-{row}", row) for row in range(workers)]
        self.shared: Shared | None = None
        self.recovered: Recovered | None = None
        self._supervisor: Process | None = None
        self.recoveries = 0
        self._reopening = False
        self.on_recovered: Callable[[], None] = lambda: None  # called while nobody else uses the store

    @property
    def children(self) -> list[Child]:
        return [self.owner, *self.workers]

    # -- starting

    def start(self) -> None:
        """Hold the store, recover it, start the workers. Raises what keeps the store from being opened."""
        self._supervisor = self.machine.new_process("supervisor")
        holding = Child("supervisor", -1)
        holding.process = self._supervisor

        async def supervise(process: Process) -> None:
            holding.stop = asyncio.Event()
            try:
                with hold(self.paths, process.host, make=True):
                    holding.ready = True
                    self.machine.tell("")
                    await holding.stop.wait()
            except OstrakaError as error:
                holding.error = error
                self.machine.tell("")

        self._supervisor.start(supervise)
        self._until(lambda: holding.ready or holding.error is not None)
        if holding.error is not None:
            raise holding.error
        self.shared = new_shared(len(self.children))
        self._recover()
        self._start_workers()

    def _recover(self) -> None:
        self.recovered = None
        self._reopening = False
        self._start_child(self.owner, self._own)
        self._until(lambda: self.owner.ready or not self.owner.alive)
        if not self.owner.ready:
            raise self.owner.error or Unavailable("the recovery ended without a word", reason="recovery")
        self.recoveries += 1
        self.on_recovered()

    def _start_workers(self) -> None:
        for child in self.workers:
            child.fast_deaths = 0
            self._start_child(child, self._work)
        self._until(lambda: all(child.ready or not child.alive for child in self.workers))

    def _start_child(self, child: Child, main: Callable[[Child, Process], Any]) -> None:
        child.process = self.machine.new_process(child.name)
        child.store, child.ready, child.error, child.lost_index = None, False, None, False

        async def run(process: Process) -> None:
            child.stop = asyncio.Event()
            try:
                await main(child, process)
            except OstrakaError as error:
                child.error = error
            except OSError as error:
                child.error = Unavailable(str(error), reason="os")
            finally:
                self.machine.tell("")

        child.strand = child.process.start(run)

    async def _own(self, child: Child, process: Process) -> None:
        assert self.shared is not None
        open_map = self.machine.open_map
        if self.recovered is None:
            ec: tuple[int, int] | None = self.ec
            paths = self.paths
            if self.recoveries:  # as a server does that opens its store anew
                ec, paths = None, still_disks(paths, process.host.files)
            store = open_owner(
                paths, self.shared, child.row, ec=ec, host=process.host, limits=self.limits, open_map=open_map
            )
        else:
            store = open_worker(self.recovered, self.shared, child.row, process.host, self.limits, open_map)
            with contextlib.suppress(Unavailable):
                store.membership.settle()
        await self._live(child, process, store, self._jobs)

    async def _work(self, child: Child, process: Process) -> None:
        assert self.shared is not None
        assert self.recovered is not None
        store = open_worker(self.recovered, self.shared, child.row, process.host, self.limits, self.machine.open_map)
        await self._live(child, process, store, self._serve)

    async def _live(self, child: Child, process: Process, store: Store, serve: Serve) -> None:
        """Serve until told to stop, then close."""
        assert child.stop is not None

        def index_lost(why: str) -> None:
            child.lost_index = True
            process.kill(f"the index is lost: {why}")

        store.state.on_index_lost = index_lost
        try:
            child.store = store
            if child is self.owner:
                store.held.take_others(store.membership.paths.values(), self.paths)
                self.recovered = store.recovered
            child.ready = True
            self.machine.tell("")
            serving = asyncio.ensure_future(serve(store, child.row))
            stopping = asyncio.ensure_future(child.stop.wait())
            while not stopping.done():
                await asyncio.wait([stopping], timeout=TEND_SECONDS)
                if not stopping.done():
                    await store.tend()
            serving.cancel()
            await asyncio.wait([serving])
            if not serving.cancelled() and serving.exception() is not None:
                raise serving.exception()  # type: ignore[misc]
        finally:
            await store.close()

    async def _jobs(self, store: Store, row: int) -> None:
        jobs = store.jobs = Jobs(store)

        def reopen() -> None:
            self._reopening = True
            self.machine.tell("")

        store.reopen = reopen
        await jobs.start()
        try:
            await asyncio.Event().wait()
        finally:
            await jobs.stop()

    # -- while it runs

    def attend(self, until: Callable[[], bool]) -> bool:
        """Supervise until then: bury the dead and replace them. False if it never comes."""
        end = self.machine.scheduler.now + RECOVERY_SECONDS_MAX
        while not until():
            if self.machine.scheduler.now > end:
                return False
            self.rest(5.0)
        return True

    def rest(self, seconds: float) -> None:
        """Supervise so long."""
        end = self.machine.scheduler.now + seconds
        while self._supervise() or self.machine.scheduler.now < end:
            self._look(max(0.0, end - self.machine.scheduler.now))

    def _look(self, seconds: float) -> None:
        for event in self.machine.wait_for_event(seconds):
            if event == "power":
                raise PowerCut
            if event.split(": ")[-1].startswith("SIGBUS"):
                for child in self.children:
                    if child.process is not None and child.process.name == event.split(": ")[0] and not child.alive:
                        child.lost_index = True

    def _until(self, condition: Callable[[], bool]) -> None:
        end = self.machine.scheduler.now + RECOVERY_SECONDS_MAX
        while not condition():
            if self.machine.scheduler.now > end:
                raise Hangs("a process does not start, or does not end")
            self._look(10.0)

    def _supervise(self) -> bool:
        """Replace who has died, and have the store opened anew where its owner asked for that; whether it was so."""
        dead = [child for child in self.children if not child.alive]
        if not dead and not self._reopening:
            return False
        assert self.shared is not None
        for child in dead:
            self.shared.bury(child.row)
        if self._reopening or any(child.lost_index for child in dead):
            self.stop_children()
            self._recover_until_it_works()
            self._start_workers()
            return True
        for child in dead:
            child.fast_deaths = 0 if child.ready else child.fast_deaths + 1
        if any(child.fast_deaths >= FAST_DEATHS_MAX for child in dead):
            raise Unavailable("a process of the service cannot start", reason="worker")
        if any(child.fast_deaths for child in dead):
            self._look(0.1 * 2 ** max(child.fast_deaths for child in dead))
        for child in dead:
            self._start_child(child, self._own if child is self.owner else self._work)
        self._until(lambda: all(child.ready or not child.alive for child in dead))
        return True

    def _recover_until_it_works(self) -> None:
        pause = 0.5
        while True:
            try:
                self._recover()
                return
            except OstrakaError as error:
                log.info("the store cannot be recovered yet: %s", error)
                self.stop_children()
                self._look(pause)
                pause = min(pause * 2, 60.0)

    def ask(self, work: Callable[[Store], Awaitable[Any]], child: Child | None = None) -> Any:
        """Have a process do something on its loop, and wait for it; its result. Raises what it raised."""
        target = child or self.owner
        answers: list[tuple[Any, BaseException | None]] = []

        async def answer() -> None:
            assert target.store is not None
            try:
                answers.append((await work(target.store), None))
            except Exception as error:
                answers.append((None, error))
            self.machine.tell("")

        process = target.process
        assert process is not None
        assert process.loop is not None
        tasks: list[Any] = []
        process.loop.call_soon_threadsafe(lambda: tasks.append(asyncio.ensure_future(answer())))
        self._until(lambda: bool(answers) or process.dead)
        if not answers:
            raise Unavailable(f"{target.name} died meanwhile", reason="process")
        result, error = answers[0]
        if error is not None:
            raise error
        return result

    # -- stopping

    def stop_children(self) -> None:
        """SIGTERM: workers first, then the owner closes the store."""
        for group in (self.workers, [self.owner]):
            for child in group:
                process = child.process
                if child.alive and child.stop is not None and process is not None and process.loop is not None:
                    process.loop.call_soon_threadsafe(child.stop.set)
                elif child.alive and process is not None:
                    process.kill("killed at its start")
            self._until(lambda group=group: not any(child.alive for child in group))  # type: ignore[misc]
            for child in group:
                if self.shared is not None:
                    self.shared.bury(child.row)

    def stop(self) -> None:
        """As a clean stop of the whole service."""
        self.stop_children()
        if self._supervisor is not None:
            self._supervisor.kill("stopped")
        self.machine.events.clear()

    def kill(self) -> None:
        """All processes at once; the machine stays up."""
        for child in self.children:
            if child.alive and child.process is not None:
                child.process.kill()
        if self._supervisor is not None and not self._supervisor.dead:
            self._supervisor.kill()
        self.machine.events.clear()
