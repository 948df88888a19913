"""Objects in and out: bodies of every size, what is kept with them, ranges, conditions, retries."""

import base64
import hashlib
import random
from typing import Any

import pytest
from botocore.exceptions import ClientError

SIZES = [0, 1, 2047, 2048, 2049, 4096, 4097, 65535, 65536, 65537, 300_000]


def noise(size: int, seed: int = 7) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


def refused(function: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    response = e.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_what_is_got(s3: Any, bucket: str, size: int) -> None:
    body = noise(size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    assert put["ETag"] == etag
    assert put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == body
    assert (got["ETag"], got["ContentLength"], got["AcceptRanges"]) == (etag, size, "bytes")
    assert got["ContentType"] == "binary/octet-stream"
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["ETag"], head["ContentLength"]) == (etag, size)
    assert "ChecksumCRC32" not in head
    assert "VersionId" not in got


KEYS = [
    "a/",
    "//",
    ".",
    "..",
    "a/../b",
    "+",
    "a+b c",
    "ü/日本",
    "a%2Fb",
    "?x=1&y",
    "#",
    "'\"<>&",
    "\x01\x7f",
    "\\",
    "x" * 1024,
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_any_utf8_of_up_to_1024_bytes(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    page = s3.list_objects_v2(Bucket=bucket)
    assert [e["Key"] for e in page["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    assert refused(s3.get_object, Bucket=bucket, Key=key) == ("NoSuchKey", 404)


def test_a_key_that_is_too_long_is_refused(s3: Any, bucket: str) -> None:
    assert refused(s3.put_object, Bucket=bucket, Key="x" * 1025, Body=b"") == ("KeyTooLongError", 400)
    assert refused(s3.put_object, Bucket=bucket, Key="ü" * 513, Body=b"") == ("KeyTooLongError", 400)
    s3.put_object(Bucket=bucket, Key="ü" * 512, Body=b"")


def test_everything_that_was_said_of_an_object_comes_back(s3: Any, bucket: str) -> None:
    said = {
        "ContentType": "text/plain; charset=utf-8",
        "CacheControl": "max-age=5",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
    }
    s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", Metadata={"One": "1", "two": "a b"}, Tagging="t=v&u=w",
        Expires="Wed, 21 Oct 2026 07:28:00 GMT", **said,
    )  # fmt: skip
    for got in (s3.get_object(Bucket=bucket, Key="k"), s3.head_object(Bucket=bucket, Key="k")):
        for name, value in said.items():
            assert got[name] == value
        assert got["Metadata"] == {"one": "1", "two": "a b"}
        assert got["TagCount"] == 2
        assert got["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Wed, 21 Oct 2026 07:28:00 GMT"


def test_metadata_in_utf8_comes_back_as_rfc_2047(rig: Any, bucket: str) -> None:
    rig.send("PUT", f"/{bucket}/k", {"x-amz-meta-name": "grün"}, b"x")
    assert rig.send("HEAD", f"/{bucket}/k").headers["x-amz-meta-name"] == "=?UTF-8?B?Z3LDvG4=?="


def test_response_parameters_replace_headers(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="a/b", CacheControl="no-store")
    got = s3.get_object(
        Bucket=bucket, Key="k", ResponseContentType="c/d", ResponseContentDisposition="inline",
        ResponseCacheControl="max-age=1", ResponseContentLanguage="fr", ResponseContentEncoding="br",
    )  # fmt: skip
    assert [got[n] for n in ("ContentType", "ContentDisposition", "CacheControl", "ContentLanguage")] == [
        "c/d", "inline", "max-age=1", "fr",
    ]  # fmt: skip
    assert got["ContentEncoding"] == "br"


def test_a_response_parameter_cannot_break_out_of_its_header(rig: Any, bucket: str) -> None:
    rig.send("PUT", f"/{bucket}/k", body=b"x")
    answer = rig.send("GET", f"/{bucket}/k?response-content-type=a%0d%0aX-Evil:%201")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


@pytest.mark.parametrize("size", [100, 5000, 200_000])
@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-0", 0, 0), ("10-19", 10, 19), ("50-", 50, None), ("-7", -7, None), ("0-9999999", 0, None)],
)
def test_a_range_is_206_with_its_place(
    s3: Any, bucket: str, size: int, wanted: str, first: int, last: int | None
) -> None:
    body = noise(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={wanted}", ChecksumMode="ENABLED")
    start = first if first >= 0 else size + first
    end = size - 1 if last is None else last
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {start}-{end}/{size}"
    assert got["Body"].read() == body[start : end + 1]
    assert not [n for n in got if n.startswith("Checksum")]  # a part never carries the whole's checksum
    head = s3.head_object(Bucket=bucket, Key="k", Range=f"bytes={wanted}")
    assert head["ContentLength"] == end + 1 - start


def test_ranges_that_s3_ignores_and_ranges_that_cannot_be(rig: Any, bucket: str) -> None:
    rig.send("PUT", f"/{bucket}/k", body=b"0123456789")
    for ignored in ("bytes=0-1,3-4", "bytes=9-2", "lines=1-2", "bytes=x"):
        answer = rig.send("GET", f"/{bucket}/k", {"Range": ignored})
        assert (answer.status, answer.body) == (200, b"0123456789")
    answer = rig.send("GET", f"/{bucket}/k", {"Range": "bytes=10-"})
    assert (answer.status, answer.code) == (416, "InvalidRange")
    assert answer.headers["Content-Range"] == "bytes */10"
    assert (answer.text("ActualObjectSize"), answer.text("RangeRequested")) == ("10", "bytes=10-")


def test_if_range_falls_back_to_the_whole(rig: Any, bucket: str) -> None:
    etag = rig.send("PUT", f"/{bucket}/k", body=b"0123456789").headers["ETag"]
    assert rig.send("GET", f"/{bucket}/k", {"Range": "bytes=1-2", "If-Range": etag}).body == b"12"
    assert rig.send("GET", f"/{bucket}/k", {"Range": "bytes=1-2", "If-Range": '"other"'}).status == 200


def test_conditional_reads(s3: Any, rig: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=modified)["ETag"] == etag
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfMatch='"no"') == ("PreconditionFailed", 412)
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag) == ("304", 304)
    assert refused(s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=modified) == ("304", 304)
    assert refused(s3.head_object, Bucket=bucket, Key="k", IfMatch='"no"') == ("412", 412)
    answer = rig.send("GET", f"/{bucket}/k", {"If-None-Match": etag})
    assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert answer.headers["Last-Modified"]


def test_conditional_writes(s3: Any, bucket: str) -> None:
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"0", IfMatch='"x"') == ("NoSuchKey", 404)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"x"') == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"4", IfMatch=etag) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"
    assert refused(s3.put_object, Bucket=bucket, Key="k", Body=b"4", IfNoneMatch=etag) == ("NotImplemented", 501)


def test_a_retry_of_a_conditional_write_gets_the_first_answer(rig: Any, bucket: str) -> None:
    fields = {"If-None-Match": "*", "amz-sdk-invocation-id": "one"}
    first = rig.send("PUT", f"/{bucket}/k", fields, b"body")
    again = rig.send("PUT", f"/{bucket}/k", fields, b"body")
    assert (first.status, again.status) == (200, 200)
    assert first.headers["ETag"] == again.headers["ETag"]
    other_body = rig.send("PUT", f"/{bucket}/k", fields, b"other")
    assert (other_body.status, other_body.code) == (412, "PreconditionFailed")
    other_call = rig.send("PUT", f"/{bucket}/k", {**fields, "amz-sdk-invocation-id": "two"}, b"body")
    assert other_call.status == 412


def test_a_body_without_a_length_is_411(rig: Any, bucket: str) -> None:
    answer = rig.send("PUT", f"/{bucket}/k", {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, b"abc", chunked=True)
    assert (answer.status, answer.code) == (411, "MissingContentLength")


def test_a_body_that_is_too_large_is_refused_before_it_is_read(rig: Any, bucket: str) -> None:
    fields = {
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "Content-Length": str(5 * 2**30 + 1),
        "Expect": "100-continue",
    }
    answer = rig.send("PUT", f"/{bucket}/k", fields)
    assert (answer.status, answer.code) == (400, "EntityTooLarge")


def test_wrong_digests_store_nothing(rig: Any, s3: Any, bucket: str) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert rig.send("PUT", f"/{bucket}/k", {"Content-MD5": wrong}, b"body").code == "BadDigest"
    assert rig.send("PUT", f"/{bucket}/k", {"Content-MD5": "xx"}, b"body").code == "InvalidDigest"
    assert rig.send("PUT", f"/{bucket}/k", {"x-amz-checksum-crc32": "AAAAAA=="}, b"body").code == "BadDigest"
    assert rig.send("PUT", f"/{bucket}/k", {"x-amz-checksum-crc32": "AA"}, b"body").code == "InvalidRequest"
    assert refused(s3.head_object, Bucket=bucket, Key="k")[1] == 404


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"])
@pytest.mark.parametrize("size", [0, 100, 200_000])
def test_a_checksum_is_verified_kept_and_returned(s3: Any, bucket: str, algorithm: str, size: int) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=noise(size), ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["Body"].read() == noise(size)
    assert [e["ChecksumAlgorithm"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [[algorithm]]


def test_crc64nvme_is_added_when_no_checksum_is_sent(rig: Any, bucket: str) -> None:
    put = rig.send("PUT", f"/{bucket}/k", body=b"123456789")
    assert put.headers["x-amz-checksum-crc64nvme"] == "rosUhgp5mIg="
    assert put.headers["x-amz-checksum-type"] == "FULL_OBJECT"


def test_deleting_what_is_not_there_succeeds(rig: Any, s3: Any, bucket: str) -> None:
    assert rig.send("DELETE", f"/{bucket}/nothing").status == 204
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert rig.send("DELETE", f"/{bucket}/k").status == 204
    assert rig.send("DELETE", f"/{bucket}/k").status == 204


# -- DeleteObjects


def test_many_keys_are_deleted_each_for_itself(s3: Any, bucket: str) -> None:
    for i in range(5):
        s3.put_object(Bucket=bucket, Key=f"k{i}", Body=b"x")
    keys = [{"Key": f"k{i}"} for i in range(4)] + [{"Key": "nothing"}, {"Key": "x" * 1025}]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    assert [d["Key"] for d in done["Deleted"]] == ["k0", "k1", "k2", "k3", "nothing"]
    assert [(e["Key"][:2], e["Code"]) for e in done["Errors"]] == [("xx", "KeyTooLongError")]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k4"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_delete_objects_demands_a_digest_and_verifies_it(rig: Any, bucket: str) -> None:
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    rig.send("PUT", f"/{bucket}/k", body=b"x")
    assert rig.send("POST", f"/{bucket}?delete", body=body).code == "InvalidRequest"
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert rig.send("POST", f"/{bucket}?delete", {"Content-MD5": wrong}, body).code == "BadDigest"
    assert rig.send("GET", f"/{bucket}/k").status == 200
    right = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert rig.send("POST", f"/{bucket}?delete", {"Content-MD5": right}, body).status == 200
    for bad in (b"<Delete></Delete>", b"<Delete><Object>", b"", b"<Other/>"):
        md5 = base64.b64encode(hashlib.md5(bad).digest()).decode()
        answer = rig.send("POST", f"/{bucket}?delete", {"Content-MD5": md5}, bad)
        assert answer.code in ("MalformedXML", "MissingRequestBodyError")


def test_more_than_1000_keys_at_once_are_refused(s3: Any, bucket: str) -> None:
    keys = [{"Key": f"{i}"} for i in range(1001)]
    assert refused(s3.delete_objects, Bucket=bucket, Delete={"Objects": keys}) == ("MalformedXML", 400)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": keys[:1000]})


# -- CopyObject


def test_a_copy_takes_its_sources_bytes_and_attributes(s3: Any, bucket: str) -> None:
    body = noise(100_000)
    s3.put_object(Bucket=bucket, Key="a b+ü", Body=body, Metadata={"m": "1"}, ContentType="x/y", Tagging="t=1")
    done = s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "a b+ü"})
    assert done["CopyObjectResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="c")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (body, {"m": "1"}, "x/y")
    assert s3.get_object_tagging(Bucket=bucket, Key="c")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.copy_object(
        Bucket=bucket, Key="d", CopySource=f"/{bucket}/c", MetadataDirective="REPLACE", Metadata={"n": "2"},
        TaggingDirective="REPLACE", Tagging="u=2", ContentType="p/q",
    )  # fmt: skip
    got = s3.get_object(Bucket=bucket, Key="d")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (body, {"n": "2"}, "p/q")
    assert s3.get_object_tagging(Bucket=bucket, Key="d")["TagSet"] == [{"Key": "u", "Value": "2"}]


def test_a_copy_onto_itself_must_change_something(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "1"})
    source = {"Bucket": bucket, "Key": "k"}
    assert refused(s3.copy_object, Bucket=bucket, Key="k", CopySource=source) == ("InvalidRequest", 400)
    s3.copy_object(Bucket=bucket, Key="k", CopySource=source, MetadataDirective="REPLACE", Metadata={"m": "2"})
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Metadata"], got["Body"].read()) == ({"m": "2"}, b"x")


def test_a_copys_source_must_be_there_and_as_expected(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source, CopySourceIfMatch=etag)
    for condition in ({"CopySourceIfMatch": '"no"'}, {"CopySourceIfNoneMatch": etag}):
        assert refused(s3.copy_object, Bucket=bucket, Key="c", CopySource=source, **condition)[1] == 412
    gone = {"Bucket": bucket, "Key": "gone"}
    assert refused(s3.copy_object, Bucket=bucket, Key="c", CopySource=gone) == ("NoSuchKey", 404)
    nowhere = {"Bucket": "no-such-bucket-at-all", "Key": "k"}
    assert refused(s3.copy_object, Bucket=bucket, Key="c", CopySource=nowhere) == ("NoSuchBucket", 404)
    assert refused(s3.copy_object, Bucket=bucket, Key="c", CopySource="nothing") == ("InvalidArgument", 400)


@pytest.mark.parametrize("size", [10, 150_000])
def test_a_copy_with_another_algorithm_computes_its_checksum(s3: Any, bucket: str, size: int) -> None:
    body = noise(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm="CRC32")
    done = s3.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/k", ChecksumAlgorithm="SHA256")
    expected = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert done["CopyObjectResult"]["ChecksumSHA256"] == expected
    assert s3.head_object(Bucket=bucket, Key="c", ChecksumMode="ENABLED")["ChecksumSHA256"] == expected


# -- GetObjectAttributes, tags


def test_object_attributes(s3: Any, rig: Any, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm="SHA1")
    wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    got = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=wanted)
    assert got["ETag"] == put["ETag"].strip('"')
    assert got["Checksum"] == {"ChecksumSHA1": put["ChecksumSHA1"], "ChecksumType": "FULL_OBJECT"}
    assert (got["ObjectSize"], got["StorageClass"]) == (5, "STANDARD")
    assert "ObjectParts" not in got
    assert got["LastModified"]
    assert rig.send("GET", f"/{bucket}/k?attributes").code == "InvalidArgument"
    assert rig.send("GET", f"/{bucket}/k?attributes", {"x-amz-object-attributes": "Colour"}).code == "InvalidArgument"


def test_tags_of_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    tags = [{"Key": "a", "Value": "1"}, {"Key": "ü", "Value": ""}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == tags
    assert s3.head_object(Bucket=bucket, Key="k").get("TagCount", 2) == 2
    eleven = [{"Key": str(i), "Value": ""} for i in range(11)]
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": eleven})[0] == "BadRequest"
    twice = [{"Key": "a", "Value": ""}] * 2
    assert refused(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": twice})[0] == "InvalidTag"
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert refused(s3.get_object_tagging, Bucket=bucket, Key="gone") == ("NoSuchKey", 404)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("x-amz-server-side-encryption", "AES256", "NotImplemented"),
        ("x-amz-acl", "public-read", "NotImplemented"),
        ("x-amz-grant-read", "id=1", "NotImplemented"),
        ("x-amz-object-lock-mode", "GOVERNANCE", "NotImplemented"),
        ("x-amz-storage-class", "GLACIER", "InvalidStorageClass"),
    ],
)
def test_a_promise_that_is_not_built_is_refused_and_stores_nothing(
    rig: Any, bucket: str, name: str, value: str, code: str
) -> None:
    for method, target in (("PUT", f"/{bucket}/k"), ("POST", f"/{bucket}/k?uploads")):
        assert rig.send(method, target, {name: value}, b"x" if method == "PUT" else b"").code == code
    assert rig.send("GET", f"/{bucket}/k").status == 404
    assert rig.send("GET", f"/{bucket}?uploads").all("UploadId") == []
    assert (
        rig.send("PUT", f"/{bucket}/k", {"x-amz-acl": "private", "x-amz-storage-class": "STANDARD"}, b"x").status == 200
    )
