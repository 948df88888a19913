"""One request as an operation sees it: who asks what of which bucket and key, and what the door can do."""

import functools
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ostraka.host import Host
from ostraka.http import Headers, Request, Response
from ostraka.limits import Limits
from ostraka.objects.types import Account, Bucket, ObjectInfo, Objects
from ostraka.s3.auth import Authenticated
from ostraka.s3.errors import S3Error
from ostraka.s3.query import Query

INT_MAX = 2**31 - 1
PART_MAX = 10_000
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")


@dataclass(frozen=True, slots=True)
class Config:
    """What the door is told: its region, and the domains of virtual-host style."""

    region: str = "us-east-1"
    domains: Sequence[str] = ()
    sse_c_over_http: bool = False  # customers' keys are taken over plain HTTP from anywhere: a proxy in front ends TLS


@dataclass(frozen=True, slots=True)
class Door:
    """What every operation needs."""

    objects: Objects
    limits: Limits
    host: Host
    config: Config


class Call:
    """A request that is signed, routed and allowed. ``bucket`` and ``key`` are "" where it names none."""

    __slots__ = ("account", "auth", "bucket", "door", "framing", "headers", "key", "operation", "query", "request")

    def __init__(
        self,
        door: Door,
        request: Request,
        auth: Authenticated,
        headers: Headers,
        account: Account,
        operation: str,
        bucket: str,
        key: str,
        query: Query,
    ) -> None:
        self.door = door
        self.request = request
        self.auth = auth
        self.headers = headers  # those of the request, and what a presigned URL says instead of a header
        self.account = account
        self.operation = operation
        self.bucket = bucket
        self.key = key
        self.query = query

    @property
    def objects(self) -> Objects:
        return self.door.objects

    @property
    def limits(self) -> Limits:
        return self.door.limits

    def arg(self, name: str) -> str | None:
        """The first value of a query parameter, or None."""
        for n, v in self.query:
            if n == name:
                return v
        return None

    def version_id(self) -> str | None:
        """The versionId parameter. Raises InvalidArgument when it is there and empty."""
        if not self.query:
            return None
        version = self.arg("versionId")
        if version == "":
            raise invalid("versionId", "", "Version id cannot be the empty string")
        return version

    def number(self, name: str, default: int, low: int, high: int = INT_MAX) -> int:
        """A whole number among the parameters. Raises InvalidArgument when it is none or out of [low, high]."""
        text = self.arg(name)
        if text is None or text == "":
            return default
        return parse_number(name, text, low, high)

    def bucket_info(self) -> Bucket:
        """The bucket; raises Absent."""
        return self.door.objects.bucket(self.bucket)


Handler = Callable[[Call], Response | Awaitable[Response]]  # at once, where nothing has to be waited for


def parse_number(name: str, text: str, low: int, high: int) -> int:
    """A whole number in decimal digits within [low, high]; raises InvalidArgument."""
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19 or int(digits) > max(high, INT_MAX):
        raise invalid(name, text, f"Provided {name} not an integer or within integer range")
    number = int(text)
    if not low <= number <= high:
        raise invalid(name, text, f"Argument {name} must be an integer between {low} and {high}")
    return number


def invalid(name: str, value: str, message: str | None = None) -> S3Error:
    """InvalidArgument about a named argument."""
    return S3Error("InvalidArgument", message, fields={"ArgumentName": name, "ArgumentValue": value})


@functools.lru_cache(4096)
def canonical_id(name: str) -> str:
    """The canonical user id of an account: 64 hex digits that follow from its name."""
    return hashlib.sha256(b"ostraka account\0" + name.encode()).hexdigest()


@functools.lru_cache(4096)
def account_number(name: str) -> str:
    """The 12-digit number of an account, for x-amz-expected-bucket-owner."""
    return str(int.from_bytes(hashlib.sha256(b"ostraka account number\0" + name.encode()).digest()[:8], "big")
               % 10**12).zfill(12)  # fmt: skip


def is_owner(expected: str, owner: str) -> bool:
    """Whether x-amz-expected-bucket-owner means this account: by number, by canonical id or by name."""
    return expected in (account_number(owner), canonical_id(owner), owner)


def valid_bucket_name(name: str) -> bool:
    """S3's rules for general purpose buckets."""
    if not _BUCKET_NAME.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
        return False
    return not name.startswith(("xn--", "sthree-", "amzn-s3-demo-")) and not name.endswith(
        ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
    )


def empty(status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """A response without a body."""
    return Response(status, headers)


def version_headers(info: ObjectInfo) -> list[tuple[str, str]]:
    """x-amz-version-id, where the bucket was ever versioned."""
    return [("x-amz-version-id", info.version_id)] if info.versioned else []
