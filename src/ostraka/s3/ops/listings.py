"""ListObjects, ListObjectsV2 and ListObjectVersions: parameters as S3 reads them, pages as S3 writes them."""

import base64
import binascii
import zlib

from ostraka.http import Response
from ostraka.objects.types import BadVersionId, ListPage, VersionPage
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.call import Call, invalid, parse_number
from ostraka.s3.xml import common_prefixes, contents, list_result, versions

_TOKEN_VERSION = b"1"


def page_size(call: Call, name: str) -> int:
    """max-keys and its like: at most limits.list_keys_max. Raises InvalidArgument."""
    text = call.arg(name)
    if text is None or text == "":
        return call.limits.list_keys_max
    return min(parse_number(name, text, 0, 2**31 - 1), call.limits.list_keys_max)


def encoding_type(call: Call) -> str:
    """ "url" or "". Raises InvalidArgument for another encoding."""
    value = call.arg("encoding-type")
    if not value:
        return ""
    if value != "url":
        raise invalid("encoding-type", value, "Invalid Encoding Method specified in Request")
    return value


def token(key: str) -> str:
    """A continuation token that resumes after key: opaque, and recognisable as ours."""
    raw = _TOKEN_VERSION + key.encode()
    return base64.urlsafe_b64encode(zlib.crc32(raw).to_bytes(4, "big") + raw).decode()


def read_token(text: str) -> str:
    """The key of a continuation token; raises InvalidArgument for what is none of ours."""
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        if len(raw) > 4 and raw[:4] == zlib.crc32(raw[4:]).to_bytes(4, "big") and raw[4:5] == _TOKEN_VERSION:
            return raw[5:].decode()
    except (ValueError, binascii.Error):
        pass
    raise invalid("continuation-token", text, "The continuation token provided is incorrect")


def _page(call: Call, prefix: str, delimiter: str, after: str, limit: int) -> ListPage:
    if limit == 0:
        call.bucket_info()
        return ListPage((), (), False)
    return call.objects.list(call.bucket, prefix, delimiter, after, limit)


Head = list[tuple[str, str | int | None]]


def _head(call: Call, encoding: str, prefix: str, delimiter: str, limit: int, place: Head, truncated: bool) -> Head:
    """The elements before the rows in S3's order; ``place``: where the page begins and where the next one does."""
    return [
        ("Name", call.bucket),
        ("Prefix", doc.written(prefix, encoding)),
        *place,
        ("MaxKeys", limit),
        ("Delimiter", doc.written(delimiter, encoding) if delimiter else None),
        ("EncodingType", encoding or None),
        ("IsTruncated", truncated),
    ]


def list_objects(call: Call) -> Response:
    """Version 1: resumes by key. NextMarker is only given with a delimiter, as S3 does."""
    encoding, limit = encoding_type(call), page_size(call, "max-keys")
    prefix, delimiter, marker = call.arg("prefix") or "", call.arg("delimiter") or "", call.arg("marker") or ""
    page = _page(call, prefix, delimiter, marker, limit)
    place: Head = [("Marker", doc.written(marker, encoding))]
    if page.truncated and delimiter:
        place.append(("NextMarker", doc.written(page.next, encoding)))
    head = _head(call, encoding, prefix, delimiter, limit, place, page.truncated)
    return doc.document(
        list_result(
            "ListBucketResult",
            head,
            contents(page.entries, url=bool(encoding), owner=doc.names_of),
            common_prefixes(page.prefixes, url=bool(encoding)),
        )
    )


def list_objects_v2(call: Call) -> Response:
    """Version 2: resumes by token. Owners only when asked for."""
    encoding, limit = encoding_type(call), page_size(call, "max-keys")
    prefix, delimiter, start = call.arg("prefix") or "", call.arg("delimiter") or "", call.arg("start-after")
    given = call.arg("continuation-token")
    after = read_token(given) if given else start or ""  # an empty token is none, and is given back
    page = _page(call, prefix, delimiter, after, limit)
    place: Head = [
        ("ContinuationToken", given),
        ("NextContinuationToken", token(page.next) if page.truncated else None),
        ("StartAfter", doc.written(start, encoding) if start else None),
        ("KeyCount", len(page.entries) + len(page.prefixes)),
    ]
    head = _head(call, encoding, prefix, delimiter, limit, place, page.truncated)
    owners = (call.arg("fetch-owner") or "").lower() == "true"
    return doc.document(
        list_result(
            "ListBucketResult",
            head,
            contents(page.entries, url=bool(encoding), owner=doc.names_of if owners else None),
            common_prefixes(page.prefixes, url=bool(encoding)),
        )
    )


def list_object_versions(call: Call) -> Response:
    """All versions and delete markers, newest first within a key."""
    encoding, limit = encoding_type(call), page_size(call, "max-keys")
    prefix, delimiter = call.arg("prefix") or "", call.arg("delimiter") or ""
    key, version = call.arg("key-marker") or "", call.arg("version-id-marker")
    if version is not None and not key:
        raise invalid("version-id-marker", version, "A version-id marker cannot be specified without a key marker.")
    if version == "":
        raise invalid("version-id-marker", "", "A version-id marker cannot be empty.")
    if limit == 0:
        call.bucket_info()
        page = VersionPage((), (), False)
    else:
        try:
            page = call.objects.list_versions(call.bucket, prefix, delimiter, key, version or "", limit)
        except BadVersionId as e:
            raise invalid("version-id-marker", e.version_id, "Invalid version id specified") from e
    place: Head = [("KeyMarker", doc.written(key, encoding)), ("VersionIdMarker", version or "")]
    if page.truncated:
        place.append(("NextKeyMarker", doc.written(page.next_key, encoding)))
        place.append(("NextVersionIdMarker", page.next_version or None))
    head = _head(call, encoding, prefix, delimiter, limit, place, page.truncated)
    return doc.document(
        list_result(
            "ListVersionsResult",
            head,
            versions(page.entries, url=bool(encoding), owner=doc.names_of),
            common_prefixes(page.prefixes, url=bool(encoding)),
        )
    )


HANDLERS = {
    "ListObjects": list_objects,
    "ListObjectsV2": list_objects_v2,
    "ListObjectVersions": list_object_versions,
}
