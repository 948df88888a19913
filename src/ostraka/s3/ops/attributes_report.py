"""GetObjectAttributes: what is known of a version, without its bytes or its user metadata."""

from typing import Any

from ostraka.http import Response
from ostraka.objects.types import ObjectReader
from ostraka.s3 import model
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.call import INT_MAX, PART_MAX, Call, invalid, parse_number, version_headers
from ostraka.s3.ops.conditions import check_read
from ostraka.s3.ops.reads import read_key
from ostraka.s3.ops.times import http_date

_KNOWN = model.ENUMS["ObjectAttributes"]


def _wanted(call: Call) -> set[str]:
    name = "x-amz-object-attributes"
    values = [v.strip() for text in call.headers.get_all(name) for v in text.split(",")]
    wanted = {v for v in values if v}
    if not wanted:
        raise invalid(name, "", "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")  # fmt: skip  # noqa: E501
    if not wanted <= _KNOWN:
        raise invalid(name, ",".join(values), "Invalid attribute name specified.")
    return wanted


async def get_object_attributes(call: Call) -> Response:
    """Those attributes that are asked for."""
    wanted = _wanted(call)
    reader = call.objects.open(call.bucket, call.key, call.version_id(), read_key(call))
    try:
        info = reader.info
        try:
            check_read(call.headers, info)
        except S3Error as e:
            if e.code == "NotModified":
                raise S3Error("PreconditionFailed") from e
            raise
        value: dict[str, Any] = {}
        if "ETag" in wanted:
            value["ETag"] = info.etag
        if "Checksum" in wanted and info.checksums:
            plain = {a: v.partition("-")[0] for a, v in info.checksums.items()}  # the number of parts stands elsewhere
            value["Checksum"] = doc.checksums(plain, info.checksum_type)
        if "ObjectParts" in wanted and info.part_count:
            value["ObjectParts"] = await _parts(call, reader)
        if "StorageClass" in wanted:
            value["StorageClass"] = info.attributes.storage_class
        if "ObjectSize" in wanted:
            value["ObjectSize"] = info.size
    finally:
        reader.close()
    return doc.answer(call, value, [("Last-Modified", http_date(info.modified)), *version_headers(info)])


async def _parts(call: Call, reader: ObjectReader) -> dict[str, Any]:
    text, mark = call.headers.get("x-amz-max-parts"), call.headers.get("x-amz-part-number-marker")
    limit = parse_number("x-amz-max-parts", text, 0, INT_MAX) if text else call.limits.list_keys_max
    limit = min(limit, call.limits.list_keys_max)
    marker = parse_number("x-amz-part-number-marker", mark, 0, PART_MAX) if mark else 0
    value: dict[str, Any] = {"TotalPartsCount": reader.info.part_count}
    if reader.info.checksum_type != "COMPOSITE":  # S3 tells of parts only where each has its own checksum
        return value
    rows, more = await reader.parts(marker, limit) if limit else ([], False)
    return {
        **value,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": rows[-1].number if rows else 0,
        "MaxParts": limit,
        "IsTruncated": more,
        "Parts": [{"PartNumber": p.number, "Size": p.size, **doc.checksums(p.checksums)} for p in rows],
    }


HANDLERS = {"GetObjectAttributes": get_object_attributes}
