"""Multipart uploads: create, parts, complete, abort, and their listings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ostraka.errors import Absent, Invalid
from ostraka.http import Response
from ostraka.objects.encryption import check_customer
from ostraka.objects.types import (
    CompletePart,
    CustomerKey,
    Digested,
    ObjectInfo,
    PartInfo,
    PartRefused,
    Upload,
    UploadPage,
)
from ostraka.s3 import checksums
from ostraka.s3.checksums import ALGORITHMS, BY_HEADER, COMPOSITE, FULL_OBJECT
from ostraka.s3.digests import Digests, Expected, of_parts
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.attributes import attributes_of, refuse_unbuilt
from ostraka.s3.ops.call import PART_MAX, Call, empty, invalid, parse_number, version_headers
from ostraka.s3.ops.conditions import write_conditions
from ostraka.s3.ops.encryption import (
    COPY_HEADERS,
    asked,
    customer_key,
    encryption_headers,
    part_key,
    refuse_algorithm,
)
from ostraka.s3.ops.listings import encoding_type, page_size
from ostraka.s3.ops.payloads import open_part, read_document
from ostraka.s3.ops.ranges import parse_copy_range
from ostraka.s3.ops.writes import from_origin, replay_of


async def create_multipart_upload(call: Call) -> Response:
    """Begin an upload. Without an algorithm its checksum is CRC64NVME of the full object."""
    attributes = attributes_of(call.headers, call.limits)
    named, kind = call.headers.get("x-amz-checksum-algorithm"), call.headers.get("x-amz-checksum-type")
    algorithm, kind = checksums.multipart_choice(named, kind) if named or kind else ("", "")
    encryption, customer = asked(call)
    upload = await call.objects.create_upload(
        call.bucket,
        call.key,
        attributes,
        owner=call.account.name,
        checksum_algorithm=algorithm,
        checksum_type=kind,
        encryption=encryption,
        customer=customer,
    )
    headers = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)] if named else []
    headers += encryption_headers(call, upload.encryption, context=True)
    value = {"Bucket": call.bucket, "Key": call.key, "UploadId": upload.upload_id}
    return doc.answer(call, value, headers)


def _upload_id(call: Call) -> str:
    return call.arg("uploadId") or ""


def _half_named(call: Call) -> S3Error:
    """A PUT that names a part but no upload, or an upload but no part."""
    has, lacks = ("uploadId", "partNumber") if call.arg("uploadId") else ("partNumber", "uploadId")
    return invalid(has, call.arg(has) or "", f"This operation does not accept {has} without {lacks}")


def _part_number(call: Call) -> int:
    text = call.arg("partNumber") or ""
    try:
        return parse_number("partNumber", text, 1, PART_MAX)
    except S3Error:
        message = f"Part number must be an integer between 1 and {PART_MAX}, inclusive"
        raise invalid("partNumber", text, message) from None


def _checksum_headers(values: Any) -> list[tuple[str, str]]:
    return [(ALGORITHMS[a].header, v) for a, v in values.items()]


async def upload_part(call: Call) -> Response:
    """Store a part; a part of the same number is replaced."""
    refuse_unbuilt(call.headers, encryption=True)
    if not (call.arg("uploadId") and call.arg("partNumber")):
        raise _half_named(call)
    number, upload_id = _part_number(call), _upload_id(call)
    upload = call.objects.upload(call.bucket, call.key, upload_id)
    customer = part_key(call, upload)
    source, digest = open_part(call, upload.checksum_algorithm, upload.checksum_type)
    part = await call.objects.put_part(call.bucket, call.key, upload_id, number, source, digest, customer)
    own = {a: v for a, v in part.checksums.items() if len(part.checksums) == 1 or a != checksums.DEFAULT}
    said = encryption_headers(call, upload.encryption)
    return empty(200, [("ETag", f'"{part.etag}"'), *_checksum_headers(own), *said])


async def upload_part_copy(call: Call) -> Response:
    """A part from another object's bytes, or a range of them."""
    refuse_unbuilt(call.headers, encryption=True)
    number, upload_id = _part_number(call), _upload_id(call)
    upload = call.objects.upload(call.bucket, call.key, upload_id)
    customer, source_customer = part_key(call, upload), customer_key(call, COPY_HEADERS)

    async def attempt(source: ObjectInfo) -> Response:
        return await _copy_part(call, upload, number, source, customer, source_customer)

    return await from_origin(call, attempt)


async def _copy_part(
    call: Call,
    upload: Upload,
    number: int,
    source: ObjectInfo,
    customer: CustomerKey | None,
    source_customer: CustomerKey | None,
) -> Response:
    offset, length = 0, source.size
    text = call.headers.get("x-amz-copy-source-range")
    if text:
        try:
            offset, length = parse_copy_range(text, source.size)
        except Invalid as e:
            if e.reason == "copy-range-form":
                raise invalid("x-amz-copy-source-range", text, e.message) from e
            raise S3Error("InvalidArgument", e.message) from e
    if length > call.limits.put_size_max:
        message = f"The specified copy source is larger than the maximum allowable size for a copy source: {call.limits.put_size_max}"  # noqa: E501
        raise S3Error("InvalidRequest", message)
    digest = Digests(Expected(), algorithm=upload.checksum_algorithm or None)
    part = await call.objects.copy_part(
        call.bucket,
        call.key,
        upload.upload_id,
        number,
        source,
        offset,
        length,
        digest,
        customer,
        source_customer,
    )
    headers = [("x-amz-copy-source-version-id", source.version_id)] if source.versioned else []
    headers += encryption_headers(call, upload.encryption)
    value = {"LastModified": part.modified, "ETag": doc.quoted(part.etag)}
    return doc.answer(call, {**value, **doc.checksums(part.checksums)}, headers)


# -- completing


async def complete_multipart_upload(call: Call) -> Response:
    """Make the parts one object. Repeated after it succeeded, it gives the same answer."""
    refuse_unbuilt(call.headers, encryption=True)
    refuse_algorithm(call)
    customer = customer_key(call)
    conditions = write_conditions(call.headers)
    upload_id = _upload_id(call)
    wanted = await read_document(call)
    parts = [_complete_part(p) for p in wanted.get("Parts") or ()]
    if not parts or len(parts) > call.limits.part_count_max:
        raise S3Error("MalformedXML")
    for before, after in itertools.pairwise(parts):
        if after.number <= before.number:
            raise S3Error("InvalidPartOrder", fields={"UploadId": upload_id})
    size = call.headers.get("x-amz-mp-object-size")
    kind = call.headers.get("x-amz-checksum-type")
    if kind is not None and kind.upper() not in (COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    try:
        upload = call.objects.upload(call.bucket, call.key, upload_id)
    except Absent as e:
        if e.reason != "upload":
            raise
        upload = None  # completed already, perhaps: the core knows, and repeats its answer
    if upload is not None and customer is not None:
        check_customer(upload.encryption, customer)
    if upload is not None and upload.checksum_type == COMPOSITE:
        _require_checksums(upload, parts)
    text = "".join(f"{p.number}:{p.etag};" for p in parts)
    try:
        info = await call.objects.complete_upload(
            call.bucket,
            call.key,
            upload_id,
            parts,
            _Assemble(call, upload, kind.upper() if kind else ""),
            conditions=conditions,
            replay=replay_of(call, f"{upload_id}:{text}"),
            size=parse_number("x-amz-mp-object-size", size, 0, call.limits.object_size_max) if size else None,
        )
    except PartRefused as e:
        raise _part_refused(call, upload_id, e) from e
    path = call.request.raw_path.decode("ascii", "replace")
    place = f"{call.request.scheme}://{call.headers.get('host') or ''}{path}"
    value = {"Location": place, "Bucket": call.bucket, "Key": call.key, "ETag": doc.quoted(info.etag)}
    sums = doc.checksums(info.checksums, info.checksum_type)
    said = [*version_headers(info), *encryption_headers(call, info.encryption)]
    return doc.answer(call, {**value, **sums}, said)


def _part_refused(call: Call, upload_id: str, error: PartRefused) -> S3Error:
    named = {"PartNumber": str(error.number), "ETag": error.etag}
    if error.reason == "part-small":
        small = {"ProposedSize": str(error.size), "MinSizeAllowed": str(call.limits.part_size_min)}
        return S3Error("EntityTooSmall", fields=small | named)
    return S3Error("InvalidPart", fields={"UploadId": upload_id} | named)


def _require_checksums(upload: Upload, parts: Sequence[CompletePart]) -> None:
    """A composite checksum is made of the parts' checksums, and the request must name each of them."""
    for part in parts:
        if upload.checksum_algorithm not in part.checksums:
            name = upload.checksum_algorithm.lower()
            message = (
                f"The upload was created using a {name} checksum. The complete request must include the checksum for "
                f"each part. It was missing for part {part.number} in the request."
            )
            raise S3Error("InvalidRequest", message)


def _complete_part(part: dict[str, Any]) -> CompletePart:
    number, etag = part.get("PartNumber"), part.get("ETag")
    if number is None or not etag:
        raise S3Error("MalformedXML")
    if not 1 <= number <= PART_MAX:
        raise invalid("PartNumber", str(number), f"PartNumber must be an integer between 1 and {PART_MAX}, inclusive")
    given = {a: part[f"Checksum{a}"] for a in ALGORITHMS if part.get(f"Checksum{a}")}
    return CompletePart(number, etag.strip().strip('"'), given)


class _Assemble:
    """From the parts as stored: the etag and checksums of the whole, compared with what the request says of it."""

    __slots__ = ("_algorithm", "_call", "_kind")

    def __init__(self, call: Call, upload: Upload | None, kind: str) -> None:
        self._call = call
        self._algorithm = (upload.checksum_algorithm if upload is not None else "") or checksums.DEFAULT
        self._kind = (upload.checksum_type if upload is not None else "") or FULL_OBJECT
        if upload is not None and kind and kind != self._kind:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using the {self._kind} checksum mode. The complete request must use the same "
                "checksum mode.",
            )

    def __call__(self, parts: Sequence[PartInfo]) -> Digested:
        digested = of_parts(parts, self._algorithm, self._kind)
        self._compare(digested.checksums)
        return digested

    def _compare(self, values: Mapping[str, str]) -> None:
        for header, algorithm in BY_HEADER.items():
            given = self._call.headers.get(header)
            if given is None:
                continue
            ours = values.get(algorithm.name)
            if ours is None:
                message = (
                    f"The upload was created using the {self._algorithm.lower()} checksum algorithm. The "
                    "complete request must use the same checksum algorithm."
                )
                raise S3Error("InvalidRequest", message)
            if given not in (ours, ours.partition("-")[0]):
                raise S3Error(
                    "BadDigest", f"The {algorithm.name.lower()} you specified did not match the calculated checksum."
                )


async def abort_multipart_upload(call: Call) -> Response:
    """Forget the upload and its parts."""
    await call.objects.abort_upload(call.bucket, call.key, _upload_id(call))
    return empty(204)


# -- listings


async def list_parts(call: Call) -> Response:
    """The parts of an upload in progress, in order."""
    upload_id, limit = _upload_id(call), page_size(call, "max-parts")
    marker = call.number("part-number-marker", 0, 0)
    upload = call.objects.upload(call.bucket, call.key, upload_id)
    rows: Sequence[PartInfo] = ()
    more = False
    if limit:
        rows, more = call.objects.list_parts(call.bucket, call.key, upload_id, marker, limit)
    value = {
        "Bucket": call.bucket,
        "Key": call.key,
        "UploadId": upload_id,
        "Initiator": doc.owner(upload.owner),
        "Owner": doc.owner(upload.owner),
        "StorageClass": upload.attributes.storage_class,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": rows[-1].number if rows else 0,
        "MaxParts": limit,
        "IsTruncated": more,
        "ChecksumAlgorithm": upload.checksum_algorithm or None,
        "ChecksumType": upload.checksum_type or None,
        "Parts": [_listed_part(p) for p in rows],
    }
    return doc.answer(call, value)


def _listed_part(part: PartInfo) -> dict[str, Any]:
    value = {"PartNumber": part.number, "LastModified": part.modified, "ETag": doc.quoted(part.etag), "Size": part.size}
    return {**value, **doc.checksums(part.checksums)}


async def list_multipart_uploads(call: Call) -> Response:
    """Uploads in progress by key, and within a key by the time they began."""
    encoding, limit = encoding_type(call), page_size(call, "max-uploads")
    prefix, delimiter = call.arg("prefix") or "", call.arg("delimiter") or ""
    key = call.arg("key-marker") or ""
    upload = (call.arg("upload-id-marker") or "") if key else ""
    if limit:
        try:
            page = call.objects.list_uploads(call.bucket, prefix, delimiter, key, upload, limit)
        except Absent as e:
            if e.reason != "upload":
                raise
            raise invalid("upload-id-marker", upload, "Invalid uploadId marker") from e
    else:
        call.bucket_info()
        page = UploadPage((), (), False)
    value: dict[str, Any] = {
        "Bucket": call.bucket,
        "KeyMarker": doc.written(key, encoding),
        "UploadIdMarker": upload,
        "Prefix": doc.written(prefix, encoding),
        "Delimiter": doc.written(delimiter, encoding) if delimiter else None,
        "EncodingType": encoding or None,
        "MaxUploads": limit,
        "IsTruncated": page.truncated,
        "Uploads": [_listed_upload(u, encoding) for u in page.entries],
        "CommonPrefixes": [{"Prefix": doc.written(p, encoding)} for p in page.prefixes],
    }
    if page.truncated:
        value["NextKeyMarker"] = doc.written(page.next_key, encoding)
        value["NextUploadIdMarker"] = page.next_upload or None
    return doc.answer(call, value)


def _listed_upload(upload: Upload, encoding: str) -> dict[str, Any]:
    return {
        "UploadId": upload.upload_id,
        "Key": doc.written(upload.key, encoding),
        "Initiated": upload.initiated,
        "StorageClass": upload.attributes.storage_class,
        "Owner": doc.owner(upload.owner),
        "Initiator": doc.owner(upload.owner),
        "ChecksumAlgorithm": upload.checksum_algorithm or None,
        "ChecksumType": upload.checksum_type or None,
    }


HANDLERS = {
    "CreateMultipartUpload": create_multipart_upload,
    "UploadPart": upload_part,
    "UploadPartCopy": upload_part_copy,
    "CompleteMultipartUpload": complete_multipart_upload,
    "AbortMultipartUpload": abort_multipart_upload,
    "ListParts": list_parts,
    "ListMultipartUploads": list_multipart_uploads,
}
