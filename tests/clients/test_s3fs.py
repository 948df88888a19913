"""Files in a bucket through s3fs, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import S3FS
from client_tree import assert_same, digests

pytestmark = pytest.mark.timeout(300)


def test_a_tree_goes_up_is_renamed_thinned_out_and_comes_down(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for n in range(60):
        path = here / ("a", "a/b", "c d+")[n % 3] / f"ü {n} #%.{'tmp' if n % 4 else 'csv'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{n},".encode() * n)
    assert S3FS.do(endpoint, "tree", bucket=bucket, here=str(here), there=str(there)) == 45
    kept = {name: digest for name, digest in digests(here).items() if name.endswith(".csv")}
    assert_same(digests(there), kept)
    assert_same(endpoint.held(bucket), {f"out/{name}": digest for name, digest in kept.items()})
    assert endpoint.framings(bucket, "PutObject") == {S3FS.framing[endpoint.scheme]}


def test_appends_beyond_5_mib_are_copied_by_the_server(endpoint: Endpoint, bucket: str, seed: int) -> None:
    wrote = S3FS.do(endpoint, "append", bucket=bucket, seed=seed)
    assert_same(endpoint.held(bucket), wrote)
    assert endpoint.requests(bucket, "UploadPartCopy"), "what was there came down and went up again"
    sent = [r for r in endpoint.requests(bucket) if r["operation"] in ("PutObject", "UploadPart")]
    assert {r["framing"] for r in sent} == {S3FS.framing[endpoint.scheme]}


def test_files_appear_when_they_are_whole_and_only_once(endpoint: Endpoint, bucket: str) -> None:
    wrote = S3FS.do(endpoint, "publish", bucket=bucket)
    assert_same(endpoint.held(bucket), wrote)
    assert [r["status"] for r in endpoint.requests(bucket, "PutObject", at_least=2)].count(412) == 1
    assert "Uploads" not in endpoint.boto().list_multipart_uploads(Bucket=bucket), "what was given up is still there"
