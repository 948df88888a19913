"""AWS Signature Version 4, in the Authorization header and in the query (presigned URLs).

The credential scope's region is accepted as given; its service must be s3. Everything that the signature does not
cover and that could change the request's meaning (x-amz-* headers, Host) is refused.
"""

import hashlib
import hmac
import re
from collections.abc import Callable

import msgspec

from ostraka.limits import LIMITS, Limits
from ostraka.s3.auth import canonical, times
from ostraka.s3.auth.payload import UNSIGNED, payload_of
from ostraka.s3.auth.types import Authenticated, ChunkSigning, Identity, RequestView, Secret
from ostraka.s3.errors import S3Error
from ostraka.s3.query import Query

ALGORITHM = "AWS4-HMAC-SHA256"
ASYMMETRIC = "AWS4-ECDSA-P256-SHA256"
EXPIRES_DIGITS_MAX = 12
ACCESS_KEY_MAX = 256  # characters; nothing longer is looked up
SEEN_LENGTH_MAX = 512  # a longer Authorization header is parsed each time

_header = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/(\d{8})/([^/,]*)/([^/,]*)/aws4_request\s*,"
    r"\s*SignedHeaders=([^,\s=]+)\s*,\s*Signature=([0-9a-f]{64})\s*"
).fullmatch
_credential = re.compile(r"(.+)/(\d{8})/([^/]*)/([^/]*)/aws4_request").fullmatch
_is_signature = re.compile(r"[0-9a-f]{64}").fullmatch
_QUERY_NAMES = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)
_QUERY_AUTH = frozenset(n.lower() for n in _QUERY_NAMES) | {"x-amz-security-token", "x-amz-content-sha256"}

Lookup = Callable[[str], Secret | None]


class SigningKeys:
    """Derived keys by (secret, date, region), bounded. Only verified requests put one in: guesses cannot flush it."""

    def __init__(self, size_max: int = LIMITS.signing_keys_max) -> None:
        self._keys: dict[tuple[str, str, str], bytes] = {}
        self._size_max = size_max

    def get(self, secret: str, date: str, region: str) -> bytes:
        """The signing key, derived if it is not kept."""
        return self._keys.get((secret, date, region)) or derive_key(secret, date, region)

    def keep(self, secret: str, date: str, region: str, key: bytes) -> None:
        """Remember a key that verified a signature."""
        if (secret, date, region) not in self._keys:
            while len(self._keys) >= self._size_max:
                del self._keys[next(iter(self._keys))]
            self._keys[secret, date, region] = key


def derive_key(secret: str, date: str, region: str, service: str = "s3") -> bytes:
    """kSigning of Signature Version 4."""
    key = ("AWS4" + secret).encode("utf-8", "surrogateescape")
    for word in (date, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode("utf-8", "surrogateescape"), "sha256")
    return key


_keys = SigningKeys()


class _Terms(msgspec.Struct, frozen=True, gc=False):
    """What a signer's requests have in common: who signs, over which scope and headers."""

    access_key: str
    date: str
    region: str
    service: str
    signed: str
    names: tuple[str, ...]
    names_set: frozenset[str]
    scope: str


class _Claim(msgspec.Struct, frozen=True, gc=False):
    """What one request claims."""

    terms: _Terms
    signature: str
    timestamp: str


def _terms(access_key: str, date: str, region: str, service: str, signed: str) -> _Terms:
    names = tuple(signed.split(";"))
    scope = f"{date}/{region}/{service}/aws4_request"
    return _Terms(access_key, date, region, service, signed, names, frozenset(names), scope)


_seen: dict[str, _Terms] = {}  # Authorization up to its signature: a client repeats it all day


def verify_header(
    request: RequestView, authorization: str, lookup: Lookup, now: float, limits: Limits
) -> Authenticated:
    """Check a request that carries its signature in the Authorization header."""
    terms, signature = _parse_header(authorization)
    headers = canonical.fields(request.headers)
    if headers["authorization"] != authorization and [n for n, _ in request.headers].count("authorization") > 1:
        raise S3Error("AuthorizationHeaderMalformed", "There is more than one Authorization header")
    declared = headers.get("x-amz-content-sha256")
    if declared is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    payload, sha256 = payload_of(request.headers, declared)
    seconds, timestamp = _request_time(headers)
    claim = _Claim(terms, signature, timestamp)
    _check_scope(claim, "AuthorizationHeaderMalformed", "The authorization header is malformed; ")
    check_skew(seconds, timestamp, now, limits)
    secret, key = _verify(request, claim, headers, declared, lookup)
    check_token(secret, headers.get("x-amz-security-token"))
    return Authenticated(
        Identity(terms.access_key, secret.owner), payload, sha256,
        _chunks(claim, key) if not sha256 and payload.chunked else None, 4, False, terms.region,
    )  # fmt: skip


def verify_query(request: RequestView, query: Query, lookup: Lookup, now: float, limits: Limits) -> Authenticated:
    """Check a presigned URL."""
    found = _query_parameters(query)
    claim, seconds, expires = _parse_query(found, limits)
    if seconds - limits.clock_skew_seconds_max > now:
        fields = {"X-Amz-Date": claim.timestamp, "ServerTime": times.extended(now)}
        raise S3Error("AccessDenied", "Request is not valid yet", fields=fields)
    if seconds + expires < now:
        fields = {
            "X-Amz-Expires": str(expires),
            "Expires": times.extended(seconds + expires),
            "ServerTime": times.extended(now),
        }
        raise S3Error("AccessDenied", "Request has expired", fields=fields)
    headers = canonical.fields(request.headers)
    declared = headers.get("x-amz-content-sha256") or found.get("x-amz-content-sha256") or UNSIGNED
    payload, sha256 = payload_of(request.headers, declared)
    secret, key = _verify(request, claim, headers, declared, lookup, b"X-Amz-Signature")
    check_token(secret, found.get("x-amz-security-token") or headers.get("x-amz-security-token"))
    hoisted = {n: v for n, v in found.items() if n not in _QUERY_AUTH}
    return Authenticated(
        Identity(claim.terms.access_key, secret.owner), payload, sha256,
        _chunks(claim, key) if payload.chunked else None, 4, True, claim.terms.region, hoisted,
    )  # fmt: skip


def secret_of(access_key: str, lookup: Lookup) -> Secret:
    """What the lookup knows of an access key; it is only asked for what can be one. Raises InvalidAccessKeyId."""
    possible = len(access_key) <= ACCESS_KEY_MAX and (access_key.isascii() or is_unicode(access_key))
    secret = lookup(access_key) if possible else None
    if secret is None:
        raise S3Error("InvalidAccessKeyId", fields={"AWSAccessKeyId": access_key[:ACCESS_KEY_MAX]})
    return secret


def is_unicode(text: str) -> bool:
    """Whether text came from valid UTF-8 (the HTTP layer keeps other bytes as surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_token(secret: Secret, token: str | None) -> None:
    """A session token is demanded exactly where the access key has one."""
    if (token or "") == "" and not secret.token:
        return
    given = (token or "").encode("utf-8", "surrogateescape")
    if not secret.token or not hmac.compare_digest(given, secret.token.encode()):
        raise S3Error("InvalidToken")


def check_skew(seconds: float, text: str, now: float, limits: Limits) -> None:
    """A header-signed request must be from about now."""
    if abs(seconds - now) > limits.clock_skew_seconds_max:
        fields = {
            "RequestTime": text,
            "ServerTime": times.extended(now),
            "MaxAllowedSkewMilliseconds": str(int(limits.clock_skew_seconds_max * 1000)),
        }
        raise S3Error("RequestTimeTooSkewed", fields=fields)


def _chunks(claim: _Claim, key: bytes) -> ChunkSigning:
    return ChunkSigning(key, claim.timestamp, claim.terms.scope, claim.signature)


def _request_time(headers: dict[str, str]) -> tuple[float, str]:
    text = headers.get("x-amz-date")
    if text is not None:
        seconds = times.parse_basic(text)
        if seconds is not None:
            return seconds, text
    else:
        text = headers.get("date")
        seconds = times.parse_any(text) if text is not None else None
        if seconds is not None:
            return seconds, times.basic(seconds)
    raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def _check_scope(claim: _Claim, code: str, prefix: str) -> None:
    terms = claim.terms
    if terms.service != "s3":
        message = f'{prefix}incorrect service "{terms.service}". This endpoint belongs to "s3".'
        raise S3Error(code, message)
    if not claim.timestamp.startswith(terms.date):
        dates = f'"{terms.date}". This date is not the same as X-Amz-Date: "{claim.timestamp[:8]}".'
        raise S3Error(code, f"{prefix}Invalid credential date {dates}")


def _verify(
    request: RequestView,
    claim: _Claim,
    headers: dict[str, str],
    declared: str,
    lookup: Lookup,
    without: bytes = b"",
) -> tuple[Secret, bytes]:
    """The secret and signing key of a claim whose signature holds; raises otherwise."""
    terms = claim.terms
    secret = secret_of(terms.access_key, lookup)
    _check_signed(terms.names_set, headers)
    key = _keys.get(secret.secret_key, terms.date, terms.region)
    lines = canonical.signed_lines(terms.names, headers)
    path, query = canonical.path(request.raw_path), canonical.query(request.raw_query, without)
    tail = f"{terms.signed}\n{declared}"
    first = _sign(claim, key, f"{request.method}\n{path}\n{query}\n{lines}\n{tail}")
    if not hmac.compare_digest(first[0], claim.signature):
        # Some signers sign path and query as they send them, canonical or not; the decoded meaning is the same.
        sent = request.raw_path.decode("utf-8", "surrogateescape")
        asked = canonical.query_as_sent(request.raw_query, without)
        others = [f"{request.method}\n{sent}\n{asked}\n{lines}\n{tail}"]
        text = canonical.as_latin1(lines)
        if text is not None:  # some sign a header's text in UTF-8 and send it in Latin-1, which is how it is kept
            others.append(f"{request.method}\n{path}\n{query}\n{text}\n{tail}")
        if not any(hmac.compare_digest(_sign(claim, key, other)[0], claim.signature) for other in others):
            raise _mismatch(claim, first[1], first[2])
    _keys.keep(secret.secret_key, terms.date, terms.region, key)
    return secret, key


def _sign(claim: _Claim, key: bytes, request: str) -> tuple[str, str, str]:
    """(signature, string to sign, canonical request)."""
    hashed = hashlib.sha256(request.encode("utf-8", "surrogateescape")).hexdigest()
    to_sign = f"{ALGORITHM}\n{claim.timestamp}\n{claim.terms.scope}\n{hashed}"
    return hmac.digest(key, to_sign.encode("utf-8", "surrogateescape"), "sha256").hex(), to_sign, request


def _mismatch(claim: _Claim, to_sign: str, request: str) -> S3Error:
    return mismatch(claim.terms.access_key, claim.signature, to_sign, request)


def mismatch(access_key: str, signature: str, to_sign: str, request: str | None = None) -> S3Error:
    """SignatureDoesNotMatch with what was signed here, so that a client's author can compare."""
    fields = {
        "AWSAccessKeyId": access_key,
        "StringToSign": to_sign,
        "SignatureProvided": signature,
        "StringToSignBytes": _hex(to_sign),
    }
    if request is not None:
        fields |= {"CanonicalRequest": request, "CanonicalRequestBytes": _hex(request)}
    return S3Error("SignatureDoesNotMatch", fields=fields)


def _hex(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").hex(" ")


def _check_signed(signed: frozenset[str], headers: dict[str, str]) -> None:
    unsigned = [n for n in headers.keys() - signed if n.startswith("x-amz-")]
    if "host" not in signed:
        unsigned.append("host")
    if unsigned:
        message = "There were headers present in the request which were not signed"
        raise S3Error("AccessDenied", message, fields={"HeadersNotSigned": ", ".join(sorted(unsigned))})


def _parse_header(text: str) -> tuple[_Terms, str]:
    """The terms and the signature of an Authorization header."""
    head, _, signature = text.rpartition("Signature=")
    terms = _seen.get(head)
    if terms is not None and _is_signature(signature):
        return terms, signature
    m = _header(text)
    if m is None:
        return _parse_header_slowly(text)
    terms = _terms(m[1], m[2], m[3], m[4], m[5])
    if len(head) <= SEEN_LENGTH_MAX:
        if len(_seen) >= LIMITS.signing_keys_max:
            _seen.clear()
        _seen[head] = terms
    return terms, m[6]


def _malformed(message: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; {message}")


def _parse_header_slowly(text: str) -> tuple[_Terms, str]:
    """Any order of the three parts, and the exact complaint about what is wrong with them."""
    found: dict[str, str] = {}
    rest = text[len(ALGORITHM) :].strip()
    # An access key may contain a comma: a part begins where its name does.
    pieces = re.split(r"(?:^|[,\s])\s*(Credential|SignedHeaders|Signature)=", rest)
    if len(pieces) < 2 or pieces[0].strip():
        raise _malformed(
            "the authorization header requires three components: Credential, SignedHeaders, and Signature."
        )
    for name, value in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in found:
            raise _malformed(f"the {name} component is given more than once.")
        found[name] = value.strip().rstrip(",").rstrip()
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not found.get(name):
            raise _malformed(f"missing {name}.")
    m = _credential(found["Credential"])
    if m is None:
        raise _malformed('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
    if not _is_signature(found["Signature"]):
        raise _malformed("the Signature is not 64 lower-case hexadecimal digits.")
    if re.search(r"[\s,]", found["SignedHeaders"]):
        raise _malformed("the SignedHeaders are not separated by semicolons.")
    return _terms(m[1], m[2], m[3], m[4], found["SignedHeaders"]), found["Signature"]


def _query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _query_parameters(query: Query) -> dict[str, str]:
    """x-amz-* parameters by lower-case name; none of them may come twice."""
    found: dict[str, str] = {}
    for name, value in query:
        lower = name.lower()
        if lower.startswith("x-amz-"):
            if lower in found:
                raise _query_error(f"The query parameter {name} is given more than once")
            found[lower] = value
    return found


def _parse_query(found: dict[str, str], limits: Limits) -> tuple[_Claim, float, int]:
    if not all(found.get(n.lower()) for n in _QUERY_NAMES):
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    if found["x-amz-algorithm"] == ASYMMETRIC:
        raise S3Error("NotImplemented", "Asymmetric signatures (SigV4a) are not implemented")
    if found["x-amz-algorithm"] != ALGORITHM:
        raise _query_error(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    m = _credential(found["x-amz-credential"])
    if m is None:
        raise _query_error(
            "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "
            '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        )
    timestamp = found["x-amz-date"]
    seconds = times.parse_basic(timestamp)
    if seconds is None:
        raise _query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    signature = found["x-amz-signature"]
    claim = _Claim(_terms(m[1], m[2], m[3], m[4], found["x-amz-signedheaders"]), signature, timestamp)
    _check_scope(claim, "AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential parameter; ")
    expires = _expires(found["x-amz-expires"], limits)
    if not _is_signature(signature):
        raise _query_error("X-Amz-Signature must be 64 lower-case hexadecimal digits")
    return claim, seconds, expires


def _expires(text: str, limits: Limits) -> int:
    if not re.fullmatch(rf"-?[0-9]{{1,{EXPIRES_DIGITS_MAX}}}", text):
        raise _query_error("X-Amz-Expires should be a number")
    expires = int(text)
    if expires < 0:
        raise _query_error("X-Amz-Expires must be non-negative")
    if expires > limits.presign_seconds_max:
        most = limits.presign_seconds_max
        raise _query_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{most} seconds"
        )
    return expires
