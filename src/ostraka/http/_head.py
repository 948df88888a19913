"""The head of a request: bytes to a checked ``Head``, or a refusal with its status.

httptools (llhttp, strict) reads the fields; what it leaves open is settled here: the request line's exact form, the
bounds, Host, and how the body is framed. Wherever two readers of the same bytes could disagree about where a
message ends (request smuggling) the answer is a refusal, and the connection ends with it.
"""

import re
from typing import NamedTuple

import httptools

from ostraka.http._messages import Headers
from ostraka.limits import Limits

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)(/[^?]*)?(?:\?(.*))?")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TRANSFER_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)

_NAMES_MAX = 2048  # distinct spellings of header names that are remembered
_LENGTH_DIGITS_MAX = 18

_names: dict[bytes, str] = {}
_methods = {m.encode(): m for m in ("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH")}
_hosts_seen: set[str] = set()


class Refusal(Exception):
    """This request is answered with ``status`` by the layer itself, and the connection ends."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Head(NamedTuple):
    """A checked head. ``length`` is the body's size, None when it is chunked."""

    method: str
    target: bytes
    raw_path: bytes
    raw_query: bytes
    headers: Headers
    version: tuple[int, int]
    keep_alive: bool
    length: int | None
    expects_continue: bool


def _name(raw: bytes) -> str:
    name = raw.decode("ascii").lower()
    if len(_names) < _NAMES_MAX:
        _names[raw] = name
    return name


class _Fields:
    """Collects what the parser calls out."""

    __slots__ = ("complete", "items")

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.items.append((_names.get(name) or _name(name), str(value, "utf-8", "surrogateescape").rstrip(" \t")))

    def on_message_complete(self) -> None:
        self.complete = True


_fields = _Fields()
_parser = None  # kept while it stands between two messages; heads are parsed whole, so connections can share it


def _parse_fields(head: bytes) -> list[tuple[str, str]]:
    """The header fields of a whole head; the parser's own error if it is malformed."""
    global _parser
    fields = _fields
    items: list[tuple[str, str]] = []
    fields.items = items
    fields.complete = False
    parser = _parser or httptools.HttpRequestParser(fields)
    _parser = None
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        return items  # we do not upgrade: a plain request, as RFC 9110 7.8 allows
    if fields.complete and parser.should_keep_alive():
        _parser = parser
    return items


def _why_malformed(head: bytes, error: Exception) -> Refusal:
    """The status for a head that the parser refused: which part was it?"""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "method is not implemented")
    coding = _TRANSFER_CODING.search(head)
    if coding and not _CONTENT_LENGTH.search(head) and coding[1].strip().lower() != b"chunked":
        return Refusal(501, "transfer coding is not implemented")
    return Refusal(400, f"malformed head: {error}")


def _split_target(method: str, target: bytes, host: str | None) -> tuple[bytes, bytes]:
    """(raw path, raw query) of a request target."""
    if target[0] == 0x2F:  # "/"
        if b"#" in target:
            raise Refusal(400, "fragment in the target")
        path, _, query = target.partition(b"?")
        return path, query
    if target == b"*" and method == "OPTIONS":
        return target, b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or b"#" in target:
        raise Refusal(400, "malformed target")
    if host is not None and absolute[1].decode("ascii").lower() != host.lower():
        raise Refusal(400, "Host differs from the target's authority")
    return absolute[2] or b"/", absolute[3] or b""


def _check_host(headers: Headers, minor: int) -> str | None:
    host = headers.get("host")
    if host is None:
        if minor:
            raise Refusal(400, "no Host")
        return None
    if host not in _hosts_seen:
        if not _HOST.fullmatch(host):
            raise Refusal(400, "malformed Host")
        if len(_hosts_seen) < _NAMES_MAX:
            _hosts_seen.add(host)
    if headers.has_duplicates and len(headers.get_all("host")) > 1:
        raise Refusal(400, "more than one Host")
    return host


def _body_length(headers: Headers, minor: int, limits: Limits) -> int | None:
    """The body's size; None for chunked. The parser has let at most one of the two fields pass."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or minor == 0 or len(headers.get_all("transfer-encoding")) > 1:
            raise Refusal(400, "ambiguous body length")
        if coding.lower() != "chunked":
            raise Refusal(501, "transfer coding is not implemented")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(headers.get_all("content-length")) > 1:
        raise Refusal(400, "malformed Content-Length")
    if len(length) > _LENGTH_DIGITS_MAX or int(length) > limits.body_bytes_max:
        raise Refusal(413, "body is larger than any request may have")
    return int(length)


def _keeps_alive(headers: Headers, minor: int) -> bool:
    connection = headers.get("connection")
    if connection is None:
        return minor == 1
    options = {o.strip() for v in headers.get_all("connection") for o in v.lower().split(",")}
    return "close" not in options and (minor == 1 or "keep-alive" in options)


def parse_head(head: bytes, limits: Limits) -> Head:
    """Read a whole head, from the first byte of the request line to the empty line, both included. Raises Refusal."""
    line = _LINE.match(head)
    if line is None:
        raise Refusal(400, "malformed request line")
    raw_method, target, major, minor_digit = line.groups()
    if major != b"1" or minor_digit not in b"01":
        raise Refusal(505, "only HTTP/1.0 and HTTP/1.1")
    if len(target) > limits.url_bytes_max:
        raise Refusal(414, "target too long")
    try:
        items = _parse_fields(head)
    except httptools.HttpParserError as e:
        raise _why_malformed(head, e) from None
    if len(items) > limits.header_count_max:
        raise Refusal(431, "too many header fields")
    method = _methods.get(raw_method) or raw_method.decode("ascii")
    if method == "CONNECT":
        raise Refusal(501, "no tunnels here")
    minor = 1 if minor_digit == b"1" else 0
    headers = Headers(items)
    host = _check_host(headers, minor)
    path, query = _split_target(method, target, host)
    length = _body_length(headers, minor, limits)
    expect = headers.get("expect")
    if expect is not None and minor:
        if expect.lower() != "100-continue":
            raise Refusal(417, "unknown expectation")
        expects = length != 0
    else:
        expects = False
    return Head(method, target, path, query, headers, (1, minor), _keeps_alive(headers, minor), length, expects)


def check_partial(data: bytes, limits: Limits) -> None:
    """Refuse early what has arrived of an unfinished head: too long, or lines that do not end in CR LF."""
    end = data.find(b"\n")
    if (len(data) if end < 0 else end) > limits.url_bytes_max + 64:  # 64: method, version and blanks
        raise Refusal(414, "request line too long")
    if len(data) > limits.head_bytes_max:
        raise Refusal(431, "head too long")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Refusal(400, "bare line feed")
