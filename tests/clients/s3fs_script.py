"""What a program does with files in a bucket through s3fs, the file system of pandas, dask and their like.

Credentials and, for HTTPS, the authority (AWS_CA_BUNDLE) come from the environment.
"""

import hashlib
import json
import random

import s3fs

MIB = 1 << 20


def connect(url, **options):
    return s3fs.S3FileSystem(endpoint_url=url, **options)


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def tree(url, bucket, here, there):
    """A directory goes up, is looked through, renamed, thinned out, and comes down."""
    fs = connect(url)
    fs.put(f"{here}/", f"{bucket}/in/", recursive=True)
    found = fs.find(f"{bucket}/in", detail=True)
    assert sum(f["size"] for f in found.values()) == fs.du(f"{bucket}/in")
    walked = [f"{place}/{name}" for place, _, names in fs.walk(f"{bucket}/in") for name in names]
    assert sorted(walked) == sorted(found)
    assert sorted(fs.glob(f"{bucket}/in/**/*.csv")) == sorted(f for f in found if f.endswith(".csv"))
    fs.copy(f"{bucket}/in/", f"{bucket}/out/", recursive=True)  # mv cannot take folders that are no objects
    fs.rm(f"{bucket}/in", recursive=True)
    assert not fs.exists(f"{bucket}/in")
    gone = fs.glob(f"{bucket}/out/**/*.tmp")
    fs.rm(gone)
    fs.get(f"{bucket}/out/", there, recursive=True)
    return len(gone)


def append(url, bucket, seed):
    """A log that grows: what is there already is copied on the server's side, not sent again."""
    fs, path, written = connect(url), f"{bucket}/app.log", b""
    for size in (1000, 3 * MIB, 6 * MIB, 1, 7 * MIB, 0, 5000):
        more = random.Random(seed + size).randbytes(size)
        with fs.open(path, "ab") as log:
            log.write(more)
        written += more
        assert fs.size(path) == len(written)
    with fs.open(path, "rb", block_size=MIB, cache_type="readahead") as log:
        log.seek(-5000, 2)
        assert log.read() == written[-5000:]
        log.seek(9 * MIB)
        assert log.read(3 * MIB) == written[9 * MIB : 12 * MIB]
    assert fs.cat_ranges([path] * 3, [0, 5, 10 * MIB], [5, 10, 10 * MIB + 5]) == [
        written[0:5],
        written[5:10],
        written[10 * MIB : 10 * MIB + 5],
    ]
    return {"app.log": sha256(written)}


def publish(url, bucket):
    """Files that appear when they are whole, once; and what they were before."""
    fs = connect(url, version_aware=True)
    fs.make_bucket_versioned(bucket)
    path = f"{bucket}/current.json"
    try:
        with fs.transaction, fs.open(path, "wb") as file:
            file.write(b"half")
            raise InterruptedError
    except InterruptedError:
        assert not fs.exists(path)
    with fs.transaction:
        with fs.open(path, "wb") as file:
            file.write(b"1" * (6 * MIB))
        assert not fs.exists(path)
    try:
        with fs.open(path, "xb") as file:
            file.write(b"another's")
        raise AssertionError("an exclusive write replaced a file")
    except FileExistsError:
        pass
    with fs.open(path, "w") as file:
        json.dump({"n": 2}, file)
    versions = fs.object_version_info(path)
    assert len(versions) == 2, versions
    with fs.open(path, "rb", version_id=versions[-1]["VersionId"]) as file:
        assert file.read() == b"1" * (6 * MIB)
    fs.setxattr(path, kind="report")
    assert fs.getxattr(path, "kind") == "report"
    fs.put_tags(path, {"team": "a b"})
    assert fs.get_tags(path) == {"team": "a b"}
    return {"current.json": sha256(fs.cat_file(path))}
