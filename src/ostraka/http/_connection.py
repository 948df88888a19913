"""One client's connection: bytes in, requests out, in order; one task per connection waits for the handler.

A handler that has its answer at hand is answered for in the call that brought the request's last byte; the task is for
whatever must wait: for the handler, for a body, for the kernel to take an answer, and for requests sent ahead.

How bytes come in. ``get_buffer`` lends either the reader's own view (a body being read) or the server's one scratch
buffer: the loop receives and calls ``buffer_updated`` in the same breath, so a single scratch buffer serves every
connection and an idle or slow one holds none. What is not used up at once is kept as exact-size bytes, the ``tail``:
the beginning of a head, body bytes that came with it, requests sent ahead (pipelined). The tail is bounded; above
that the transport is paused.

While a handler works, a request that was fully received leaves reading on, so that a client which leaves is noticed:
its handler's task is cancelled. An end of stream counts as leaving, as a half-closed socket cannot be told from a
closed one.

Time: the connection only names its ``phase``; the server's periodic sweep sets ``deadline`` and calls ``expire``.
"""

import asyncio
import contextlib
import enum
import fcntl
import socket
import struct
import termios
from collections.abc import Awaitable
from typing import TYPE_CHECKING, cast

from ostraka.errors import Truncated
from ostraka.http._body import CONTINUE, NO_BODY, Body
from ostraka.http._chunked import ChunkFraming
from ostraka.http._exchange import begin_exchange, finish_exchange
from ostraka.http._head import Refusal, check_partial, parse_head
from ostraka.http._messages import Buffer, Request, Response
from ostraka.http._render import render_head

if TYPE_CHECKING:
    from ostraka.http._server import Server

_HEAD_END = b"\r\n\r\n"
_BURST_MAX = 16  # pipelined requests answered in a row before other connections get their turn
_LINGER_RESET = struct.pack("ii", 1, 0)
_TOLD_SECONDS = 0.05  # between looks whether a client's kernel has all that we sent


# What a connection is waiting for; each but HANDLER has a timeout in ``Server.timeouts``. Plain numbers: they are
# compared several times in each request.
IDLE = 0  # the first byte of a head
HEAD = 1  # the rest of a head
HANDLER = 2  # our own handler
BODY = 3  # more of a body that is being read
WRITE = 4  # the client to take what was written
LINGER = 5  # the client to notice that we are done with it


class Admission(enum.Enum):
    TAKEN = 1
    TURNED_AWAY = 2  # with a 503 that it has time to read
    CUT = 3  # even those that read their 503 are too many


class Connection(asyncio.BufferedProtocol):
    """See the module. Made by ``Server`` for each accepted socket."""

    __slots__ = (
        "_answer",
        "_burst",
        "_eof",
        "_filled",
        "_flushed",
        "_linger_bytes",
        "_lost",
        "_reading",
        "_request",
        "_scratch",
        "_secure",
        "_task",
        "_transport",
        "_unsent",
        "_view",
        "_waiter",
        "_wake",
        "_whole",
        "closing",
        "deadline",
        "peer",
        "phase",
        "pos",
        "scheme",
        "sent",
        "server",
        "tail",
        "write_paused",
    )

    def __init__(self, server: "Server") -> None:
        self.server = server
        self._scratch = server.scratch
        self.sent = 0  # bytes of the present response's body
        self.tail = b""  # received and not used up, from ``pos`` on
        self.pos = 0
        self.phase = IDLE
        self.deadline = 0.0  # 0: the sweep has not seen this phase yet
        self.closing = False  # no request will be taken any more
        self.peer = ""
        self.scheme = "http"
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._request: Request | None = None  # the one being answered
        self._answer: Awaitable[Response] | Response | None = None  # begun, and not yet taken up by the task
        self._wake: asyncio.Future[None] | None = None  # the task waits for something to do
        self._waiter: asyncio.Future[int] | None = None  # a reader of the body waits
        self._view: memoryview | None = None  # its memory, what is left of it
        self._filled = 0
        self._whole = False
        self._flushed: asyncio.Future[None] | None = None  # a writer waits
        self._unsent = 0
        self.write_paused = False
        self._reading = True
        self._eof = False
        self._lost = False
        self._secure = False
        self._linger_bytes = 0
        self._burst = 0

    # -- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._secure = transport.get_extra_info("sslcontext") is not None
        self.scheme = "https" if self._secure else "http"
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else "local"
        # Nothing stays in the process beyond one write: the producer of a body is asked for more only when the
        # kernel has what it gave. 1 for TLS, whose transport would count an empty buffer as full.
        transport.set_write_buffer_limits(high=1 if self._secure else 0, low=0)
        match self.server.admit(self):
            case Admission.TURNED_AWAY:
                self.refuse(503)
            case Admission.CUT:
                self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._view
        return self._scratch if view is None else view

    def buffer_updated(self, nbytes: int) -> None:
        if self._view is not None:
            self._received_into_view(self._view, nbytes)
            return
        if self.phase == LINGER:
            self._linger_bytes -= nbytes
            if self._linger_bytes < 0:
                self.close()
            return
        data = bytes(self._scratch[:nbytes])
        self.tail = self.tail[self.pos :] + data if self.pos < len(self.tail) else data
        self.pos = 0
        if self._request is None:
            request = self._take_request()
            if request is not None:
                self._start(request)
        elif self._waiter is not None:
            self._wake_reader(0)
        elif len(self.tail) > self.server.limits.read_ahead_bytes_max:
            self._pause()

    def eof_received(self) -> bool:
        self._eof = True
        request = self._request
        if request is None or self.phase == LINGER:
            return False  # the transport closes
        if request.body.unreceived(len(self.tail) - self.pos) == 0:
            self.abort()  # nothing more was owed to us, so it left
            return False
        if self._waiter is not None:
            self._fail_reader(Truncated("the client ended before the end of the body", reason="ended"))
        return not self._secure  # the handler may still answer a client that closed its sending side only

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._eof = self.closing = True
        self.server.forget(self)
        if self._task is None:
            return
        if self._answer is not None:  # not before it is begun: what was never begun would let go of nothing
            self.server.loop.call_soon(self._task.cancel)
        elif self._wake is not None:
            self._wake_task()
        else:
            self._task.cancel()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    # -- requests

    def _take_request(self) -> Request | None:
        """The next request if its head is complete in the tail. A bad one is refused here."""
        if self.closing:
            return None
        tail, start = self.tail, self.pos
        while tail.startswith(b"\r\n", start):  # RFC 9112 2.2: empty lines before a request are ignored
            start += 2
        end = tail.find(_HEAD_END, start) + 4
        limits = self.server.limits
        try:
            if end == 3:
                self._wait_for_head(tail[start:])
                return None
            if end - start > limits.head_bytes_max:
                raise Refusal(431, "head too long")
            self.phase = HANDLER
            self.pos = end
            request = parse_head(
                tail[start:end], limits, self.peer, self.scheme, self.server.monotonic(), self._make_body
            )
        except Refusal as e:
            self.refuse(e.status)
            return None
        if end == len(tail):
            self.tail, self.pos = b"", 0
        self._request = request
        return request

    def _make_body(self, length: int | None, expects_continue: bool) -> Body:
        if length == 0:
            # Asked by who sends nothing: botocore takes a final answer without a 100 before it for a refusal, and
            # then skips the status line of the next answer on this connection, and waits for it for a minute.
            self.write(CONTINUE)
            return NO_BODY
        chunks = ChunkFraming(self.server.limits) if length is None else None
        return Body(self, length, expects_continue, chunks)

    def _has_more_to_do(self) -> bool:
        """Whether, after an exchange, there is anything to look at before the client sends more."""
        return bool(self.tail) or not self._reading or self._eof or self.server.draining

    def _wait_for_head(self, partial: bytes) -> None:
        check_partial(partial, self.server.limits)
        phase = HEAD if partial else IDLE
        if self.phase != phase:
            self.phase = phase
            self.deadline = 0.0
        self.tail, self.pos = partial, 0
        self._resume()
        if self._eof or (not partial and self.server.draining):
            self.close()

    def _start(self, request: Request) -> None:
        answer = self._answer = begin_exchange(self, request)
        if answer is None and not self._has_more_to_do():
            return
        if self._task is None:
            self._task = self.server.own(self._run())
        else:
            self._wake_task()

    def _wake_task(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _run(self) -> None:
        """The connection's task: one exchange after the other. Ends with the connection."""
        loop = self.server.loop
        try:
            while True:
                answer, self._answer = self._answer, None
                if answer is not None:
                    assert self._request is not None
                    await finish_exchange(self, self._request, answer)
                    del answer
                request = self._take_request() if self._has_more_to_do() else None
                if request is not None:
                    self._answer = begin_exchange(self, request)
                    self._burst += 1
                    if self._burst % _BURST_MAX == 0:
                        await asyncio.sleep(0)
                elif self.closing:
                    return
                else:
                    self._wake = loop.create_future()
                    try:
                        await self._wake
                    finally:
                        self._wake = None
        finally:
            self._task = None
            if self._request is not None:  # cancelled, or our own mistake: never a clean end
                self.abort()

    def end_exchange(self, *, close: bool) -> None:
        """The response is written. What comes next: another request, or the end."""
        request, self._request = self._request, None
        if request is not None and request.body is not NO_BODY:
            if close and request.body.unreceived(len(self.tail) - self.pos) == 0:
                request.body.skip_tail()
            left = request.body.unreceived(0)
            request.body.detach(Truncated("the exchange is over", reason="ended"))
        else:
            left = 0
        if self._transport is None or self._transport.is_closing():
            self.closing = True
        elif not close:
            self.phase = IDLE
            self.deadline = 0.0
        elif left == 0 and self.pos >= len(self.tail):
            self.close()
        else:
            self.linger()

    # -- the body's bytes

    def settle_tail(self) -> None:
        """After a reader took from the tail: give its memory back, and read again if that had stopped for it."""
        if self.pos == len(self.tail):
            self.tail, self.pos = b"", 0
            if self._request is not None and self._request.body.finished:
                self._resume()

    async def receive(self, view: memoryview | None, whole: bool) -> int:
        """Wait for bytes of the body: into ``view`` (all of it if ``whole``), or without one into the tail.

        Returns the bytes put into ``view``. They are already accounted to the body, so that a reader that is
        cancelled here loses data but not its place. Raises Truncated.
        """
        if self._waiter is not None:
            raise RuntimeError("a body has one reader at a time")
        if self._eof:
            raise Truncated("the client ended before the end of the body", reason="ended")
        self._waiter = waiter = self.server.loop.create_future()
        self._view, self._filled, self._whole = view, 0, whole
        self.phase = BODY
        self.deadline = 0.0
        self._resume()
        try:
            count: int = await waiter
            return count
        finally:
            self._view = self._waiter = None
            self.phase = HANDLER

    def _received_into_view(self, view: memoryview, nbytes: int) -> None:
        self._filled += nbytes
        request = self._request
        assert request is not None
        body = request.body
        body.took(nbytes)
        self.deadline = 0.0  # the client moves
        if nbytes == len(view):
            if not body.finished:  # there is more than was asked for: not until it is asked for
                self._pause()
        elif self._whole:
            self._view = view[nbytes:]
            return
        self._view = None
        self._wake_reader(self._filled)

    def _wake_reader(self, count: int) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(count)

    def _fail_reader(self, error: Exception) -> None:
        self._view = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    # -- writing

    @property
    def gone(self) -> bool:
        """Nothing that is written will arrive."""
        return self._lost

    def write(self, data: Buffer) -> None:
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    def write_all(self, buffers: list[Buffer]) -> None:
        if self._transport is not None and not self._lost:
            self._transport.writelines(buffers)

    async def flush(self) -> None:
        """Wait until the kernel has taken everything that was written."""
        while self.write_paused and not self._lost:
            assert self._transport is not None
            self._flushed = self.server.loop.create_future()
            before, self.phase = self.phase, WRITE
            self.deadline = 0.0
            self._unsent = self._transport.get_write_buffer_size()
            try:
                await self._flushed
            finally:
                self._flushed = None
                self.phase = before
                self.deadline = 0.0

    # -- ends

    def refuse(self, status: int) -> None:
        """Answer ``status`` without a handler, and end."""
        self.server.count_refusal(status)
        framing = "Content-Length: 0\r\nConnection: close\r\n"
        self.write(render_head(status, self.server.stamp.lines(), framing))
        self._wake_task()
        self.linger()

    def linger(self) -> None:
        """Close our side, and read on for a while: closing with unread bytes would reset the connection, and the
        reset could destroy the response before the client has read it."""
        self.closing = True
        self.tail, self.pos = b"", 0
        if self._eof or self._lost or self._transport is None:
            self.close()
            return
        self.phase = LINGER
        self.deadline = 0.0
        self._linger_bytes = self.server.limits.drain_bytes_max
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        self._resume()

    def close(self) -> None:
        """End once everything written has left."""
        self.closing = True
        if self._transport is not None:
            if self.write_paused and self.phase != WRITE:
                self.phase = WRITE
                self.deadline = 0.0
                self._unsent = self._transport.get_write_buffer_size()
            self._transport.close()

    def abort(self) -> None:
        """End at once, by a reset where that is possible, so that no client takes it for a clean end."""
        self.closing = True
        if self._transport is not None and not self._lost:
            if not self._secure:
                sock = self._transport.get_extra_info("socket")
                with contextlib.suppress(OSError, AttributeError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self._transport.abort()

    def drain(self) -> None:
        """The server wants to stop: go now if nothing is under way, else after this exchange."""
        if self.phase == IDLE and self._request is None:
            self._wake_task()
            self.close()
            if self._secure:
                self.server.loop.call_later(_TOLD_SECONDS, self._leave_when_told)

    def _leave_when_told(self) -> None:
        """Do not wait for the client's answer to TLS's goodbye: who keeps a connection for later does not read it.

        Only for its kernel to have it, and the end of the last answer before it.
        """
        if self._lost or self._transport is None:
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            (unacknowledged,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return  # it is being closed
        if unacknowledged:
            self.server.loop.call_later(_TOLD_SECONDS, self._leave_when_told)
        else:
            self.abort()

    def expire(self) -> None:
        """The time of the present phase is over."""
        phase = self.phase
        if phase == HEAD:
            self.refuse(408)
        elif phase == BODY:
            self._fail_reader(Truncated("the client stopped sending", reason="stalled"))
        elif phase == WRITE:
            assert self._transport is not None
            left = self._transport.get_write_buffer_size()
            if left == self._unsent:
                self.abort()
            else:
                self._unsent = left
                self.deadline = 0.0
        elif phase == IDLE:
            self._wake_task()
            self.close()
        elif phase == LINGER:
            self.abort()
