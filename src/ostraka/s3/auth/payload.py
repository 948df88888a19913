"""What a request says about its body: x-amz-content-sha256, and whether it is framed as aws-chunked."""

import re

from ostraka.s3.auth.types import Headers, Payload
from ostraka.s3.errors import S3Error

UNSIGNED = "UNSIGNED-PAYLOAD"
_STREAMING = {
    p.value: p for p in (Payload.CHUNKED_SIGNED, Payload.CHUNKED_SIGNED_TRAILER, Payload.CHUNKED_UNSIGNED_TRAILER)
}
_UNSIGNED, _SIGNED = Payload.UNSIGNED, Payload.SIGNED  # a member of an Enum is found slowly
_is_sha256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch


def payload_of(headers: Headers, declared: str | None) -> tuple[Payload, str]:
    """(protection, SHA-256 in lower-case hex or ""). ``declared`` is the value of x-amz-content-sha256, or None.

    A body that announces aws-chunked framing and its decoded length is decoded even where the declared value does
    not say so (Signature Version 2, presigned and anonymous requests): framing must never be stored as data.
    Raises S3Error InvalidArgument for an unknown value, NotImplemented for asymmetric signatures.
    """
    if declared is None or declared == UNSIGNED:
        framed = "aws-chunked" in (headers.get("content-encoding") or "").lower()
        if framed and (headers.get("x-amz-decoded-content-length") or headers.get("x-amz-trailer")):
            return Payload.CHUNKED_UNSIGNED_TRAILER, ""
        return _UNSIGNED, ""
    if _is_sha256(declared):
        return _SIGNED, declared.lower()
    mode = _STREAMING.get(declared)
    if mode is not None:
        return mode, ""
    if declared.startswith("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        raise S3Error("NotImplemented", "Asymmetric signatures (SigV4a) are not implemented", fields={
            "Header": "x-amz-content-sha256"})  # fmt: skip
    message = f"x-amz-content-sha256 must be {UNSIGNED}, {', '.join(_STREAMING)} or a valid sha256 value."
    fields = {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": declared}
    raise S3Error("InvalidArgument", message, fields=fields)
