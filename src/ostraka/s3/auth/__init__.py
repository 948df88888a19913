"""Who sent this request: signatures of version 4 and 2, in the Authorization header or in the query.

``authenticate`` is all that the door needs. It reads no clock and no state: time and the lookup of secrets are given.
A request that carries no credentials at all comes back with identity None; whether that is allowed is the rules'
decision. What carries credentials must prove them.
"""

from ostraka.limits import Limits
from ostraka.s3.auth import sigv2, sigv4
from ostraka.s3.auth.payload import payload_of
from ostraka.s3.auth.sigv4 import Lookup
from ostraka.s3.auth.types import (
    Authenticated,
    ChunkSigning,
    Headers,
    Identity,
    Payload,
    RequestView,
    Secret,
)
from ostraka.s3.errors import S3Error
from ostraka.s3.query import Query, parse_query

__all__ = [
    "Authenticated",
    "ChunkSigning",
    "Headers",
    "Identity",
    "Lookup",
    "Payload",
    "RequestView",
    "Secret",
    "authenticate",
]

_QUERY_V4 = frozenset(("x-amz-algorithm", "x-amz-credential", "x-amz-signature"))
_QUERY_V2 = frozenset(("AWSAccessKeyId", "Signature"))


def authenticate(
    request: RequestView,
    lookup: Lookup,
    now: float,
    limits: Limits,
    *,
    virtual_bucket: str | None = None,
    query: Query | None = None,
) -> Authenticated:
    """Verify the request's signature, if it has one.

    ``now`` is POSIX seconds; ``virtual_bucket`` the bucket that came from the Host header (version 2 signs it);
    ``query`` the parsed query, if the caller has it already. Raises S3Error with the code that AWS gives.
    """
    authorization = request.headers.get("authorization")
    version = 0
    if request.raw_query:
        if query is None:
            query = parse_query(request.raw_query)
        version = _query_version(query)
    if not authorization:  # an empty one carries nothing
        if version == 4 and query is not None:
            return sigv4.verify_query(request, query, lookup, now, limits)
        if version == 2 and query is not None:
            return sigv2.verify_query(request, query, virtual_bucket, lookup, now)
        payload, sha256 = payload_of(request.headers, request.headers.get("x-amz-content-sha256"))
        return Authenticated(None, payload, sha256)
    if version:
        raise _argument(
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
            "parameter or the Authorization header should be specified"
        )
    if authorization.startswith(sigv4.ALGORITHM):
        return sigv4.verify_header(request, authorization, lookup, now, limits)
    if authorization.startswith("AWS "):
        return sigv2.verify_header(request, authorization, virtual_bucket, lookup, now, limits)
    if authorization.startswith(sigv4.ASYMMETRIC):
        raise S3Error("NotImplemented", "Asymmetric signatures (SigV4a) are not implemented")
    raise _argument("Unsupported Authorization Type")


def _argument(message: str) -> S3Error:
    # The value is a credential: it is not repeated in the answer.
    return S3Error("InvalidArgument", message, fields={"ArgumentName": "Authorization"})


def _query_version(query: Query) -> int:
    for name, _ in query:
        if name in _QUERY_V2:
            return 2
        if name[:1] in "xX" and name.lower() in _QUERY_V4:
            return 4
    return 0
