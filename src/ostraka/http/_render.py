"""The head of a response, as bytes."""

from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

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

    __slots__ = ("_lines", "_second", "_server_line")

    def __init__(self, server_name: str) -> None:
        self._server_line = f"Server: {server_name}\r\n" if server_name else ""
        self._second = -1
        self._lines = ""

    def lines(self, now: float) -> str:
        """``now``: wall time in seconds."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._lines = f"Date: {formatdate(second, usegmt=True)}\r\n{self._server_line}"
        return self._lines


def announced_length(headers: Sequence[tuple[str, str]]) -> int | None:
    """The Content-Length that a handler put among its headers."""
    for name, value in headers:
        if _LAYER_FIELDS.get(name) == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise BadResponse(f"Content-Length {value!r}")
            return int(value)
    return None


def _override(stamp: str, headers: Sequence[tuple[str, str]], lines: list[str]) -> str:
    """Date and Server of the handler instead of the stamp's; they are appended to ``lines``."""
    for name, value in headers:
        known = _LAYER_FIELDS.get(name)
        if known in ("transfer-encoding", "connection"):
            raise BadResponse(f"{name} is the layer's to write; see Response.close and Response.length")
        if known in ("date", "server"):
            lines.append(f"{name}: {value}\r\n")
            kept = [line for line in stamp.splitlines(keepends=True) if not line.lower().startswith(f"{known}:")]
            stamp = "".join(kept)
    return stamp


def render_head(status: int, headers: Sequence[tuple[str, str]], stamp: str, framing: str) -> bytes:
    """Status line, the handler's fields, the stamp, and ``framing`` (whole lines: length, coding, connection).

    Raises BadResponse for a field that would break out of its line or contradict the framing.
    """
    lines = [f"{n}: {v}\r\n" for n, v in headers if n not in _LAYER_FIELDS]
    if len(lines) != len(headers):
        stamp = _override(stamp, headers, lines)
    fields = "".join(lines)
    count = len(lines)
    if fields.count("\n") != count or fields.count("\r") != count or "\0" in fields:
        raise BadResponse("control character in a header")
    status_line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n"
    try:
        return f"{status_line}{stamp}{fields}{framing}\r\n".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as e:
        raise BadResponse(f"header is not text: {e}") from None
