"""What a program written for MinIO does with its own client, minio-py.

It takes the credentials as arguments; for HTTPS it trusts the authority that SSL_CERT_FILE names.
"""

import hashlib
import io
import os
import random
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, REPLACE, ComposeSource, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.versioningconfig import VersioningConfig

MIB = 1 << 20


def connect(url):
    address = urlsplit(url)
    return Minio(
        address.netloc,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        secure=address.scheme == "https",
    )


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def read(s3, bucket, name, **part):
    answer = s3.get_object(bucket, name, **part)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def bucket(url, bucket):
    """The life of a bucket."""
    s3 = connect(url)
    s3.make_bucket(bucket)
    assert s3.bucket_exists(bucket)
    assert not s3.bucket_exists(f"{bucket}-not")
    assert bucket in [b.name for b in s3.list_buckets()]
    tags = Tags.new_bucket_tags()
    tags["team"] = "a/b"
    s3.set_bucket_tags(bucket, tags=tags)
    assert s3.get_bucket_tags(bucket) == tags
    s3.delete_bucket_tags(bucket)
    assert s3.get_bucket_tags(bucket) is None
    s3.put_object(bucket, "k", io.BytesIO(b"1"), 1)
    try:
        s3.remove_bucket(bucket)
        raise AssertionError("a bucket with an object in it was removed")
    except S3Error as e:
        assert e.code == "BucketNotEmpty", e
    s3.remove_object(bucket, "k")
    s3.remove_bucket(bucket)
    assert not s3.bucket_exists(bucket)


def objects(url, bucket, here, there):
    """Files go up whole, in parts and as streams of unknown length; they are read, listed, tagged and deleted."""
    s3 = connect(url)
    sent = {"file": Path(here).read_bytes()}
    s3.fput_object(bucket, "file", file_path=here, part_size=5 * MIB)
    s3.fget_object(bucket, "file", file_path=there)
    sent["stream"] = sent["file"][: 7 * MIB]
    s3.put_object(bucket, "stream", data=io.BytesIO(sent["stream"]), length=-1, part_size=5 * MIB)
    for n in range(30):
        name = f"dir {n % 3}/ü+{n}.txt"
        sent[name] = name.encode() * n
        s3.put_object(
            bucket,
            name,
            data=io.BytesIO(sent[name]),
            length=len(sent[name]),
            content_type="text/plain",
            metadata={"number": str(n)},
        )
    stat = s3.stat_object(bucket, "dir 1/ü+4.txt")
    assert (stat.size, stat.content_type, stat.metadata["x-amz-meta-number"]) == (56, "text/plain", "4"), vars(stat)
    assert read(s3, bucket, "file", offset=5 * MIB - 2, length=4) == sent["file"][5 * MIB - 2 : 5 * MIB + 2]
    listed = s3.list_objects(bucket, prefix="dir ", recursive=True)
    assert [o.object_name for o in listed] == sorted(n for n in sent if n.startswith("dir "))
    folders = [o.object_name for o in s3.list_objects(bucket) if o.is_dir]
    assert folders == ["dir 0/", "dir 1/", "dir 2/"]
    gone = [n for n in sent if n.startswith("dir 2/")]
    assert not list(s3.remove_objects(bucket, delete_object_list=[DeleteObject(n) for n in gone]))
    tags = Tags.new_object_tags()
    tags["one"] = "1 +"
    s3.set_object_tags(bucket, "file", tags=tags)
    assert s3.get_object_tags(bucket, "file") == tags
    return {n: sha256(b) for n, b in sent.items() if n not in gone}


def compose(url, bucket, seed):
    """One object is made of pieces of others, and copies of it, without sending a byte."""
    s3, random_bytes = connect(url), random.Random(seed).randbytes
    a, b = random_bytes(6 * MIB + 1), random_bytes(9 * MIB)
    for name, body in (("a", a), ("b", b), ("tail", b"tail")):
        s3.put_object(
            bucket,
            name,
            data=io.BytesIO(body),
            length=len(body),
            part_size=64 * MIB,
            metadata={"of": name},
        )
    sources = [
        ComposeSource(bucket, "a"),
        ComposeSource(bucket, "b", offset=MIB, length=5 * MIB),
        ComposeSource(bucket, "tail", offset=1),
    ]
    whole = a + b[MIB : 6 * MIB] + b"ail"
    s3.compose_object(bucket, "whole", sources=sources, metadata={"made": "of three"})
    assert read(s3, bucket, "whole") == whole
    stat = s3.stat_object(bucket, "whole")
    assert (stat.size, stat.metadata["x-amz-meta-made"]) == (len(whole), "of three"), vars(stat)
    s3.copy_object(bucket, "copy", source=CopySource(bucket, "tail"))
    assert s3.stat_object(bucket, "copy").metadata["x-amz-meta-of"] == "tail"
    s3.copy_object(
        bucket,
        "changed",
        source=CopySource(bucket, "tail"),
        metadata={"of": "changed"},
        metadata_directive=REPLACE,
    )
    assert s3.stat_object(bucket, "changed").metadata["x-amz-meta-of"] == "changed"
    bodies = {"a": a, "b": b, "tail": b"tail", "whole": whole, "copy": b"tail", "changed": b"tail"}
    return {name: sha256(body) for name, body in bodies.items()}


def versions(url, bucket):
    """Versions are kept, read, listed and removed; links are given to others."""
    s3 = connect(url)
    s3.set_bucket_versioning(bucket, config=VersioningConfig(ENABLED))
    made = []
    for body in (b"first", b"second"):
        answer = s3.put_object(bucket, "k", data=io.BytesIO(body), length=len(body))
        made.append(answer.version_id)
    s3.remove_object(bucket, "k")
    assert read(s3, bucket, "k", version_id=made[0]) == b"first"
    found = list(s3.list_objects(bucket, include_version=True))
    assert [o.version_id for o in found if not o.is_delete_marker] == made[::-1], found
    marker = next(o for o in found if o.is_delete_marker)
    s3.remove_object(bucket, "k", version_id=marker.version_id)
    assert read(s3, bucket, "k") == b"second"
    http = urllib3.PoolManager(ca_certs=os.environ.get("SSL_CERT_FILE"))
    put = s3.presigned_put_object(bucket, "l &", expires=timedelta(minutes=5))
    assert http.request("PUT", put, body=b"linked").status == 200
    get = s3.presigned_get_object(bucket, "l &", expires=timedelta(minutes=5))
    assert http.request("GET", get).data == b"linked"
    return {"k": sha256(b"second"), "l &": sha256(b"linked")}
