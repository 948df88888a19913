"""What background work needs of an open store, and the words in which a job speaks of itself (law 13).

A job is a small object whose `run_once` does a bounded piece of work and says what is left. It never loops by itself:
the scheduler decides when the next piece is due, how much of the machine it may take, and when nothing is to be done.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from ostraka.chunks.keyring import Keyring
from ostraka.errors import Refused
from ostraka.host import Clock, Host
from ostraka.limits import Limits
from ostraka.metrics import Board
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.membership import Membership
from ostraka.objects.store import ObjectStore
from ostraka.pools.pool import ErasurePool
from ostraka.pools.routing import Pools
from ostraka.shared import InFlight
from ostraka.state.embedded import EmbeddedState
from ostraka.state.types import State

T = TypeVar("T")


class Ground(Protocol):
    """The store, as jobs see it; `store.store.Store` is one."""

    @property
    def membership(self) -> Membership: ...

    @property
    def state(self) -> EmbeddedState: ...

    @property
    def pool(self) -> ErasurePool: ...

    @property
    def pools(self) -> Pools:
        """All pools: that of the disks, and those over backends."""
        ...

    @property
    def objects(self) -> ObjectStore: ...

    @property
    def disks(self) -> Mapping[int, LocalDisk]: ...

    @property
    def keyring(self) -> Keyring: ...

    @property
    def host(self) -> Host: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def incarnation(self) -> bytes: ...

    @property
    def in_flight(self) -> InFlight: ...

    @property
    def jobs(self) -> object | None:
        """Who runs jobs in this process; None in a command, which ends when its work is done."""
        ...

    @property
    def reopen(self) -> Callable[[], None] | None:
        """Has all processes of the store close and open it anew, if somebody can."""
        ...

    def holds_index(self, number: int) -> bool:
        """Whether the index of the state is on that disk, as long as the store is open."""
        ...

    @property
    def board(self) -> Board:
        """Where metrics.py is declared."""
        ...

    def requests(self) -> int:
        """A number that moves when clients ask something of the store, to read or to write."""
        ...

    def pressure(self) -> float:
        """How near the disks are to being full: 0 with room enough, 1 when clients may write no more."""
        ...

    def live_incarnations(self) -> set[bytes]:
        """Of all processes of this store that have not certainly ended; read before what they wrote is judged."""
        ...


class Budget:
    """How long one piece of work may take, and about how many rows it may touch."""

    __slots__ = ("_clock", "_until", "rows")

    def __init__(self, clock: Clock, seconds: float, rows: int) -> None:
        self._clock = clock
        self._until = clock.monotonic() + seconds
        self.rows = rows

    @property
    def left(self) -> bool:
        return self.rows > 0 and self._clock.monotonic() < self._until


class Progress(msgspec.Struct, frozen=True):
    """What a piece of work came to.

    ``more``: there is work that can be done at once. ``again_in``: seconds after which there may be, though nothing
    changed meanwhile; None: only a change brings new work. ``under_way``: a pass is begun and not at its end, though
    its budget has it wait. ``done`` of ``total`` units (None: unknown) in this pass; ``did`` and ``bytes`` of them in
    this piece, for the record of what was done.
    """

    done: int = 0
    total: int | None = None
    more: bool = False
    again_in: float | None = None
    note: str = ""
    under_way: bool = False
    did: int = 0
    bytes: int = 0

    @property
    def working(self) -> bool:
        return self.more or self.under_way


Tell = Callable[[str, int, int | None], None]  # (step, done, total), for whoever asked


class Job:
    """One kind of background work. A new one is a class like this, and its line in catalogue.py.

    ``purpose``: what it does, in a few words. ``paused_means``: what comes of it that it is paused, and what somebody
    should know; "": nothing worth a warning.
    """

    name: ClassVar[str]
    purpose: ClassVar[str] = ""
    paused_means: ClassVar[str] = ""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def run_once(self, budget: Budget) -> Progress:
        """Do a bounded piece. Errors that time may mend are the job's own to handle; what it raises is logged, and
        the job is tried again later."""
        raise NotImplementedError

    async def begin(self) -> None:
        """An operator wants all of it done now: whatever is not due yet is from here on."""

    async def cancel(self) -> str:
        """End what an operator began, for good; what was ended, in words. Refused where nothing was: the job's own
        rhythm can only be paused."""
        raise Refused(
            f"{self.name} was not begun by anybody, it is always there: `ostraka job pause {self.name}` holds it",
            reason="always",
        )

    async def preview(self, tell: Tell) -> dict[str, Any]:
        """What it would do now, without doing any of it."""
        raise Refused(f"{self.name} cannot tell what it would do: --dry-run is for collect", reason="preview")

    def close(self) -> None:
        """Let go of files; no piece comes after this."""

    def details(self) -> dict[str, Any]:
        """What is to be known of it beside its progress: its budget, and what only this job has."""
        limits = self._ground.limits
        return {"busy_share": limits.jobs_busy_share, "piece_seconds": limits.jobs_piece_seconds}

    @classmethod
    def recorded(cls, state: State) -> tuple[int, str]:
        """(units done, a note) as the job left them on record."""
        return 0, ""


class Courtesy:
    """Steps back for clients in work that the scheduler does not pace: after each piece, while requests come in, it
    rests in proportion to what that took."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._note()

    def _note(self) -> None:
        self._began = self._ground.host.clock.monotonic()
        self._asked = self._ground.requests()

    async def rest(self) -> None:
        """A piece is done."""
        took = self._ground.host.clock.monotonic() - self._began
        if self._ground.requests() != self._asked:
            await asyncio.sleep(took * (1 / self._ground.limits.jobs_busy_share - 1))
        self._note()


async def finish(work: Awaitable[T]) -> T:
    """Wait for work that threads do and that must not be left to itself: a caller that is cancelled still waits for
    its end, because what the threads work on is closed next."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


async def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """A blocking call, seen to its end."""
    return await finish(asyncio.to_thread(function, *arguments))


async def within(seconds: float, function: Callable[[], T]) -> T:
    """A blocking call that is left to itself, with its thread, when it takes longer: TimeoutError. No pool of threads
    is used up by it, and no process waits for it at its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def answer(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as e:
            failure = e
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(answer, result, failure)

    threading.Thread(target=run, name=f"within {seconds} seconds", daemon=True).start()
    return await asyncio.wait_for(future, seconds)


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first failure, once all have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]
