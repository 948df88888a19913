"""What a body must hash to, and the one pass that computes it: MD5 for the ETag, S3 checksums, payload signatures.

``Expected`` is read from the request's headers before the body. ``Digests`` is fed the decoded body in order, in a
worker thread if the caller likes.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ostraka.host import Buffer
from ostraka.objects.types import Digested, PartInfo
from ostraka.s3.checksums import ALGORITHMS, BY_HEADER, DEFAULT, FULL_OBJECT, Algorithm, assemble, encode
from ostraka.s3.errors import BodyError, S3Error

MD5_SIZE = 16


class Headers(Protocol):
    def get(self, name: str, /) -> str | None: ...


class Verifier(Protocol):
    """Checks the payload's own signature as the bytes stream; ``finish`` raises if it does not hold."""

    def update(self, data: Buffer, /) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request says of its body. ``trailer``: the algorithm whose value follows the body."""

    md5: bytes | None = None
    algorithm: Algorithm | None = None
    value: bytes | None = None
    trailer: Algorithm | None = None

    @property
    def declared(self) -> bool:
        """Whether there is anything that satisfies an operation that demands a checksum."""
        return self.md5 is not None or self.value is not None or self.trailer is not None


def expected_of(headers: Headers) -> Expected:
    """Read Content-MD5, x-amz-checksum-*, x-amz-sdk-checksum-algorithm and x-amz-trailer.

    Raises S3Error InvalidDigest or InvalidRequest.
    """
    get = headers.get
    md5 = _content_md5(get("content-md5"))
    found = [(a, v) for name, a in BY_HEADER.items() if (v := get(name)) is not None]
    trailer = _trailer(get("x-amz-trailer"))
    if len(found) + (trailer is not None) > 1:
        message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        raise S3Error("InvalidRequest", message)
    algorithm, value = (found[0][0], found[0][0].decode(found[0][1])) if found else (None, None)
    named, present = get("x-amz-sdk-checksum-algorithm"), algorithm or trailer
    if named and named.upper() == "MD5" and present is None and md5 is not None:
        present = ALGORITHMS["MD5"]  # the JavaScript SDK sends its MD5 checksum as Content-MD5
    _check_sdk(named, present)
    return Expected(md5, algorithm, value, trailer)


def _content_md5(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != MD5_SIZE:
        raise S3Error("InvalidDigest", fields={"Content-MD5": text})
    return raw


def _trailer(text: str | None) -> Algorithm | None:
    if text is None:
        return None
    names = [n.strip().lower() for n in text.split(",") if n.strip()]
    algorithms = [BY_HEADER.get(n) for n in names]
    if len(algorithms) != 1 or algorithms[0] is None:
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    return algorithms[0]


def _check_sdk(text: str | None, present: Algorithm | None) -> None:
    if not text:
        return
    known = ALGORITHMS.get(text.strip().upper())
    if known is None:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if present is None:
        message = (
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found."
        )
        raise S3Error("InvalidRequest", message)
    if present is not known:
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")


def wrong_algorithm(wanted: str, given: Algorithm | None) -> S3Error:
    """The refusal of a part whose checksum is not of its upload's algorithm, or that has none."""
    named = given.name.lower() if given is not None else "null"
    return S3Error(
        "InvalidRequest",
        f"Checksum Type mismatch occurred, expected checksum Type: {wanted.lower()}, actual checksum Type: {named}",
    )


class Digests:
    """Implements ``objects.types.Digest`` for one body."""

    __slots__ = ("_algorithm", "_expected", "_hash", "_md5", "_payload", "_trailers", "size")

    def __init__(
        self,
        expected: Expected,
        payload: Verifier | None = None,
        *,
        algorithm: str | None = None,
        trailers: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """``payload``: the body's verifier. ``trailers``: gives the trailing headers once the body has ended.

        ``algorithm``: the checksum to compute where the request names none (an upload's; default CRC64NVME).
        Raises S3Error InvalidRequest if the request's algorithm is not the one that the upload was created with.
        """
        named = expected.algorithm or expected.trailer
        if named is not None and algorithm is not None and named.name != algorithm:
            raise wrong_algorithm(algorithm, named)
        self._expected = expected
        self._algorithm = named or ALGORITHMS[algorithm or DEFAULT]
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hash = None if self._algorithm.name == "MD5" else self._algorithm.new()
        self._payload = payload
        self._trailers = trailers
        self.size = 0  # bytes hashed

    def update(self, data: Buffer) -> None:
        """Hash the next bytes. One call at a time, any thread. The fewer calls the better: each algorithm runs without
        the interpreter's lock, and waits for it at its end."""
        self.size += len(data)
        self._md5.update(data)
        if self._hash is not None:
            self._hash.update(data)
        if self._payload is not None:
            self._payload.update(data)

    def finish(self) -> Digested:
        """After the last byte. Raises BodyError: BadDigest, XAmzContentSHA256Mismatch, SignatureDoesNotMatch, ..."""
        if self._payload is not None:
            self._payload.finish()
        md5 = self._md5.digest()
        expected = self._expected
        if expected.md5 is not None and expected.md5 != md5:
            fields = {"ExpectedDigest": encode(expected.md5), "CalculatedDigest": encode(md5)}
            raise BodyError("BadDigest", fields=fields)
        digest = md5 if self._hash is None else self._hash.digest()
        value = self._trailing() if expected.trailer is not None else expected.value
        if value is not None and value != digest:
            raise BodyError(
                "BadDigest", f"The {self._algorithm.name} you specified did not match the calculated checksum."
            )
        return Digested(md5.hex(), {self._algorithm.name: encode(digest)}, FULL_OBJECT)

    def _trailing(self) -> bytes:
        trailer = self._expected.trailer
        text = (self._trailers() if self._trailers is not None else {}).get(trailer.header if trailer else "")
        if text is None or trailer is None:
            raise BodyError("MalformedTrailerError")
        try:
            return trailer.decode(text)
        except S3Error as exc:
            raise BodyError(exc.code, exc.message) from None


def of_parts(parts: Sequence[PartInfo], algorithm: str = DEFAULT, kind: str = FULL_OBJECT) -> Digested:
    """What the parts of an upload come to together: the ETag with their number, and the checksum if all have one."""
    etag = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in parts), usedforsecurity=False).hexdigest()
    values: dict[str, str] = {}
    if all(algorithm in p.checksums for p in parts):
        values[algorithm] = assemble(algorithm, kind, [(p.checksums[algorithm], p.size) for p in parts])
    return Digested(f"{etag}-{len(parts)}", values, kind if values else "")


def verify_bytes(expected: Expected, data: Buffer, trailers: Mapping[str, str] | None = None) -> None:
    """Check a body that was read whole (a configuration's XML) against what the request says of it."""
    if expected.declared:
        digests = Digests(expected, trailers=lambda: trailers or {})
        digests.update(data)
        digests.finish()
