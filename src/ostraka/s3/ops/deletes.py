"""DeleteObject and DeleteObjects."""

from typing import Any

from ostraka.http import Response
from ostraka.objects.types import BadVersionId, Deleted
from ostraka.s3.errors import S3Error, from_error
from ostraka.s3.ops import documents as doc
from ostraka.s3.ops.call import Call, empty
from ostraka.s3.ops.conditions import not_implemented, required_etags
from ostraka.s3.ops.payloads import read_document

_DIRECTORY_BUCKETS_ONLY = ("x-amz-if-match-last-modified-time", "x-amz-if-match-size")


async def delete_object(call: Call) -> Response:
    """Delete a version, or put a delete marker in front; what is not there is deleted successfully.

    If-Match speaks of the current object: with a version id it is refused, as S3 does, and where there is no current
    object it is a 404.
    """
    for name in _DIRECTORY_BUCKETS_ONLY:
        if name in call.headers:
            raise not_implemented(name)
    version = call.version_id()
    match = call.headers.get("if-match")
    if match is not None and version is not None:
        raise not_implemented("If-Match", "together with a version id")
    wanted = required_etags(match) if match is not None else ()
    done = await call.objects.delete(call.bucket, call.key, version, owner=call.account.name, if_match=wanted)
    headers = []
    if done.delete_marker:
        headers.append(("x-amz-delete-marker", "true"))
    if done.version_id:
        headers.append(("x-amz-version-id", done.version_id))
    return empty(204, headers)


async def delete_objects(call: Call) -> Response:
    """Up to 1,000 keys, each answered for itself; with Quiet only the failures."""
    wanted = await read_document(call)
    entries: list[dict[str, Any]] = wanted.get("Objects") or []
    if not 0 < len(entries) <= call.limits.delete_keys_max:
        raise S3Error("MalformedXML")
    quiet = bool(wanted.get("Quiet"))
    keys: list[tuple[str, str | None]] = []
    if_match: dict[int, tuple[str, ...]] = {}
    results: list[Deleted | Exception | None] = []
    for entry in entries:
        problem = _problem(entry, call.limits.key_bytes_max)
        results.append(problem)
        if problem is None:
            etag = entry.get("ETag")
            if etag is not None:
                if_match[len(keys)] = required_etags(etag)
            keys.append((entry["Key"], entry.get("VersionId") or None))
    owner = call.account.name
    done = iter(await call.objects.delete_many(call.bucket, keys, owner=owner, if_match=if_match) if keys else ())
    deleted: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for entry, result in zip(entries, results, strict=True):
        outcome = next(done) if result is None else result
        if isinstance(outcome, Exception):
            failed.append(_failure(call, entry, outcome))
        elif not quiet:
            deleted.append(_success(entry, outcome))
    return doc.answer(call, {"Deleted": deleted, "Errors": failed})


def _problem(entry: dict[str, Any], key_bytes_max: int) -> Exception | None:
    key = entry.get("Key")
    if not key:
        raise S3Error("MalformedXML")
    if len(key.encode("utf-8", "surrogatepass")) > key_bytes_max:
        return S3Error("KeyTooLongError")
    if any(entry.get(name) is not None for name in ("LastModifiedTime", "Size")):
        return S3Error("NotImplemented", "Deletes conditional on LastModifiedTime or Size are not implemented")
    if entry.get("ETag") is not None and entry.get("VersionId"):
        return S3Error("NotImplemented", "A delete of a version conditional on an ETag is not implemented")
    return None


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    version = entry.get("VersionId")
    return {"Key": entry["Key"], "VersionId": version} if version else {"Key": entry["Key"]}


def _failure(call: Call, entry: dict[str, Any], problem: Exception) -> dict[str, Any]:
    if isinstance(problem, BadVersionId):  # here S3 says that the version is not there
        problem = S3Error("NoSuchVersion")
    error = from_error(problem, bucket=call.bucket, key=entry["Key"])
    return {**_named(entry), "Code": error.code, "Message": error.message}


def _success(entry: dict[str, Any], done: Deleted) -> dict[str, Any]:
    row = _named(entry)
    if done.delete_marker:
        row["DeleteMarker"] = True
        if done.version_id:
            row["DeleteMarkerVersionId"] = done.version_id
    return row


HANDLERS = {"DeleteObject": delete_object, "DeleteObjects": delete_objects}
