"""Requests that are signed before the clock runs: header-signed SigV4, one head after the other.

Written for speed, not for generality: keys are plain ASCII, so that the canonical path is the path itself.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
ACCESS, SECRET, REGION = "benchaccesskey", "benchsecretkey", "us-east-1"


class Signer:
    """Signs for one host, with the credentials of the bench unless others are given."""

    def __init__(self, host: str, port: int, access: str = ACCESS, secret: str = SECRET) -> None:
        self.host = f"{host}:{port}"
        self._access = access
        self._secret = secret

    def head(self, method: str, path: str, query: str = "", *, length: int | None = None, digest: str = EMPTY) -> bytes:
        """A whole request head. ``query`` must be sorted and encoded already; ``length`` is Content-Length."""
        return next(self.heads(method, [path], query, length=length, digest=digest))

    def heads(
        self, method: str, paths: Iterable[str], query: str = "", *, length: int | None = None, digest: str = EMPTY
    ) -> Iterator[bytes]:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        key = f"AWS4{self._secret}".encode()
        for word in (stamp[:8], REGION, "s3", "aws4_request"):
            key = hmac.digest(key, word.encode(), "sha256")
        fixed = f"host:{self.host}\nx-amz-content-sha256:{digest}\nx-amz-date:{stamp}\n\n"
        fixed += f"host;x-amz-content-sha256;x-amz-date\n{digest}"
        credential = f"AWS4-HMAC-SHA256 Credential={self._access}/{scope}, "
        credential += "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="
        tail = f"\r\nContent-Length: {length}\r\n\r\n" if length is not None else "\r\n\r\n"
        for path in paths:
            canonical = f"{method}\n{path}\n{query}\n{fixed}".encode()
            text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
            signature = hmac.digest(key, text.encode(), "sha256").hex()
            target = f"{path}?{query}" if query else path
            yield (
                f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\nx-amz-date: {stamp}\r\n"
                f"x-amz-content-sha256: {digest}\r\nAuthorization: {credential}{signature}{tail}"
            ).encode()


def write_heads(into: Path, heads: Iterable[bytes]) -> Path:
    """A file as requests.lua reads it."""
    with into.open("wb") as file:
        file.writelines(heads)
    return into
