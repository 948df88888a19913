"""Which bucket and key a request names: path style and virtual-host style, decoded exactly once.

Nothing is normalised: "//", "." and ".." are part of a key, "+" is a plus. It does not judge bucket names.
"""

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from ostraka.s3.errors import S3Error

_HEX = frozenset(b"0123456789abcdefABCDEF")


class Address(msgspec.Struct, frozen=True, gc=False):
    """``bucket`` None: the service itself; ``key`` None: the bucket. ``virtual``: the bucket came from the host."""

    bucket: str | None
    key: str | None
    virtual: bool = False


def decode_component(raw: bytes) -> str:
    """Percent-decode once; raises S3Error InvalidURI for a broken escape or bytes that are not UTF-8."""
    try:
        if b"%" not in raw:
            return raw.decode()
        for part in raw.split(b"%")[1:]:
            if len(part) < 2 or part[0] not in _HEX or part[1] not in _HEX:
                raise S3Error("InvalidURI")
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None


def host_bucket(host: str | None, domains: Sequence[str]) -> str | None:
    """The bucket in a virtual-host style Host header; None if it is one of the domains itself or another name.

    The longest domain wins, so that with example.org and s3.example.org the host s3.example.org is no bucket.
    """
    if not host or not domains:
        return None
    name = host.lower()
    if not name.endswith("]"):  # an IPv6 literal without a port
        name = name.rpartition(":")[0] or name if ":" in name else name
    name = name.rstrip(".")
    best = None
    for domain in domains:
        d = domain.lower().strip(".")
        if name == d:
            return None
        if name.endswith("." + d) and (best is None or len(d) > len(best)):
            best = d
    return name[: -len(best) - 1] if best else None


def resolve(host: str | None, raw_path: bytes, domains: Sequence[str] = ()) -> Address:
    """The address of a request. ``raw_path`` is the path as received, without the query.

    Raises S3Error InvalidURI for a path that does not start with "/" or cannot be decoded.
    """
    if raw_path == b"*":  # OPTIONS *
        return Address(None, None)
    if raw_path[:1] != b"/":
        raise S3Error("InvalidURI")
    bucket = host_bucket(host, domains)
    if bucket is not None:
        return Address(bucket, decode_component(raw_path[1:]) or None, True)
    if raw_path == b"/":
        return Address(None, None)
    first, _, rest = raw_path[1:].partition(b"/")
    return Address(decode_component(first), decode_component(rest) or None)


def copy_source(value: str) -> tuple[str, str, str | None]:
    """(bucket, key, version id or None) of an x-amz-copy-source header, given as ``[/]bucket/key[?versionId=...]``.

    Raises S3Error InvalidArgument if it has not that form.
    """
    raw = value.encode("utf-8", "surrogateescape").removeprefix(b"/")
    path, _, query = raw.partition(b"?versionId=")
    try:
        if b"/" not in path and b"%" in path:  # some clients escape the slash as well
            path = decode_component(path).removeprefix("/").encode()
            bucket, _, key = path.decode().partition("/")
        else:
            first, _, rest = path.partition(b"/")
            bucket, key = decode_component(first), decode_component(rest)
        version = decode_component(query) if query else None
    except S3Error:
        bucket = key = ""
        version = None
    if not bucket or not key:
        message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise S3Error("InvalidArgument", message, fields={"ArgumentName": "x-amz-copy-source", "ArgumentValue": value})
    return bucket, key, version
