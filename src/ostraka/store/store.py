"""`Store`: everything that one process needs of an open store, put together in one place.

Three ways to one: the owner recovers (`open_owner`), workers join (`open_worker`), and a command or a program that is
alone with the store does both in one process (`open_here`).
"""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from ostraka.chunks import rows as chunk_rows
from ostraka.chunks.counters import METRICS as CHUNK_METRICS
from ostraka.chunks.keyring import Keyring
from ostraka.chunks.store import ChunkStore
from ostraka.errors import NO_ROOM, Full, OstrakaError, Unavailable
from ostraka.host import Host
from ostraka.jobs.damage import DamageJournal
from ostraka.jobs.ground import in_thread
from ostraka.jobs.metrics import METRICS as JOB_METRICS
from ostraka.jobs.scheduler import Scheduler
from ostraka.limits import LIMITS, Limits
from ostraka.metrics import Board, Metric
from ostraka.nodes.keys import NAME as KEYS_NAME
from ostraka.nodes.keys import Keys
from ostraka.nodes.keys import encode as encode_keys
from ostraka.nodes.keys import write as write_keys
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.membership import Membership
from ostraka.nodes.opening import Opening
from ostraka.nodes.types import Disk
from ostraka.objects import rows as object_rows
from ostraka.objects.store import ObjectStore
from ostraka.pools.metrics import METRICS as POOL_METRICS
from ostraka.pools.pool import ErasurePool
from ostraka.pools.routing import Pools
from ostraka.shared import InFlight, Pins, Shared
from ostraka.state import totals
from ostraka.state.embedded import EmbeddedState
from ostraka.state.engine import OnCopyFailed
from ostraka.state.opening import open_owner as open_state_owner
from ostraka.state.opening import open_shared as open_state_shared
from ostraka.state.ordered import LmdbMap, OpenMap
from ostraka.state.truth import Copy
from ostraka.store.accounts import StateAccounts, stored_root
from ostraka.store.guard import Admission
from ostraka.store.holdings import METRICS as HOLDING_METRICS
from ostraka.store.pool_opening import open_pool
from ostraka.store.recovery import INDEX, STATE, Held, Recovered, hold, survey_and_judge, take_in

log = logging.getLogger("ostraka.store")

WEIGHED = {**chunk_rows.WEIGHED, **object_rows.WEIGHED}
METRICS = (*CHUNK_METRICS, *HOLDING_METRICS, *POOL_METRICS, *JOB_METRICS)
THREADS_MIN = 8
TEND_SECONDS = 60.0
ROOM_SECONDS = 0.05  # how long there is taken to be room, once it was looked at: every write asks twice


class Serving(msgspec.Struct, frozen=True):
    """What the process that owns a served store knows of the service, for who asks on the control socket."""

    url: str
    pid: int  # of the supervisor: the one to be stopped
    certificate: str  # the PEM text of the chain that HTTPS is served with, or ""


class Store:
    """An open store, as one process has it."""

    def __init__(
        self,
        recovered: Recovered,
        membership: Membership,
        state: EmbeddedState,
        disks: dict[int, LocalDisk],
        shared: Shared,
        row: int,
        incarnation: bytes,
        host: Host,
        limits: Limits,
        masters: Sequence[bytes] = (),
    ) -> None:
        self.recovered = recovered
        self.membership = membership
        self.state = state
        state.admit = Admission(state, membership, incarnation).admit
        state.weighed = WEIGHED
        self.disks = disks
        self.shared = shared
        self.row = row
        self.incarnation = incarnation
        self.host = host
        self.limits = limits
        self.keys: Keys = recovered.keys
        self.accounts = StateAccounts(
            state,
            self.keys.root_access_key,
            self.keys.root_secret_key,
            root_given=recovered.root_given,
            changes=shared.root_changes,
        )
        self.serving: Serving | None = None  # set by the one process that answers for the service
        self.jobs: Scheduler | None = None  # set where they run
        self.reopen: Callable[[], None] | None = None  # set by a server: closes the store everywhere, and opens it anew
        self.held = Held(host)
        self.threads = ThreadPoolExecutor(max(THREADS_MIN, 4 * (os.cpu_count() or 1)), "ostraka")
        self.pins = Pins(state.sequence_lately, shared.pins, row)
        self.journal = DamageJournal(state, host.clock)
        self.in_flight = InFlight(lambda: membership.epoch.number, shared.writes, row)
        self.pool = ErasurePool(membership, host, limits, self.threads, self.in_flight, shared.board)
        self.pool.on_damage = self.journal.stripe
        self.pools = Pools(self.pool, lambda number: open_pool(self, number))
        self.keyring = Keyring(state, self.keys.derive("customer keys"), masters, host=host, limits=limits)
        self.chunks = ChunkStore(
            self.pools,
            self.state,
            self.keys.derive("chunk ids"),
            host=host,
            limits=limits,
            executor=self.threads,
            pinned_before=self.pins.oldest,
            redundant=lambda stripe: all(membership.disk(number) is not None for number in stripe.disks),
            on_damage=self.journal.entry,
            board=shared.board,
            keyring=self.keyring,
        )
        self.objects = ObjectStore(
            self.state,
            self.chunks,
            secret=self.keys.derive("version ids"),
            incarnation=incarnation,
            limits=limits,
            host=host,
            pins=self.pins,
            executor=self.threads,
            keyring=self.keyring,
        )
        self.objects.core.room = self._room
        self.objects.core.pressure = self.pressure
        self._pressure, self._pressure_until = 0.0, 0.0
        self._room_until = 0.0
        self._gone: set[int] = set()

    def _room(self) -> None:
        """Full while a disk that carries the state has no more room than deletes and compaction need (ENGINE 22)."""
        now = self.host.clock.monotonic()
        if now < self._room_until:
            return
        for member in self.membership.epoch.members:
            disk = self.disks.get(member.number) if member.state and member.up else None
            if disk is not None:
                disk.space.check(self.limits.reserve_writes)
        self._room_until = now + ROOM_SECONDS

    def pressure(self) -> float:
        """How near the disks are to being full, of those that a stripe needs: the fullest that has to be written."""
        now = self.host.clock.monotonic()
        if now >= self._pressure_until:
            epoch = self.membership.epoch
            disks = [self.disks[d.number] for d in epoch.members if d.up and not d.draining and d.number in self.disks]
            pressed = sorted(disk.space.pressure() for disk in disks)
            self._pressure = pressed[min(epoch.k + epoch.m, len(pressed)) - 1] if pressed else 0.0
            self._pressure_until = now + ROOM_SECONDS
        return self._pressure

    async def prepare_keys(self) -> None:
        """At the start of the process that owns the store: make its key if it has none yet and there is a master key,
        bring all keys under the first master key, and say so if there are keys that cannot be opened."""
        try:
            if not self.membership.read_only:
                await self.keyring.prepare()
            complaint = self.keyring.complaint()
        except OstrakaError as error:  # what is not encrypted is served all the same
            complaint = error.message
        if complaint:
            log.warning("what is encrypted can be neither read nor written: %s", complaint)

    async def tend(self) -> None:
        """What a serving process has to do once in `TEND_SECONDS`: pay what is owed, let old readers go."""
        self.pins.age(int(self.limits.pin_seconds_max // TEND_SECONDS))
        await self._close_gone()
        await self.objects.core.pay()
        await self.pools.pay()

    async def _close_gone(self) -> None:
        """Close disks that left the store; a turn after that was seen, when nobody can be reading them any more."""
        for number in [n for n in self._gone if n in self.disks]:
            disk = self.disks.pop(number)
            with contextlib.suppress(OSError, OstrakaError):
                await in_thread(disk.close)
        self._gone = {number for number in self.disks if self.membership.gone(number)}

    def holds_index(self, number: int) -> bool:
        """Whether the index of the state is on that disk, as long as the store is open."""
        path = self.membership.paths.get(number)
        return path is not None and Path(self.recovered.index).parent == path

    @property
    def board(self) -> Board:
        return self.shared.board

    def requests(self) -> int:
        """Grows while clients are answered: those of a server by any of its processes, those of a program by this."""
        return self.shared.board.count("ostraka_request_seconds") + self.pins.entered

    def live_incarnations(self) -> set[bytes]:
        """Of all processes of this store that have not certainly ended."""
        return self.shared.incarnations.alive()

    async def close(self) -> None:
        """Finish what is under way and let go of everything. Idempotent."""
        with contextlib.suppress(OstrakaError):
            await self.objects.close()
        await self.journal.close()
        await self.chunks.close()
        await self.pools.close()
        await self.state.close()
        for disk in self.disks.values():
            try:
                disk.close()
            except OSError as e:
                log.warning("disk %d cannot be closed: %s", disk.number, e)
        self.held.close()
        self.threads.shutdown(wait=False)


def new_shared(rows: int, metrics: Sequence[Metric] = ()) -> Shared:
    """The memory that the processes of a store will share; made before they are forked."""
    return Shared(rows, Board([*METRICS, *metrics], rows))


def open_owner(
    paths: Sequence[Path],
    shared: Shared,
    row: int,
    *,
    ec: tuple[int, int] | None = None,
    existing: bool = False,
    root: tuple[str, str] | None = None,
    host: Host | None = None,
    limits: Limits = LIMITS,
    accept_loss: bool = False,
    open_map: OpenMap = LmdbMap,
    masters: Sequence[bytes] = (),
) -> Store:
    """Recover the store in these directories and open it; the caller holds its lock (recovery.hold). ``accept_loss``:
    even without commits that no copy of the state gives back (rescue.py). ``masters``: master keys, of which the first
    wraps; without them all goes on that needs none.

    Raises Refused, Invalid, Unavailable, Corrupt, Full: each with the way out.
    """
    host = host or Host()
    opening, keys, formatted = survey_and_judge(paths, ec, existing, root, host)
    held = Held(host)
    try:
        held.take_others([*opening.present.values(), *opening.stale.values()], paths)
        members = take_in(opening, host, shared)
        state, index = _recover_state(opening, members, host, limits, accept_loss, open_map)
        recovered = Recovered(
            store_id=opening.store_id,
            epoch=members.epoch,
            paths={n: str(p) for n, p in members.paths.items()},
            missing=opening.missing,
            index=str(index),
            keys=keys if root is not None else _rotated(keys, state, members, host),
            root_given=root is not None,
            formatted=formatted,
            warnings=opening.warnings,
        )
        store = _assemble(recovered, members, state, shared, row, host, limits, masters, owner=True)
        _begin_totals(store)
    except BaseException:
        held.close()
        raise
    store.held = held
    return store


def _begin_totals(store: Store) -> None:
    """Count what is there, once, in a store of an older program; a new one has nothing to count."""
    if store.membership.read_only:
        return
    state = store.state
    try:
        mutation = totals.begin(state, WEIGHED)
        if mutation is not None:
            state.apply([mutation])
    except OstrakaError as e:
        log.warning("what the store holds is not counted yet: %s", e.message)


def _rotated(keys: Keys, state: EmbeddedState, members: Membership, host: Host) -> Keys:
    """The keys with root's as the state has them, if they were rotated; files that a crash left behind follow."""
    stored = stored_root(state)
    if stored is None:
        return keys
    keys = msgspec.structs.replace(keys, root_access_key=stored[0], root_secret_key=stored[1], generated=True)
    wanted = encode_keys(keys)
    for member in members.epoch.members:
        path = members.paths.get(member.number)
        if member.state and member.up and path is not None:
            try:
                if host.files.read(path / KEYS_NAME) != wanted:
                    write_keys(keys, [path], host)
            except OSError as e:
                log.error("%s: root's new keys are not written there: %s", path, e)
    return keys


def _recover_state(
    opening: Opening, members: Membership, host: Host, limits: Limits, accept_loss: bool, open_map: OpenMap
) -> tuple[EmbeddedState, Path]:
    """The state of the copies that are current, and where its index is: on the first of their disks that takes it."""

    def current() -> list[int]:  # an attempt may call disks down
        return [d.number for d in members.epoch.members if d.up and d.state and d.number in opening.present]

    tried: set[int] = set()
    while True:
        carriers, epoch = current(), members.epoch
        place = next(number for number in carriers if number not in tried)
        tried.add(place)
        index = members.paths[place] / INDEX
        ids = {d.number: d.disk_id for d in epoch.members}
        try:
            state = open_state_owner(
                host,
                opening.store_id,
                [Copy(ids[number], members.paths[number] / STATE) for number in carriers],
                index,
                epoch=epoch.number,
                on_copy_failed=_evict_by_id(members),
                limits=limits,
                accept_loss=accept_loss,
                open_map=open_map,
            )
        except (OSError, OstrakaError) as e:
            of_the_place = isinstance(e, OSError | Full) or e.reason == "state_index"
            if not of_the_place or tried.issuperset(current()):
                raise
            log.error("%s cannot hold the index of the state: %s", index, e)
        else:
            return state, index


def open_worker(
    recovered: Recovered,
    shared: Shared,
    row: int,
    host: Host,
    limits: Limits = LIMITS,
    open_map: OpenMap = LmdbMap,
    masters: Sequence[bytes] = (),
) -> Store:
    """Join a store that an owner has opened."""
    paths = {n: Path(p) for n, p in recovered.paths.items()}
    members = Membership(
        recovered.store_id, recovered.epoch, {}, paths, host, shared.epoch, lock_path=shared.epoch_lock
    )
    members.refresh()
    state = open_state_shared(
        host,
        recovered.store_id,
        Path(recovered.index),
        on_copy_failed=_evict_by_id(members),
        limits=limits,
        open_map=open_map,
    )
    return _assemble(recovered, members, state, shared, row, host, limits, masters, owner=False)


@contextlib.asynccontextmanager
async def open_here(
    directories: Sequence[Path],
    *,
    ec: tuple[int, int] | None = None,
    existing: bool = False,
    root: tuple[str, str] | None = None,
    host: Host | None = None,
    limits: Limits = LIMITS,
    masters: Sequence[bytes] = (),
) -> AsyncIterator[Store]:
    """Open a store for this process alone; InUse if another has it."""
    host = host or Host()
    with hold(directories, host, make=not existing):
        store = open_owner(
            directories,
            new_shared(1),
            0,
            ec=ec,
            existing=existing,
            root=root,
            host=host,
            limits=limits,
            masters=masters,
        )
        try:
            await store.prepare_keys()
            yield store
        finally:
            await store.close()


def _evict_by_id(members: Membership) -> OnCopyFailed:
    def evict(disk_id: bytes, error: BaseException) -> int:
        members.disk(-1)  # takes over what another process changed: the disk may have joined since
        for member in members.epoch.members:
            if member.disk_id == disk_id:
                members.evict(member.number, error)
        return members.epoch.number

    return evict


def _assemble(
    recovered: Recovered,
    members: Membership,
    state: EmbeddedState,
    shared: Shared,
    row: int,
    host: Host,
    limits: Limits,
    masters: Sequence[bytes] = (),
    *,
    owner: bool,
) -> Store:
    incarnation = host.random(16)
    shared.incarnations.register(row, incarnation)
    disks: dict[int, LocalDisk] = {}

    def open_disk(number: int, path: Path) -> Disk:
        opener = LocalDisk.open_owner if owner else LocalDisk.open_shared
        disks[number] = opener(path, number, recovered.store_id, incarnation, host, limits)
        return disks[number]

    for member in members.epoch.members:
        path = members.paths.get(member.number)
        if path is None or not member.up:
            continue
        try:
            members.add_disk(member.number, path, open_disk(member.number, path))
        except OSError as e:
            if e.errno in NO_ROOM and not members.epoch.m:  # it is whole, and nothing can stand in for it
                raise Full(f"no room in {path}: make some on that disk", reason="disk") from e
            try:
                members.evict(member.number, e)
            except Unavailable:
                if not members.read_only:  # else the others can be read, if there are enough of them
                    raise
    members.join(open_disk)
    recovered = msgspec.structs.replace(recovered, epoch=members.epoch)
    return Store(recovered, members, state, disks, shared, row, incarnation, host, limits, masters)
