"""A backend that is counted: how often, how many bytes, how long, with which errors, and whether its circuit is open.

The numbers are on a ``Board`` (ostraka.metrics), the server's own or one made for the purpose::

    board = Board(metrics_for("photos", "archive"), rows=1)
    photos = MeteredBackend(LocalBackend("/photos"), "photos", board)
    archive = MeteredBackend(ResilientBackend(...), "archive", board)
    print(board.render().decode())            # in Prometheus' text format

Time is what the store took: not what a source or a reader did meanwhile. What its caller cancelled is not counted.
Around a ResilientBackend it counts calls as their callers saw them; within one, attempts.
"""

import re
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from ostraka.backends.backend import Backend, Reading, Resumes, Source, require
from ostraka.backends.configs import decode, from_config
from ostraka.backends.iterators import ended
from ostraka.backends.resilience import BreakerState, ResilientBackend
from ostraka.backends.wrapper import Operation, Wrapper
from ostraka.errors import Invalid, OstrakaError, Unavailable
from ostraka.host import Buffer, Clock, SystemClock
from ostraka.metrics import LATENCY_BUCKETS, Board, Metric

T = TypeVar("T")

OPERATIONS = tuple(operation.value for operation in Operation)
STATES = tuple(state.value for state in BreakerState)
ERRORS = (
    *("absent", "precondition", "conflict", "invalid", "forbidden", "not-supported", "full", "corrupt", "truncated"),
    *("unavailable", "throttled", "timeout", "circuit", "unknown", "other"),
)
_KINDS = {"Absent": "absent", "PreconditionFailed": "precondition", "Conflict": "conflict", "Invalid": "invalid"}
_KINDS |= {"TooLarge": "invalid", "Forbidden": "forbidden", "NotSupported": "not-supported", "Full": "full"}
_KINDS |= {"Corrupt": "corrupt", "Truncated": "truncated"}


def metrics_for(*names: str) -> list[Metric]:
    """What a board declares for backends of these names. Invalid (reason "config") for a name that is no label."""
    for name in names:
        if not re.fullmatch(r"[\w.:/ -]{1,100}", name):
            raise Invalid(
                f"{name!r}: a backend's name in metrics is 1 to 100 letters, digits or ._:/-", reason="config"
            )
    calls = {"backend": names, "operation": OPERATIONS}
    return [
        Metric("ostraka_backend_seconds", "histogram", "calls, and what the store took", calls, LATENCY_BUCKETS),
        Metric("ostraka_backend_errors_total", "counter", "calls that failed", {**calls, "error": ERRORS}),
        Metric(
            "ostraka_backend_bytes_total",
            "counter",
            "bytes of bodies",
            {"backend": names, "direction": ("read", "written")},
        ),
        Metric(
            "ostraka_backend_circuit",
            "gauge",
            "processes whose circuit is in this state",
            {"backend": names, "state": STATES},
        ),
    ]


def class_of(error: BaseException) -> str:
    """The class that an error is counted in."""
    if isinstance(error, Unavailable):
        return error.reason if error.reason in ERRORS else "unavailable"
    return _KINDS.get(type(error).__name__, "other") if isinstance(error, OstrakaError) else "other"


class MeteredConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``backend``: the configuration of the inner one."""

    name: str
    backend: dict[str, Any]


class MeteredBackend(Wrapper):
    """The inner backend, counted under ``name`` on ``board`` (None: one of its own)."""

    type: ClassVar[str] = "metered"

    def __init__(self, inner: Backend, name: str, board: Board | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(inner)
        self.name = name
        self.board = board or Board(metrics_for(name), rows=1)
        self._clock = clock or SystemClock()
        if isinstance(inner, ResilientBackend):
            self.board.before_render.append(lambda: self._show_circuit(inner))

    def to_config(self) -> dict[str, Any]:
        return {"type": self.type, "name": self.name, "backend": self.inner.to_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        fields = decode(config, MeteredConfig)
        return cls(from_config(fields.backend), fields.name)

    def _show_circuit(self, inner: ResilientBackend) -> None:
        for state in BreakerState:
            cell = self.board.cell("ostraka_backend_circuit", self.name, state.value)
            self.board.set(cell, float(inner.state is state))

    def count_bytes(self, direction: str, size: int) -> None:
        self.board.add(self.board.cell("ostraka_backend_bytes_total", self.name, direction), size)

    def _metered(self, operation: Operation) -> "_Meter":
        return _Meter(self, operation, self._clock)

    # -- calls

    async def _call(self, operation: Operation, path: str, call: Callable[[], Awaitable[T]]) -> T:
        async with self._metered(operation) as meter:
            with meter:
                return await call()

    async def write(self, path: str, data: Buffer) -> str:
        etag = await super().write(path, data)
        self.count_bytes("written", memoryview(data).nbytes)
        return etag

    async def write_if(self, path: str, data: Buffer, *, match: str | None) -> str:
        etag = await super().write_if(path, data, match=match)
        self.count_bytes("written", memoryview(data).nbytes)
        return etag

    async def write_stream(self, path: str, source: Source, size: int | None = None) -> str:
        async with self._metered(Operation.WRITE_STREAM) as meter:
            counted = _Counted(source, meter)
            with meter:
                etag = await self.inner.write_stream(path, counted.source, size)
            self.count_bytes("written", counted.size)
            return etag

    async def append(self, path: str, token: str, offset: int, source: Source) -> int:
        uploads = require(self.inner, Resumes)
        async with self._metered(Operation.APPEND) as meter:
            counted = _Counted(source, meter)
            try:
                with meter:
                    return await uploads.append(path, token, offset, counted.source)
            finally:
                self.count_bytes("written", counted.size)

    @asynccontextmanager
    async def open(
        self, path: str, *, offset: int = 0, size: int | None = None, if_match: str | None = None
    ) -> AsyncIterator[Reading]:
        async with self._metered(Operation.READ) as meter:
            opening = self.inner.open(path, offset=offset, size=size, if_match=if_match)
            with meter:
                reading = await opening.__aenter__()
            try:
                async with ended(self._pieces(meter, reading.pieces)) as pieces:
                    yield Reading(reading.stat, pieces)
            finally:
                await opening.__aexit__(None, None, None)

    async def _pieces(self, meter: "_Meter", pieces: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
        while True:
            with meter:
                piece = await anext(pieces, None)
            if piece is None:
                return
            self.count_bytes("read", memoryview(piece).nbytes)
            yield piece

    async def _listing(
        self,
        operation: Operation,
        prefix: str,
        begin: Callable[[str], AsyncIterator[T]],
        key: Callable[[T], str],
        start_after: str = "",
    ) -> AsyncIterator[T]:
        async with self._metered(operation) as meter, ended(begin(start_after)) as items:
            while True:
                with meter:
                    item = await anext(items, None)
                if item is None:
                    return
                yield item


class _Meter:
    """One call. ``with`` it the store is waited for, perhaps several times; ``async with`` it, it is counted."""

    def __init__(self, metered: MeteredBackend, operation: Operation, clock: Clock) -> None:
        self._metered = metered
        self._operation = operation.value
        self._clock = clock
        self._seconds = 0.0
        self._since = 0.0
        self._error: BaseException | None = None
        self.source_failed = False

    def __enter__(self) -> None:
        self._since = self._clock.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._seconds += self._clock.monotonic() - self._since
        self._error = error

    def pause(self) -> None:
        """It is not the store that is waited for."""
        self._seconds += self._clock.monotonic() - self._since

    def go_on(self) -> None:
        self._since = self._clock.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self._error, CancelledError | GeneratorExit) or self.source_failed:
            return
        board, name = self._metered.board, self._metered.name
        board.observe("ostraka_backend_seconds", self._seconds, name, self._operation)
        if self._error is not None:
            cell = board.cell("ostraka_backend_errors_total", name, self._operation, class_of(self._error))
            board.add(cell)


class _Counted:
    """A source of the same kind - one that begins anew, or not - whose bytes and waits are known."""

    def __init__(self, source: Source, meter: _Meter) -> None:
        self.size = 0  # of what was given since it last began
        self._meter = meter
        if callable(source):
            function = source
            self.source: Source = lambda: self._pieces(aiter(function()))
        else:
            self.source = self._pieces(aiter(source))

    async def _pieces(self, pieces: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
        self.size = 0
        async with ended(pieces):
            while True:
                self._meter.pause()
                try:
                    piece = await anext(pieces, None)
                except Exception:
                    self._meter.source_failed = True
                    raise
                finally:
                    self._meter.go_on()
                if piece is None:
                    return
                self.size += memoryview(piece).nbytes
                yield piece
