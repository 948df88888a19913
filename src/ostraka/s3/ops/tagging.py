"""Tags of objects: GetObjectTagging, PutObjectTagging, DeleteObjectTagging."""

from ostraka.http import Response
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops import tags
from ostraka.s3.ops.call import Call, empty, version_headers
from ostraka.s3.ops.payloads import read_document


async def get_object_tagging(call: Call) -> Response:
    """The tags; an empty set when there are none."""
    info = call.objects.lookup(call.bucket, call.key, call.version_id())
    return doc.answer(call, {"TagSet": doc.tag_set(info.attributes.tags)}, version_headers(info))


async def put_object_tagging(call: Call) -> Response:
    """Replace all tags of a version."""
    version = call.version_id()
    wanted = await read_document(call)
    pairs = [(t.get("Key") or "", t.get("Value") or "") for t in wanted.get("TagSet") or ()]
    tag_set = tags.checked(pairs, call.limits.tags_per_object_max, "Object")
    return empty(200, version_headers(await call.objects.update_tags(call.bucket, call.key, version, tag_set)))


async def delete_object_tagging(call: Call) -> Response:
    """Remove all tags of a version."""
    return empty(204, version_headers(await call.objects.update_tags(call.bucket, call.key, call.version_id(), {})))


HANDLERS = {
    "GetObjectTagging": get_object_tagging,
    "PutObjectTagging": put_object_tagging,
    "DeleteObjectTagging": delete_object_tagging,
}
