"""The listening side: accepts, owns every connection and task, keeps their time, and drains.

One periodic sweep looks at all connections instead of a timer per request; it runs only while there are connections.
"""

import asyncio
import collections
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from ostraka.host import Clock, SystemClock
from ostraka.http import _connection
from ostraka.http._connection import Admission, Connection
from ostraka.http._messages import Request, Response
from ostraka.http._render import Stamp
from ostraka.limits import LIMITS, Limits

Handler = Callable[[Request], Awaitable[Response] | Response]
OnComplete = Callable[[Request, int, int, float], None]
OnError = Callable[[Request, BaseException], None]

_log = logging.getLogger("ostraka.http")
_NEVER = float("inf")
_BACKLOG = 1024  # connections the kernel may hold for us


def bind(host: str, port: int, *, backlog: int = _BACKLOG, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket, non-blocking and inheritable by nobody. OSError as the kernel gave it.

    ``port`` 0 takes a free one. ``reuse_port``: several processes may bind the same address and share its clients.
    """
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = infos[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Server:
    """An HTTP/1.1 server for one handler, on the running loop.

    ``on_complete(request, status, body bytes sent, seconds since the head)`` is called once for each request that
    reached the handler; status 499 means that the client left first. ``on_error(request, exception)`` is called when
    the handler or its body failed for a reason of its own: the client got an empty 500, or a torn connection if the
    head was out. Hooks must not block. ``refusals`` counts, by status, requests that never reached the handler.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits = LIMITS,
        *,
        server_name: str = "Ostraka",
        clock: Clock | None = None,
        on_complete: OnComplete | None = None,
        on_error: OnError | None = None,
        sweep_seconds: float = 1.0,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.draining = False
        self.refusals: collections.Counter[int] = collections.Counter()
        self.scratch = memoryview(bytearray(limits.body_buffer_bytes))
        self.timeouts = {
            _connection.IDLE: limits.idle_seconds_max,
            _connection.HEAD: limits.head_seconds_max,
            _connection.HANDLER: _NEVER,
            _connection.BODY: limits.body_idle_seconds_max,
            _connection.WRITE: limits.write_idle_seconds_max,
            _connection.LINGER: limits.linger_seconds_max,
        }
        self.loop: asyncio.AbstractEventLoop
        self._clock = clock or SystemClock()
        self.monotonic = self._clock.monotonic
        self.stamp = Stamp(server_name, self._clock.time)
        self._on_complete = on_complete
        self._on_error = on_error
        self._sweep_seconds = sweep_seconds
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._listeners: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet: asyncio.Event | None = None

    # -- life

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def start(self, sockets: Sequence[socket.socket], ssl_context: ssl.SSLContext | None = None) -> None:
        """Accept on listening sockets, which are now ours. May be called again, with other sockets."""
        self.loop = asyncio.get_running_loop()
        for sock in sockets:
            secure = ssl_context is not None
            listener = await self.loop.create_server(
                self.connect,
                sock=sock,
                ssl=ssl_context,
                backlog=_BACKLOG,
                ssl_handshake_timeout=self.limits.head_seconds_max if secure else None,
                ssl_shutdown_timeout=self.limits.linger_seconds_max if secure else None,
            )
            self._listeners.append(listener)

    def connect(self) -> Connection:
        """A protocol for one accepted connection."""
        return Connection(self)

    async def drain(self, deadline_seconds: float) -> bool:
        """Stop: accept no more, close what is idle, finish what is in flight, and after the deadline cut the rest.

        Returns whether everything in flight was finished. A handler that was cut gets ``linger_seconds_max`` to
        clean up; one that outstays even that is logged and left to the process's end.
        """
        self.draining = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.drain()
        self._quiet = asyncio.Event()
        self._note_quiet()
        finished = await self._is_quiet_within(deadline_seconds)
        if not finished:
            for connection in list(self._connections):
                connection.abort()
            for task in self._tasks:
                task.cancel()
            if not await self._is_quiet_within(self.limits.linger_seconds_max):
                _log.error("%d handlers did not end when cancelled", len(self._tasks))
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        return finished

    async def _is_quiet_within(self, seconds: float) -> bool:
        assert self._quiet is not None
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _note_quiet(self) -> None:
        if self._quiet is not None and not self._connections and not self._tasks:
            self._quiet.set()

    # -- for connections

    def admit(self, connection: Connection) -> Admission:
        """Take a connection in, unless there are too many."""
        self._connections.add(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self.loop.call_later(self._sweep_seconds, self._sweep_again)
        excess = len(self._connections) - self.limits.connections_max
        if excess <= 0 and not self.draining:
            return Admission.TAKEN
        return Admission.TURNED_AWAY if excess <= self.limits.connections_max else Admission.CUT

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._note_quiet()

    def own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a connection's work as a task of this server."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._note_quiet()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection's task failed", exc_info=error)

    def count_refusal(self, status: int) -> None:
        self.refusals[status] += 1

    def complete(self, request: Request, status: int, body_bytes_sent: int) -> None:
        if self._on_complete is not None:
            try:
                self._on_complete(request, status, body_bytes_sent, self.monotonic() - request.received_at)
            except Exception:
                _log.exception("on_complete failed")

    def report(self, request: Request, error: BaseException) -> None:
        if self._on_error is None:
            _log.error("handler failed: %r", request, exc_info=error)
            return
        try:
            self._on_error(request, error)
        except Exception:
            _log.exception("on_error failed")

    # -- time

    def sweep(self) -> None:
        """Start the clock of phases begun since the last sweep; end those that are over."""
        now = self.monotonic()
        timeouts = self.timeouts
        for connection in list(self._connections):
            if connection.deadline == 0.0:
                connection.deadline = now + timeouts[connection.phase]
            elif now >= connection.deadline:
                connection.deadline = 0.0
                connection.expire()

    def _sweep_again(self) -> None:
        self._sweep_timer = None
        self.sweep()
        if self._connections:
            self._sweep_timer = self.loop.call_later(self._sweep_seconds, self._sweep_again)
