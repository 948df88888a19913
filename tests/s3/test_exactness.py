"""Small things that clients and their test suites look at, as AWS answers them."""

import email.header
import hashlib
import http.client
import re
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

DEEP = "a/b"
ROOT = ("ROOTKEY", "root-secret")  # of the rig


def test_the_message_of_a_wrong_digest_is_the_message_alone(rig: Any, bucket: str) -> None:
    answer = rig.send("PUT", f"/{bucket}/k", {"Content-MD5": "kAFQmDzST7DWlj99KOF/cg=="}, b"other")
    assert (answer.code, answer.text("Message")) == (
        "BadDigest",
        "The Content-MD5 you specified did not match what we received.",
    )
    assert rig.send("HEAD", f"/{bucket}/k").status == 404


def test_a_standard_header_without_a_value_is_as_if_it_was_not_sent(rig: Any, bucket: str) -> None:
    names = ("Content-Type", "Cache-Control", "Content-Encoding", "Content-Disposition", "Expires")
    assert rig.send("PUT", f"/{bucket}/k", dict.fromkeys(names, ""), b"x").status == 200
    head = rig.send("HEAD", f"/{bucket}/k").headers
    assert head["Content-Type"] == "binary/octet-stream"
    assert not any(n in head for n in names[1:])


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_what_is_no_version_id_is_named(rig: Any, s3: Any, bucket: str, method: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = rig.send(method, f"/{bucket}/k?versionId=junk")
    assert answer.status == 400
    if method != "HEAD":
        assert (answer.code, answer.text("Message")) == ("InvalidArgument", "Invalid version id specified")
        assert (answer.text("ArgumentName"), answer.text("ArgumentValue")) == ("versionId", "junk")


def test_among_many_a_bad_version_id_is_a_version_that_is_not_there(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "junk"}]})
    assert [(e["Code"], e["VersionId"]) for e in done["Errors"]] == [("NoSuchVersion", "junk")]


def test_a_bad_version_id_marker_is_named(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = rig.send("GET", f"/{bucket}?versions&key-marker=k&version-id-marker=junk")
    assert (answer.status, answer.code, answer.text("ArgumentName")) == (400, "InvalidArgument", "version-id-marker")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_delete_marker_named_by_its_id_tells_when_it_was_made(rig: Any, s3: Any, bucket: str, method: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    answer = rig.send(method, f"/{bucket}/k?versionId={marker}")
    listed = s3.list_object_versions(Bucket=bucket)["DeleteMarkers"][0]
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE")
    assert (answer.headers["x-amz-delete-marker"], answer.headers["x-amz-version-id"]) == ("true", marker)
    assert answer.headers["Last-Modified"] == listed["LastModified"].strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_a_405_names_its_own_method(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    answer = rig.send("DELETE", f"/{bucket}/k?tagging&versionId={marker}")
    assert (answer.status, answer.text("Method"), answer.text("ResourceType")) == (405, "DELETE", "DeleteMarker")
    assert "Last-Modified" not in answer.headers


def test_nobody_learns_that_a_bucket_is_missing_or_that_it_is_private(rig: Any, bucket: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        there = rig.send(method, f"/{bucket}/k", body=b"", keys=None)
        assert (there.status, there.code) == (403, "AccessDenied")
        gone = rig.send(method, f"/{bucket}-gone/k", body=b"", keys=None)
        assert (gone.status, gone.code) == (404, "NoSuchBucket")
    assert rig.send("HEAD", f"/{bucket}-gone", keys=None).status == 404
    made = rig.send("PUT", f"/{bucket}-gone", keys=None)
    assert (made.status, made.code) == (403, "AccessDenied")


def test_nobody_may_choose_response_headers(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = rig.send("GET", f"/{bucket}/k?response-content-type=text/html", keys=None)
    assert (answer.status, answer.code) == (400, "InvalidRequest")


def test_an_empty_authorization_header_carries_nothing(rig: Any, bucket: str) -> None:
    answer = rig.send("GET", f"/{bucket}", {"Authorization": ""}, keys=None)
    assert (answer.status, answer.code) == (403, "AccessDenied")


def test_an_empty_continuation_token_is_none(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    page = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    assert (page["ContinuationToken"], page["IsTruncated"], page["KeyCount"]) == ("", False, 1)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "Name Prefix Marker MaxKeys IsTruncated Contents"),
        (
            "?delimiter=%2F&max-keys=1&encoding-type=url",
            "Name Prefix Marker NextMarker MaxKeys Delimiter EncodingType IsTruncated CommonPrefixes",
        ),
        (
            "?list-type=2&max-keys=1&delimiter=%2F&start-after=0",
            "Name Prefix NextContinuationToken StartAfter KeyCount MaxKeys Delimiter IsTruncated CommonPrefixes",
        ),
        (
            "?versions&max-keys=1",
            "Name Prefix KeyMarker VersionIdMarker NextKeyMarker NextVersionIdMarker MaxKeys IsTruncated Version",
        ),
    ],
)
def test_a_listings_elements_stand_in_s3s_order(rig: Any, s3: Any, bucket: str, query: str, names: str) -> None:
    for key in (DEEP, "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    body = rig.send("GET", f"/{bucket}{query}").body.decode()
    depth, found = 0, []
    for close, name, empty in re.findall(r"<(/?)([A-Za-z]+)[^>]*?(/?)>", body.partition("?>")[2]):
        if not close and depth == 1 and name not in found:
            found.append(name)
        depth += 0 if empty else -1 if close else 1
    assert found == names.split()


@pytest.mark.parametrize("value", ["99999999999", "99999999999999999999999", "2147483648"])
def test_a_page_size_beyond_32_bits_is_no_integer(rig: Any, bucket: str, value: str) -> None:
    answer = rig.send("GET", f"/{bucket}?max-keys={value}")
    assert (answer.code, answer.text("Message")) == (
        "InvalidArgument",
        "Provided max-keys not an integer or within integer range",
    )


def test_half_of_a_parts_name_is_refused(rig: Any, s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for query, name in ((f"uploadId={upload}", "uploadId"), ("partNumber=1", "partNumber")):
        answer = rig.send("PUT", f"/{bucket}/k?{query}", body=b"x")
        assert (answer.status, answer.code, answer.text("ArgumentName")) == (400, "InvalidArgument", name)


def complete(s3: Any, bucket: str, upload: str, *parts: dict[str, Any]) -> Any:
    return s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [*parts]})


def put_part(s3: Any, bucket: str, upload: str, number: int, body: bytes, **more: Any) -> dict[str, Any]:
    done = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body, **more)
    return {"PartNumber": number, "ETag": done["ETag"]}


def test_a_refused_part_is_named(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    first, second = (put_part(s3, bucket, upload, n, b"small") for n in (1, 2))
    etag = first["ETag"].strip('"')
    with pytest.raises(ClientError) as e:
        complete(s3, bucket, upload, first, second)
    error = e.value.response["Error"]
    assert (error["Code"], error["PartNumber"], error["ETag"]) == ("EntityTooSmall", "1", etag)
    assert (error["ProposedSize"], error["MinSizeAllowed"]) == ("5", str(64 * 1024))
    with pytest.raises(ClientError) as e:
        complete(s3, bucket, upload, {"PartNumber": 7, "ETag": etag})
    error = e.value.response["Error"]
    assert (error["Code"], error["PartNumber"], error["UploadId"]) == ("InvalidPart", "7", upload)


def test_a_composite_checksum_demands_that_of_every_part(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256")["UploadId"]
    part = put_part(s3, bucket, upload, 1, b"x", ChecksumAlgorithm="SHA256")
    with pytest.raises(ClientError) as e:
        complete(s3, bucket, upload, part)
    error = e.value.response["Error"]
    assert error["Code"] == "InvalidRequest"
    assert "It was missing for part 1" in error["Message"]
    own = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)["Parts"][0]["ChecksumSHA256"]
    assert complete(s3, bucket, upload, {**part, "ChecksumSHA256": own})["ChecksumType"] == "COMPOSITE"


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "CRC64NVME"])
def test_a_copy_of_a_multipart_object_is_one_piece(s3: Any, bucket: str, algorithm: str) -> None:
    """Its etag is the MD5 of all its bytes, its checksum that of the full object, and it has no parts."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm)["UploadId"]
    bodies = [bytes([65 + n]) * 200_000 for n in range(2)]
    parts = []
    for n, body in enumerate(bodies, 1):
        part = put_part(s3, bucket, upload, n, body, ChecksumAlgorithm=algorithm)
        own = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, PartNumberMarker=n - 1)["Parts"][0]
        parts.append({**part, f"Checksum{algorithm}": own[f"Checksum{algorithm}"]})
    assert complete(s3, bucket, upload, *parts)["ETag"].endswith('-2"')
    body = b"".join(bodies)
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=body, ChecksumAlgorithm=algorithm)
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"})["CopyObjectResult"]
    assert copied["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert (copied["ChecksumType"], copied[f"Checksum{algorithm}"]) == ("FULL_OBJECT", whole[f"Checksum{algorithm}"])
    head = s3.head_object(Bucket=bucket, Key="copy", PartNumber=1)
    assert (head["ContentLength"], head["ETag"]) == (len(body), copied["ETag"])
    assert "PartsCount" not in head
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == body
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-2"')


def test_tags_of_a_bucket_are_put_with_200_and_removed_with_204(rig: Any, bucket: str) -> None:
    body = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    assert rig.send("PUT", f"/{bucket}?tagging", body=body).status == 200
    assert rig.send("DELETE", f"/{bucket}?tagging").status == 204


@pytest.mark.parametrize("signer", [HmacV1QueryAuth, S3SigV4QueryAuth])
def test_checksums_in_a_presigned_url_are_ignored(rig: Any, s3: Any, bucket: str, signer: Any) -> None:
    """SDKs put the checksum of the empty body there, because that is all that they have when they sign."""
    query = "x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-amz-meta-kept=yes"
    fields: dict[str, str] = {}
    if signer is HmacV1QueryAuth:  # it writes the fields that it signs into the query itself
        fields = dict(pair.split("=", 1) for pair in unquote(query).split("&"))
    request = AWSRequest("PUT", f"{rig.endpoint}/{bucket}/k" + ("" if fields else f"?{query}"), headers=fields)
    signer(Credentials(*ROOT), *(() if fields else ("s3", "us-east-1"))).add_auth(request)
    answer = rig.send("PUT", request.url.partition(f":{rig.port}")[2], body=b"something", keys=None)
    assert (answer.status, answer.code) == (200, "")
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head["ContentLength"], head["Metadata"]) == (9, {"kept": "yes"})
    assert "ChecksumCRC64NVME" in head
    assert "ChecksumCRC32" not in head


def test_a_header_that_was_signed_as_utf8_and_sent_as_latin1_is_what_was_signed(rig: Any, bucket: str) -> None:
    """Node sends header text as Latin-1; its signers sign the same text as UTF-8."""
    request = AWSRequest("PUT", f"{rig.endpoint}/{bucket}/k", data=b"x", headers={"x-amz-meta-name": "caf\u00e9"})
    S3SigV4Auth(Credentials(*ROOT), "s3", "us-east-1").add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=30)
    connection.request("PUT", f"/{bucket}/k", b"x", {n: v.encode("latin-1") for n, v in request.headers.items()})
    assert connection.getresponse().status == 200
    connection.close()
    kept = rig.send("HEAD", f"/{bucket}/k").headers["x-amz-meta-name"]
    assert str(email.header.make_header(email.header.decode_header(kept))) == "caf\u00e9"


def test_a_date_before_the_epoch_is_no_date(rig: Any, bucket: str) -> None:
    fields = {"Authorization": f"AWS {ROOT[0]}:sig", "Date": "Tue, 07 Jul 1950 21:53:04 GMT"}
    answer = rig.send("GET", f"/{bucket}", fields, keys=None)
    assert (answer.status, answer.code) == (403, "AccessDenied")


def test_a_put_that_says_nothing_of_its_length_stores_nothing(rig: Any, s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for target in (f"/{bucket}/k", f"/{bucket}/k?partNumber=1&uploadId={upload}"):
        request = AWSRequest("PUT", f"{rig.endpoint}{target}", data=b"")
        S3SigV4Auth(Credentials(*ROOT), "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=30)
        connection.putrequest("PUT", target)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, b"MissingContentLength" in response.read()) == (411, True)
        connection.close()
    assert rig.send("HEAD", f"/{bucket}/k").status == 404
