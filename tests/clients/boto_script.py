"""What a program with boto3 does, run by the Python of any boto3.

Knows nothing of Ostraka. A client here is made with an endpoint and nothing else, as users make it.
"""

import hashlib
import io
import ssl
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

THREADS = 4


def client(url, **config):
    return boto3.client("s3", endpoint_url=url, config=Config(**config) if config else None)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def listed(s3, bucket):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {o["Key"]: o for page in pages for o in page.get("Contents", [])}


def in_threads(work, items):
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, items):
            pass


# -- a tree


def up(url, root, bucket):
    s3, root = client(url), Path(root)
    remote = listed(s3, bucket)
    local = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}

    def same(key):
        there = remote.get(key)
        if there is None or there["Size"] != local[key].stat().st_size:
            return False
        return "-" not in there["ETag"] and there["ETag"] == f'"{md5(local[key])}"'

    def send(key):
        if local[key].stat().st_size >= 8 << 20:
            s3.upload_file(str(local[key]), bucket, key)
        else:
            with local[key].open("rb") as body:
                answer = s3.put_object(Bucket=bucket, Key=key, Body=body)
            assert answer["ETag"] == f'"{md5(local[key])}"', key

    in_threads(send, [k for k in local if not same(k)])
    gone = sorted(remote.keys() - local.keys())
    for i in range(0, len(gone), 1000):
        delete = {"Objects": [{"Key": k} for k in gone[i : i + 1000]]}
        answer = s3.delete_objects(Bucket=bucket, Delete=delete)
        assert len(answer["Deleted"]) == len(delete["Objects"]), answer
        assert not answer.get("Errors"), answer


def down(url, root, bucket):
    s3, root = client(url), Path(root)
    remote = listed(s3, bucket)

    def fetch(key):
        path = root / key
        if path.exists() and path.stat().st_size == remote[key]["Size"] and f'"{md5(path)}"' == remote[key]["ETag"]:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if remote[key]["Size"] >= 8 << 20:
            s3.download_file(bucket, key, str(path))
        else:
            path.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    in_threads(fetch, remote)
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).as_posix() not in remote:
            path.unlink()


def remove(url, bucket):
    target = boto3.resource("s3", endpoint_url=url).Bucket(bucket)
    target.objects.all().delete()
    target.delete()


# -- single things


def big(url, bucket, path, copy):
    s3 = client(url)
    s3.upload_file(path, bucket, "big", Config=TransferConfig(multipart_chunksize=8 << 20, max_concurrency=4))
    head = s3.head_object(Bucket=bucket, Key="big")
    s3.download_file(bucket, "big", copy)
    return {"etag": head["ETag"], "size": head["ContentLength"]}


def fetch(url, method="GET", body=None, headers=None):
    """A plain HTTP client that knows nothing of S3."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context()) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def presigned(url, bucket, version):
    """version: "" is what boto3 chooses when nobody says anything."""
    s3 = client(url, signature_version=version) if version else client(url)
    key, body = "päth/with space+plus&amp%.txt", b"presigned"
    put = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}, ExpiresIn=300)
    # urllib adds a content-type to a body, which SigV2 signs: an empty one is what the signature was made for
    status, answer = fetch(put, "PUT", body, {"Content-Type": ""})
    assert status == 200, answer
    get = s3.generate_presigned_url(
        "get_object", {"Bucket": bucket, "Key": key, "ResponseContentType": "text/x-test"}, ExpiresIn=300
    )
    assert fetch(get) == (200, body)
    status, answer = fetch(get, "DELETE")
    assert status == 403, answer
    status, answer = fetch(get.replace("presigned", "").replace("with", "witt"))
    assert status == 403, answer
    assert b"SignatureDoesNotMatch" in answer, answer
    delete = s3.generate_presigned_url("delete_object", {"Bucket": bucket, "Key": key})
    assert fetch(delete, "DELETE")[0] == 204
    assert fetch(get)[0] == 404
    return {"put": put, "get": get}


def pages(url, bucket, count):
    s3 = client(url)
    names = [f"{'a' if i % 3 else 'b'}/{i:04d} +&" for i in range(count)]
    in_threads(lambda k: s3.put_object(Bucket=bucket, Key=k, Body=k.encode()), names)
    for operation, size in (("list_objects_v2", 7), ("list_objects", 100), ("list_objects_v2", 1000)):
        found, sizes = [], []
        for page in s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}):
            found += [o["Key"] for o in page["Contents"]]
            sizes.append(len(page["Contents"]))
        assert found == sorted(names), operation
        assert sizes[:-1] == [size] * (len(sizes) - 1), sizes
    folders = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in folders["CommonPrefixes"]] == ["a/", "b/"], folders
    assert folders["KeyCount"] == 2, folders
    after = s3.list_objects_v2(Bucket=bucket, Prefix="b/", StartAfter="b/0003 +&", MaxKeys=1, FetchOwner=True)
    assert after["Contents"][0]["Key"] == "b/0006 +&", after
    assert after["IsTruncated"] is True
    assert after["Contents"][0]["Owner"]["ID"], after


def versioning(url, bucket):
    s3 = client(url)
    s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"first")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"second")["VersionId"]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True, marker
    try:
        s3.get_object(Bucket=bucket, Key="k")
        raise AssertionError("a deleted object was found")
    except s3.exceptions.NoSuchKey:
        pass
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"first"
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"before"
    found = s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in found["Versions"]] == [second, first, "null"], found
    assert [m["VersionId"] for m in found["DeleteMarkers"]] == [marker["VersionId"]], found
    s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"
    s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": first})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"
    boto3.resource("s3", endpoint_url=url).Bucket(bucket).object_versions.delete()
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)


def attributes(url, bucket):
    """Metadata, tags, copies, ranges and conditions."""
    s3 = client(url)
    meta = {"colour": "blau", "n": "1"}
    s3.put_object(
        Bucket=bucket,
        Key="a",
        Body=b"0123456789",
        Metadata=meta,
        ContentType="text/plain",
        CacheControl="no-cache",
        ContentEncoding="identity",
        ContentDisposition='attachment; filename="a b"',
        Tagging="one=1&two=%20",
    )
    head = s3.head_object(Bucket=bucket, Key="a")
    assert head["Metadata"] == meta, head
    assert (head["ContentType"], head["CacheControl"]) == ("text/plain", "no-cache"), head
    tags = s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"]
    assert sorted((t["Key"], t["Value"]) for t in tags) == [("one", "1"), ("two", " ")], tags
    s3.put_object_tagging(Bucket=bucket, Key="a", Tagging={"TagSet": [{"Key": "ü", "Value": "v"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == [{"Key": "ü", "Value": "v"}]
    s3.copy({"Bucket": bucket, "Key": "a"}, bucket, "b c/ü")
    copied = s3.get_object(Bucket=bucket, Key="b c/ü", Range="bytes=2-4")
    assert copied["Body"].read() == b"234"
    assert copied["ContentRange"] == "bytes 2-4/10", copied
    assert copied["Metadata"] == meta, copied
    s3.copy_object(Bucket=bucket, Key="a", CopySource=f"{bucket}/a", Metadata={"x": "y"}, MetadataDirective="REPLACE")
    assert s3.head_object(Bucket=bucket, Key="a")["Metadata"] == {"x": "y"}
    try:
        s3.get_object(Bucket=bucket, Key="a", IfNoneMatch=head["ETag"])
        raise AssertionError("not modified was not said")
    except ClientError as e:
        assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 304, e
    s3.delete_object_tagging(Bucket=bucket, Key="a")
    assert s3.get_object_tagging(Bucket=bucket, Key="a")["TagSet"] == []
    names = {b["Name"] for b in s3.list_buckets()["Buckets"]}
    assert bucket in names, names


def many(url, bucket):
    """A thousand objects made and deleted in one request each way."""
    s3 = client(url)
    names = [f"n/{i} '\"<&>ü" for i in range(1000)]
    in_threads(lambda k: s3.put_object(Bucket=bucket, Key=k, Body=b""), names)
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in [*names[1:], "not there"]]})
    assert {d["Key"] for d in answer["Deleted"]} == {*names[1:], "not there"}, answer
    assert list(listed(s3, bucket)) == names[:1]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": names[0]}], "Quiet": True})
    assert "Deleted" not in quiet, quiet
    assert listed(s3, bucket) == {}


def stream(url, bucket):
    """A body of unknown length, read once: upload_fileobj makes parts of it."""

    class Source:
        left = (11 << 20) + 5

        def read(self, size=-1):
            size = min(self.left, size if size >= 0 else self.left)
            self.left -= size
            return b"s" * size

    s3 = client(url)
    s3.upload_fileobj(Source(), bucket, "stream")
    seen = hashlib.sha256()
    lock = threading.Lock()
    body = s3.get_object(Bucket=bucket, Key="stream")["Body"]
    for piece in body.iter_chunks(1 << 16):
        with lock:
            seen.update(piece)
    assert seen.hexdigest() == hashlib.sha256(b"s" * ((11 << 20) + 5)).hexdigest()


def empty(url, bucket):
    """An empty object and one that is not, in turn, on one connection: an answer that is waited for is an error."""
    s3 = client(url, read_timeout=5, retries={"max_attempts": 0})
    bodies = [b"x" * (i % 2 * 2048) for i in range(8)]
    for i, body in enumerate(bodies):
        s3.put_object(Bucket=bucket, Key=f"empty/{i}", Body=io.BytesIO(body))
    for i, body in enumerate(bodies):
        assert s3.get_object(Bucket=bucket, Key=f"empty/{i}")["Body"].read() == body
