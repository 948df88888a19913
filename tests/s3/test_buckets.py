"""Buckets: making, finding, listing and removing them, whose they are, and what is set on them."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from ostraka.objects.types import Bucket
from ostraka.s3.model import OPERATIONS
from ostraka.s3.ops.call import account_number, canonical_id
from ostraka.s3.ops.registry import HANDLERS


def refused(function: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    response = e.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# -- create, head, location, delete


def test_making_a_bucket_that_is_ones_own_again(rig: Any, s3: Any, bucket: str) -> None:
    assert s3.create_bucket(Bucket=bucket)["Location"] == f"/{bucket}"  # 200 in us-east-1
    elsewhere = rig.bucket_name("elsewhere")
    there = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket=elsewhere, CreateBucketConfiguration=there)
    assert refused(s3.create_bucket, Bucket=elsewhere, CreateBucketConfiguration=there) == (
        "BucketAlreadyOwnedByYou", 409,
    )  # fmt: skip
    assert refused(rig.client(rig.ann).create_bucket, Bucket=bucket) == ("BucketAlreadyExists", 409)


def test_a_buckets_location_is_kept(rig: Any, s3: Any, bucket: str) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    far = rig.bucket_name("far")
    s3.create_bucket(Bucket=far, CreateBucketConfiguration={"LocationConstraint": "eu-west-3"})
    assert s3.get_bucket_location(Bucket=far)["LocationConstraint"] == "eu-west-3"
    assert s3.head_bucket(Bucket=far)["BucketRegion"] == "eu-west-3"
    assert rig.send("GET", f"/{far}/gone").headers["x-amz-bucket-region"] == "eu-west-3"  # errors tell it too
    assert (
        rig.send("PUT", f"/{rig.bucket_name('odd')}", body=_location("no such/place")).code
        == "InvalidLocationConstraint"
    )


def _location(region: str) -> bytes:
    inner = f"<LocationConstraint>{region}</LocationConstraint>"
    return f"<CreateBucketConfiguration>{inner}</CreateBucketConfiguration>".encode()


@pytest.mark.parametrize("name", ["Upper", "a_b", "ab", "x" * 64, "10.0.0.1", "-abc", "xn--abc"])
def test_bad_bucket_names_are_refused(rig: Any, name: str) -> None:
    answer = rig.send("PUT", f"/{name}")
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


def test_both_spellings_of_a_buckets_path(rig: Any, bucket: str) -> None:
    for target in (f"/{bucket}", f"/{bucket}/"):
        assert rig.send("HEAD", target).status == 200
        assert rig.send("GET", target).text("Name") == bucket


def test_any_region_may_stand_in_a_signature(rig: Any, bucket: str) -> None:
    assert rig.client(region="ap-south-2").head_bucket(Bucket=bucket)


def test_a_bucket_that_is_not_there(rig: Any, s3: Any) -> None:
    gone = "there-is-no-such-bucket"
    assert refused(s3.head_bucket, Bucket=gone) == ("404", 404)
    assert refused(s3.list_objects_v2, Bucket=gone) == ("NoSuchBucket", 404)
    assert refused(s3.put_object, Bucket=gone, Key="k", Body=b"x") == ("NoSuchBucket", 404)
    assert refused(s3.delete_bucket, Bucket=gone) == ("NoSuchBucket", 404)
    answer = rig.send("GET", f"/{gone}/k")
    assert (answer.code, answer.text("BucketName"), answer.text("Resource")) == ("NoSuchBucket", gone, f"/{gone}/k")


def test_only_an_empty_bucket_is_removed(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refused(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k")
    assert s3.delete_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(s3.head_bucket, Bucket=bucket)[1] == 404


def test_buckets_are_listed_in_pages(rig: Any, s3: Any) -> None:
    client = rig.client(rig.bob)
    names = [f"page-{i}" for i in range(5)]
    for i, name in enumerate(names):
        place = {"LocationConstraint": "eu-west-1" if i % 2 else "eu-west-2"}
        client.create_bucket(Bucket=name, CreateBucketConfiguration=place)
    assert [b["Name"] for b in client.list_buckets(Prefix="page-")["Buckets"]] == names
    first = client.list_buckets(MaxBuckets=2, Prefix="page-")
    assert [b["Name"] for b in first["Buckets"]] == names[:2]
    rest = client.list_buckets(Prefix="page-", ContinuationToken=first["ContinuationToken"])
    assert [b["Name"] for b in rest["Buckets"]] == names[2:]
    assert "ContinuationToken" not in rest
    regional = client.list_buckets(BucketRegion="eu-west-1")
    assert [b["Name"] for b in regional["Buckets"]] == ["page-1", "page-3"]
    assert regional["Owner"] == {"ID": canonical_id("bob"), "DisplayName": "bob"}
    assert refused(client.list_buckets, ContinuationToken="junk") == ("InvalidArgument", 400)
    assert set(names) <= {b["Name"] for b in s3.list_buckets()["Buckets"]}  # root sees all


# -- whose


def test_an_account_may_touch_only_its_own(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    ann = rig.client(rig.ann)
    mine = rig.bucket_name("anns")
    ann.create_bucket(Bucket=mine)
    ann.put_object(Bucket=mine, Key="k", Body=b"y")
    for function, more in (
        (ann.get_object, {"Key": "k"}),
        (ann.put_object, {"Key": "k", "Body": b""}),
        (ann.delete_object, {"Key": "k"}),
        (ann.list_objects_v2, {}),
        (ann.delete_bucket, {}),
        (ann.get_bucket_acl, {}),
    ):
        assert refused(function, Bucket=bucket, **more) == ("AccessDenied", 403)
    assert refused(ann.head_bucket, Bucket=bucket) == ("403", 403)
    assert refused(ann.copy_object, Bucket=mine, Key="c", CopySource=f"{bucket}/k") == ("AccessDenied", 403)
    assert s3.get_object(Bucket=mine, Key="k")["Body"].read() == b"y"  # root may
    assert mine in [b["Name"] for b in ann.list_buckets()["Buckets"]]
    assert bucket not in [b["Name"] for b in ann.list_buckets()["Buckets"]]
    assert refused(ann.get_object, Bucket="there-is-no-such-bucket", Key="k") == ("NoSuchBucket", 404)


def test_nobody_and_unknown_keys_are_denied(rig: Any, bucket: str) -> None:
    for target in ("/", f"/{bucket}", f"/{bucket}/k"):
        assert rig.send("GET", target, keys=None).code == "AccessDenied"
    assert rig.send("PUT", f"/{bucket}/k", body=b"x", keys=None).code == "AccessDenied"
    assert rig.send("GET", f"/{bucket}", keys=("WHO", "x")).code == "InvalidAccessKeyId"
    assert rig.send("GET", f"/{bucket}", keys=("ROOTKEY", "wrong")).code == "SignatureDoesNotMatch"


def test_the_expected_owner_must_be_the_owner(s3: Any, bucket: str) -> None:
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account_number("root"))
    assert refused(s3.list_objects_v2, Bucket=bucket, ExpectedBucketOwner="111122223333") == ("AccessDenied", 403)


def test_virtual_host_style(rig: Any, bucket: str) -> None:
    host = {"Host": f"{bucket}.s3.test"}
    assert rig.send("PUT", "/a/b", host, b"x").status == 200
    assert rig.send("GET", f"/{bucket}/a/b").body == b"x"
    assert rig.send("GET", "/", host).all("Key") == ["a/b"]
    assert rig.send("GET", "/", {"Host": "s3.test"}).text("Name") is not None


# -- settings


def test_every_get_and_head_of_the_model_has_an_answer_that_is_not_501(rig: Any, s3: Any, bucket: str) -> None:
    """S3's default where it has one, else its code for what is not configured."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    codes = {
        "GetBucketCors": "NoSuchCORSConfiguration",
        "GetBucketEncryption": "ServerSideEncryptionConfigurationNotFoundError",
        "GetBucketLifecycle": "NoSuchLifecycleConfiguration",
        "GetBucketLifecycleConfiguration": "NoSuchLifecycleConfiguration",
        "GetBucketPolicy": "NoSuchBucketPolicy",
        "GetBucketPolicyStatus": "NoSuchBucketPolicy",
        "GetBucketReplication": "ReplicationConfigurationNotFoundError",
        "GetBucketTagging": "NoSuchTagSet",
        "GetBucketWebsite": "NoSuchWebsiteConfiguration",
        "GetBucketAnalyticsConfiguration": "NoSuchConfiguration",
        "GetBucketIntelligentTieringConfiguration": "NoSuchConfiguration",
        "GetBucketInventoryConfiguration": "NoSuchConfiguration",
        "GetBucketMetricsConfiguration": "NoSuchConfiguration",
        "GetBucketMetadataConfiguration": "MetadataConfigurationNotFound",
        "GetBucketMetadataTableConfiguration": "MetadataConfigurationNotFound",
        "GetObjectLockConfiguration": "ObjectLockConfigurationNotFoundError",
        "GetObjectLegalHold": "InvalidRequest",
        "GetObjectRetention": "InvalidRequest",
        "GetObjectAnnotation": "NoSuchAnnotation",
        "GetObjectTorrent": "MethodNotAllowed",
        "CreateSession": "MethodNotAllowed",
        "GetObjectAttributes": "",
    }
    needs = {"uploadId": upload, "id": "x", "annotationName": "x", "partNumber": "1"}
    seen = set()
    for operation in OPERATIONS.values():
        if operation.method not in ("GET", "HEAD") or operation.scope == "other":
            continue
        target = {"service": "/", "bucket": f"/{bucket}", "key": f"/{bucket}/k"}[operation.scope]
        words = [*operation.markers, *(f"{n}={needs[n]}" for n in operation.needs)]
        target += "?" + "&".join(words) if words else ""
        headers = {"x-amz-object-attributes": "ETag"} if operation.name == "GetObjectAttributes" else {}
        answer = rig.send(operation.method, target, headers)
        expected = codes.get(operation.name, "")
        assert answer.code == expected, (operation.name, answer)
        assert answer.status == 200 if not expected else 400 <= answer.status < 500, (operation.name, answer)
        assert answer.headers["x-amz-request-id"]
        assert answer.headers["x-amz-id-2"]
        seen.add(operation.name)
        if not operation.deprecated and operation.name != "ListDirectoryBuckets":
            assert rig.records[-1].operation == operation.name
    assert seen == {o.name for o in OPERATIONS.values() if o.method in ("GET", "HEAD") and o.scope != "other"}
    assert set(codes) <= seen


def test_a_get_of_any_setting_of_a_bucket_that_is_not_there_is_no_such_bucket(rig: Any) -> None:
    for operation in OPERATIONS.values():
        if operation.method == "GET" and operation.scope == "bucket" and operation.markers:
            words = [*operation.markers, *(f"{n}=x" for n in operation.needs)]
            answer = rig.send("GET", f"/there-is-no-such-bucket?{'&'.join(words)}")
            assert answer.code == "NoSuchBucket", (operation.name, answer)


def test_an_operation_that_is_not_built_is_501_and_changes_nothing(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    needs = {"uploadId": upload, "partNumber": "1", "id": "x", "annotationName": "x"}
    tried = 0
    for operation in OPERATIONS.values():
        if operation.method in ("GET", "HEAD") or operation.scope == "other" or operation.name in HANDLERS:
            continue
        if operation.deprecated:
            continue
        target = f"/{bucket}/k" if operation.scope == "key" else f"/{bucket}"
        words = [*operation.markers, *(f"{n}={needs[n]}" for n in operation.needs)]
        answer = rig.send(operation.method, f"{target}?{'&'.join(words)}", body=b"<x/>")
        assert (answer.status, answer.code) == (501, "NotImplemented"), (operation.name, answer)
        tried += 1
    assert tried > 30
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"before"


def test_defaults_of_what_nobody_set(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for acl in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert acl["Owner"]["ID"] == canonical_id("root")
        assert [(g["Grantee"]["ID"], g["Grantee"]["Type"], g["Permission"]) for g in acl["Grants"]] == [
            (canonical_id("root"), "CanonicalUser", "FULL_CONTROL")
        ]
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=bucket)
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    rules = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert s3.list_bucket_metrics_configurations(Bucket=bucket)["IsTruncated"] is False


def test_tags_of_a_bucket(rig: Any, s3: Any, bucket: str) -> None:
    tags = [{"Key": f"k{i}", "Value": str(i)} for i in range(50)]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    more = [*tags, {"Key": "x", "Value": ""}]
    assert refused(s3.put_bucket_tagging, Bucket=bucket, Tagging={"TagSet": more})[1] == 400
    s3.delete_bucket_tagging(Bucket=bucket)
    assert refused(s3.get_bucket_tagging, Bucket=bucket) == ("NoSuchTagSet", 404)
    stored: Bucket = rig.call(lambda: rig.objects.bucket(bucket))
    assert stored.tags == {}


# -- CORS


RULES = [
    {"AllowedOrigins": ["https://a.example", "https://*.b.example"], "AllowedMethods": ["GET", "PUT"],
     "AllowedHeaders": ["x-amz-*", "content-type"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60, "ID": "one"},
    {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]},
]  # fmt: skip


def test_cross_origin_rules_are_kept_and_answer(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    ask = {"Origin": "https://x.b.example", "Access-Control-Request-Method": "PUT",
           "Access-Control-Request-Headers": "X-Amz-Date, content-type"}  # fmt: skip
    answer = rig.send("OPTIONS", f"/{bucket}/k", ask, keys=None)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://x.b.example"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, PUT"
    assert answer.headers["Access-Control-Allow-Headers"] == "x-amz-date, content-type"
    assert answer.headers["Access-Control-Max-Age"] == "60"
    assert "Origin" in answer.headers["Vary"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    got = rig.send("GET", f"/{bucket}/k", {"Origin": "https://a.example"})
    assert got.headers["Access-Control-Allow-Origin"] == "https://a.example"
    assert got.headers["Access-Control-Expose-Headers"] == "ETag"
    assert got.headers["Access-Control-Allow-Credentials"] == "true"
    anyone = rig.send("GET", f"/{bucket}/gone", {"Origin": "http://who.example"})  # an error's answer too
    assert (anyone.status, anyone.headers["Access-Control-Allow-Origin"]) == (404, "*")
    assert rig.send("GET", f"/{bucket}/k").headers["Access-Control-Allow-Origin"] is None
    refusals = [
        ({**ask, "Origin": "https://evil.example"}, 403, "AccessForbidden"),
        ({**ask, "Access-Control-Request-Headers": "cookie"}, 403, "AccessForbidden"),
        ({"Origin": "https://a.example"}, 400, "BadRequest"),
        ({"Access-Control-Request-Method": "PUT"}, 400, "BadRequest"),
    ]
    for fields, status, code in refusals:
        answer = rig.send("OPTIONS", f"/{bucket}/k", fields, keys=None)
        assert (answer.status, answer.code) == (status, code)
    s3.delete_bucket_cors(Bucket=bucket)
    assert refused(s3.get_bucket_cors, Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
    assert rig.send("OPTIONS", f"/{bucket}/k", ask, keys=None).status == 403


def test_bad_cross_origin_rules_are_refused(s3: Any, bucket: str) -> None:
    for bad in (
        {"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]},
        {"AllowedOrigins": ["*a*"], "AllowedMethods": ["GET"]},
    ):
        assert refused(s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": [bad]})[0] == "InvalidRequest"


# -- the door itself


def test_the_access_record_tells_what_happened(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345")
    put = rig.records[-1]
    assert (put.operation, put.account, put.bucket, put.key, put.status, put.code) == (
        "PutObject", "root", bucket, "k", 200, "",
    )  # fmt: skip
    assert put.framing == "STREAMING-UNSIGNED-PAYLOAD-TRAILER" or put.framing == "SHA256"
    assert put.received > 0
    s3.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert rig.records[-1].size == 5
    answer = rig.send("GET", f"/{bucket}/gone")
    gone = rig.records[-1]
    assert (gone.status, gone.code, gone.request_id) == (404, "NoSuchKey", answer.headers["x-amz-request-id"])
    assert answer.text("RequestId") == gone.request_id
    assert answer.text("HostId") == answer.headers["x-amz-id-2"]
    assert len({r.request_id for r in rig.records}) == len(rig.records)


def test_a_failed_head_has_no_body(rig: Any, bucket: str) -> None:
    answer = rig.send("HEAD", f"/{bucket}/gone")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["Content-Type"] == "application/xml"


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("PUT", "/", 405, "MethodNotAllowed"),
        ("POST", "/{b}/k", 405, "MethodNotAllowed"),
        ("PATCH", "/{b}/k", 405, "MethodNotAllowed"),
        ("GET", "/{b}/%zz", 400, "InvalidURI"),
        ("GET", "/{b}/%ff", 400, "InvalidURI"),
        ("DELETE", "/{b}/k?acl", 405, "MethodNotAllowed"),
        ("GET", "/{b}/k?versionId=", 400, "InvalidArgument"),
        ("GET", "/{b}/k?partNumber=0", 400, "InvalidArgument"),
        ("PUT", "/{b}?versioning", 400, "MissingRequestBodyError"),
    ],
)
def test_errors_of_requests_that_cannot_be(
    rig: Any, s3: Any, bucket: str, method: str, target: str, status: int, code: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = rig.send(method, target.format(b=bucket))
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/xml"
