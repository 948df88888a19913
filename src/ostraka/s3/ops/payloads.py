"""The body of a request as an operation takes it: an object's bytes to be hashed and stored, or a small document."""

from typing import Any

from ostraka.host import Buffer
from ostraka.objects.types import Digest, Digested, Source
from ostraka.s3 import bodies, model
from ostraka.s3.checksums import ALGORITHMS, BY_HEADER, COMPOSITE, DEFAULT, encode
from ostraka.s3.digests import Digests, Expected, expected_of, verify_bytes, wrong_algorithm
from ostraka.s3.errors import S3Error
from ostraka.s3.ops.call import Call
from ostraka.s3.xml import decode_payload


class WithDefault:
    """A digest that adds the default checksum to the one that the client chose.

    Parts of an upload that was created without an algorithm need it: SDKs send each part with a checksum of their own
    choice (botocore: CRC32), and the completed object has CRC64NVME of the whole.
    """

    __slots__ = ("_default", "_inner")

    def __init__(self, inner: Digests) -> None:
        self._inner = inner
        self._default = ALGORITHMS[DEFAULT].new()

    def update(self, data: Buffer) -> None:
        self._inner.update(data)
        self._default.update(data)

    def finish(self) -> Digested:
        done = self._inner.finish()
        return Digested(done.etag, {**done.checksums, DEFAULT: encode(self._default.digest())}, done.checksum_type)


def open_body(call: Call) -> tuple[Source, Digests]:
    """The object's bytes without their framing, and what must hash them; nothing is read yet.

    Raises S3Error MissingContentLength, EntityTooLarge, or what is wrong with the declared digests.
    """
    return _open(call, expected_of(call.headers), None)


def open_part(call: Call, algorithm: str, kind: str) -> tuple[Source, Digest]:
    """The same for a part; ``algorithm`` and ``kind`` are its upload's, or "" if that was created without.

    Raises S3Error InvalidRequest for a part without the checksum that a composite one is to be made of.
    """
    expected = expected_of(call.headers)
    named = expected.algorithm or expected.trailer
    if named is None and kind == COMPOSITE:
        raise wrong_algorithm(algorithm, None)
    source, digest = _open(call, expected, algorithm or None)
    if not algorithm and named is not None and named.name != DEFAULT:
        return source, WithDefault(digest)
    return source, digest


def _open(call: Call, expected: Expected, algorithm: str | None) -> tuple[Source, Digests]:
    limits = call.door.limits
    body = bodies.open_body(call.request.body, call.auth, call.headers, limits, inline=False)
    length = body.length
    # Without a length HTTP takes a body as empty; S3 refuses, so that nobody stores nothing by mistake.
    if length is None or (not length and not call.auth.payload.chunked and "content-length" not in call.headers):
        raise S3Error("MissingContentLength")
    if length > limits.put_size_max:
        fields = {"ProposedSize": str(length), "MaxSizeAllowed": str(limits.put_size_max)}
        raise S3Error("EntityTooLarge", fields=fields)
    return body, Digests(expected, body.verifier, algorithm=algorithm, trailers=lambda: body.trailers)


def declared_body(call: Call) -> str:
    """What a retry of the same write declares again: length and digests, as far as they stand in the head."""
    get = call.headers.get
    words = [get("x-amz-decoded-content-length") or get("content-length") or "", get("content-md5") or ""]
    words.append(call.auth.payload_sha256)
    words += [f"{name}={value}" for name in BY_HEADER if (value := get(name)) is not None]
    return " ".join(words)


async def read_document(call: Call) -> dict[str, Any]:
    """The XML body as the members of the operation's payload; an empty one where the model lets it be absent.

    Raises S3Error MalformedXML, MissingRequestBodyError, BadDigest, or InvalidRequest where a digest is demanded and
    none was sent.
    """
    body = bodies.open_body(call.request.body, call.auth, call.headers, call.limits)
    expected = expected_of(call.headers)
    if call.operation == "CompleteMultipartUpload":  # its checksum headers speak of the object, not of this document
        expected = Expected(expected.md5)
    operation = model.OPERATIONS.get(call.operation)
    if operation is not None and operation.checksum_required and not expected.declared and needs_digest(call):
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    data = await bodies.read_all(body, call.limits.xml_bytes_max)
    verify_bytes(expected, data, body.trailers)
    return decode_payload(call.operation, data) or {}


def needs_digest(call: Call) -> bool:
    """DeleteObjects is dangerous to get wrong; for the others S3 takes the payload's signature instead."""
    return call.operation == "DeleteObjects" or not call.auth.payload_sha256
