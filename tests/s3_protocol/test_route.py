"""Which operation a request is; above all, what a request with a sub-resource never is."""

import pytest

from ostraka.s3.errors import S3Error
from ostraka.s3.model import OPERATIONS
from ostraka.s3.query import parse_query
from ostraka.s3.route import POST_OBJECT, PREFLIGHT, route

PLAIN = {"PutObject", "CreateBucket", "DeleteObject", "DeleteBucket", "CopyObject"}


def ask(method: str, path: str, **headers: str) -> str:
    path, _, query = path.partition("?")
    bucket, _, key = path.removeprefix("/").partition("/")
    named = {n.replace("_", "-"): v for n, v in headers.items()}
    return route(method, bucket or None, key or None, parse_query(query.encode()), named)


def code(method: str, path: str, **headers: str) -> str:
    with pytest.raises(S3Error) as caught:
        ask(method, path, **headers)
    return caught.value.code


@pytest.mark.parametrize("name", sorted(n for n, o in OPERATIONS.items() if o.scope != "other" and not o.deprecated))
def test_every_operation_of_the_model_is_reached(name: str) -> None:
    op = OPERATIONS[name]
    if name == "ListDirectoryBuckets":  # the same request as ListBuckets, at another kind of endpoint
        return
    path = {"service": "/", "bucket": "/b", "key": "/b/k"}[op.scope]
    words = [*op.markers, *(f"{n}=1" for n in op.needs), f"x-id={name}"]
    headers = {op.header.replace("-", "_"): "a/b"} if op.header else {}
    assert ask(op.method, f"{path}?{'&'.join(words)}", **headers) == name


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
@pytest.mark.parametrize("marker", sorted({o.markers[0] for o in OPERATIONS.values() if o.markers} - {"list-type=2"}))
@pytest.mark.parametrize("path", ["/b", "/b/k"])
def test_a_write_to_a_sub_resource_never_falls_through(method: str, marker: str, path: str) -> None:
    for query in (marker, f"{marker}=", f"versionId=1&{marker}", f"{marker}&partNumber=1&uploadId=2"):
        try:
            assert ask(method, f"{path}?{query}") not in PLAIN | {"UploadPart", "AbortMultipartUpload"}
        except S3Error as exc:
            assert exc.code in ("MethodNotAllowed", "InvalidRequest", "NoLoggingStatusForKey")


def test_lists_and_reads() -> None:
    assert ask("GET", "/") == "ListBuckets"
    assert ask("GET", "/b") == "ListObjects"
    assert ask("GET", "/b?list-type=2&prefix=a") == "ListObjectsV2"
    assert ask("GET", "/b?list-type=1") == "ListObjects"
    assert ask("GET", "/b/k?partNumber=1") == "GetObject"
    assert ask("GET", "/b/k?uploadId=x") == "ListParts"
    assert ask("GET", "/b?analytics") == "ListBucketAnalyticsConfigurations"
    assert ask("GET", "/b?analytics&id=x") == "GetBucketAnalyticsConfiguration"
    assert ask("GET", "/b/k?response-content-type=a&versionId=v&unknown=1") == "GetObject"


def test_half_a_part_upload_is_still_one() -> None:
    assert ask("PUT", "/b/k?partNumber=1") == "UploadPart"
    assert ask("PUT", "/b/k?uploadId=1") == "UploadPart"
    assert ask("PUT", "/b/k?uploadId=1", x_amz_copy_source="/b/k") == "UploadPartCopy"
    assert ask("PUT", "/b/k", x_amz_copy_source="/b/k") == "CopyObject"


def test_what_is_no_operation() -> None:
    assert ask("POST", "/b", content_type="multipart/form-data; boundary=x") == POST_OBJECT
    assert code("POST", "/b") == "PreconditionFailed"
    assert ask("OPTIONS", "/b/k?acl") == PREFLIGHT
    assert code("PATCH", "/b/k") == "MethodNotAllowed"
    assert code("POST", "/b/k") == "MethodNotAllowed"
    assert code("PUT", "/") == "MethodNotAllowed"
    assert code("PUT", "/b/k?acl&tagging") == "InvalidArgument"
    assert code("GET", "/b/k?logging") == "NoLoggingStatusForKey"
    assert code("GET", "/b/k?versions") == "InvalidRequest"
    assert code("DELETE", "/b/k?acl") == "MethodNotAllowed"
