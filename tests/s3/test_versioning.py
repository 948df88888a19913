"""Versioning through the door: enabled, suspended, null versions, delete markers, versionId everywhere."""

from typing import Any

import pytest
from botocore.exceptions import ClientError


def refused(function: Any, **arguments: Any) -> tuple[str, int, dict[str, str]]:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    response = e.value.response
    meta = response["ResponseMetadata"]
    return response["Error"]["Code"], meta["HTTPStatusCode"], meta["HTTPHeaders"]


def set_versioning(s3: Any, bucket: str, status: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    set_versioning(s3, bucket, "Enabled")
    return bucket


def test_every_version_stays_readable(s3: Any, versioned: str) -> None:
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=f"{i}".encode())["VersionId"] for i in range(3)]
    assert len(set(ids)) == 3
    assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == ids[2]
    for i, version in enumerate(ids):
        got = s3.get_object(Bucket=versioned, Key="k", VersionId=version)
        assert (got["Body"].read(), got["VersionId"]) == (f"{i}".encode(), version)
        assert s3.head_object(Bucket=versioned, Key="k", VersionId=version)["VersionId"] == version
    assert refused(s3.get_object, Bucket=versioned, Key="k", VersionId="0" * 32)[:2] == ("NoSuchVersion", 404)
    assert refused(s3.get_object, Bucket=versioned, Key="k", VersionId="junk")[:2] == ("InvalidArgument", 400)


def test_a_delete_marker_hides_and_its_removal_shows_again(s3: Any, versioned: str) -> None:
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    marker = s3.delete_object(Bucket=versioned, Key="k")
    assert marker["DeleteMarker"] is True
    code, status, headers = refused(s3.get_object, Bucket=versioned, Key="k")
    assert (code, status, headers["x-amz-delete-marker"]) == ("NoSuchKey", 404, "true")
    assert headers["x-amz-version-id"] == marker["VersionId"]
    code, status, headers = refused(s3.get_object, Bucket=versioned, Key="k", VersionId=marker["VersionId"])
    assert (code, status, headers["allow"]) == ("MethodNotAllowed", 405, "DELETE")
    assert refused(s3.head_object, Bucket=versioned, Key="k", VersionId=marker["VersionId"])[1] == 405
    assert s3.get_object(Bucket=versioned, Key="k", VersionId=version)["Body"].read() == b"x"
    assert "Contents" not in s3.list_objects_v2(Bucket=versioned)
    source = {"Bucket": versioned, "Key": "k"}
    assert refused(s3.copy_object, Bucket=versioned, Key="c", CopySource=source)[:2] == ("NoSuchKey", 404)
    source["VersionId"] = marker["VersionId"]
    assert refused(s3.copy_object, Bucket=versioned, Key="c", CopySource=source)[:2] == ("InvalidRequest", 400)
    undone = s3.delete_object(Bucket=versioned, Key="k", VersionId=marker["VersionId"])
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker["VersionId"])
    assert s3.get_object(Bucket=versioned, Key="k")["Body"].read() == b"x"
    gone = s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    assert (gone.get("DeleteMarker"), gone["VersionId"]) == (None, version)
    assert refused(s3.get_object, Bucket=versioned, Key="k")[:2] == ("NoSuchKey", 404)


def test_the_null_version(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    set_versioning(s3, bucket, "Enabled")
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    named = s3.put_object(Bucket=bucket, Key="k", Body=b"named")["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"before"
    set_versioning(s3, bucket, "Suspended")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Suspended"
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"after")["VersionId"] == "null"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"after"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=named)["Body"].read() == b"named"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert (marker["DeleteMarker"], marker["VersionId"]) == (True, "null")
    rows = s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in rows["Versions"]] == [named]
    assert [m["VersionId"] for m in rows["DeleteMarkers"]] == ["null"]


def test_many_versions_are_deleted_in_one_request(s3: Any, versioned: str) -> None:
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"] for _ in range(2)]
    done = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": ids[0]}, {"Key": "k"}]})
    by_version, marker = done["Deleted"]
    assert by_version == {"Key": "k", "VersionId": ids[0]}
    assert marker["DeleteMarker"] is True
    assert marker["DeleteMarkerVersionId"]
    again = s3.delete_objects(
        Bucket=versioned, Delete={"Objects": [{"Key": "k", "VersionId": marker["DeleteMarkerVersionId"]}]}
    )
    assert again["Deleted"][0]["DeleteMarkerVersionId"] == marker["DeleteMarkerVersionId"]
    assert s3.get_object(Bucket=versioned, Key="k")["VersionId"] == ids[1]


def test_an_old_version_is_brought_back_by_a_copy(s3: Any, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old", Metadata={"m": "1"})["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    done = s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": old})
    assert done["CopySourceVersionId"] == old
    got = s3.get_object(Bucket=versioned, Key="k")
    assert (got["Body"].read(), got["VersionId"], got["Metadata"]) == (b"old", done["VersionId"], {"m": "1"})


def test_tags_belong_to_a_version(s3: Any, versioned: str) -> None:
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"x", Tagging="a=1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"y")
    tags = [{"Key": "b", "Value": "2"}]
    assert (
        s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=first, Tagging={"TagSet": tags})["VersionId"]
        == first
    )
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=first)["TagSet"] == tags
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["TagSet"] == []


def test_versioning_cannot_be_set_to_nothing_or_nonsense(rig: Any, bucket: str) -> None:
    for body, code in (
        (b"<VersioningConfiguration/>", "IllegalVersioningConfigurationException"),
        (b"<VersioningConfiguration><Status>Maybe</Status></VersioningConfiguration>", "MalformedXML"),
        (
            b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>",
            "NotImplemented",
        ),
    ):
        assert rig.send("PUT", f"/{bucket}?versioning", body=body).code == code


def test_a_bucket_with_only_old_versions_is_not_empty(s3: Any, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="k", Body=b"x")
    s3.delete_object(Bucket=versioned, Key="k")
    assert refused(s3.delete_bucket, Bucket=versioned)[:2] == ("BucketNotEmpty", 409)
