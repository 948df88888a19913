"""PutObject: the hot way in. And CopyObject, which moves no bytes.

A copy shares the bytes of its source, unless it is encrypted by another key. Those of a multipart object are read once,
because S3 gives its copy the etag and the checksum of an object that was put whole.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from ostraka.errors import Absent
from ostraka.http import Response
from ostraka.objects.types import (
    CUSTOMER,
    KMS,
    Account,
    Attributes,
    CustomerKey,
    DeleteMarker,
    Digested,
    Encryption,
    ObjectInfo,
    Replay,
    WriteConditions,
)
from ostraka.s3.address import copy_source
from ostraka.s3.checksums import ALGORITHMS, DEFAULT
from ostraka.s3.digests import Digests, Expected
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.attributes import as_text, attributes_of
from ostraka.s3.ops.call import Call, invalid, is_owner, version_headers
from ostraka.s3.ops.conditions import UNCONDITIONAL, check_copy_source, write_conditions
from ostraka.s3.ops.encryption import COPY_HEADERS, asked, customer_key, hides_etag, written
from ostraka.s3.ops.payloads import declared_body, open_body

T = TypeVar("T")
COPY_ATTEMPTS_MAX = 10  # of a copy whose source is overwritten each time
INVOCATION = "amz-sdk-invocation-id"
INVOCATION_MAX = 128
HASH_INLINE_MAX = 64 * 1024  # bytes that are hashed on the loop; more would keep other requests waiting


def replay_of(call: Call, body: str) -> Replay | None:
    """The identity of this invocation, for writes that a retry would find done already (ENGINE 21)."""
    invocation = call.headers.get(INVOCATION)
    if not invocation or len(invocation) > INVOCATION_MAX:
        return None
    return Replay(call.account.name, call.operation, as_text(invocation), body)


async def put_object(call: Call) -> Response:
    """Store the body. Everything that can be refused is refused before a byte of it is read."""
    headers = call.headers
    attributes = attributes_of(headers, call.limits)
    conditions = write_conditions(headers)
    encryption, customer = asked(call)
    source, digest = open_body(call)
    replay = replay_of(call, declared_body(call)) if conditions is not UNCONDITIONAL else None
    info = await call.objects.put(
        call.bucket,
        call.key,
        source,
        digest,
        attributes,
        owner=call.account.name,
        conditions=conditions,
        replay=replay,
        encryption=encryption,
        customer=customer,
    )
    answer = [("ETag", f'"{info.etag}"'), *written(call, info)]
    for algorithm, value in info.checksums.items():
        answer.append((ALGORITHMS[algorithm].header, value))
    if info.checksum_type:
        answer.append(("x-amz-checksum-type", info.checksum_type))
    if info.versioned:
        answer.append(("x-amz-version-id", info.version_id))
    return Response(200, answer)


# -- copying


def copy_origin(call: Call) -> ObjectInfo:
    """The version that x-amz-copy-source names, allowed to the caller and under its conditions."""
    bucket, key, version = copy_source(call.headers.get("x-amz-copy-source") or "")
    if version == "":
        raise invalid("x-amz-copy-source", call.headers.get("x-amz-copy-source") or "")
    try:
        owner = call.objects.bucket(bucket).owner
    except Absent as e:
        raise S3Error("NoSuchBucket", fields={"BucketName": bucket}) from e
    may_read(call.account, owner, call.headers.get("x-amz-source-expected-bucket-owner"))
    try:
        info = call.objects.lookup(bucket, key, version)
    except DeleteMarker as e:
        if e.named:
            message = "The source of a copy request may not specifically refer to a delete marker by version id."
            raise S3Error("InvalidRequest", message) from e
        raise S3Error("NoSuchKey", fields={"Key": key}) from e
    except Absent as e:
        code = "NoSuchVersion" if e.reason == "version" else "NoSuchKey"
        raise S3Error(code, fields={"Key": key}) from e
    check_copy_source(call.headers, info)
    return info


async def from_origin(call: Call, attempt: Callable[[ObjectInfo], Awaitable[T]]) -> T:
    """Copy with what `copy_origin` names. A source that was overwritten meanwhile was never absent: it is looked up
    anew, with its conditions, unless the request named a version."""
    _, _, version = copy_source(call.headers.get("x-amz-copy-source") or "")
    for _ in range(COPY_ATTEMPTS_MAX):
        source = copy_origin(call)
        try:
            return await attempt(source)
        except Absent as e:
            if e.reason != "version" or version is not None:
                raise
    raise S3Error("ConditionalRequestConflict", "The source of the copy changed again and again.")


def may_read(account: Account, owner: str, expected: str | None) -> None:
    """Raises AccessDenied unless the account owns the bucket or is root, and the bucket's owner is as expected."""
    if not account.root and owner != account.name:
        raise S3Error("AccessDenied")
    if expected is not None and not is_owner(expected, owner):
        raise S3Error("AccessDenied")


class Keys(NamedTuple):
    """What a copy is encrypted by, and what its source takes."""

    encryption: Encryption | None
    customer: CustomerKey | None
    source: CustomerKey | None


def _directive(call: Call, name: str) -> str:
    value = call.headers.get(name)
    if value is None or value == "":
        return "COPY"
    if value not in ("COPY", "REPLACE"):
        what = "metadata" if "metadata" in name else "tagging"
        raise invalid(name, value, f"Unknown {what} directive.")
    return value


async def copy_object(call: Call) -> Response:
    """A new version with the source's bytes, and its metadata or other."""
    given = attributes_of(call.headers, call.limits)
    conditions = write_conditions(call.headers)
    metadata, tagging = _directive(call, "x-amz-metadata-directive"), _directive(call, "x-amz-tagging-directive")
    algorithm = _wanted_algorithm(call)
    encryption, customer = asked(call)
    key = Keys(encryption, customer, customer_key(call, COPY_HEADERS))

    async def attempt(source: ObjectInfo) -> Response:
        return await _copy(call, source, given, conditions, metadata, tagging, algorithm, key)

    return await from_origin(call, attempt)


async def _copy(
    call: Call,
    source: ObjectInfo,
    given: Attributes,
    conditions: WriteConditions,
    metadata: str,
    tagging: str,
    algorithm: str,
    keys: Keys,
) -> Response:
    if source.size > call.limits.put_size_max:
        message = f"The specified copy source is larger than the maximum allowable size for a copy source: {call.limits.put_size_max}"  # noqa: E501
        raise S3Error("InvalidRequest", message)
    itself = source.bucket == call.bucket and source.key == call.key and source.latest
    changed = "x-amz-storage-class" in call.headers or keys.encryption is not None or keys.customer is not None
    if itself and metadata == "COPY" and not changed:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )
    kept = source.attributes
    attributes = Attributes(
        given.headers if metadata == "REPLACE" else kept.headers,
        given.metadata if metadata == "REPLACE" else kept.metadata,
        given.tags if tagging == "REPLACE" else kept.tags,
        given.storage_class,
    )
    digested = None
    hidden = source.encryption.algorithm in (KMS, CUSTOMER) and not hides_etag(call, keys.encryption, keys.customer)
    if source.part_count or hidden:  # the copy is one piece: its etag is the MD5, its checksum one of all bytes
        algorithm = algorithm or next(iter(source.checksums), DEFAULT)
        digested = await _digest_again(call, source, algorithm, keys.source)
    elif algorithm and algorithm not in source.checksums:
        digested = await _digest_again(call, source, algorithm, keys.source)
    info = await call.objects.copy(
        source, call.bucket, call.key, attributes,
        owner=call.account.name, conditions=conditions, digested=digested,
        encryption=keys.encryption, customer=keys.customer, source_customer=keys.source,
    )  # fmt: skip
    headers = [*version_headers(info), *written(call, info)]
    if source.versioned:
        headers.append(("x-amz-copy-source-version-id", source.version_id))
    value = {"LastModified": info.modified, "ETag": doc.quoted(info.etag)}
    return doc.answer(call, {**value, **doc.checksums(info.checksums, info.checksum_type)}, headers)


def _wanted_algorithm(call: Call) -> str:
    text = call.headers.get("x-amz-checksum-algorithm")
    if not text:
        return ""
    if text.upper() not in ALGORITHMS:
        names = ", ".join(ALGORITHMS)
        message = f"Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{names}]"
        raise S3Error("InvalidRequest", message)
    return text.upper()


async def _digest_again(call: Call, source: ObjectInfo, algorithm: str, key: CustomerKey | None) -> Digested:
    """Read the source to compute what it does not have: the MD5 of all its bytes, a checksum."""
    digest = Digests(Expected(), algorithm=algorithm)
    loop = asyncio.get_running_loop()
    version = source.version_id if source.versioned else None
    reader = call.objects.open(source.bucket, source.key, version, key)
    try:
        if reader.info.etag != source.etag or reader.info.size != source.size:
            raise Absent("the source of the copy changed before it was read", reason="version")
        async for piece in reader.read():
            if len(piece) > HASH_INLINE_MAX:
                await loop.run_in_executor(None, digest.update, piece)
            else:
                digest.update(piece)
    finally:
        reader.close()
    return digest.finish()


HANDLERS = {"PutObject": put_object, "CopyObject": copy_object}
