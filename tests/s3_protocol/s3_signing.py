"""Requests signed by botocore, as our HTTP layer would hand them over."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
from botocore.auth import HmacV1Auth, HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ostraka.limits import LIMITS
from ostraka.s3.auth import Authenticated, Secret, authenticate

ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = 1_790_000_000.0
HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"
HOST = "127.0.0.1:9000"


class Headers:
    """What the protocol half asks of header fields: the first value of a name, and all in order."""

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self.items = items

    def get(self, name: str) -> str | None:
        return next((v for n, v in self.items if n == name), None)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)


@dataclass(frozen=True)
class Request:
    method: str
    raw_path: bytes
    raw_query: bytes
    headers: Headers

    def with_headers(self, **changes: str | None) -> "Request":
        """A copy with headers set or removed (None); underscores stand for dashes."""
        named = {n.replace("_", "-"): v for n, v in changes.items()}
        items = [(n, v) for n, v in self.headers if n not in named]
        items += [(n, v) for n, v in named.items() if v is not None]
        return replace(self, headers=Headers(items))

    def with_more(self, *items: tuple[str, str]) -> "Request":
        return replace(self, headers=Headers([*self.headers, *items]))


def signed(
    auth: type,
    method: str = "GET",
    target: str = "/bucket/key",
    headers: dict[str, str] | None = None,
    data: bytes = b"",
    *,
    at: float = NOW,
    token: str | None = None,
    region: str = "eu-central-1",
    expires: int = 3600,
    access: str = ACCESS,
    secret: str = SECRET,
) -> Request:
    """A request signed by one of botocore's signers at that time."""
    credentials = Credentials(access, secret, token)
    url = f"http://{HOST}{target}"
    path = urlsplit(url).path
    request = AWSRequest(method, url, headers=headers or {}, data=data, auth_path=path)
    when = datetime.datetime.fromtimestamp(at, datetime.UTC).replace(tzinfo=None)
    if auth is S3SigV4Auth:
        signer = auth(credentials, "s3", region)
    elif auth is S3SigV4QueryAuth:
        signer = auth(credentials, "s3", region, expires=expires)
    elif auth is HmacV1QueryAuth:
        signer = auth(credentials, expires=expires)
    else:
        signer = auth(credentials)
    with (
        mock.patch.object(botocore.auth, "get_current_datetime", return_value=when),
        mock.patch.object(botocore.auth.time, "time", return_value=at),
        mock.patch.object(botocore.auth, "formatdate", return_value=when.strftime(HTTP_DATE)),
    ):
        signer.add_auth(request)
    return received(request)


def received(request: AWSRequest) -> Request:
    parts = urlsplit(request.url)
    items = [("host", HOST)]
    for name, value in request.headers.items():
        text = value.decode() if isinstance(value, bytes) else value
        items.append((name.lower(), text))
    return Request(request.method, parts.path.encode(), parts.query.encode(), Headers(items))


def lookup(access: str) -> Secret | None:
    return Secret(SECRET, owner="me") if access == ACCESS else None


def check(request: Request, now: float = NOW, virtual_bucket: str | None = None) -> Authenticated:
    return authenticate(request, lookup, now, LIMITS, virtual_bucket=virtual_bucket)


__all__ = ["HmacV1Auth", "HmacV1QueryAuth", "S3SigV4Auth", "S3SigV4QueryAuth"]
