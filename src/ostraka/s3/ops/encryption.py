"""Server-side encryption as S3 speaks of it: what requests ask for, what answers say, and what a bucket does by itself.

SSE-S3 (AES256) and SSE-KMS (aws:kms, with a key's name, as such, as an alias or as the end of an ARN) seal under the
store's keys, SSE-C under a key that comes with each request. What is not understood is refused by its name.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ostraka.http import Headers, Response
from ostraka.objects.types import (
    AES256,
    CUSTOMER,
    KMS,
    Bucket,
    CustomerKey,
    Encryption,
    ObjectInfo,
    Upload,
)
from ostraka.s3 import model
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.call import Call, account_number, empty, invalid
from ostraka.s3.ops.conditions import not_implemented
from ostraka.s3.ops.payloads import read_document

SSE = "x-amz-server-side-encryption"
KEY_ID = f"{SSE}-aws-kms-key-id"
CONTEXT = f"{SSE}-context"
BUCKET_KEY = f"{SSE}-bucket-key-enabled"
CUSTOMER_HEADERS = f"{SSE}-customer-"
COPY_HEADERS = "x-amz-copy-source-server-side-encryption-customer-"
CONTEXT_MAX = 8192
AWS_MANAGED = "alias/aws/s3"  # how AWS calls the key that is used when none is named

Answer = list[tuple[str, str]]


# -- what is asked for


def asked(call: Call) -> tuple[Encryption | None, CustomerKey | None]:
    """(encryption, customer's key) that a write asks for; None and None leave it to the bucket."""
    headers = call.headers
    customer = customer_key(call)
    algorithm = headers.get(SSE)
    if algorithm is None:
        for name in (KEY_ID, CONTEXT, BUCKET_KEY):
            if name in headers and (name != BUCKET_KEY or headers.get(name) == "true") and not _default_is_kms(call):
                raise invalid(name, headers.get(name) or "", _TAKES_KMS)
        named = {KEY_ID, CONTEXT, BUCKET_KEY} & {name for name, _ in headers}
        return (_kms(headers) if named and customer is None and _default_is_kms(call) else None), customer
    if customer is not None:
        message = (
            "Server Side Encryption with Customer provided key is incompatible with the encryption method specified"
        )
        raise invalid(SSE, algorithm, message)
    if algorithm == AES256:
        for name in (KEY_ID, CONTEXT):
            if name in headers:
                raise invalid(name, headers.get(name) or "", _TAKES_KMS)
        return Encryption(AES256), None
    if algorithm == KMS:
        return _kms(headers), None
    if algorithm in model.ENUMS["ServerSideEncryption"]:
        raise not_implemented(SSE, f"{algorithm}; {AES256} and {KMS} are")
    raise invalid(SSE, algorithm, "The encryption method specified is not supported")


_TAKES_KMS = f"Server Side Encryption with AWS KMS managed key requires HTTP header {SSE} : {KMS}"


def _default_is_kms(call: Call) -> bool:
    return call.bucket_info().storage.encryption == KMS


def _kms(headers: Headers) -> Encryption:
    bucket_key = headers.get(BUCKET_KEY)
    if bucket_key is not None and bucket_key.lower() not in ("true", "false"):
        raise invalid(BUCKET_KEY, bucket_key)
    return Encryption(KMS, key_name(headers.get(KEY_ID) or ""), _context(headers), (bucket_key or "").lower() == "true")


def key_name(text: str) -> str:
    """The name of a key from what a client calls it: a name, an alias, or an ARN of either. "" for AWS's own."""
    if text.endswith(AWS_MANAGED):
        return ""
    return text.rpartition("/")[2].rpartition(":")[2]


def _context(headers: Headers) -> str:
    text = headers.get(CONTEXT) or ""
    if not text:
        return ""
    try:
        said = json.loads(base64.b64decode(text, validate=True)) if len(text) <= CONTEXT_MAX else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        message = f"The header '{CONTEXT}' shall be Base64-encoded UTF-8 string holding JSON which represents a string-string map"  # noqa: E501
        raise invalid(CONTEXT, text[:256], message)
    return text


def customer_key(call: Call, prefix: str = CUSTOMER_HEADERS) -> CustomerKey | None:
    """The customer's key of a request, or of the source of a copy; no error ever quotes it."""
    get = call.headers.get
    algorithm, key, digest = get(f"{prefix}algorithm"), get(f"{prefix}key"), get(f"{prefix}key-md5")
    if algorithm is None and key is None and digest is None:
        return None
    _check_secure(call)
    needs = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if algorithm is None:
        raise S3Error("InvalidArgument", f"{needs} a valid encryption algorithm.")
    if algorithm != AES256:
        message = f"The Encryption request you specified is not valid. Supported value: {AES256}."
        raise S3Error("InvalidEncryptionAlgorithmError", message)
    if key is None:
        raise S3Error("InvalidArgument", f"{needs} an appropriate secret key.")
    if digest is None:
        raise S3Error("InvalidArgument", f"{needs} the client calculated MD5 of the secret key.")
    try:
        secret = base64.b64decode(key, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != 32:
        raise S3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
    if base64.b64encode(hashlib.md5(secret, usedforsecurity=False).digest()).decode() != digest:
        message = "The calculated MD5 hash of the key did not match the hash that was provided."
        raise S3Error("InvalidArgument", message)
    return CustomerKey(secret)


def _check_secure(call: Call) -> None:
    """A customer's key travels in a header: over HTTPS, or where nobody is on the way, or where the operator says that
    a proxy in front ends TLS."""
    request = call.request
    if request.scheme == "https" or call.door.config.sse_c_over_http:
        return
    if request.peer == "local" or request.peer == "::1" or request.peer.startswith(("127.", "::ffff:127.")):
        return
    message = (
        "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection."
    )
    raise S3Error("InvalidRequest", message)


def refuse_algorithm(call: Call) -> None:
    """For what takes a customer's key at most: a part, a read. Raises InvalidArgument for the other headers."""
    if SSE in call.headers:
        value = call.headers.get(SSE) or ""
        raise invalid(SSE, value, f"{SSE} header is not supported for this operation.")


def part_key(call: Call, upload: Upload) -> CustomerKey | None:
    """The customer's key of a part: its upload demands it, or has none."""
    refuse_algorithm(call)
    customer = customer_key(call)
    if (customer is not None) != (upload.encryption.algorithm == CUSTOMER):
        raise S3Error(
            "InvalidRequest",
            "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate "
            "encryption parameters."
            if customer is None
            else "The multipart upload initiate did not request encryption with a customer provided key.",
        )
    return customer


def hides_etag(call: Call, encryption: Encryption | None, customer: CustomerKey | None) -> bool:
    """Whether what this request writes gets an etag that is not the MD5."""
    if customer is not None:
        return True
    algorithm = call.bucket_info().storage.encryption if encryption is None else encryption.algorithm
    return algorithm == KMS


# -- what is answered


def encryption_headers(call: Call, kept: Encryption, *, context: bool = False) -> Answer:
    """What an answer says of a version's or an upload's encryption. ``context``: only the answers of writes tell it."""
    if not kept.algorithm:
        return []
    if kept.algorithm == CUSTOMER:
        given = call.headers.get(f"{CUSTOMER_HEADERS}key-md5") or ""
        answer = [(f"{CUSTOMER_HEADERS}algorithm", AES256)]
        return [*answer, (f"{CUSTOMER_HEADERS}key-MD5", given)] if given else answer
    answer = [(SSE, kept.algorithm)]
    if kept.algorithm == KMS:
        answer.append((KEY_ID, arn(call, kept.key)))
        if context and kept.context:
            answer.append((CONTEXT, kept.context))
        if kept.bucket_key:
            answer.append((BUCKET_KEY, "true"))
    return answer


def arn(call: Call, key: str) -> str:
    """A key's name in the form that clients know."""
    return f"arn:aws:kms:{call.door.config.region}:{account_number('root')}:key/{key}"


def written(call: Call, info: ObjectInfo) -> Answer:
    """The same of a version that was just written."""
    return encryption_headers(call, info.encryption, context=True)


# -- what a bucket does by itself


async def get_bucket_encryption(call: Call) -> Response:
    """The default of the bucket."""
    bucket = call.bucket_info()
    storage = bucket.storage
    if not storage.encryption:
        raise S3Error("ServerSideEncryptionConfigurationNotFoundError", fields={"BucketName": bucket.name})
    default = {"SSEAlgorithm": storage.encryption, "KMSMasterKeyID": storage.kms_key or None}
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": storage.bucket_key}
    return doc.answer(call, {"Rules": [rule]})


async def put_bucket_encryption(call: Call) -> Response:
    """Set the default; what is there already stays as it is."""
    wanted = await read_document(call)
    rules: Sequence[dict[str, Any]] = wanted.get("Rules") or ()
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    default = rules[0].get("ApplyServerSideEncryptionByDefault") or {}
    algorithm, key = default.get("SSEAlgorithm"), default.get("KMSMasterKeyID") or ""
    blocked = (rules[0].get("BlockedEncryptionTypes") or {}).get("EncryptionType") or ()
    if any(word != "NONE" for word in blocked):
        raise S3Error("NotImplemented", "BlockedEncryptionTypes is not implemented")
    if algorithm not in model.ENUMS["ServerSideEncryption"]:
        raise S3Error("MalformedXML")
    if algorithm not in (AES256, KMS):
        raise S3Error("NotImplemented", f"SSEAlgorithm {algorithm} is not implemented: {AES256} and {KMS} are")
    if key and algorithm != KMS:
        message = "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse"
        raise S3Error("InvalidArgument", message)
    bucket_key = bool(rules[0].get("BucketKeyEnabled"))
    await _set(call, algorithm, key_name(key), bucket_key)
    return empty()


async def delete_bucket_encryption(call: Call) -> Response:
    """Back to what a new bucket gets: AES256 in a store that has a master key."""
    call.bucket_info()
    await _set(call, call.objects.new_storage().encryption, "", bucket_key=False)
    return empty(204)


async def _set(call: Call, algorithm: str, key: str, bucket_key: bool) -> None:
    def change(bucket: Bucket) -> Bucket:
        said = {"encryption": algorithm, "kms_key": key, "bucket_key": bucket_key}
        return replace(bucket, storage=msgspec.structs.replace(bucket.storage, **said))

    await call.objects.update_bucket(call.bucket, change)


HANDLERS = {
    "GetBucketEncryption": get_bucket_encryption,
    "PutBucketEncryption": put_bucket_encryption,
    "DeleteBucketEncryption": delete_bucket_encryption,
}
