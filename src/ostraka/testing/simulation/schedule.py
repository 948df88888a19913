"""One schedule: a store is served, used, crashed, recovered, mended and looked through, all by one seed.

What varies from seed to seed is drawn first (`Plan`): how many workers and clients, how often a strand is overtaken,
what goes wrong. Then the machine runs. What should not have happened is returned, in words.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from ostraka.errors import OstrakaError
from ostraka.limits import LIMITS, Limits
from ostraka.objects.recipes import changed
from ostraka.objects.types import Bucket, Versioning
from ostraka.store.store import Store
from ostraka.testing.simulation import checks, operator
from ostraka.testing.simulation.adversary import Adversary, Menu
from ostraka.testing.simulation.clients import ACTIONS, BLOCK, KEYS, OWNER, Bodies, Client, World
from ostraka.testing.simulation.disk import Disk
from ostraka.testing.simulation.history import Impossible
from ostraka.testing.simulation.linking import linked
from ostraka.testing.simulation.machine import Machine, seeded
from ostraka.testing.simulation.operator import CAPACITY, QUIET_SECONDS, Operator
from ostraka.testing.simulation.scheduler import Scheduler, Stuck
from ostraka.testing.simulation.service import Hangs, PowerCut, Service

log = logging.getLogger("ostraka.testing")

ATTEMPTS = 30

SMALL = replace(
    LIMITS,
    inline_size_max=64,
    pack_size_max=400,
    chunk_size=BLOCK,
    frame_size=256,
    cell_size=256,
    pack_cell_size=128,
    pack_bytes_max=2048,
    pack_slots_max=6,
    segment_size_max=6144,
    segment_records_max=12,
    direct_shard_size_min=1 << 30,
    read_piece_max=1024,
    chunks_in_flight_max=3,
    chunks_per_commit_max=2,
    slices_embedded_max=2,
    manifest_page_entries_max=3,
    batch_mutations_max=8,
    log_bytes_before_checkpoint=6 << 10,
    log_files_before_checkpoint=6,
    collect_grace_seconds=2.0,
    collect_batch_rows_max=8,
    jobs_piece_rows=20,
    part_size_min=1,
    segment_files_open_max=3,
    scan_rows_max=1000,
)


@dataclass(frozen=True)
class Geometry:
    """A store's shape."""

    k: int
    m: int
    disks: int
    changes: bool = False  # disks come and go, and the geometry changes, while the store is used

    def __str__(self) -> str:
        return f"{self.k}+{self.m} on {self.disks}{', that change' if self.changes else ''}"


@dataclass
class Plan:
    """What a seed decides before anything runs."""

    seed: int
    geometry: Geometry
    limits: Limits = SMALL
    workers: int = 1
    clients: int = 2
    requests: int = 20
    phases: int = 1
    likely: float = 0.3
    pause: float = 1.0  # of a client between its requests, on average
    actions: tuple[str, ...] = ACTIONS  # of clients
    in_step: bool = False  # clients begin their requests at the same moments
    latency: float = 0.0  # of every call of every disk, on average
    keys: tuple[str, ...] = KEYS
    blocks: int = 8  # of which bodies are made
    buckets: dict[str, Versioning] = field(default_factory=dict)
    menu: Menu = field(default_factory=Menu)
    changes: tuple[str, ...] = ()  # of the layout, in a phase
    emptied: bool = False  # at the end all is deleted, to see what is left


def draw(seed: int, geometry: Geometry) -> tuple[Plan, random.Random]:
    """The plan of a seed, and the generator that goes on from there."""
    rng = seeded(f"{geometry}/{seed}")
    plan = Plan(seed, geometry)
    plan.workers = rng.choice((1, 1, 1, 2, 2, 3))
    plan.clients = rng.choice((1, 2, 3))
    plan.requests = rng.choice((4, 8, 15, 30))
    plan.phases = rng.choice((1, 1, 1, 2))
    plan.likely = rng.choice((0.02, 0.2, 0.5, 0.9))
    plan.pause = rng.choice((0.002, 0.05, 0.5, 3.0))
    plan.latency = rng.choice((0.0, 0.0, 0.0, 0.0005, 0.005, 0.05))
    if rng.random() < 0.5:  # few kinds of requests get into each other's way more often than many
        plan.actions = ("put", *rng.sample(sorted(set(ACTIONS)), rng.choice((1, 2, 4))))
    plan.in_step = rng.random() < 0.3
    plan.keys = rng.choice((KEYS, KEYS, KEYS[:3], KEYS[:1]))
    plan.blocks = rng.choice((2, 4, 8))
    plan.limits = replace(SMALL, collect_grace_seconds=rng.choice((0.0, 0.5, 2.0)))
    plan.emptied = rng.random() < 0.3
    plan.buckets = {"plain": "", "versions": rng.choice(("Enabled", "Suspended"))}
    kind = rng.random()
    if kind < 0.15:
        _crowd(plan, rng)
        return plan, rng
    if kind < 0.3:  # nothing goes wrong but the power: faults hide races
        plan.menu = Menu(kill=0.0, errors=0.0, fails_once=0.0, slow=0.1, hangs=0.0, full=0.0)
    elif geometry.m:
        plan.menu = Menu(blackout=0.25, vanish=0.25, lies=0.1, flips_at_rest=0.15, flips_on_read=0.1)
    plan.menu.hiccups = rng.choice((0.0, 0.0, 0.003, 0.01, 0.03))
    if geometry.changes:
        plan.changes = tuple(rng.choices(operator.CHANGES, k=rng.choice((1, 2, 3, 5))))
    return plan, rng


def _crowd(plan: Plan, rng: random.Random) -> None:
    """Nothing fails, but much happens at once: everybody wants one key, what is given up is collected at once, and any
    call may take its time."""
    plan.workers, plan.clients, plan.requests, plan.phases = 3, rng.choice((1, 3)), 30, 1
    plan.pause, plan.latency = rng.choice((0.05, 0.5)), rng.choice((0.0005, 0.05))
    plan.keys, plan.blocks = plan.keys[:1], rng.choice((1, 2))
    plan.limits = replace(SMALL, collect_grace_seconds=0.0)
    plan.actions = ("put", "delete", *rng.sample(sorted(set(ACTIONS)), rng.choice((0, 1, 2))))
    plan.menu = Menu(power=0.0, kill=0.0, hiccups=0.03, errors=0.0, fails_once=0.0, slow=0.0, hangs=0.0, full=0.0)


@dataclass
class Verdict:
    """What came of a schedule. ``failures`` is empty if all is well; ``digest`` is the same whenever it is run."""

    seed: int
    failures: list[str]
    calls: int
    turns: int
    answered: int
    recoveries: int
    digest: str


@lru_cache(maxsize=32)
def formatted(geometry: Geometry, buckets: tuple[tuple[str, Versioning], ...]) -> list[Disk]:
    """Disks of a store that has these buckets, and was used for nothing else; made once, the same in every process."""
    scheduler = Scheduler(seeded(f"{geometry}/formatted"))
    machine = Machine(scheduler)
    paths = [machine.add_disk(CAPACITY) for _ in range(geometry.disks)]
    service = Service(machine, paths, SMALL, 1, (geometry.k, geometry.m), only_serves)

    async def make_buckets(store: Store) -> None:
        for name, versioning in buckets:
            await store.objects.create_bucket(name, OWNER, "us-east-1")
            if versioning:
                await store.objects.update_bucket(name, partial(versioned, versioning))

    def direct() -> None:
        service.start()
        service.ask(make_buckets)
        service.stop()

    with linked(machine):
        scheduler.run(scheduler.spawn(None, "director", direct))
        machine.shut_down()
        scheduler.close()
    return list(machine.disks.values())


async def only_serves(store: Store, row: int) -> None:
    """Of clients that come from without."""


class Director:
    """Runs one schedule."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self.plan = plan
        self.rng = rng
        self.scheduler = Scheduler(rng)
        self.scheduler.likely = plan.likely
        self.machine = Machine(self.scheduler)
        self.machine.latency = plan.latency
        self.world = World(
            rng,
            plan.buckets,
            Bodies(rng, plan.blocks),
            plan.keys,
            pause=plan.pause,
            actions=plan.actions,
            in_step=plan.in_step,
        )
        shape = plan.geometry
        paths = [self.machine.add_disk(CAPACITY, like) for like in formatted(shape, tuple(plan.buckets.items()))]
        self.service = Service(self.machine, paths, plan.limits, plan.workers, (shape.k, shape.m), self._serve)
        self.service.on_recovered = self.world.history.recovered
        self.adversary = Adversary(self.machine, self.service, plan.menu, shape.m)
        self.operator = Operator(self.machine, self.service, self.adversary)
        self.failures: list[str] = []

    def run(self) -> Verdict:
        with linked(self.machine):
            try:
                self.scheduler.run(self.scheduler.spawn(None, "director", self._direct))
            except Stuck as error:
                self.failures.append(f"stuck: {error}")
            self.machine.shut_down()
            self.failures += self.world.failures + self.machine.failures
            self.scheduler.close()
        if not self.failures:
            try:
                self.world.history.check()
            except Impossible as error:
                self.failures.append(str(error))
        return Verdict(
            self.plan.seed,
            self.failures,
            self.machine.calls,
            self.scheduler.turns,
            self.world.history.answered,
            self.service.recoveries,
            f"{self.machine.calls}-{self.scheduler.turns}-{self.rng.getrandbits(32):08x}",
        )

    async def _serve(self, store: Store, row: int) -> None:
        clients = [Client(self.world, store, f"{row}.{n}") for n in range(self.plan.clients)]
        await asyncio.gather(*(client.run() for client in clients))

    # -- the course of a schedule

    def _direct(self) -> None:
        try:
            for phase in range(self.plan.phases):
                if phase and self.rng.random() < 0.5:
                    self._through(self._mend)
                self.world.left = self.plan.requests
                self.adversary.begin()
                self._through(self._use)
                self.adversary.strike_at_rest()
                self.adversary.end()
                if self.world.failures:
                    return
            self._through(self._look_through)
            if self.plan.emptied and not self.failures:
                self._through(self._look_for_leavings)
        except Hangs as error:
            self.failures.append(f"hangs: {error}")
        except OstrakaError as error:
            self.failures.append(f"the store cannot be used: {error!r}")

    def _through(self, work: Callable[[], None]) -> None:
        """Do it in a served store, which is recovered as often as the power goes."""
        for attempt in range(ATTEMPTS):
            try:
                self.service.start()
                work()
                return
            except PowerCut:
                log.info("the power went")
            except OstrakaError as error:
                log.info("the store cannot be used now: %s", error)
                if attempt + 1 == ATTEMPTS or not self.adversary.busy:
                    raise
                self.service.kill()
                self.scheduler.sleep(20.0)
            self.machine.events.clear()
        raise Hangs("the store does not come up")

    def _use(self) -> None:
        """Until the clients are done; then it ends, in one way or another."""
        service, rng = self.service, self.rng
        for change in self.plan.changes:
            self._until_left(rng.randrange(self.plan.requests))
            self.operator.change(change)
        self._until_left(0)
        if rng.random() < 0.4:
            service.kill()
        else:
            service.rest(rng.choice((1.0, 30.0)))
            service.stop()

    def _until_left(self, requests: int) -> None:
        if not self.service.attend(lambda: self.world.left <= requests):
            raise Hangs("requests are not answered")

    def _mend(self) -> None:
        self.failures += self.operator.mend()
        self.service.stop()

    def _look_through(self) -> None:
        """When it was made whole, and nobody uses it, everything has to fit."""
        self.failures += self.operator.mend()
        if self.rng.random() < 0.3:
            self.service.stop()
            self.service.start()
        self.service.rest(60.0)
        self.service.ask(self._verify_answers, self.service.workers[0])
        self.service.ask(self._verify)
        if self.plan.emptied and not self.world.failures:
            self._empty()
        self.service.stop()

    def _empty(self) -> None:
        """When everything is deleted, everything has to be collected."""
        self.service.ask(checks.empty, self.service.workers[0])
        self.service.rest(QUIET_SECONDS)
        self.failures += self.service.ask(_rows_left)

    def _look_for_leavings(self) -> None:
        self.service.rest(QUIET_SECONDS)
        self.failures += self.service.ask(_bytes_left)
        self.service.stop()

    async def _verify_answers(self, store: Store) -> None:
        await checks.verify_answers(self.world, store, "check")

    async def _verify(self, store: Store) -> None:
        if not self.world.failures:
            self.failures += checks.verify_references(store)
            self.failures += await checks.verify_shards(store)


def versioned(versioning: Versioning, bucket: Bucket) -> Bucket:
    """Such a bucket keeps what is written to it in other ways as well."""
    return replace(bucket, versioning=versioning, storage=changed(bucket.storage, "lz4", "cdc"))


async def _rows_left(store: Store) -> list[str]:
    return list(checks.verify_nothing_left(store))


async def _bytes_left(store: Store) -> list[str]:
    return list(checks.verify_no_bytes_left(store))


def run(seed: int, geometry: Geometry) -> Verdict:
    """Run the schedule of that seed."""
    plan, rng = draw(seed, geometry)
    return Director(plan, rng).run()
