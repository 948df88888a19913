"""The head of a response, as bytes."""

from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus

_EOL = "\r\n"
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in HTTPStatus}

# what a handler may name although the layer writes it: any other spelling of these is its own mistake
_LAYER_FIELDS = {
    spelling: name
    for name in ("content-length", "transfer-encoding", "connection", "date", "server")
    for spelling in (name, name.title(), name.upper())
}


class BadResponse(Exception):
    """The handler gave what cannot be sent: our own mistake, answered with 500."""


class Stamp:
    """The Date and Server lines, made once a second."""

    __slots__ = ("_from", "_lines", "_server_line", "_time", "_until")

    def __init__(self, server_name: str, time: Callable[[], float]) -> None:
        self._server_line = f"Server: {server_name}\r\n" if server_name else ""
        self._time = time
        self._from = self._until = 0.0
        self._lines = ""

    def lines(self) -> str:
        now = self._time()
        if not self._from <= now < self._until:
            second = int(now)
            self._from, self._until = second, second + 1
            self._lines = f"Date: {formatdate(second, usegmt=True)}\r\n{self._server_line}"
        return self._lines


def render_fields(headers: Sequence[tuple[str, str]], stamp: str) -> tuple[str, int | None]:
    """The stamp and a handler's fields as lines, and the Content-Length if it was among them.

    Raises BadResponse for a field that would break out of its line or contradict the framing.
    """
    lines = [f"{name}: {value}\r\n" for name, value in headers if name not in _LAYER_FIELDS]
    length = None
    if len(lines) != len(headers):
        stamp, length = _take_layer_fields(headers, stamp, lines)
    text = "".join(lines)
    count = len(lines)
    if text.count("\n") != count or text.count("\r") != count or "\0" in text:
        raise BadResponse("control character in a header")
    return stamp + text, length


def _take_layer_fields(headers: Sequence[tuple[str, str]], stamp: str, lines: list[str]) -> tuple[str, int | None]:
    length = None
    for name, value in headers:
        known = _LAYER_FIELDS.get(name)
        if known in ("transfer-encoding", "connection"):
            raise BadResponse(f"{name} is the layer's to write; see Response.close and Response.length")
        if known == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise BadResponse(f"Content-Length {value!r}")
            length = int(value)
        elif known is not None:  # Date or Server, instead of the stamp's
            lines.append(f"{name}: {value}\r\n")
            kept = stamp.splitlines(keepends=True)
            stamp = "".join(line for line in kept if not line.lower().startswith(f"{known}:"))
    return stamp, length


def render_head(status: int, fields: str, framing: str) -> bytes:
    """The whole head. ``framing`` is whole lines: length, coding, connection. BadResponse for what is not text."""
    head = f"{_STATUS_LINES.get(status) or f'HTTP/1.1 {status} Status{_EOL}'}{fields}{framing}\r\n"
    try:
        return head.encode()
    except UnicodeEncodeError:
        pass
    try:
        return head.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as e:
        raise BadResponse(f"header is not text: {e}") from None
