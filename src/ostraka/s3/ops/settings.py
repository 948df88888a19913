"""Sub-resources of buckets and objects that nobody has configured: what a GET of each answers.

S3 has a default for some (an ACL of the owner, logging off), and a code of its own for "not configured" for the others.
No GET is 501: clients probe them, Terraform and backup programs among them. What is configurable here has handlers
of its own (tagging, versioning, CORS, encryption); the others' PUT and DELETE are 501, so that nothing is accepted and
ignored.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ostraka.http import Response
from ostraka.objects.types import Bucket
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.call import Call, Handler, empty, version_headers

_LOCK_MISSING = "Bucket is missing Object Lock Configuration"


def _answer(value: Callable[[Bucket], Mapping[str, Any]]) -> Handler:
    async def handler(call: Call) -> Response:
        return doc.answer(call, value(call.bucket_info()))

    return handler


def _refuse(code: str, message: str | None = None, *, of_object: bool = False) -> Handler:
    async def handler(call: Call) -> Response:
        bucket = call.bucket_info()
        if of_object:
            call.objects.lookup(call.bucket, call.key, call.version_id())
        raise S3Error(code, message, fields={"BucketName": bucket.name})

    return handler


def _location(bucket: Bucket) -> dict[str, str]:
    return {"LocationConstraint": "" if bucket.region == "us-east-1" else bucket.region}


_nothing = _answer(lambda _: {})
_list_of_none = _answer(lambda _: {"IsTruncated": False})
_block_all = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
_enforced = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


async def get_bucket_versioning(call: Call) -> Response:
    """The state of versioning; no Status when it was never touched."""
    return doc.answer(call, {"Status": call.bucket_info().versioning or None})


async def get_object_acl(call: Call) -> Response:
    """The owner may do all."""
    info = call.objects.lookup(call.bucket, call.key, call.version_id())
    return doc.answer(call, doc.owner_full_control(call.bucket_info().owner), version_headers(info))


async def list_object_annotations(call: Call) -> Response:
    """No object has annotations here."""
    call.objects.lookup(call.bucket, call.key, call.version_id())
    return doc.answer(call, {"Bucket": call.bucket, "Key": call.key, "AnnotationCount": 0})


async def head_bucket(call: Call) -> Response:
    """Whether the bucket is there and may be used, and where it is."""
    headers = [("x-amz-bucket-region", call.bucket_info().region), ("x-amz-access-point-alias", "false")]
    return empty(200, [*headers, ("Content-Type", "application/xml")])


HANDLERS: dict[str, Handler] = {
    "GetBucketLocation": _answer(_location),
    "GetBucketVersioning": get_bucket_versioning,
    "HeadBucket": head_bucket,
    "GetBucketAcl": _answer(lambda b: doc.owner_full_control(b.owner)),
    "GetObjectAcl": get_object_acl,
    "GetBucketAbac": _answer(lambda _: {"Status": "Disabled"}),
    "GetBucketAccelerateConfiguration": _nothing,
    "GetBucketLogging": _nothing,
    "GetBucketNotification": _nothing,
    "GetBucketNotificationConfiguration": _nothing,
    "GetBucketOwnershipControls": _answer(lambda _: _enforced),
    "GetBucketRequestPayment": _answer(lambda _: {"Payer": "BucketOwner"}),
    "GetPublicAccessBlock": _answer(lambda _: _block_all),
    "GetBucketLifecycle": _refuse("NoSuchLifecycleConfiguration"),
    "GetBucketLifecycleConfiguration": _refuse("NoSuchLifecycleConfiguration"),
    "GetBucketPolicy": _refuse("NoSuchBucketPolicy"),
    "GetBucketPolicyStatus": _refuse("NoSuchBucketPolicy"),
    "GetBucketReplication": _refuse("ReplicationConfigurationNotFoundError"),
    "GetBucketWebsite": _refuse("NoSuchWebsiteConfiguration"),
    "GetObjectLockConfiguration": _refuse("ObjectLockConfigurationNotFoundError"),
    "GetObjectLegalHold": _refuse("InvalidRequest", _LOCK_MISSING, of_object=True),
    "GetObjectRetention": _refuse("InvalidRequest", _LOCK_MISSING, of_object=True),
    "GetObjectTorrent": _refuse("MethodNotAllowed", of_object=True),
    "GetObjectAnnotation": _refuse("NoSuchAnnotation", of_object=True),
    "ListObjectAnnotations": list_object_annotations,
    "GetBucketAnalyticsConfiguration": _refuse("NoSuchConfiguration"),
    "GetBucketIntelligentTieringConfiguration": _refuse("NoSuchConfiguration"),
    "GetBucketInventoryConfiguration": _refuse("NoSuchConfiguration"),
    "GetBucketMetricsConfiguration": _refuse("NoSuchConfiguration"),
    "GetBucketMetadataConfiguration": _refuse("MetadataConfigurationNotFound"),
    "GetBucketMetadataTableConfiguration": _refuse("MetadataConfigurationNotFound"),
    "ListBucketAnalyticsConfigurations": _list_of_none,
    "ListBucketIntelligentTieringConfigurations": _list_of_none,
    "ListBucketInventoryConfigurations": _list_of_none,
    "ListBucketMetricsConfigurations": _list_of_none,
    "CreateSession": _refuse(
        "MethodNotAllowed", "Sessions are for directory buckets; this is a general purpose bucket."
    ),
}
