"""A small store of a release: what is put into it, everything that can be read back from it, and how it is packed.

    python tests/releases/release_store.py 0.1.0

makes the stores of the release that is installed, in tests/releases/0.1.0/, once and for ever: a release's stores are
never made again. One lies on a single disk and was stopped; one is 2+1 on three disks and was killed, so that the next
start has to recover it.

``contents`` may learn to look at more, but what an older release's contents.json says must stay what is found.
"""

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ostraka import __version__
from ostraka.testing.processes import ServerProcess, s3_client

HERE = Path(__file__).parent
ACCESS, SECRET = "releaseaccesskey", "releasesecretkey"
OTHER = ("potter", "potteraccesskey", "pottersecretkey")
LAYOUTS = {"one-disk": 1, "three-disks": 3}
KIB, MIB = 1 << 10, 1 << 20
SIZE_MAX = 200 * KIB  # of all that a release adds to the repository


def body(name: str, size: int) -> bytes:
    """Bytes that compress to almost nothing, with no piece that another name has."""
    blocks = (f"{name} {number:012d} ".encode().ljust(64 * KIB, b".") for number in range(size // (64 * KIB) + 1))
    return b"".join(blocks)[:size]


def serve(directories: list[Path]) -> ServerProcess:
    settings = {"OSTRAKA_ACCOUNTS": ":".join(OTHER)}
    return ServerProcess(directories, "--workers", "1", access_key=ACCESS, secret_key=SECRET, environment=settings)


def fill(s3: Any, other: Any) -> None:
    """Something of every kind that a store keeps."""
    s3.create_bucket(Bucket="plain")
    other.create_bucket(Bucket="of-another-account")
    other.put_object(Bucket="of-another-account", Key="k", Body=body("other", 10))
    for name, size in {"empty": 0, "inline": KIB, "packed": 20 * KIB, "chunk": 300 * KIB, "manifest": 18 * MIB}.items():
        s3.put_object(Bucket="plain", Key=f"sizes/{name}", Body=body(name, size))
    s3.put_object(
        Bucket="plain",
        Key="attributes/α β\x01.txt",
        Body=b"attributes",
        ContentType="text/plain",
        CacheControl="max-age=60",
        Metadata={"found": "Athens"},
        Tagging="clay=red&shape=amphora",
        ChecksumAlgorithm="SHA256",
    )
    s3.put_object(Bucket="plain", Key="long/" + "k" * 1000, Body=b"a key that no single row of the index holds")
    s3.copy_object(Bucket="plain", Key="copy", CopySource={"Bucket": "plain", "Key": "sizes/manifest"})
    for number in range(3):
        s3.put_object(Bucket="plain", Key="overwritten", Body=body(f"turn {number}", 200 * KIB))
    s3.put_object(Bucket="plain", Key="deleted", Body=body("deleted", 200 * KIB))
    s3.delete_object(Bucket="plain", Key="deleted")
    _multipart(s3, "plain", "parts", complete=True)
    _multipart(s3, "plain", "unfinished", complete=False)
    s3.put_bucket_tagging(Bucket="plain", Tagging={"TagSet": [{"Key": "kiln", "Value": "1"}]})
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["https://example.com"], "MaxAgeSeconds": 60}
    s3.put_bucket_cors(Bucket="plain", CORSConfiguration={"CORSRules": [rule]})
    _versions(s3)


def _multipart(s3: Any, bucket: str, key: str, *, complete: bool) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={"made": "in parts"})["UploadId"]
    parts = []
    for number, size in enumerate((5 * MIB, 5 * MIB, 100), 1):
        piece = body(f"{key} {number}", size)
        done = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    if complete:
        s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})


def _versions(s3: Any) -> None:
    s3.create_bucket(Bucket="versioned")
    s3.put_object(Bucket="versioned", Key="before", Body=b"written before versioning")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    for number in range(3):
        s3.put_object(Bucket="versioned", Key="k", Body=body(f"version {number}", 40 * KIB))
    s3.put_object(Bucket="versioned", Key="before", Body=b"written after")
    s3.delete_object(Bucket="versioned", Key="k")
    s3.put_object(Bucket="versioned", Key="gone", Body=b"gone")
    s3.delete_object(Bucket="versioned", Key="gone")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket="versioned", Key="k", Body=b"the null version")


# -- what is read back


def contents(s3: Any) -> dict[str, Any]:
    """Everything that the root account can read, as JSON has it."""
    buckets = [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    return {name: _bucket(s3, name) for name in buckets}


def _bucket(s3: Any, name: str) -> dict[str, Any]:
    return {
        "versioning": s3.get_bucket_versioning(Bucket=name).get("Status", ""),
        "listed": [[e["Key"], e["Size"], e["ETag"]] for e in _all(s3, "list_objects_v2", "Contents", name)],
        "versions": [_version(s3, name, e) for e in _all(s3, "list_object_versions", "Versions", name)],
        "markers": [
            [e["Key"], e["VersionId"], e["IsLatest"], e["LastModified"].isoformat()]
            for e in _all(s3, "list_object_versions", "DeleteMarkers", name)
        ],
        "uploads": [_upload(s3, name, e) for e in _all(s3, "list_multipart_uploads", "Uploads", name)],
        "tags": _or_nothing(lambda: s3.get_bucket_tagging(Bucket=name)["TagSet"]),
        "cors": _or_nothing(lambda: s3.get_bucket_cors(Bucket=name)["CORSRules"]),
    }


def _all(s3: Any, operation: str, members: str, bucket: str) -> Iterator[dict[str, Any]]:
    for page in s3.get_paginator(operation).paginate(Bucket=bucket):
        yield from page.get(members, [])


def _version(s3: Any, bucket: str, entry: dict[str, Any]) -> dict[str, Any]:
    one = {"Bucket": bucket, "Key": entry["Key"], "VersionId": entry["VersionId"]}
    found = s3.get_object(**one, ChecksumMode="ENABLED")
    told = {name: value for name, value in found.items() if name.startswith(("Checksum", "Content", "Cache", "Parts"))}
    return {
        "key": entry["Key"],
        "version": entry["VersionId"],
        "latest": entry["IsLatest"],
        "etag": entry["ETag"],
        "modified": entry["LastModified"].isoformat(),
        "metadata": found["Metadata"],
        "tags": s3.get_object_tagging(**one)["TagSet"],
        "told": told,
        "sha256": hashlib.sha256(found["Body"].read()).hexdigest(),
    }


def _upload(s3: Any, bucket: str, entry: dict[str, Any]) -> list[Any]:
    one = {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]}
    parts = s3.list_parts(**one)["Parts"]
    return [entry["Key"], entry["UploadId"], [[p["PartNumber"], p["Size"], p["ETag"]] for p in parts]]


def _or_nothing(call: Any) -> Any:
    try:
        return call()
    except Exception as error:
        if "NoSuch" in str(error):
            return None
        raise


# -- making and unpacking


def disks(where: Path, layout: str) -> list[Path]:
    return [where / layout / f"disk{number}" for number in range(LAYOUTS[layout])]


def unpack(release: Path, where: Path) -> None:
    """Both stores, with the holes that their files had."""
    with tarfile.open(release / "stores.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian's Python 3.11.2 has none yet
        archive.extractall(where)


def make(release: str) -> None:
    into = HERE / release
    into.mkdir()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        for layout in LAYOUTS:
            server = serve(disks(Path(made), layout)).start()
            other = s3_client(server.url, *OTHER[1:])
            fill(server.client(), other)
            found = contents(server.client())
            if layout == "one-disk":
                assert server.terminate() == 0
            else:
                server.kill9()
            (into / f"{layout}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        # GNU tar, for the holes: an index is a file of terabytes that are not there
        pack = ["tar", "--create", "--sparse", "--xz", "--file", str(into / "stores.tar.xz"), "--sort=name"]
        pack += ["--owner=0", "--group=0", "--numeric-owner", "--directory", made, *LAYOUTS]
        subprocess.run(pack, check=True, env={"XZ_OPT": "-9e", "PATH": "/usr/bin:/bin"})
    size = sum(path.stat().st_size for path in into.iterdir())
    print(f"{into}: {size:,} bytes")
    assert size <= SIZE_MAX, "too large for a repository"


if __name__ == "__main__":
    (wanted,) = sys.argv[1:]
    if not __version__.startswith(wanted):
        sys.exit(f"this is {__version__}, not {wanted}")
    make(wanted)
