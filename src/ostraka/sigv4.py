"""Signature Version 4, as a client makes it: in a header for requests, in the query for URLs that are handed on."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs. The secret shows in no representation."""

    access_key: str
    secret_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Keys({self.access_key!r}, ...)"


@dataclass(frozen=True, slots=True)
class Scope:
    region: str
    service: str = "s3"


def query_string(parameters: Mapping[str, str]) -> str:
    """In canonical form, which is also how it is sent."""
    return "&".join([f"{quote(n, safe='~')}={quote(v, safe='~')}" for n, v in sorted(parameters.items())])


def signed_headers(
    keys: Keys,
    scope: Scope,
    now: float,
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload_sha256: str,
) -> dict[str, str]:
    """The headers (names in lower case) with those of the signature. ``path`` and ``query`` are as they are sent."""
    moment = _moment(int(now))
    signed = {**headers, "host": host, "x-amz-date": moment, "x-amz-content-sha256": payload_sha256}
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    names = sorted(signed)
    lines = "".join([f"{name}:{signed[name].strip()}\n" for name in names])
    request = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload_sha256}"
    credential = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{credential}, SignedHeaders={';'.join(names)}, "
        f"Signature={_signature(keys, scope, moment, request)}"
    )
    del signed["host"]  # the connection says it
    return signed


def presigned_query(keys: Keys, scope: Scope, now: float, method: str, host: str, path: str, seconds: int) -> str:
    """The query of a URL that does this one thing without credentials."""
    moment = _moment(int(now))
    parameters = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{moment[:8]}/{scope.region}/{scope.service}/aws4_request",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.session_token:
        parameters["X-Amz-Security-Token"] = keys.session_token
    query = query_string(parameters)
    request = f"{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    return f"{query}&X-Amz-Signature={_signature(keys, scope, moment, request)}"


def _signature(keys: Keys, scope: Scope, moment: str, request: str) -> str:
    credential = f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = f"{_ALGORITHM}\n{moment}\n{credential}\n{hashlib.sha256(request.encode()).hexdigest()}"
    return hmac.new(_key(keys.secret_key, moment[:8], scope), text.encode(), "sha256").hexdigest()


@lru_cache(16)
def _moment(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


@lru_cache(16)
def _key(secret_key: str, day: str, scope: Scope) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
