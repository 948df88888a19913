"""Datasets, directories and streams with pyarrow, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tables import parquet_rows
from client_tools import PYARROW

pytestmark = pytest.mark.timeout(300)


def test_a_partitioned_dataset_is_written_added_to_and_one_part_replaced(
    endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    files = PYARROW.do(endpoint, "dataset", bucket=bucket, rows=12_000)
    assert parquet_rows(endpoint, bucket, tmp_path) == dict.fromkeys(files, 1_000)
    assert {r["framing"] for r in endpoint.sent(bucket)} == {PYARROW.framing[endpoint.scheme]}


def test_directories_are_made_and_deleted_with_what_is_in_them(endpoint: Endpoint, bucket: str) -> None:
    wrote = PYARROW.do(endpoint, "directories", bucket=bucket)
    held = endpoint.held(bucket)
    assert {key: digest for key, digest in held.items() if not key.endswith("/")} == wrote
    assert [key for key in held if key.endswith("/")] == ["a/"], "the marker of a directory that is there"


def test_streams_in_parts_with_metadata(endpoint: Endpoint, bucket: str, seed: int) -> None:
    wrote = PYARROW.do(endpoint, "streams", bucket=bucket, seed=seed)
    assert wrote.items() <= endpoint.held(bucket).items()
    head = endpoint.boto().head_object(Bucket=bucket, Key="large")
    assert head["ContentType"] == "application/x-test"
    assert endpoint.framings(bucket, "UploadPart") == {PYARROW.framing[endpoint.scheme]}


def test_one_column_of_many_is_read_by_ranges(endpoint: Endpoint, bucket: str) -> None:
    size = PYARROW.do(endpoint, "columns", bucket=bucket, rows=100_000)
    reads = endpoint.requests(bucket, "GetObject")
    assert {r["status"] for r in reads} == {206}
    assert sum(r["sent"] for r in reads) < size / 4
