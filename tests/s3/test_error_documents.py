"""What an error tells: code, message, what it is about, and where to ask further."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest


def fields(answer: Any) -> dict[str, str]:
    """The elements of an error document, which is in no namespace."""
    root = ET.fromstring(answer.body)
    assert root.tag == "Error"
    return {e.tag: e.text or "" for e in root}


def raw_upload(rig: Any, bucket: str) -> str:
    return str(rig.send("POST", f"/{bucket}/k?uploads").text("UploadId"))


CASES: list[tuple[str, str, dict[str, str], bytes, int, str, dict[str, str]]] = [
    ("GET", "/{b}/gone", {}, b"", 404, "NoSuchKey", {"Key": "gone"}),
    ("GET", "/{b}/a%01b", {}, b"", 404, "NoSuchKey", {"Key": "a\ufffdb"}),
    ("GET", "/no-such-bucket-here/k", {}, b"", 404, "NoSuchBucket", {"BucketName": "no-such-bucket-here"}),
    ("GET", "/{b}/k?versionId=" + "0" * 32, {}, b"", 404, "NoSuchVersion", {}),
    ("GET", "/{b}/k?uploadId=x", {}, b"", 404, "NoSuchUpload", {}),
    ("DELETE", "/{b}", {}, b"", 409, "BucketNotEmpty", {"BucketName": "{b}"}),
    ("GET", "/{b}/k", {"Range": "bytes=9-"}, b"", 416, "InvalidRange", {"ActualObjectSize": "1"}),
    ("GET", "/{b}/k?partNumber=3", {}, b"", 416, "InvalidPartNumber", {"ActualPartCount": "1"}),
    ("GET", "/{b}/k", {"If-Match": '"x"'}, b"", 412, "PreconditionFailed", {"Condition": "If-Match"}),
    ("PUT", "/{b}/k", {"If-None-Match": "*"}, b"x", 412, "PreconditionFailed", {"Condition": "If-None-Match"}),
    ("PUT", "/{b}/k", {"If-None-Match": '"x"'}, b"x", 501, "NotImplemented", {"Header": "if-none-match"}),
    ("PUT", "/{b}/k", {"x-amz-acl": "public-read"}, b"x", 501, "NotImplemented", {"Header": "x-amz-acl"}),
    ("PUT", "/{b}/k?acl", {}, b"x", 501, "NotImplemented", {"Operation": "PutObjectAcl"}),
    ("PUT", "/{b}/" + "x" * 1025, {}, b"", 400, "KeyTooLongError", {"Size": "1025", "MaxSizeAllowed": "1024"}),
    ("PUT", "/{b}/k", {"x-amz-meta-a": "x" * 3000}, b"", 400, "MetadataTooLarge", {"MaxSizeAllowed": "2048"}),
    ("PUT", "/{b}/k", {"x-amz-storage-class": "X"}, b"", 400, "InvalidStorageClass", {"StorageClassRequested": "X"}),
    ("PUT", "/{b}/k", {"Content-MD5": "x"}, b"x", 400, "InvalidDigest", {"Content-MD5": "x"}),
    ("PUT", "/{b}/k", {"x-amz-tagging": "a=1&a=2"}, b"x", 400, "InvalidArgument", {"ArgumentName": "x-amz-tagging"}),
    ("PUT", "/BAD", {}, b"", 400, "InvalidBucketName", {"BucketName": "BAD"}),
    ("PUT", "/{b}/k?tagging", {}, b"<Tagging>", 400, "MalformedXML", {}),
    ("PUT", "/{b}/k?tagging", {}, b"", 400, "MissingRequestBodyError", {}),
    ("GET", "/{b}?max-keys=x", {}, b"", 400, "InvalidArgument", {"ArgumentName": "max-keys", "ArgumentValue": "x"}),
    ("GET", "/{b}?acl&cors", {}, b"", 400, "InvalidArgument", {"ArgumentName": "ResourceType"}),
    ("PATCH", "/{b}/k", {}, b"", 405, "MethodNotAllowed", {"Method": "PATCH", "ResourceType": "OBJECT"}),
    ("GET", "/{b}/%zz", {}, b"", 400, "InvalidURI", {}),
    ("POST", "/{b}", {}, b"", 412, "PreconditionFailed", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "headers", "body", "status", "code", "expected"), CASES)
def test_an_error_tells_what_it_is_about(
    rig: Any,
    bucket: str,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
    expected: dict[str, str],
) -> None:
    rig.send("PUT", f"/{bucket}/k", body=b"1")
    target = target.replace("{b}", bucket)
    answer = rig.send(method, target, headers, body)
    told = fields(answer)
    assert (answer.status, told["Code"]) == (status, code)
    assert told["Message"]
    assert told["RequestId"] == answer.headers["x-amz-request-id"]
    assert told["HostId"] == answer.headers["x-amz-id-2"]
    assert told["Resource"] == target.partition("?")[0]
    for name, value in expected.items():
        assert told[name] == value.replace("{b}", bucket), name
    assert rig.send("GET", f"/{bucket}/k").body == b"1"


def test_completing_tells_what_was_wrong(rig: Any, bucket: str) -> None:
    upload = raw_upload(rig, bucket)
    etag = rig.send("PUT", f"/{bucket}/k?partNumber=1&uploadId={upload}", body=b"x").headers["ETag"]
    for parts, code in (
        (f"<Part><PartNumber>1</PartNumber><ETag>{'0' * 32}</ETag></Part>", "InvalidPart"),
        (f"<Part><PartNumber>2</PartNumber><ETag>{etag}</ETag></Part>", "InvalidPart"),
        (f"<Part><PartNumber>0</PartNumber><ETag>{etag}</ETag></Part>", "InvalidArgument"),
        (f"<Part><ETag>{etag}</ETag></Part>", "MalformedXML"),
        ("", "MalformedXML"),
    ):
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        assert fields(rig.send("POST", f"/{bucket}/k?uploadId={upload}", body=body))["Code"] == code
    host = {"Host": f"{bucket}.s3.test"}
    body = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    )
    done = rig.send("POST", f"/k?uploadId={upload}", host, body.encode())
    assert done.text("Location") == f"http://{bucket}.s3.test/k"
