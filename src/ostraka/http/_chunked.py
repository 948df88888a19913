"""The framing of ``Transfer-Encoding: chunked`` (RFC 9112 section 7.1), read strictly and incrementally.

Only framing passes through here: the data of a chunk goes by it, straight to its reader. A size is bare
hexadecimal digits; lines end in CR LF; extensions are skipped within a bound for the whole body, since a body of
one-byte chunks with long extensions would cost more than it carries.
"""

import re

from ostraka.errors import Invalid, TooLarge
from ostraka.http._messages import Headers
from ostraka.limits import Limits

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t -~\x80-\xff]*)?\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)\r\n")
_LINE_BYTES_MAX = 4096
_NEVER_IN_TRAILERS = frozenset(("content-length", "transfer-encoding", "host", "connection", "expect", "authorization"))

SIZE, DATA_END, TRAILERS, DONE = range(4)


class ChunkFraming:
    """Where we are between the chunks of one body."""

    __slots__ = (
        "_extension_bytes_left",
        "_fields",
        "_limits",
        "_size_left",
        "_state",
        "_trailer_bytes_left",
        "trailers",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = SIZE
        self._size_left = limits.body_bytes_max
        self._extension_bytes_left = limits.head_bytes_max
        self._trailer_bytes_left = limits.head_bytes_max
        self._fields: list[tuple[str, str]] = []
        self.trailers: Headers | None = None  # set at the end

    @property
    def done(self) -> bool:
        return self._state == DONE

    def advance(self, data: bytes, pos: int) -> tuple[int, int]:
        """Read framing at ``pos``, up to the next data.

        Returns (new position, size of the chunk whose data begins there). A size of 0 means the end if ``done``, else
        that more bytes are needed. Raises Invalid for what is not chunked framing, TooLarge over a bound.
        """
        while self._state != DONE:
            end = data.find(b"\n", pos, pos + _LINE_BYTES_MAX) + 1
            if not end:
                if len(data) - pos >= _LINE_BYTES_MAX:
                    raise TooLarge("a line of chunk framing is too long", reason="chunk")
                self._check_partial(data, pos)
                return pos, 0
            if self._state == SIZE:
                size = self._size(data, pos, end)
                if size:
                    self._state = DATA_END  # what follows the data
                    return end, size
                self._state = TRAILERS
            elif self._state == DATA_END:
                if data[pos:end] != b"\r\n":
                    raise Invalid("a chunk is longer than its size says", reason="chunk")
                self._state = SIZE
            else:
                self._trailer(data[pos:end])
            pos = end
        return pos, 0

    def _check_partial(self, data: bytes, pos: int) -> None:
        """What stands where a line end must be is refused at once, not when its line feed comes."""
        if self._state == DATA_END and len(data) > pos and data[pos] != 0x0D:
            raise Invalid("a chunk is longer than its size says", reason="chunk")

    def _size(self, data: bytes, pos: int, end: int) -> int:
        match = _SIZE.fullmatch(data, pos, end)
        if match is None:
            raise Invalid("malformed chunk size", reason="chunk")
        if match[2]:
            self._extension_bytes_left -= len(match[2])
            if self._extension_bytes_left < 0:
                raise TooLarge("too many bytes of chunk extensions", reason="chunk")
        size = int(match[1], 16)
        self._size_left -= size
        if self._size_left < 0:
            raise TooLarge("body is larger than any request may have", reason="body")
        return size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.trailers = Headers.of(self._fields)
            self._state = DONE
            return
        self._trailer_bytes_left -= len(line)
        if self._trailer_bytes_left < 0 or len(self._fields) >= self._limits.header_count_max:
            raise TooLarge("too many trailers", reason="trailers")
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Invalid("malformed trailer", reason="trailers")
        name = match[1].decode("ascii").lower()
        if name in _NEVER_IN_TRAILERS:
            raise Invalid(f"{name} must not be in the trailers", reason="trailers")
        self._fields.append((name, match[2].decode("utf-8", "surrogateescape").rstrip(" \t")))
