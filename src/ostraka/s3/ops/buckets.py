"""Buckets: create, delete, list; and what is configured on them here: versioning, tags, CORS."""

import re
from dataclasses import replace
from typing import Any

from ostraka.errors import Exists
from ostraka.http import Response
from ostraka.objects.types import Bucket
from ostraka.s3 import cors
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops import tags
from ostraka.s3.ops.attributes import refuse_unbuilt
from ostraka.s3.ops.call import Call, empty, parse_number, valid_bucket_name
from ostraka.s3.ops.conditions import not_implemented
from ostraka.s3.ops.listings import read_token, token
from ostraka.s3.ops.payloads import read_document

MAX_BUCKETS = 10_000
_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


async def create_bucket(call: Call) -> Response:
    """A bucket of the caller's. Its own again is 200 in us-east-1 and a conflict elsewhere, as in S3."""
    if not valid_bucket_name(call.bucket):
        raise S3Error("InvalidBucketName", fields={"BucketName": call.bucket})
    refuse_unbuilt(call.headers)
    if (call.headers.get("x-amz-bucket-namespace") or "global") != "global":
        raise not_implemented("x-amz-bucket-namespace")
    wanted = await read_document(call)
    for name in ("Location", "Bucket"):
        if wanted.get(name):
            raise S3Error("NotImplemented", f"CreateBucketConfiguration: {name} (directory buckets) is not implemented")
    region = wanted.get("LocationConstraint") or call.door.config.region
    if not _REGION.fullmatch(region):
        raise S3Error("InvalidLocationConstraint", fields={"LocationConstraint": region})
    bucket_tags = _tags_of(call, wanted.get("Tags"))
    try:
        await call.objects.create_bucket(call.bucket, call.account.name, region)
    except Exists as e:
        if e.reason != "bucket-owned" or region != "us-east-1" or call.bucket_info().region != "us-east-1":
            raise
    else:
        if bucket_tags:
            await call.objects.update_bucket(call.bucket, lambda b: replace(b, tags=bucket_tags))
    return empty(200, [("Location", f"/{call.bucket}")])


async def delete_bucket(call: Call) -> Response:
    """409 unless nothing is left in it, versions and uploads included."""
    await call.objects.delete_bucket(call.bucket)
    return empty(204)


async def list_buckets(call: Call) -> Response:
    """The caller's buckets; root sees all. Pages when asked to."""
    prefix, region, given = call.arg("prefix") or "", call.arg("bucket-region"), call.arg("continuation-token")
    text = call.arg("max-buckets")
    limit = parse_number("max-buckets", text, 1, MAX_BUCKETS) if text else MAX_BUCKETS
    after = read_token(given) if given else ""
    owner = None if call.account.root else call.account.name
    rows, more = _of_region(call, owner, prefix, after, limit, region)
    value: dict[str, Any] = {
        "Owner": doc.owner(call.account.name),
        "Buckets": [{"Name": b.name, "CreationDate": b.created, "BucketRegion": b.region} for b in rows],
        "Prefix": prefix or None,
    }
    if more and rows:
        value["ContinuationToken"] = token(rows[-1].name)
    return doc.answer(call, value)


def _of_region(
    call: Call, owner: str | None, prefix: str, after: str, limit: int, region: str | None
) -> tuple[list[Bucket], bool]:
    """A page of buckets; those of one region are picked out page by page."""
    found: list[Bucket] = []
    while True:
        rows, more = call.objects.list_buckets(owner, prefix, after, limit)
        for i, row in enumerate(rows):
            if region is None or row.region == region:
                found.append(row)
                if len(found) == limit:
                    return found, more or i + 1 < len(rows)
        if not more or not rows:
            return found, False
        after = rows[-1].name


# -- versioning


async def put_bucket_versioning(call: Call) -> Response:
    """Enabled or Suspended; there is no way back to never."""
    wanted = await read_document(call)
    if wanted.get("MFADelete") == "Enabled" or "x-amz-mfa" in call.headers:
        raise S3Error("NotImplemented", "MFA delete is not implemented")
    status = wanted.get("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status not in ("Enabled", "Suspended"):
        raise S3Error("MalformedXML")
    await call.objects.update_bucket(call.bucket, lambda b: replace(b, versioning=status))
    return empty()


# -- tags


def _tags_of(call: Call, given: Any) -> dict[str, str]:
    pairs = [(t.get("Key") or "", t.get("Value") or "") for t in given or ()]
    return tags.checked(pairs, call.limits.tags_per_bucket_max, "Bucket")


async def get_bucket_tagging(call: Call) -> Response:
    """The bucket's tags; NoSuchTagSet when there are none."""
    bucket = call.bucket_info()
    if not bucket.tags:
        raise S3Error("NoSuchTagSet", fields={"BucketName": call.bucket})
    return doc.answer(call, {"TagSet": doc.tag_set(bucket.tags)})


async def put_bucket_tagging(call: Call) -> Response:
    """Replace all tags."""
    wanted = await read_document(call)
    tag_set = _tags_of(call, wanted.get("TagSet"))
    await call.objects.update_bucket(call.bucket, lambda b: replace(b, tags=tag_set))
    return empty()  # S3 says 200 in one place and 204 in another; minio-js takes only the first


async def delete_bucket_tagging(call: Call) -> Response:
    """Remove all tags; succeeds when there are none."""
    if call.bucket_info().tags:
        await call.objects.update_bucket(call.bucket, lambda b: replace(b, tags={}))
    return empty(204)


# -- CORS


async def get_bucket_cors(call: Call) -> Response:
    """The rules as they were given."""
    rules = cors.rules_of(call.bucket_info())
    if not rules:
        raise S3Error("NoSuchCORSConfiguration", fields={"BucketName": call.bucket})
    return doc.answer(call, {"CORSRules": [_rule_members(r) for r in rules]})


def _rule_members(rule: cors.Rule) -> dict[str, Any]:
    return {
        "ID": rule.id or None,
        "AllowedHeaders": rule.headers,
        "AllowedMethods": rule.methods,
        "AllowedOrigins": rule.origins,
        "ExposeHeaders": rule.expose,
        "MaxAgeSeconds": rule.max_age,
    }


async def put_bucket_cors(call: Call) -> Response:
    """Replace all rules."""
    wanted = await read_document(call)
    rules = [
        cors.Rule(
            tuple(r.get("AllowedOrigins") or ()),
            tuple(r.get("AllowedMethods") or ()),
            tuple(r.get("AllowedHeaders") or ()),
            tuple(r.get("ExposeHeaders") or ()),
            r.get("MaxAgeSeconds"),
            r.get("ID") or "",
        )
        for r in wanted.get("CORSRules") or ()
    ]
    cors.check(rules)
    packed = cors.pack(rules)
    await call.objects.update_bucket(call.bucket, lambda b: replace(b, settings={**b.settings, cors.SETTING: packed}))
    return empty()


async def delete_bucket_cors(call: Call) -> Response:
    """Remove all rules; succeeds when there are none."""
    if cors.SETTING in call.bucket_info().settings:
        await call.objects.update_bucket(
            call.bucket,
            lambda b: replace(b, settings={k: v for k, v in b.settings.items() if k != cors.SETTING}),
        )
    return empty(204)


HANDLERS = {
    "CreateBucket": create_bucket,
    "DeleteBucket": delete_bucket,
    "ListBuckets": list_buckets,
    "PutBucketVersioning": put_bucket_versioning,
    "GetBucketTagging": get_bucket_tagging,
    "PutBucketTagging": put_bucket_tagging,
    "DeleteBucketTagging": delete_bucket_tagging,
    "GetBucketCors": get_bucket_cors,
    "PutBucketCors": put_bucket_cors,
    "DeleteBucketCors": delete_bucket_cors,
}
