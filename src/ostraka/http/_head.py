"""The head of a request: bytes to a checked ``Request``, or a refusal with its status.

httptools (llhttp, strict) reads the fields; what it leaves open is settled here: the request line's exact form, the
bounds, Host, and how the body is framed. Wherever two readers of the same bytes could disagree about where a
message ends (request smuggling) the answer is a refusal, and the connection ends with it.
"""

import re
from collections.abc import Callable

import httptools

from ostraka.http._body import NO_BODY, Body
from ostraka.http._messages import Headers, Request
from ostraka.limits import Limits

_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)(/[^?]*)?(?:\?(.*))?")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TRANSFER_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)

_REMEMBERED_MAX = 2048  # spellings of header names, and hosts, that are remembered
_LENGTH_DIGITS_MAX = 18
_HTTP_10, _HTTP_11 = (1, 0), (1, 1)


class _Names(dict[bytes, str]):
    """Header names as sent to lower-case text."""

    def __missing__(self, raw: bytes) -> str:
        name = raw.decode("ascii").lower()
        if len(self) < _REMEMBERED_MAX:
            self[raw] = name
        return name


_names = _Names()
_methods = {m.encode(): m for m in ("GET", "PUT", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH")}
_hosts_seen: set[str] = set()


class Refusal(Exception):
    """This request is answered with ``status`` by the layer itself, and the connection ends."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Fields:
    """Collects what the parser calls out; of a name that comes twice, the last."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        try:
            self.last[_names[name]] = value.decode()
        except UnicodeDecodeError:
            self.last[_names[name]] = value.decode("utf-8", "surrogateescape")


def _parse_fields(head: bytes) -> Headers:
    """The header fields of a whole head; the parser's own error if it is malformed.

    A parser for each head: one that is kept may remember the message before (llhttp refuses whatever follows a
    ``Connection: close``), and costs 0.3 us less.
    """
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # we do not upgrade: a plain request, as RFC 9110 7.8 allows
    # every line of a head that the parser passed ends in CR LF: the request line, the fields, the empty one
    if len(fields.last) == head.count(b"\r\n") - 2 and b" \r\n" not in head and b"\t\r\n" not in head:
        return Headers(fields.last)
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")[1:-2]
    parts = (line.partition(":") for line in lines)
    return Headers.of([(name.lower(), value.strip(" \t")) for name, _, value in parts])


def _why_malformed(head: bytes, error: Exception) -> Refusal:
    """The status for a head that the parser refused: which part was it?"""
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "method is not implemented")
    coding = _TRANSFER_CODING.search(head)
    if coding and not _CONTENT_LENGTH.search(head) and coding[1].strip().lower() != b"chunked":
        return Refusal(501, "transfer coding is not implemented")
    return Refusal(400, f"malformed head: {error}")


def _split_other_target(method: str, target: bytes, host: str | None) -> tuple[bytes, bytes]:
    """(raw path, raw query) of a request target that is not simply a path."""
    if target == b"*" and method == "OPTIONS":
        return target, b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or b"#" in target:
        raise Refusal(400, "malformed target")
    if host is not None and absolute[1].decode("ascii").lower() != host.lower():
        raise Refusal(400, "Host differs from the target's authority")
    return absolute[2] or b"/", absolute[3] or b""


def _check_new_host(host: str | None, minor: int) -> None:
    if host is None:
        if minor:
            raise Refusal(400, "no Host")
        return
    if not _HOST.fullmatch(host):
        raise Refusal(400, "malformed Host")
    if len(_hosts_seen) < _REMEMBERED_MAX:
        _hosts_seen.add(host)


def _check_duplicates(headers: Headers) -> None:
    """Refuse two of a field by which this request is framed or routed."""
    for name in ("host", "content-length", "transfer-encoding"):
        if len(headers.get_all(name)) > 1:
            raise Refusal(400, f"more than one {name}")


def _declared_length(value: str, limits: Limits) -> int:
    if not (value.isascii() and value.isdigit()):
        raise Refusal(400, "malformed Content-Length")
    if len(value) > _LENGTH_DIGITS_MAX or int(value) > limits.body_bytes_max:
        raise Refusal(413, "body is larger than any request may have")
    return int(value)


def _check_coding(coding: str, has_length: bool, minor: int) -> None:
    """Only ``chunked``, alone, and only where both ends agree what it means."""
    if has_length or minor == 0:
        raise Refusal(400, "ambiguous body length")
    if coding.lower() != "chunked":
        raise Refusal(501, "transfer coding is not implemented")


def _keeps_alive(headers: Headers, minor: int) -> bool:
    options = {o.strip() for v in headers.get_all("connection") for o in v.lower().split(",")}
    return "close" not in options and (minor == 1 or "keep-alive" in options)


def _expects_continue(expect: str) -> bool:
    if expect.lower() != "100-continue":
        raise Refusal(417, "unknown expectation")
    return True


def parse_head(
    head: bytes, limits: Limits, peer: str, scheme: str, now: float, make_body: Callable[[int | None, bool], Body]
) -> Request:
    """The request of a whole head, from the first byte of the request line to the empty line, both included.

    ``make_body(length, expects continue)`` is called last, if there is a body or leave to send one is asked for.
    Raises Refusal.
    """
    parts = head[: head.find(b"\r\n")].split(b" ")  # exactly two blanks; the parser checks what is between
    if len(parts) != 3:
        raise Refusal(400, "malformed request line")
    raw_method, target, raw_version = parts
    if raw_version == b"HTTP/1.1":
        version, minor = _HTTP_11, 1
    elif raw_version == b"HTTP/1.0":
        version, minor = _HTTP_10, 0
    elif _VERSION.fullmatch(raw_version):
        raise Refusal(505, "only HTTP/1.0 and HTTP/1.1")
    else:
        raise Refusal(400, "malformed request line")
    if len(target) > limits.url_bytes_max:
        raise Refusal(414, "target too long")
    try:
        headers = _parse_fields(head)
    except httptools.HttpParserError as e:
        raise _why_malformed(head, e) from None
    if len(headers) > limits.header_count_max:
        raise Refusal(431, "too many header fields")
    method = _methods.get(raw_method) or raw_method.decode("ascii")
    if method == "CONNECT":
        raise Refusal(501, "no tunnels here")
    if headers.has_duplicates:
        _check_duplicates(headers)
    field = headers.first.get
    host = field("host")
    if host not in _hosts_seen:
        _check_new_host(host, minor)
    if target[0] == 0x2F and b"#" not in target:
        path, _, query = target.partition(b"?")
    else:
        path, query = _split_other_target(method, target, host)
    length: int | None = 0
    declared, coding = field("content-length"), field("transfer-encoding")
    if coding is not None:
        _check_coding(coding, declared is not None, minor)
        length = None
    elif declared is not None:
        length = _declared_length(declared, limits)
    expect = field("expect")
    expects = expect is not None and minor == 1 and _expects_continue(expect)
    keep_alive = minor == 1 if field("connection") is None else _keeps_alive(headers, minor)
    body = NO_BODY if length == 0 and not expects else make_body(length, expects)
    return Request(method, target, path, query, headers, version, keep_alive, body, peer, scheme, now)


def check_partial(data: bytes, limits: Limits) -> None:
    """Refuse early what has arrived of an unfinished head: too long, or lines that do not end in CR LF."""
    end = data.find(b"\n")
    if (len(data) if end < 0 else end) > limits.url_bytes_max + 64:  # 64: method, version and blanks
        raise Refusal(414, "request line too long")
    if len(data) > limits.head_bytes_max:
        raise Refusal(431, "head too long")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Refusal(400, "bare line feed")
