"""S3's checksum algorithms: incremental, in C with the interpreter lock released; and how parts' checksums combine.

The list of algorithms is the service model's; a test fails when the model names one that is not here. Values on the
wire are base64 of the big-endian digest.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import xxhash
from isal import isal_zlib

from ostraka.host import Buffer
from ostraka.s3.errors import S3Error

COMPOSITE = "COMPOSITE"
FULL_OBJECT = "FULL_OBJECT"
DEFAULT = "CRC64NVME"  # added when the client sends none


@cache
def crt() -> Any:
    """awscrt's checksums. Loaded with the first call: with them comes a TLS library, whose collecting of entropy and
    tests of itself take 40 ms, a fifth of what the server needs to start."""
    from awscrt import checksums

    return checksums


class Hash(Protocol):
    """An incremental checksum."""

    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc:
    """A CRC as an incremental hash; its digest is big-endian."""

    __slots__ = ("_function", "_size", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm. ``combine(a, b, length of b)`` exists for CRCs; ``types`` are those S3 allows for multipart."""

    name: str  # as in x-amz-checksum-algorithm
    size: int  # of the digest in bytes
    new: Callable[[], Hash]
    types: tuple[str, ...]  # the first is the default
    combine: Callable[[int, int, int], int] | None = None

    @property
    def header(self) -> str:
        """``x-amz-checksum-crc32c``."""
        return f"x-amz-checksum-{self.name.lower()}"

    @property
    def member(self) -> str:
        """``ChecksumCRC32C``, its name in XML."""
        return f"Checksum{self.name}"

    def decode(self, text: str) -> bytes:
        """The digest from its base64; raises S3Error InvalidRequest if it is not one of this algorithm."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != self.size:
            raise S3Error("InvalidRequest", f"Value for {self.header} header is invalid.")
        return raw


def _md5() -> Hash:
    return hashlib.md5(usedforsecurity=False)


def _sha1() -> Hash:
    return hashlib.sha1(usedforsecurity=False)


def _combine(name: str) -> Callable[[int, int, int], int]:
    return lambda first, second, size: int(getattr(crt(), name)(first, second, size))


_BOTH = (COMPOSITE, FULL_OBJECT)
_PARTS = (COMPOSITE,)

ALGORITHMS: dict[str, Algorithm] = {
    a.name: a
    for a in (
        Algorithm("CRC32", 4, lambda: Crc(isal_zlib.crc32, 4), _BOTH, _combine("combine_crc32")),
        Algorithm("CRC32C", 4, lambda: Crc(crt().crc32c, 4), _BOTH, _combine("combine_crc32c")),
        Algorithm("CRC64NVME", 8, lambda: Crc(crt().crc64nvme, 8), (FULL_OBJECT,), _combine("combine_crc64nvme")),
        Algorithm("SHA1", 20, _sha1, _PARTS),
        Algorithm("SHA256", 32, hashlib.sha256, _PARTS),
        Algorithm("SHA512", 64, hashlib.sha512, _PARTS),
        Algorithm("MD5", 16, _md5, _PARTS),
        Algorithm("XXHASH64", 8, xxhash.xxh64, _PARTS),
        Algorithm("XXHASH3", 8, xxhash.xxh3_64, _PARTS),
        Algorithm("XXHASH128", 16, xxhash.xxh3_128, _PARTS),
    )
}
BY_HEADER: dict[str, Algorithm] = {a.header: a for a in ALGORITHMS.values()}


def encode(digest: bytes) -> str:
    """Base64, as on the wire."""
    return base64.b64encode(digest).decode("ascii")


def checksum(name: str, data: Buffer) -> str:
    """The base64 checksum of one buffer."""
    h = ALGORITHMS[name].new()
    h.update(data)
    return encode(h.digest())


def composite(name: str, parts: Sequence[str]) -> str:
    """The checksum of the parts' checksums (base64 each), with ``-N``."""
    algorithm = ALGORITHMS[name]
    h = algorithm.new()
    for part in parts:
        h.update(base64.b64decode(part))
    return f"{encode(h.digest())}-{len(parts)}"


def full_object(name: str, parts: Sequence[tuple[str, int]]) -> str:
    """The checksum of the concatenation of parts given as (base64 checksum, size in bytes); CRCs only."""
    algorithm = ALGORITHMS[name]
    if algorithm.combine is None:
        raise ValueError(f"{name} cannot be combined")
    value = 0
    for i, (part, size) in enumerate(parts):
        crc = int.from_bytes(base64.b64decode(part), "big")
        value = algorithm.combine(value, crc, size) if i else crc
    return encode(value.to_bytes(algorithm.size, "big"))


def assemble(name: str, kind: str, parts: Sequence[tuple[str, int]]) -> str:
    """A multipart object's checksum of that type from its parts' (base64 checksum, size)."""
    if kind == FULL_OBJECT:
        return full_object(name, parts)
    return composite(name, [part for part, _ in parts])


def multipart_choice(algorithm: str | None, kind: str | None) -> tuple[str, str]:
    """(algorithm, type) for CreateMultipartUpload's x-amz-checksum-algorithm and x-amz-checksum-type.

    Without an algorithm S3 keeps CRC64NVME of the full object. Raises S3Error InvalidRequest for what S3 refuses.
    """
    if not algorithm:
        if kind:
            message = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            raise S3Error("InvalidRequest", message)
        return DEFAULT, FULL_OBJECT
    known = ALGORITHMS.get(algorithm.upper())
    if known is None:
        names = ", ".join(ALGORITHMS)
        raise S3Error("InvalidRequest", f"Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{names}]")  # fmt: skip  # noqa: E501
    if not kind:
        return known.name, known.types[0]
    if kind.upper() not in _BOTH:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if kind.upper() not in known.types:
        message = f"The {kind.upper()} checksum type cannot be used with the {known.name.lower()} checksum algorithm."
        raise S3Error("InvalidRequest", message)
    return known.name, kind.upper()
