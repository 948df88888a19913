"""If-Match on deletes, as S3 judges it: of the current object only, and 404 where there is none."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

ETAG = hashlib.md5(b"x").hexdigest()
OTHER = "0" * 32


def delete(rig: Any, bucket: str, key: str, match: str, query: str = "") -> tuple[int, str]:
    answer = rig.send("DELETE", f"/{bucket}/{key}{query}", {"If-Match": match})
    return answer.status, answer.code


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("match", ["*", ETAG, f'"{ETAG}"', f'"{OTHER}", "{ETAG}"'])
def test_a_condition_that_holds_deletes(rig: Any, s3: Any, bucket: str, versioned: bool, match: str) -> None:
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert delete(rig, bucket, "k", match) == (204, "")
    assert rig.send("HEAD", f"/{bucket}/k").status == 404
    assert delete(rig, bucket, "k", match) == (404, "NoSuchKey")  # under a delete marker there is no object


@pytest.mark.parametrize("versioned", [False, True])
def test_a_condition_that_does_not_hold_deletes_nothing(rig: Any, s3: Any, bucket: str, versioned: bool) -> None:
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for match in ("*", ETAG):
        assert delete(rig, bucket, "never", match) == (404, "NoSuchKey")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert delete(rig, bucket, "k", f'"{OTHER}"') == (412, "PreconditionFailed")
    assert delete(rig, bucket, "k", "") == (400, "InvalidArgument")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    rows = s3.list_object_versions(Bucket=bucket)
    assert "DeleteMarkers" not in rows
    assert len(rows["Versions"]) == 1


def test_a_condition_together_with_a_version_id_is_refused(rig: Any, s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"]
    answer = rig.send("DELETE", f"/{bucket}/k?versionId={version}", {"If-Match": f'"{ETAG}"'})
    assert (answer.status, answer.code, answer.text("Header")) == (501, "NotImplemented", "If-Match")
    assert s3.head_object(Bucket=bucket, Key="k", VersionId=version)["ContentLength"] == 1


@pytest.mark.parametrize("header", ["x-amz-if-match-size", "x-amz-if-match-last-modified-time"])
def test_conditions_of_directory_buckets_are_refused_and_delete_nothing(
    rig: Any, s3: Any, bucket: str, header: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    answer = rig.send("DELETE", f"/{bucket}/k", {header: "1"})
    assert (answer.status, answer.code, answer.text("Header")) == (501, "NotImplemented", header)
    assert rig.send("HEAD", f"/{bucket}/k").status == 200


def test_each_of_many_keys_has_its_own_condition(s3: Any, bucket: str) -> None:
    for key in ("match", "any", "other", "free", "twice"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    done = s3.delete_objects(
        Bucket=bucket,
        Delete={
            "Objects": [
                {"Key": "match", "ETag": f'"{ETAG}"'},
                {"Key": "any", "ETag": "*"},
                {"Key": "other", "ETag": OTHER},
                {"Key": "absent", "ETag": ETAG},
                {"Key": "free"},
                {"Key": "twice", "ETag": ETAG},
                {"Key": "twice", "ETag": ETAG},
                {"Key": "free", "ETag": ETAG, "VersionId": "null"},
            ]
        },
    )
    assert [d["Key"] for d in done["Deleted"]] == ["match", "any", "free", "twice"]
    assert [(e["Key"], e["Code"]) for e in done["Errors"]] == [
        ("other", "PreconditionFailed"),
        ("absent", "NoSuchKey"),
        ("twice", "NoSuchKey"),  # the first of the two took it
        ("free", "NotImplemented"),
    ]
    assert [e["Key"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["other"]


@pytest.mark.parametrize("versioned", [False, True])
def test_of_many_conditional_deletes_at_once_exactly_one_succeeds(
    rig: Any, s3: Any, bucket: str, versioned: bool
) -> None:
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for turn in range(5):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: delete(rig, bucket, "k", f'"{ETAG}"'), range(6)))
        assert sorted(answers) == [(204, "")] + [(404, "NoSuchKey")] * 5, turn
    if versioned:
        assert len(s3.list_object_versions(Bucket=bucket)["DeleteMarkers"]) == 5
