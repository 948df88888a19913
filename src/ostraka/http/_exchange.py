"""One exchange: run the handler, send its response, settle what is left of the body.

The only place that decides whether a connection goes on. It ends when either side asked for it, when the server
drains, and whenever the place in the client's byte stream could be in doubt: a body left unread that is chunked, or
long, or that the client has not been told to send.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING

from ostraka.errors import TooLarge, Truncated
from ostraka.http._messages import Buffer, Request, Response, discard
from ostraka.http._render import BadResponse, render_fields, render_head

if TYPE_CHECKING:
    from ostraka.http._connection import Connection

CLIENT_LEFT = 499  # reported to on_complete; nobody receives it
_JOIN_BYTES_MAX = 64 * 1024  # head and body up to this leave in one buffer
_BODILESS = frozenset((204, 304))


def begin_exchange(connection: "Connection", request: Request) -> Awaitable[Response] | Response | None:
    """Ask the handler, and send at once what it has at hand. Returns what is left for `finish_exchange`, if anything.

    Most answers are made without waiting for anything; they need no task and no turn of the loop.
    """
    connection.sent = 0
    try:
        answer = connection.server.handler(request)
    except Exception as e:
        answer = _answer_to_failure(connection, request, e)
    if type(answer) is not Response or type(answer.body) is not bytes or not request.body.finished:
        return answer
    close = not request.keep_alive or answer.close or connection.server.draining or connection.closing
    try:
        _send_whole(connection, request, answer, answer.body, close)
    except BadResponse as e:
        answer, close = Response(_send_500(connection, request, e), close=True), True
    if connection.write_paused:
        return _Sent(answer.status, close=close)
    connection.server.complete(request, answer.status, connection.sent)
    connection.end_exchange(close=close)
    return None


class _Sent(Response):
    """A response that was written, and that the kernel has not taken all of yet."""

    __slots__ = ()


async def finish_exchange(connection: "Connection", request: Request, answer: Awaitable[Response] | Response) -> None:
    """What `begin_exchange` left. Raises CancelledError when the client left or the server's patience ended."""
    server = connection.server
    status = CLIENT_LEFT
    body = request.body
    try:
        response = await _answered(connection, request, answer)
        status = response.status
        close = (
            not request.keep_alive
            or response.close
            or server.draining
            or connection.closing
            or (not body.finished and _place_is_in_doubt(connection, request))
        )
        if isinstance(response, _Sent):
            pass
        elif type(response.body) is not bytes and isinstance(response.body, AsyncIterable):
            try:
                close = await _send_stream(connection, request, response, response.body, close)
            except BadResponse as e:
                status, close = _send_500(connection, request, e), True
        else:
            try:
                _send_whole(connection, request, response, response.body, close)
            except BadResponse as e:
                status, close = _send_500(connection, request, e), True
        if connection.write_paused:
            await connection.flush()
    except asyncio.CancelledError:
        if connection.gone:
            status = CLIENT_LEFT
        raise
    finally:
        server.complete(request, status, connection.sent)
    if not close and not body.finished:
        close = not await _drain(connection, request)
    connection.end_exchange(close=close)


async def _answered(connection: "Connection", request: Request, answer: Awaitable[Response] | Response) -> Response:
    if isinstance(answer, Response):
        return answer
    try:
        return await answer
    except BaseException as e:
        return _answer_to_failure(connection, request, e)


def _answer_to_failure(connection: "Connection", request: Request, error: BaseException) -> Response:
    """The response for what the handler raised; raises it again if it is not the handler's failure."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if connection.gone or task is None or task.cancelling():
            raise error
    elif not isinstance(error, Exception):
        raise error
    elif error is request.body.error:  # it let the body's own error through: the client's doing, not ours
        if isinstance(error, Truncated):
            return Response(408 if error.reason == "stalled" else 400, close=True)
        return Response(413 if isinstance(error, TooLarge) else 400, close=True)
    connection.server.report(request, error)
    return Response(500, close=True)


def _place_is_in_doubt(connection: "Connection", request: Request) -> bool:
    """Whether, with this body not read to its end, the next request could not be found at a bearable cost."""
    body = request.body
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


def _option(request: Request, close: bool) -> str:
    if close:
        return "Connection: close\r\n"
    return "" if request.version[1] else "Connection: keep-alive\r\n"


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def _send_500(connection: "Connection", request: Request, error: BadResponse) -> int:
    """What goes out instead of a response that could not; nothing of that one was written."""
    connection.server.report(request, error.__cause__ or error)
    _send_whole(connection, request, Response(500), b"", True)
    return 500


def _send_whole(
    connection: "Connection", request: Request, response: Response, body: Buffer | Sequence[Buffer], close: bool
) -> None:
    """Write a response whose body is at hand. Raises BadResponse before anything is written."""
    status = response.status
    fields, length = render_fields(response.headers, connection.server.stamp.lines())
    if response.length is not None:
        length = response.length
    if type(body) is bytes:
        size = len(body)
        buffers: Sequence[Buffer] = (body,)
    else:
        buffers = (body,) if isinstance(body, bytes | bytearray | memoryview) else body
        size = sum(map(_size, buffers))
    if request.method == "HEAD" or status in _BODILESS:
        framing = _bodiless_framing(status, size if length is None and status != 304 else length)
        connection.write(render_head(status, fields, framing + _option(request, close)))
        return
    if length is not None and length != size:
        raise BadResponse(f"a body of {size} bytes under a Content-Length of {length}")
    option = "" if request.keep_alive and request.version[1] and not close else _option(request, close)
    head = render_head(status, fields, f"Content-Length: {size}\r\n{option}")
    if type(body) is bytes and size <= _JOIN_BYTES_MAX:
        connection.write(head + body)
    elif size <= _JOIN_BYTES_MAX:
        connection.write(b"".join((head, *buffers)))
    else:
        connection.write_all([head, *buffers])
    connection.sent = size


def _bodiless_framing(status: int, length: int | None) -> str:
    """Content-Length of what is not sent, where that is allowed and known."""
    return "" if status == 204 or length is None else f"Content-Length: {length}\r\n"


async def _send_stream(
    connection: "Connection", request: Request, response: Response, body: AsyncIterable[Buffer], close: bool
) -> bool:
    """Send a body as it is made; returns whether the connection ends with it.

    Until its first piece is there, a failure is still an ordinary error response (BadResponse). After that the
    connection is torn down, so that no client takes what it got for the whole.
    """
    status = response.status
    pieces: AsyncIterator[Buffer] = aiter(body)
    try:
        fields, length = render_fields(response.headers, connection.server.stamp.lines())
        if response.length is not None:
            length = response.length
        if request.method == "HEAD" or status in _BODILESS:
            framing = _bodiless_framing(status, length) + _option(request, close)
            connection.write(render_head(status, fields, framing))
            return close
        chunked = length is None and request.version[1] == 1
        close = close or (length is None and not chunked)
        framing = f"Content-Length: {length}\r\n" if length is not None else ""
        framing += "Transfer-Encoding: chunked\r\n" if chunked else ""
        try:
            first = await anext(pieces, None)
        except Exception as e:
            raise BadResponse("the body failed before it began") from e
        head = render_head(status, fields, framing + _option(request, close))
        try:
            pump = _pump(connection, head, first, pieces, length, chunked)
            del first  # it is not held until the last has gone
            await pump
        except Exception as e:
            connection.server.report(request, e)
            connection.abort()
            return True
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
) -> None:
    """Write ``head``, then piece after piece, never more than one ahead of the kernel."""
    before: list[Buffer] = [head]
    while piece is not None:
        size = _size(piece)
        if length is not None and connection.sent + size > length:
            raise BadResponse(f"a body of more than the {length} bytes that were announced")
        if size:
            if chunked:
                connection.write_all([*before, b"%x\r\n" % size, piece, b"\r\n"])
            else:
                connection.write_all([*before, piece])
            before = []
            connection.sent += size
            if connection.write_paused:
                await connection.flush()
            if connection.gone:
                return
        piece = None  # not held while the next one is waited for
        piece = await anext(pieces, None)
    if length is not None and connection.sent != length:
        connection.write_all(before)
        raise BadResponse(f"a body of {connection.sent} bytes, not the {length} that were announced")
    if chunked:
        before.append(b"0\r\n\r\n")
    if before:
        connection.write_all(before)
