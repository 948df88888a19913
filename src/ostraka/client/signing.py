"""Requests are signed: the client's half of AWS Signature Version 4; the server's is s3/auth/sigv4.py."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from ostraka.host import Clock
from ostraka.s3.auth import times
from ostraka.s3.auth.payload import UNSIGNED
from ostraka.s3.auth.sigv4 import ALGORITHM, SigningKeys

__all__ = ["UNSIGNED", "Credentials", "Signer", "path_of", "query_of"]


class Credentials(msgspec.Struct, frozen=True):
    """Who signs. ``token``: of a session, or ""."""

    access_key: str
    secret_key: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r})"


def path_of(bucket: str, key: str) -> str:
    """The canonical path, which is the one that is sent: of an object, of a bucket (key ""), of all (both)."""
    return quote(f"/{bucket}/{key}" if key else f"/{bucket}", safe="/~")


def query_of(parameters: Iterable[tuple[str, str]]) -> str:
    """The canonical query, which is the one that is sent."""
    return "&".join(sorted(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in parameters))


class Signer:
    """Signs with one key pair, in one region."""

    def __init__(self, credentials: Credentials, region: str, clock: Clock) -> None:
        self._credentials = credentials
        self._region = region
        self._clock = clock
        self._keys = SigningKeys()

    def sign(self, method: str, path: str, query: str, headers: Mapping[str, str], payload: str) -> dict[str, str]:
        """The headers (lower case names, host among them) with what makes them signed. ``payload``: the SHA-256 of the
        body in hex, or `UNSIGNED`."""
        who, timestamp = self._credentials, times.basic(self._clock.time())
        date = timestamp[:8]
        signed = {**headers, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
        if who.token:
            signed["x-amz-security-token"] = who.token
        names = sorted(signed)
        lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
        request = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload}"
        scope = f"{date}/{self._region}/s3/aws4_request"
        text = f"{ALGORITHM}\n{timestamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = self._keys.get(who.secret_key, date, self._region)
        self._keys.keep(who.secret_key, date, self._region, key)
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        signed["authorization"] = (
            f"{ALGORITHM} Credential={who.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return signed
