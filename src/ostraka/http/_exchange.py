"""One exchange: run the handler, send its response, settle what is left of the body.

The only place that decides whether a connection goes on. It ends when either side asked for it, when the server
drains, and whenever the place in the client's byte stream could be in doubt: a body left unread that is chunked, or
long, or that the client has not been told to send.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from ostraka.errors import TooLarge, Truncated
from ostraka.http._messages import Buffer, Request, Response, discard
from ostraka.http._render import BadResponse, announced_length, render_head

if TYPE_CHECKING:
    from ostraka.http._connection import Connection

CLIENT_LEFT = 499  # reported to on_complete; nobody receives it
_JOIN_BYTES_MAX = 64 * 1024  # head and body up to this leave in one buffer
_BODILESS = frozenset((204, 304))


class _Aborted(Exception):
    """A response that cannot be completed after its head was sent: the connection is torn down."""


async def run_exchange(connection: "Connection", request: Request) -> None:
    """Answer one request. Raises CancelledError when the client left or the server's patience ended."""
    status, sent = CLIENT_LEFT, [0]
    server = connection.server
    try:
        response = await _handle(connection, request)
        status = response.status
        try:
            close = await _send(connection, request, response, sent)
        except BadResponse as e:
            server.report(request, e.__cause__ or e)
            await discard(response.body)
            response = Response(500, close=True)
            status = 500
            close = await _send(connection, request, response, sent)
    except _Aborted as e:
        server.report(request, e.__cause__ or e)
        connection.abort()
        close = True
    except asyncio.CancelledError:
        status = CLIENT_LEFT if connection.gone else status
        raise
    finally:
        server.complete(request, status, sent[0])
    if not close and not request.body.finished:
        close = not await _drain(connection, request)
    connection.end_exchange(close=close)


async def _handle(connection: "Connection", request: Request) -> Response:
    """The handler's response, or one for what it raised."""
    server = connection.server
    try:
        return await server.handler(request)
    except asyncio.CancelledError as e:
        task = asyncio.current_task()
        if connection.gone or task is None or task.cancelling():
            raise
        error: Exception = RuntimeError("the handler was cancelled from within")
        error.__cause__ = e
    except Exception as e:
        error = e
    if error is request.body.error:  # it let the body's own error through: the client's doing, not ours
        if isinstance(error, Truncated):
            return Response(408 if error.reason == "stalled" else 400, close=True)
        return Response(413 if isinstance(error, TooLarge) else 400, close=True)
    server.report(request, error)
    return Response(500, close=True)


def _must_close(connection: "Connection", request: Request, response: Response) -> bool:
    if response.close or not request.keep_alive or connection.server.draining or connection.closing:
        return True
    body = request.body
    if body.finished:
        return False
    if body.error is not None or body.awaits_continue:
        return True
    left = body.unreceived(len(connection.tail) - connection.pos)
    return left is None or left > connection.server.limits.drain_bytes_max


async def _drain(connection: "Connection", request: Request) -> bool:
    """Receive the rest of a body that its handler did not want, so that the next request can be found."""
    try:
        await request.body.discard(connection.server.scratch)
    except Exception:  # ended, stalled or malformed: whatever it was, there is no next request
        return False
    return True


async def _send(connection: "Connection", request: Request, response: Response, sent: list[int]) -> bool:
    """Write the response; returns whether the connection ends with it."""
    close = _must_close(connection, request, response)
    status, body, length = response.status, response.body, response.length
    if length is None:
        length = announced_length(response.headers)
    buffers: list[Buffer] | None = None
    if isinstance(body, bytes | bytearray | memoryview):
        buffers = [body]
    elif not isinstance(body, AsyncIterable):
        buffers = list(body)
    size = sum(map(_size, buffers)) if buffers is not None else None
    if request.method == "HEAD" or status in _BODILESS:
        framing = _bodiless_framing(status, length, size)
        head = render_head(status, response.headers, connection.server.stamp_lines(), framing + _option(request, close))
        await discard(body)
        connection.write(head)
    elif buffers is not None and size is not None:
        if length is not None and length != size:
            raise BadResponse(f"a body of {size} bytes under a Content-Length of {length}")
        framing = f"Content-Length: {size}\r\n{_option(request, close)}"
        head = render_head(status, response.headers, connection.server.stamp_lines(), framing)
        if size <= _JOIN_BYTES_MAX:
            connection.write(b"".join((head, *buffers)))
        else:
            connection.write_all([head, *buffers])
        sent[0] = size
    else:
        assert isinstance(body, AsyncIterable)
        close = await _send_stream(connection, request, response, body, length, close, sent)
    await connection.flush()
    return close


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _option(request: Request, close: bool) -> str:
    if close:
        return "Connection: close\r\n"
    return "" if request.version[1] else "Connection: keep-alive\r\n"


def _bodiless_framing(status: int, length: int | None, size: int | None) -> str:
    """Content-Length of what is not sent. 204 never has one; 304 only if it was given."""
    if status == 204 or (status == 304 and length is None):
        return ""
    announced = size if length is None else length
    return "" if announced is None else f"Content-Length: {announced}\r\n"


async def _send_stream(
    connection: "Connection",
    request: Request,
    response: Response,
    body: AsyncIterable[Buffer],
    length: int | None,
    close: bool,
    sent: list[int],
) -> bool:
    """Send a body as it is made. Until its first piece is there, a failure is still an ordinary error response."""
    chunked = length is None and request.version[1] == 1
    close = close or (length is None and not chunked)
    framing = (
        "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {length}\r\n" if length is not None else ""
    )
    framing += _option(request, close)
    pieces: AsyncIterator[Buffer] = aiter(body)
    try:
        try:
            first = await anext(pieces, None)
        except Exception as e:
            raise BadResponse(f"the body failed before it began: {e!r}") from e
        head = render_head(response.status, response.headers, connection.server.stamp_lines(), framing)
        try:
            await _pump(connection, head, first, pieces, length, chunked, sent)
        except Exception as e:
            raise _Aborted("the body failed") from e
    finally:
        await discard(pieces)
    return close


async def _pump(
    connection: "Connection",
    head: bytes,
    piece: Buffer | None,
    pieces: AsyncIterator[Buffer],
    length: int | None,
    chunked: bool,
    sent: list[int],
) -> None:
    before: list[Buffer] = [head]
    while piece is not None:
        size = _size(piece)
        if length is not None and sent[0] + size > length:
            raise BadResponse(f"a body of more than the {length} bytes that were announced")
        if size:
            if chunked:
                connection.write_all([*before, b"%x\r\n" % size, piece, b"\r\n"])
            elif before:
                connection.write_all([*before, piece])
            else:
                connection.write(piece)
            before = []
            sent[0] += size
            await connection.flush()
            if connection.gone:
                return
        piece = await anext(pieces, None)
    if length is not None and sent[0] != length:
        connection.write_all(before)
        raise BadResponse(f"a body of {sent[0]} bytes, not the {length} that were announced")
    if chunked:
        before.append(b"0\r\n\r\n")
    if before:
        connection.write_all(before)
