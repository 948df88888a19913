"""AWS Signature Version 2, in the Authorization header and in the query.

boto3 makes version 2 URLs for a custom endpoint unless told otherwise. The signature covers every x-amz-* header by
its construction, and the sub-resources of the query that are listed here; the rest of the query it does not cover.
"""

import base64
import hashlib
import hmac
import re
from urllib.parse import unquote_to_bytes

from ostraka.limits import Limits
from ostraka.s3.auth import times
from ostraka.s3.auth.payload import payload_of
from ostraka.s3.auth.sigv4 import Lookup, check_skew, check_token, mismatch, secret_of
from ostraka.s3.auth.types import Authenticated, Headers, Identity, Payload, RequestView, Secret
from ostraka.s3.errors import S3Error
from ostraka.s3.model import OPERATIONS
from ostraka.s3.query import Query, first

# Parameters of the query that are part of the canonical resource.
_RESOURCES = frozenset(
    b"accelerate acl analytics cors defaultObjectAcl delete inventory lifecycle location logging metrics notification "
    b"object-lock partNumber policy replication requestPayment response-cache-control response-content-disposition "
    b"response-content-encoding response-content-language response-content-type response-expires restore select "
    b"select-type storageClass tagging torrent uploadId uploads versionId versioning versions website".split()
)

_UNCOVERED = (
    frozenset(marker.partition("=")[0] for op in OPERATIONS.values() for marker in op.markers)
    - frozenset(name.decode() for name in _RESOURCES)
    - {"list-type"}
)


def verify_header(
    request: RequestView, authorization: str, virtual_bucket: str | None, lookup: Lookup, now: float, limits: Limits
) -> Authenticated:
    """Check ``Authorization: AWS AccessKey:Signature``."""
    if [name for name, _ in request.headers].count("authorization") > 1:
        raise S3Error("AuthorizationHeaderMalformed", "There is more than one Authorization header")
    access_key, _, signature = authorization[4:].strip().rpartition(":")
    if not access_key or not signature:
        message = "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature"
        raise S3Error("InvalidArgument", message, fields={"ArgumentName": "Authorization"})
    amz_date = request.headers.get("x-amz-date")
    date = request.headers.get("date")
    text = amz_date if amz_date is not None else date
    seconds = times.parse_any(text) if text is not None else None
    if text is None or seconds is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    check_skew(seconds, text, now, limits)
    line = "" if amz_date is not None else (date or "").strip()
    secret = _verify(request, access_key, signature, line, _amz(request.headers), virtual_bucket, lookup)
    check_token(secret, request.headers.get("x-amz-security-token"))
    payload, sha256 = _payload(request.headers)
    return Authenticated(Identity(access_key, secret.owner), payload, sha256, None, 2, False)


def verify_query(
    request: RequestView, query: Query, virtual_bucket: str | None, lookup: Lookup, now: float
) -> Authenticated:
    """Check ``?AWSAccessKeyId=...&Expires=...&Signature=...``."""
    found: dict[str, str] = {}
    for name, value in query:
        if name in ("AWSAccessKeyId", "Expires", "Signature"):
            if name in found:
                raise S3Error("InvalidArgument", f"The query parameter {name} is given more than once")
            found[name] = value
    if len(found) < 3 or not all(found.values()):
        message = "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"
        raise S3Error("AccessDenied", message)
    expires = found["Expires"]
    if not re.fullmatch(r"[0-9]{1,18}", expires):
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires}")
    if int(expires) < now:
        fields = {"Expires": times.extended(int(expires)), "ServerTime": times.extended(now)}
        raise S3Error("AccessDenied", "Request has expired", fields=fields)
    if any(n in _UNCOVERED for n, _ in query):  # else the holder of a URL could turn it into another operation
        raise S3Error("AccessDenied", "AWS Signature Version 2 does not cover this sub-resource; use version 4")
    hoisted = {n.lower(): v for n, v in query if n.lower().startswith("x-amz-")}
    amz = hoisted | _amz(request.headers)
    access_key, signature = found["AWSAccessKeyId"], found["Signature"].strip()
    secret = _verify(request, access_key, signature, expires, amz, virtual_bucket, lookup)
    check_token(secret, request.headers.get("x-amz-security-token") or first(query, "x-amz-security-token"))
    hoisted.pop("x-amz-security-token", None)
    payload, sha256 = _payload(request.headers)
    return Authenticated(Identity(access_key, secret.owner), payload, sha256, None, 2, True, "", hoisted)


def _payload(headers: Headers) -> tuple[Payload, str]:
    """Version 2 does not sign the body; chunk signatures need a version 4 seed."""
    payload, sha256 = payload_of(headers, headers.get("x-amz-content-sha256"))
    if payload in (Payload.CHUNKED_SIGNED, Payload.CHUNKED_SIGNED_TRAILER):
        raise S3Error("InvalidRequest", "Signed chunks require AWS Signature Version 4")
    return payload, sha256


def _amz(headers: Headers) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in headers:
        if name.startswith("x-amz-"):
            value = value.strip()
            out[name] = f"{out[name]},{value}" if name in out else value
    return out


def _resource(request: RequestView, virtual_bucket: str | None) -> bytes:
    raw = request.raw_path
    if virtual_bucket is not None:
        raw = b"/" + virtual_bucket.encode() + raw
    pairs = []
    for piece in request.raw_query.split(b"&"):
        name, equals, value = piece.partition(b"=")
        if name in _RESOURCES:
            pairs.append((name, equals, unquote_to_bytes(value)))
    if not pairs:
        return raw
    pairs.sort(key=lambda p: p[0])
    return raw + b"?" + b"&".join([n + e + v for n, e, v in pairs])


def _verify(
    request: RequestView,
    access_key: str,
    signature: str,
    date: str,
    amz: dict[str, str],
    virtual_bucket: str | None,
    lookup: Lookup,
) -> Secret:
    secret = secret_of(access_key, lookup)
    get = request.headers.get
    lines = [request.method, (get("content-md5") or "").strip(), (get("content-type") or "").strip(), date]
    lines += [f"{n}:{amz[n]}" for n in sorted(amz)]
    to_sign = "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n" + _resource(request, virtual_bucket)
    key = secret.secret_key.encode("utf-8", "surrogateescape")
    right = base64.b64encode(hmac.digest(key, to_sign, hashlib.sha1))
    if not hmac.compare_digest(right, signature.encode("utf-8", "surrogateescape")):
        raise mismatch(access_key, signature, to_sign.decode("utf-8", "surrogateescape"))
    return secret
