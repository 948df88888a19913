"""Dictionaries to answers' XML, by the shapes of the service model; and error documents.

Elements come in the model's order, in S3's namespace. A member that the model does not have is our own mistake and
raises ValueError: an answer never silently loses a part.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from ostraka.s3.errors import S3Error
from ostraka.s3.model import LISTS, OPERATIONS, Member, is_structure, structure
from ostraka.s3.xml.times import iso_time

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

# Root elements that S3 uses and the model does not say.
ROOTS = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CreateSession": "CreateSessionResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycle": "LifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketNotification": "NotificationConfiguration",
    "GetBucketNotificationConfiguration": "NotificationConfiguration",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBucketAnalyticsConfigurations": "ListBucketAnalyticsConfigurationResult",
    "ListBucketInventoryConfigurations": "ListInventoryConfigurationsResult",
    "ListBucketMetricsConfigurations": "ListMetricsConfigurationsResult",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListDirectoryBuckets": "ListAllMyDirectoryBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}

_special = re.compile('[&<>"\x00-\x1f\ufffe\uffff]').search
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
_replace = re.compile('[&<>"\x00-\x1f\ufffe\uffff]').sub

Write = Callable[[Any], str]


def escape(text: str) -> str:
    """Text for an element or attribute; control characters become numeric references, as S3 writes them."""
    if _special(text) is None:
        return text
    return _replace(lambda m: _NAMED.get(m[0]) or f"&#x{ord(m[0]):x};", text)


def escape_all(texts: Sequence[str]) -> Callable[[str], str] | None:
    """`escape`, or None where none of these texts needs it: one look at all of them is cheaper than one at each."""
    return escape if _special("".join(texts)) else None


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return iso_time(value.timestamp())
    if isinstance(value, (int, float)):
        return iso_time(value)
    raise ValueError(f"not a time: {value!r}")


def _scalar(kind: str) -> Write:
    if kind.startswith("timestamp"):
        return _time
    if kind == "boolean":
        return lambda v: "true" if v else "false"
    if kind in ("integer", "long"):
        return lambda v: str(int(v))
    return lambda v: escape(str(v))


class _Field(NamedTuple):
    """How one member is written."""

    name: str
    open: str  # "<Key" without its end, so that attributes can follow
    close: str
    write: Write  # a value's content
    shape: str
    list: bool
    wrapper: str  # element around a wrapped list's items, or ""


def _attributes(shape: str, value: Mapping[str, Any]) -> str:
    if not shape:
        return ""
    struct = structure(shape)
    text = f' xmlns:{struct.prefix}="{struct.uri}"' if struct.prefix else ""
    for m in struct.members:
        if m.attribute and value.get(m.name) is not None:
            text += f' {m.wire}="{escape(str(value[m.name]))}"'
    return text


def _field(m: Member) -> _Field:
    wire, kind, many, wrapper = m.wire, m.type, False, ""
    if kind in LISTS:
        row = LISTS[kind]
        kind, many = row.item, True
        if m.flattened or row.flattened:
            wire = row.wire if wire == m.name and row.wire else wire
        else:
            wire, wrapper = row.wire or "member", wire
    elif wire == m.name and is_structure(kind) and structure(kind).wire:
        wire = structure(kind).wire
    shape = kind if is_structure(kind) else ""
    write: Write = (lambda v: _content(shape, v)) if shape else _scalar(kind)
    return _Field(m.name, f"<{wire}", f"</{wire}>", write, shape, many, wrapper)


@cache
def _fields(shape: str) -> tuple[tuple[_Field, ...], frozenset[str]]:
    members = [m for m in structure(shape).members if not m.location]
    return tuple(_field(m) for m in members if not m.attribute), frozenset(m.name for m in members)


def _content(shape: str, value: Mapping[str, Any]) -> str:
    fields, known = _fields(shape)
    if not value.keys() <= known:
        raise ValueError(f"{shape} has no {', '.join(sorted(value.keys() - known))}")
    out: list[str] = []
    for f in fields:
        v = value.get(f.name)
        if v is None:
            continue
        if not f.list:
            out.append(f"{f.open}{_attributes(f.shape, v)}>{f.write(v)}{f.close}")
            continue
        if f.wrapper:
            out.append(f"<{f.wrapper}>")
        out += [f"{f.open}{_attributes(f.shape, item)}>{f.write(item)}{f.close}" for item in _items(v)]
        if f.wrapper:
            out.append(f"</{f.wrapper}>")
    return "".join(out)


def _items(value: object) -> Sequence[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"not a list: {value!r}")
    return value


def document(root: str, content: str, *, namespace: bool = True) -> bytes:
    """A whole document; text that is no Unicode (a surrogate from a header) becomes a question mark."""
    xmlns = f' xmlns="{NAMESPACE}"' if namespace else ""
    return f"{DECLARATION}<{root}{xmlns}>{content}</{root}>".encode("utf-8", "replace")


def encode(shape: str, value: Mapping[str, Any], *, root: str) -> bytes:
    """A document of one structure."""
    return document(root, _content(shape, value))


def encode_output(operation: str, value: Mapping[str, Any]) -> bytes:
    """The body of an operation's answer from its members that are in the body.

    Where the output has a payload member, ``value`` is that member's structure (CopyObject: that of CopyObjectResult).
    Times are datetimes or POSIX seconds; etags come with their quotes.
    """
    output = structure(OPERATIONS[operation].output)
    if operation == "GetBucketLocation":  # the root element itself holds the text
        return document("LocationConstraint", escape(value.get("LocationConstraint") or ""))
    if output.payload:
        member = output.member(output.payload)
        shape = structure(member.type)
        return document(shape.wire or member.wire, _content(member.type, value))
    return document(ROOTS.get(operation, output.name), _content(output.name, value))


def error_document(error: S3Error, request_id: str, host_id: str, resource: str = "") -> bytes:
    """The <Error> document, which is in no namespace."""
    parts = [f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message>"]
    parts += [f"<{name}>{escape(text)}</{name}>" for name, text in error.fields.items()]
    if resource:
        parts.append(f"<Resource>{escape(resource)}</Resource>")
    parts.append(f"<RequestId>{escape(request_id)}</RequestId><HostId>{escape(host_id)}</HostId>")
    return document("Error", "".join(parts), namespace=False)
