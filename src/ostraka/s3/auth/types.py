"""What authentication takes and gives. Secrets are never part of a repr."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Protocol

import msgspec


class Headers(Protocol):
    """Header fields: names lower case, values decoded as UTF-8 with surrogateescape, duplicates kept in iteration."""

    def get(self, name: str, /) -> str | None: ...

    def __iter__(self) -> Iterator[tuple[str, str]]: ...


class RequestView(Protocol):
    """What a signature covers. ``raw_path`` and ``raw_query`` are as received, percent-encoded."""

    @property
    def method(self) -> str: ...
    @property
    def raw_path(self) -> bytes: ...
    @property
    def raw_query(self) -> bytes: ...
    @property
    def headers(self) -> Headers: ...


class Secret(msgspec.Struct, frozen=True):
    """What an access key's lookup gives. ``owner`` is the caller's own (an account) and comes back in Identity."""

    secret_key: str
    owner: Any = None
    token: str = ""  # the session token that must come along, or ""

    def __repr__(self) -> str:
        return f"Secret(owner={self.owner!r})"


class Identity(msgspec.Struct, frozen=True):
    """Who signed."""

    access_key: str
    owner: Any = None


class Payload(Enum):
    """How the body is protected, and whether it is framed as aws-chunked."""

    UNSIGNED = "UNSIGNED-PAYLOAD"
    SIGNED = "SHA256"  # Authenticated.payload_sha256 says what it must hash to
    CHUNKED_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    CHUNKED_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    CHUNKED_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def chunked(self) -> bool:
        return self in (Payload.CHUNKED_SIGNED, Payload.CHUNKED_SIGNED_TRAILER, Payload.CHUNKED_UNSIGNED_TRAILER)


class ChunkSigning(msgspec.Struct, frozen=True):
    """What the signatures of an aws-chunked body's chunks are computed with."""

    key: bytes
    timestamp: str  # 20130524T000000Z
    scope: str  # 20130524/us-east-1/s3/aws4_request
    seed: str  # the request's own signature: the first chunk's predecessor

    def __repr__(self) -> str:
        return f"ChunkSigning({self.timestamp}, {self.scope})"


class Authenticated(msgspec.Struct, frozen=True):
    """The outcome. ``identity`` None: nobody signed. ``version`` is 4, 2 or 0.

    ``hoisted``: x-amz-* parameters of a presigned URL that stand for headers of that name (lower case); a header
    that is present wins.
    """

    identity: Identity | None
    payload: Payload
    payload_sha256: str = ""  # lower-case hex, with Payload.SIGNED
    chunks: ChunkSigning | None = None
    version: int = 0
    presigned: bool = False
    region: str = ""
    hoisted: Mapping[str, str] = {}
