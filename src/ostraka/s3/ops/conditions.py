"""Conditional requests, in the order in which S3 evaluates them.

For reads: If-Match, else If-Unmodified-Since; then If-None-Match, else If-Modified-Since. A failed one of the
first pair is 412; of the second pair 304 on a read, and 412 on the source of a copy. Dates that do not parse are
ignored. Writes know If-None-Match: * and If-Match only, and refuse the others by name.
"""

from ostraka.http import Headers
from ostraka.objects.types import ObjectInfo, WriteConditions
from ostraka.s3.errors import S3Error
from ostraka.s3.ops.times import http_date, parse_http_date

UNCONDITIONAL = WriteConditions()
_COPY = "x-amz-copy-source-"


def etags(value: str) -> tuple[str, ...]:
    """The entity tags of a header, without quotes and weakness marks."""
    return tuple(t.strip().removeprefix("W/").strip('"') for t in value.split(",") if t.strip())


def _matches(value: str, etag: str) -> bool:
    return value.strip() == "*" or etag in etags(value)


def check_read(headers: Headers, info: ObjectInfo) -> None:
    """Raises S3Error PreconditionFailed, or NotModified with the headers that a 304 carries."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    since, unmodified = headers.get("if-modified-since"), headers.get("if-unmodified-since")
    if match is None and none_match is None and since is None and unmodified is None:
        return
    if match is not None:
        if not _matches(match, info.etag):
            raise S3Error("PreconditionFailed", fields={"Condition": "If-Match"})
    elif unmodified is not None and _modified_after(info, unmodified) is True:
        raise S3Error("PreconditionFailed", fields={"Condition": "If-Unmodified-Since"})
    if none_match is not None:
        if _matches(none_match, info.etag):
            raise S3Error("NotModified", headers=_not_modified(info))
    elif since is not None and _modified_after(info, since) is False:
        raise S3Error("NotModified", headers=_not_modified(info))


def check_copy_source(headers: Headers, info: ObjectInfo) -> None:
    """The same for the source of a copy: every failure is PreconditionFailed."""
    match, none_match = headers.get(_COPY + "if-match"), headers.get(_COPY + "if-none-match")
    since, unmodified = headers.get(_COPY + "if-modified-since"), headers.get(_COPY + "if-unmodified-since")
    failed = ""
    if match is not None:
        if not _matches(match, info.etag):
            failed = "if-match"
    elif unmodified is not None and _modified_after(info, unmodified) is True:
        failed = "if-unmodified-since"
    if not failed and none_match is not None:
        if _matches(none_match, info.etag):
            failed = "if-none-match"
    elif not failed and since is not None and _modified_after(info, since) is False:
        failed = "if-modified-since"
    if failed:
        raise S3Error("PreconditionFailed", fields={"Condition": _COPY + failed})


def _modified_after(info: ObjectInfo, value: str) -> bool | None:
    """Whether the object changed after the date; None: the header says nothing."""
    moment = parse_http_date(value)
    return None if moment is None else int(info.modified) > moment


def _not_modified(info: ObjectInfo) -> dict[str, str]:
    headers = {"ETag": f'"{info.etag}"', "Last-Modified": http_date(info.modified)}
    if info.versioned:
        headers["x-amz-version-id"] = info.version_id
    for name in ("cache-control", "expires"):
        value = info.attributes.headers.get(name)
        if value is not None:
            headers[name] = value
    return headers


def not_implemented(header: str, why: str = "") -> S3Error:
    """The refusal of a header that promises what is not built; nothing has been stored."""
    return S3Error(
        "NotImplemented",
        f"A header you provided implies functionality that is not implemented: {header}" + (f" ({why})" if why else ""),
        fields={"Header": header},
    )


def write_conditions(headers: Headers) -> WriteConditions:
    """What a write demands of the object that is there. Raises NotImplemented for other conditions."""
    none_match, match = headers.get("if-none-match"), headers.get("if-match")
    for name in ("if-modified-since", "if-unmodified-since"):
        if name in headers:
            raise not_implemented(name)
    if none_match is None and match is None:
        return UNCONDITIONAL
    if none_match is not None and match is not None:
        raise not_implemented("if-none-match", "together with if-match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise not_implemented("if-none-match", "only * is known on a write")
        return WriteConditions(if_none_match=True)
    return WriteConditions(if_match=required_etags(match or ""))


def required_etags(value: str) -> tuple[str, ...]:
    """The entity tags of an If-Match; raises InvalidArgument when there is none."""
    wanted = etags(value)
    if not wanted:
        raise S3Error("InvalidArgument", "If-Match names no entity tag", fields={"ArgumentName": "If-Match"})
    return wanted
