"""Programs written for MinIO, with its own client, over HTTP and HTTPS."""

import random
import zlib
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import MINIO
from client_tree import assert_same

pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20


def test_the_life_of_a_bucket(endpoint: Endpoint, request: pytest.FixtureRequest) -> None:
    name = f"minio-{zlib.crc32(request.node.name.encode()):08x}"
    MINIO.do(endpoint, "bucket", bucket=name)
    assert name not in [b["Name"] for b in endpoint.boto().list_buckets()["Buckets"]]


def test_files_parts_and_streams_of_unknown_length(endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int) -> None:
    content = random.Random(seed).randbytes(12 * MIB + 17)
    (tmp_path / "here").write_bytes(content)
    wrote = MINIO.do(endpoint, "objects", bucket=bucket, here=str(tmp_path / "here"), there=str(tmp_path / "there"))
    assert (tmp_path / "there").read_bytes() == content
    assert_same(endpoint.held(bucket), wrote)
    assert len(endpoint.requests(bucket, "UploadPart", at_least=5)) == 5
    sent = [r for r in endpoint.requests(bucket) if r["operation"] in ("PutObject", "UploadPart")]
    assert {r["framing"] for r in sent} == {MINIO.framing[endpoint.scheme]}


def test_an_object_is_composed_of_others_by_the_server(endpoint: Endpoint, bucket: str, seed: int) -> None:
    wrote = MINIO.do(endpoint, "compose", bucket=bucket, seed=seed)
    assert_same(endpoint.held(bucket), wrote)
    assert len(endpoint.requests(bucket, "UploadPartCopy", at_least=3)) == 3
    assert len(endpoint.requests(bucket, "PutObject", at_least=3)) == 3, "the sources only"


def test_versions_and_links(endpoint: Endpoint, bucket: str) -> None:
    wrote = MINIO.do(endpoint, "versions", bucket=bucket)
    assert_same(endpoint.held(bucket), wrote)
