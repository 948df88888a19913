"""Nothing that a client can send is our internal error, and nothing it sends by mistake changes anything."""

import random
from typing import Any

import pytest

from ostraka.s3.model import OPERATIONS

OPERATION_LIST = [o for o in OPERATIONS.values() if o.scope != "other" and o.name != "DeleteBucket"]
WORDS = [
    "acl", "uploads", "uploadId", "partNumber", "versionId", "versions", "list-type", "max-keys", "prefix", "marker",
    "delimiter", "encoding-type", "continuation-token", "start-after", "tagging", "delete", "cors", "versioning",
    "key-marker", "version-id-marker", "upload-id-marker", "max-uploads", "max-parts", "part-number-marker",
    "response-expires", "attributes", "id", "location", "x-id", "fetch-owner", "torrent", "select", "restore",
]  # fmt: skip
VALUES = [
    "", "0", "1", "-1", "2", "url", "null", "%00", "%F0%9F%92%A9", "x" * 5000, "%ff", "999999999999999999999", "a%2Fb",
    "%2F", "%7f", "true", "0" * 32, "e" * 33, "%0d%0a", "%EF%BF%BF", "%ED%A0%80",
]  # fmt: skip
HEADERS = {
    "Range": ["bytes=0-", "bytes=5-1", "bytes=-0", "bytes=999999999999999999999-", "x"],
    "If-Match": ["*", '"x"', "", ",", "W/"],
    "If-None-Match": ["*", '"x"', ""],
    "If-Modified-Since": ["now", "Sun, 06 Nov 9999999 08:49:37 GMT", ""],
    "x-amz-copy-source": ["", "/", "a", "a/b?versionId=", "%ff/x", "a/%ff", "t/k?versionId=x", "x" * 5000 + "/k"],
    "x-amz-copy-source-range": ["bytes=0-0", "x", "bytes=-1"],
    "x-amz-tagging": ["a=b", "&&&", "=", "%ff=1", "a" * 3000],
    "x-amz-meta-x": ["=?UTF-8?B?/w==?=", "=?x?Q?=ZZ?=", "=?utf-8?q?a=0Ab=C3=BC?=", "\u00ff"],
    "x-amz-checksum-type": ["FULL_OBJECT", "x"],
    "x-amz-checksum-algorithm": ["CRC32", "x"],
    "x-amz-object-attributes": ["ETag", "ETag,Checksum,ObjectParts", ",", "x"],
    "x-amz-mp-object-size": ["x", "-1", "5"],
    "x-amz-max-parts": ["x", "0", "-1"],
    "Content-MD5": ["x", "1B2M2Y8AsgTpgAmY7PhCfg=="],
    "x-amz-metadata-directive": ["REPLACE", "x"],
    "x-amz-expected-bucket-owner": ["x"],
    "amz-sdk-invocation-id": ["x", "y" * 200],
    "Origin": ["http://x", "\u00ff"],
}
BODIES = [
    b"", b"x", b"<a/>", b"<Delete><Object><Key>k</Key></Object></Delete>", b"<Tagging><TagSet/></Tagging>",
    b"<Tagging><TagSet><Tag><Key>&#x1;</Key><Value/></Tag></TagSet></Tagging>", b"<!DOCTYPE a><a/>",
    b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>zz</ETag></Part></CompleteMultipartUpload>",
    b"<CompleteMultipartUpload><Part><PartNumber>99999999999999999999</PartNumber><ETag>x</ETag></Part>"
    b"</CompleteMultipartUpload>", b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    b"</CORSRule></CORSConfiguration>",
    b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    b"<ExposeHeader>a\r\nb</ExposeHeader></CORSRule></CORSConfiguration>",
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_no_request_is_an_internal_error(rig: Any, s3: Any, bucket: str, seed: int, part: int) -> None:
    choice = random.Random(seed)
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    paths = ["/", f"/{bucket}", f"/{bucket}/", f"/{bucket}/k", f"/{bucket}/%00", f"/{bucket}//", "//", "//k",
             f"/{bucket}/{'x' * 1025}", "/" + "b" * 5000, f"/{bucket}/k%2", "/%00/k", f"/{bucket}/k/../.."]  # fmt: skip
    seen = set()
    for _ in range(250):
        if choice.random() < 0.5:  # near to something that exists
            operation = choice.choice(OPERATION_LIST)
            method, known = operation.method, [*operation.markers, *operation.needs]
            target = f"/{bucket}/k" if operation.scope == "key" else f"/{bucket}"
            words = [
                (n, "") if "=" in n or n in operation.markers else (n, choice.choice(["1", upload])) for n in known
            ]
        else:
            method = choice.choice(["GET", "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"])
            target, words = choice.choice(paths), []
        for _ in range(choice.choice([0, 1, 1, 2])):
            words.append((choice.choice(WORDS), choice.choice([*VALUES, upload])))
        query = "&".join(f"{n}={v}" if v else n for n, v in words)
        target += f"?{query}" if query else ""
        names = choice.sample(sorted(HEADERS), choice.choice([0, 0, 1, 2]))
        headers = {n: choice.choice(HEADERS[n]) for n in names}
        answer = rig.send(method, target, headers, choice.choice(BODIES) if method in ("PUT", "POST") else b"")
        assert answer.status != 500, (method, target[:200], headers, answer)
        if answer.status >= 400 and method != "HEAD":
            assert answer.code, (method, target[:200], headers, answer)
        seen.add(answer.code or answer.status)
    assert {200, "InvalidArgument", "InvalidURI", "NoSuchBucket", "MalformedXML"} <= seen  # it gets past the door


def test_parameters_of_any_length_are_only_parameters(rig: Any, bucket: str) -> None:
    long = "x" * 6000
    assert rig.send("GET", f"/{bucket}?list-type=2&prefix={long}").status == 200
    assert rig.send("GET", f"/{bucket}?marker={long}&delimiter={long}").status == 200
    assert rig.send("GET", f"/{bucket}?versions&key-marker={long}").status == 200
    assert rig.send("GET", f"/{bucket}?uploads&key-marker={long}").status == 200
    assert rig.send("GET", f"/{bucket}?uploads&key-marker=x&upload-id-marker={long}").code == "InvalidArgument"
    assert rig.send("GET", f"/{long}").code == "InvalidBucketName"
    assert rig.send("GET", f"/{bucket}/k?uploadId={long}").code == "NoSuchUpload"
    assert rig.send("GET", f"/{bucket}/k?versionId={long}").code == "InvalidArgument"
