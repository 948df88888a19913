"""AWS Signature Version 4 as who asks makes it: in headers of requests, in the query of URLs that are handed on.

What is signed is what is sent: paths and queries are made canonical here. The half that verifies is the server's
(s3/auth/sigv4.py), and takes nothing from here, so that neither can hide a mistake of the other.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED: Final = "UNSIGNED-PAYLOAD"  # in place of the body's hash
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


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
    """What a signature is good for."""

    region: str
    service: str = "s3"


def path_of(text: str) -> str:
    """The canonical path, which is the one that is sent."""
    return quote(text, safe="/~")


def query_of(parameters: Iterable[tuple[str, str]]) -> str:
    """The canonical query, which is the one that is sent: in the order of names, then of values."""
    encoded = sorted([(quote(name, safe="~"), quote(value, safe="~")) for name, value in parameters])
    return "&".join([f"{name}={value}" for name, value in encoded])


def signed_headers(
    keys: Keys,
    scope: Scope,
    now: float,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload_sha256: str,
) -> dict[str, str]:
    """The headers (names in lower case, host among them) with those of the signature. ``path`` and ``query`` are as
    they are sent; ``payload_sha256`` is in hex, or UNSIGNED."""
    moment = _moment(int(now))
    signed = {**headers, "x-amz-date": moment, "x-amz-content-sha256": payload_sha256}
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    names = sorted(signed)
    lines = "".join([f"{name}:{' '.join(signed[name].split())}\n" for name in names])
    request = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload_sha256}"
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{_credential(scope, moment)}, SignedHeaders={';'.join(names)}, "
        f"Signature={_signature(keys, scope, moment, request)}"
    )
    return signed


def presigned_query(keys: Keys, scope: Scope, now: float, method: str, host: str, path: str, seconds: int) -> str:
    """The query of a URL that does this one thing without credentials."""
    moment = _moment(int(now))
    parameters = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{_credential(scope, moment)}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.session_token:
        parameters["X-Amz-Security-Token"] = keys.session_token
    query = query_of(parameters.items())
    request = f"{method}\n{path}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED}"
    return f"{query}&X-Amz-Signature={_signature(keys, scope, moment, request)}"


def _credential(scope: Scope, moment: str) -> str:
    return f"{moment[:8]}/{scope.region}/{scope.service}/aws4_request"


def _signature(keys: Keys, scope: Scope, moment: str, request: str) -> str:
    text = f"{_ALGORITHM}\n{moment}\n{_credential(scope, moment)}\n{hashlib.sha256(request.encode()).hexdigest()}"
    return hmac.digest(_key(keys.secret_key, moment[:8], scope), text.encode(), "sha256").hex()


@lru_cache(16)
def _moment(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


@lru_cache(16)
def _key(secret_key: str, day: str, scope: Scope) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
