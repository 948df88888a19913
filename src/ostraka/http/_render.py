"""The head of a response, as bytes."""

from collections.abc import Callable, Sequence
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


class Fields:
    """A handler's header fields, rendered; what belongs to the layer is set apart."""

    __slots__ = ("length", "stamp", "text")

    def __init__(self, headers: Sequence[tuple[str, str]], stamp: str) -> None:
        """Raises BadResponse for a field that would break out of its line or contradict the framing."""
        lines = [f"{name}: {value}\r\n" for name, value in headers if name not in _LAYER_FIELDS]
        self.length: int | None = None  # a Content-Length among them
        self.stamp = stamp
        if len(lines) != len(headers):
            self._take_own(headers, lines)
        self.text = text = "".join(lines)
        count = len(lines)
        if text.count("\n") != count or text.count("\r") != count or "\0" in text:
            raise BadResponse("control character in a header")

    def _take_own(self, headers: Sequence[tuple[str, str]], lines: list[str]) -> None:
        for name, value in headers:
            known = _LAYER_FIELDS.get(name)
            if known in ("transfer-encoding", "connection"):
                raise BadResponse(f"{name} is the layer's to write; see Response.close and Response.length")
            if known == "content-length":
                if not (value.isascii() and value.isdigit()):
                    raise BadResponse(f"Content-Length {value!r}")
                self.length = int(value)
            elif known is not None:  # Date or Server, instead of the stamp's
                lines.append(f"{name}: {value}\r\n")
                kept = self.stamp.splitlines(keepends=True)
                self.stamp = "".join(line for line in kept if not line.lower().startswith(f"{known}:"))


def render_head(status: int, fields: Fields, framing: str) -> bytes:
    """The whole head; ``framing`` is whole lines: length, coding, connection. BadResponse for what is not text."""
    status_line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n"
    try:
        return f"{status_line}{fields.stamp}{fields.text}{framing}\r\n".encode()
    except UnicodeEncodeError:
        pass
    try:
        return f"{status_line}{fields.stamp}{fields.text}{framing}\r\n".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as e:
        raise BadResponse(f"header is not text: {e}") from None
