"""Listings, page by page, against a model of them."""

import random
from typing import Any

import pytest
from botocore.exceptions import ClientError

KEYS = sorted(
    ["a", "a/", "a/1", "a/2", "a/b/3", "b", "b//x", "b/", "c+d", "c d", "ü/1", "ü/2", "z/1", "z/2", "z/3", "zz"],
    key=lambda k: k.encode(),
)


def refused(function: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as e:
        function(**arguments)
    return str(e.value.response["Error"]["Code"])


def expected(prefix: str, delimiter: str, after: str) -> list[tuple[str, str]]:
    """What S3 lists: ("key" or "prefix", text) in order."""
    items: list[tuple[str, str]] = []
    for key in KEYS:
        if not key.startswith(prefix):
            continue
        stop = key.find(delimiter, len(prefix)) if delimiter else -1
        item = ("key", key) if stop < 0 else ("prefix", key[: stop + len(delimiter)])
        if item[1].encode() > after.encode() and item not in items:
            items.append(item)
    return items


@pytest.fixture(scope="module")
def full(rig: Any) -> str:
    """A bucket with all KEYS, which no test changes."""
    s3, bucket = rig.client(), rig.bucket_name("full")
    s3.create_bucket(Bucket=bucket)
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return str(bucket)


def items_of(page: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("key", e["Key"]) for e in page.get("Contents", [])]
    rows += [("prefix", p["Prefix"]) for p in page.get("CommonPrefixes", [])]
    return sorted(rows, key=lambda r: r[1].encode())


@pytest.mark.parametrize("delimiter", ["", "/", "//", "1"])
@pytest.mark.parametrize("prefix", ["", "a", "a/", "z/", "nothing", "ü/"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_pages_of_both_versions_hold_every_item_once(
    s3: Any, full: str, prefix: str, delimiter: str, size: int
) -> None:
    wanted = expected(prefix, delimiter, "")
    found: list[tuple[str, str]] = []
    arguments: dict[str, Any] = {"Bucket": full, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
    token: dict[str, str] = {}
    while True:
        page = s3.list_objects_v2(**arguments, **token)
        rows = items_of(page)
        assert len(rows) == page["KeyCount"] <= size
        found += rows
        if not page["IsTruncated"]:
            break
        token = {"ContinuationToken": page["NextContinuationToken"]}
    assert found == wanted
    found, marker = [], ""
    while True:
        page = s3.list_objects(**arguments, Marker=marker)
        rows = items_of(page)
        found += rows
        if not page["IsTruncated"]:
            break
        assert ("NextMarker" in page) == bool(delimiter)
        marker = page["NextMarker"] if delimiter else rows[-1][1]
    assert found == wanted


def test_start_after_and_markers_of_any_kind(s3: Any, full: str, seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(60):
        delimiter = choice.choice(["", "/"])
        prefix = choice.choice(["", "a", "z"])
        after = choice.choice([*KEYS, "a/0", "a0", "y", "zzz", "ü"])
        wanted = expected(prefix, delimiter, after)
        arguments = {"Bucket": full, "Prefix": prefix, "Delimiter": delimiter}
        assert items_of(s3.list_objects_v2(**arguments, StartAfter=after)) == wanted, (prefix, delimiter, after)
        assert items_of(s3.list_objects(**arguments, Marker=after)) == wanted, (prefix, delimiter, after)


def test_what_a_row_tells(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"12345", ChecksumAlgorithm="SHA256")["ETag"]
    row = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
    assert (row["Key"], row["Size"], row["ETag"], row["StorageClass"]) == ("k", 5, etag, "STANDARD")
    assert (row["ChecksumAlgorithm"], row["ChecksumType"]) == (["SHA256"], "FULL_OBJECT")
    assert row["Owner"]["DisplayName"] == "root"
    assert row["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert "Owner" in s3.list_objects(Bucket=bucket)["Contents"][0]


def test_parameters_are_echoed(rig: Any, full: str) -> None:
    answer = rig.send("GET", f"/{full}?list-type=2&prefix=a&delimiter=%2F&max-keys=5000&start-after=a")
    echoed = [answer.text(n) for n in ("Prefix", "Delimiter", "MaxKeys", "StartAfter", "Name")]
    assert echoed == ["a", "/", "1000", "a", full]
    answer = rig.send("GET", f"/{full}?marker=a&max-keys=0")
    assert [answer.text(n) for n in ("Marker", "MaxKeys", "IsTruncated")] == ["a", "0", "false"]
    assert answer.all("Key") == []
    assert answer.text("Delimiter") is None


def test_encoding_type_url(rig: Any, full: str) -> None:
    answer = rig.send("GET", f"/{full}?list-type=2&encoding-type=url&prefix=c")
    assert answer.all("Key") == ["c%20d", "c%2Bd"]
    assert answer.text("EncodingType") == "url"
    folded = rig.send("GET", f"/{full}?encoding-type=url&delimiter=/&prefix=%C3%BC")
    assert folded.text("Delimiter") == "/"
    assert "<CommonPrefixes><Prefix>%C3%BC/</Prefix></CommonPrefixes>" in folded.body.decode()
    assert rig.send("GET", f"/{full}?encoding-type=base64").code == "InvalidArgument"


def test_parameters_that_cannot_be(rig: Any, full: str) -> None:
    for query in (
        "max-keys=-1",
        "max-keys=x",
        "max-keys=99999999999",
        "list-type=2&continuation-token=junk",
        "versions&version-id-marker=x",
        "uploads&max-uploads=-1",
    ):
        answer = rig.send("GET", f"/{full}?{query}")
        assert (answer.status, answer.code) == (400, "InvalidArgument"), query


def test_versions_are_listed_newest_first_with_their_markers(s3: Any, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    made: list[tuple[str, str, bool]] = []
    for key in ("a", "b", "c/1", "c/2"):
        rows = [(key, s3.put_object(Bucket=bucket, Key=key, Body=b"x")["VersionId"], False) for _ in range(3)]
        rows.append((key, s3.delete_object(Bucket=bucket, Key=key)["VersionId"], True))
        made += reversed(rows)
    assert listed_versions(s3, bucket, 1000) == made
    for size in (1, 3, 5):
        assert listed_versions(s3, bucket, size) == made
    page = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=1000)
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["c/"]
    assert {v["Key"] for v in page["Versions"]} == {"a", "b"}
    latest = [(m["Key"], m["IsLatest"]) for m in page["DeleteMarkers"]]
    assert latest == [("a", True), ("b", True)]
    assert refused(s3.list_object_versions, Bucket=bucket, KeyMarker="a", VersionIdMarker="junk") == "InvalidArgument"


def listed_versions(s3: Any, bucket: str, size: int) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []
    markers: dict[str, str] = {}
    while True:
        page = s3.list_object_versions(Bucket=bucket, MaxKeys=size, **markers)
        rows = [(v["Key"], v["VersionId"], False, v["LastModified"]) for v in page.get("Versions", [])]
        rows += [(m["Key"], m["VersionId"], True, m["LastModified"]) for m in page.get("DeleteMarkers", [])]
        # boto3 gives versions and markers apart: within a key the marker is the newest here
        rows.sort(key=lambda r: (r[0], not r[2]))
        found += [(r[0], r[1], r[2]) for r in rows]
        if not page["IsTruncated"]:
            return found
        markers = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            markers["VersionIdMarker"] = page["NextVersionIdMarker"]
