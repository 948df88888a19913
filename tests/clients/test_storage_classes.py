"""Storage classes over S3: two servers, one of which keeps the cold objects of the other."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ostraka.testing.processes import ServerProcess

COLD = "GLACIER_IR"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess([tmp_path / "archive"], "--workers", "1") as server:
        yield server


@pytest.fixture
def server(archive: ServerProcess, tmp_path: Path) -> Iterator[ServerProcess]:
    keys = {"AWS_ACCESS_KEY_ID": archive.access_key, "AWS_SECRET_ACCESS_KEY": archive.secret_key}
    disks = [tmp_path / f"disk{number}" for number in range(3)]
    with ServerProcess(disks, "--workers", "2", environment=keys) as server:
        yield server


def test_objects_of_a_class_are_kept_by_another_server(
    server: ServerProcess, archive: ServerProcess, tmp_path: Path, seed: int
) -> None:
    client, there = server.client(), archive.client()
    client.create_bucket(Bucket="photos")
    there.create_bucket(Bucket="archive")
    body = random.Random(seed).randbytes(9_000_000)
    with pytest.raises(ClientError, match="InvalidStorageClass"):
        client.put_object(Bucket="photos", Key="early", Body=b"x", StorageClass=COLD)
    url = f"s3://archive/ours?endpoint={archive.url}"
    add = ["pool", "add", "cold", url, "--storage-class", COLD, "--store", str(tmp_path / "disk0")]
    subprocess.run([sys.executable, "-P", "-m", "ostraka", *add], check=True, env=server.environment)
    for key, size in (("tiny", 100), ("small", 20_000), ("large", len(body))):
        client.put_object(Bucket="photos", Key=key, Body=body[:size], StorageClass=COLD)
    upload = client.create_multipart_upload(Bucket="photos", Key="parts", StorageClass=COLD)["UploadId"]
    named: dict[str, Any] = {"Bucket": "photos", "Key": "parts", "UploadId": upload}
    part = client.upload_part(**named, PartNumber=1, Body=body)
    client.complete_multipart_upload(**named, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    for key, size in (("tiny", 100), ("small", 20_000), ("large", len(body)), ("parts", len(body))):
        answer = client.get_object(Bucket="photos", Key=key)
        assert answer["StorageClass"] == COLD
        assert answer["Body"].read() == body[:size]
    ranged = client.get_object(Bucket="photos", Key="large", Range="bytes=4000000-5000000")
    assert ranged["Body"].read() == body[4_000_000:5_000_001]
    listed = client.list_objects_v2(Bucket="photos")["Contents"]
    assert {entry["Key"]: entry["StorageClass"] for entry in listed} == dict.fromkeys(
        ("tiny", "small", "large", "parts"), COLD
    )
    kept = [entry["Key"] for entry in there.list_objects_v2(Bucket="archive")["Contents"]]
    assert len(kept) > 3
    assert all(key.startswith("ours/") for key in kept)
    copied = client.copy_object(
        Bucket="photos", Key="large", CopySource={"Bucket": "photos", "Key": "large"}, StorageClass="STANDARD"
    )
    assert copied["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert "StorageClass" not in client.head_object(Bucket="photos", Key="large")
