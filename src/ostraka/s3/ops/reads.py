"""GetObject and HeadObject: the hot way out.

The first piece is fetched, and with it verified, before there is a response: what cannot be read is an error with a
status of its own. A failure after that leaves the body's iterator as an exception, and the connection is torn, so
that a client never takes a part for the whole.
"""

from collections.abc import AsyncIterator, Awaitable

from ostraka.host import Buffer
from ostraka.http import Headers, Response
from ostraka.objects.encryption import check_customer
from ostraka.objects.types import CustomerKey, ObjectInfo, ObjectReader
from ostraka.s3.checksums import COMPOSITE
from ostraka.s3.errors import S3Error
from ostraka.s3.ops.attributes import encode_metadata
from ostraka.s3.ops.call import PART_MAX, Call, invalid, parse_number
from ostraka.s3.ops.conditions import check_read, etags
from ostraka.s3.ops.encryption import customer_key, encryption_headers, refuse_algorithm
from ostraka.s3.ops.ranges import parse_range
from ostraka.s3.ops.times import http_date, parse_http_date

READ_NOW_MAX = 1 << 20  # bodies up to this are asked for without waiting first
DEFAULT_TYPE = "binary/octet-stream"

_WIRE = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-type": "Content-Type",
    "expires": "Expires",
}
_ACCEPT_RANGES = ("Accept-Ranges", "bytes")
_TYPE_DEFAULTED = ("Content-Type", DEFAULT_TYPE)
_OVERRIDES = {f"response-{name}": name for name in _WIRE}


class ObjectBody:
    """The bytes of an open version as an async iterator that gives the reader back, whether or not it was begun."""

    __slots__ = ("_first", "_pieces", "_reader")

    def __init__(self, reader: ObjectReader, pieces: AsyncIterator[Buffer], first: Buffer) -> None:
        self._reader = reader
        self._pieces = pieces
        self._first: Buffer | None = first

    def __aiter__(self) -> "ObjectBody":
        return self

    async def __anext__(self) -> Buffer:
        first = self._first
        if first is not None:
            self._first = None
            return first
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Let go of the reader; idempotent."""
        self._first = None
        try:
            close = getattr(self._pieces, "aclose", None)
            if close is not None:
                await close()
        finally:
            self._reader.close()


Selection = tuple[int, int, int, list[tuple[str, str]]]  # status, offset, length, response headers


def get_object(call: Call) -> Response | Awaitable[Response]:
    """The object's bytes, or a part of them."""
    reader = call.objects.open(call.bucket, call.key, call.version_id(), read_key(call))
    handed_over = False
    try:
        check_read(call.headers, reader.info)
        part = call.arg("partNumber") if call.query else None
        selection = None if part is not None else _selected(call, reader.info)
        response = None if selection is None else _at_hand(reader, selection)
        if response is None:
            handed_over = True
            return _read(call, reader, selection, part)
        return response
    finally:
        if not handed_over:
            reader.close()


def _at_hand(reader: ObjectReader, selection: Selection) -> Response | None:
    """The response if its bytes need no waiting."""
    status, offset, length, answer = selection
    if not length:
        return Response(status, answer)
    data = reader.read_now(offset, length) if length <= READ_NOW_MAX else None
    return None if data is None else Response(status, answer, data)


async def _read(call: Call, reader: ObjectReader, selection: Selection | None, part: str | None) -> Response:
    """The response once its first bytes are there, and verified. Closes the reader, now or with the body."""
    handed_over = False
    try:
        if selection is None:
            selection = await _selected_part(call, reader, part or "")
            response = _at_hand(reader, selection)
            if response is not None:
                return response
        status, offset, length, answer = selection
        pieces = aiter(reader.read(offset, length))
        body = ObjectBody(reader, pieces, await anext(pieces))
        handed_over = True
        return Response(status, answer, body, length=length)
    finally:
        if not handed_over:
            reader.close()


def head_object(call: Call) -> Response | Awaitable[Response]:
    """What GetObject would say, without the bytes."""
    customer = read_key(call)
    part = call.arg("partNumber") if call.query else None
    if part is not None:
        return _head_part(call, part)
    info = call.objects.lookup(call.bucket, call.key, call.version_id())
    check_customer(info.encryption, customer)
    check_read(call.headers, info)
    status, _, length, answer = _selected(call, info)
    return Response(status, answer, length=length)


async def _head_part(call: Call, part: str) -> Response:
    reader = call.objects.open(call.bucket, call.key, call.version_id(), read_key(call))
    try:
        check_read(call.headers, reader.info)
        status, _, length, answer = await _selected_part(call, reader, part)
        return Response(status, answer, length=length)
    finally:
        reader.close()


def read_key(call: Call) -> CustomerKey | None:
    """The customer's key that a read brings; what a read cannot ask for is refused."""
    refuse_algorithm(call)
    return customer_key(call)


def _wants_checksums(call: Call) -> bool:
    return (call.headers.get("x-amz-checksum-mode") or "").upper() == "ENABLED"


def _selected(call: Call, info: ObjectInfo) -> Selection:
    """What the request asks of the object: all of it, or a range."""
    wanted = call.headers.get("range")
    if wanted is not None and _if_range_holds(call.headers, info):
        span = parse_range_of(wanted, info.size)
        if span is not None:
            answer = object_headers(call, info)
            answer.append(("Content-Range", f"bytes {span[0]}-{span[0] + span[1] - 1}/{info.size}"))
            return 206, *span, _overridden(call, answer)
    answer = object_headers(call, info)
    if _wants_checksums(call):
        answer += checksum_headers(info)
    return 200, 0, info.size, _overridden(call, answer)


async def _selected_part(call: Call, reader: ObjectReader, text: str) -> Selection:
    """One part of a completed upload, or the whole for part 1 of any other object."""
    info, checksums = reader.info, _wants_checksums(call)
    if "range" in call.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    try:
        number = parse_number("partNumber", text, 1, PART_MAX)
    except S3Error:
        message = f"Part number must be an integer between 1 and {PART_MAX}, inclusive"
        raise invalid("partNumber", text, message) from None
    if number > max(1, info.part_count) and not info.part_count:
        raise S3Error("InvalidPartNumber", fields={"ActualPartCount": "1", "PartNumberRequested": text})
    try:
        offset, length = await reader.part(number)
    except S3Error:
        raise
    except Exception as e:
        if getattr(e, "reason", "") in ("part", "part-number", "range"):
            fields = {"ActualPartCount": str(max(1, info.part_count)), "PartNumberRequested": text}
            raise S3Error("InvalidPartNumber", fields=fields) from e
        raise
    answer = object_headers(call, info)
    if info.part_count:
        answer.append(("x-amz-mp-parts-count", str(info.part_count)))
        if checksums and info.part_count == 1 and info.checksum_type != COMPOSITE:
            answer += checksum_headers(info)
        elif checksums and info.checksum_type == COMPOSITE:  # else S3 tells no checksum of a part
            parts, _ = await reader.parts(number - 1, 1)
            if parts and parts[0].number == number:
                own = {a: v for a, v in parts[0].checksums.items() if a in info.checksums}
                answer += [(f"x-amz-checksum-{a.lower()}", v) for a, v in own.items()]
    elif checksums:
        answer += checksum_headers(info)
    if not length:
        return 200, 0, 0, _overridden(call, answer)
    answer.append(("Content-Range", f"bytes {offset}-{offset + length - 1}/{info.size}"))
    return 206, offset, length, _overridden(call, answer)


def parse_range_of(value: str, size: int) -> tuple[int, int] | None:
    """The range, or None for all; 416 with what is needed to ask again."""
    try:
        return parse_range(value, size)
    except Exception as e:
        raise S3Error(
            "InvalidRange",
            fields={"RangeRequested": value, "ActualObjectSize": str(size)},
            headers={"Content-Range": f"bytes */{size}"},
        ) from e


def _if_range_holds(headers: Headers, info: ObjectInfo) -> bool:
    condition = headers.get("if-range")
    if condition is None:
        return True
    if '"' in condition:
        return not condition.startswith("W/") and info.etag in etags(condition)
    return parse_http_date(condition) == int(info.modified)


def object_headers(call: Call, info: ObjectInfo) -> list[tuple[str, str]]:
    """The headers that describe a version, checksums aside."""
    answer = [
        ("Last-Modified", http_date(info.modified)),
        ("ETag", f'"{info.etag}"'),
        _ACCEPT_RANGES,
    ]
    if info.versioned:
        answer.append(("x-amz-version-id", info.version_id))
    attributes = info.attributes
    kept = attributes.headers
    if "content-type" not in kept:
        answer.append(_TYPE_DEFAULTED)
    for name, value in kept.items():
        answer.append((_WIRE.get(name, name), value))
    if attributes.metadata:
        for name, value in attributes.metadata.items():
            answer.append((f"x-amz-meta-{name}", encode_metadata(value)))
    if attributes.tags:
        answer.append(("x-amz-tagging-count", str(len(attributes.tags))))
    if attributes.storage_class != "STANDARD":
        answer.append(("x-amz-storage-class", attributes.storage_class))
    if info.encryption.algorithm:
        answer += encryption_headers(call, info.encryption)
    return answer


def checksum_headers(info: ObjectInfo) -> list[tuple[str, str]]:
    """The whole object's checksums, and their type."""
    answer = [(f"x-amz-checksum-{a.lower()}", v) for a, v in info.checksums.items()]
    if answer and info.checksum_type:
        answer.append(("x-amz-checksum-type", info.checksum_type))
    return answer


def _overridden(call: Call, answer: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The answer with response-* parameters in the place of what was stored."""
    if not call.query:
        return answer
    wanted = {_OVERRIDES[n]: v for n, v in call.query if n in _OVERRIDES}
    if not wanted:
        return answer
    for name, value in wanted.items():
        if any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise invalid(f"response-{name}", value)
    answer = [(n, v) for n, v in answer if n.lower() not in wanted]
    return answer + [(_WIRE[n], v) for n, v in wanted.items()]


HANDLERS = {"GetObject": get_object, "HeadObject": head_object}
