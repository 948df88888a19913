"""Conditions, parts, ranges and lists with obstore, over HTTP and HTTPS."""

import hashlib
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import OBSTORE
from client_tree import assert_same

pytestmark = pytest.mark.timeout(300)


def test_create_only_update_if_unchanged_and_copy_if_not_exists(endpoint: Endpoint, bucket: str) -> None:
    wrote = OBSTORE.do(endpoint, "conditions", bucket=bucket)
    assert_same(endpoint.held(bucket), wrote)
    assert "Uploads" not in endpoint.boto().list_multipart_uploads(Bucket=bucket)


def test_one_of_many_creates_and_one_of_many_copies(endpoint: Endpoint, bucket: str) -> None:
    wrote = OBSTORE.do(endpoint, "race", bucket=bucket, count=8)
    assert_same(endpoint.held(bucket), wrote)
    refused = [r for r in endpoint.requests(bucket, "CompleteMultipartUpload", at_least=8) if r["status"] == 412]
    assert len(refused) == 7


def test_parts_streams_and_ranges(endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int) -> None:
    wrote = OBSTORE.do(endpoint, "parts", bucket=bucket, seed=seed, there=str(tmp_path / "there"))
    assert_same(endpoint.held(bucket), wrote)
    assert hashlib.sha256((tmp_path / "there").read_bytes()).hexdigest() == wrote["large"]
    tags = endpoint.boto().get_object_tagging(Bucket=bucket, Key="large")["TagSet"]
    assert tags == [{"Key": "one", "Value": "1"}]
    assert len(endpoint.requests(bucket, "UploadPart", at_least=9)) == 9
    assert endpoint.framings(bucket, "UploadPart") == {OBSTORE.framing[endpoint.scheme]}


def test_lists_links_and_deletes(endpoint: Endpoint, bucket: str) -> None:
    wrote = OBSTORE.do(endpoint, "lists", bucket=bucket, count=120)
    assert_same(endpoint.held(bucket), wrote)
    assert endpoint.framings(bucket, "PutObject") == {OBSTORE.framing[endpoint.scheme]}
    assert len(endpoint.requests(bucket, "DeleteObjects")) == 1
