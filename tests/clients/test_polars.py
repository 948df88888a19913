"""Scans and sinks with polars, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tables import parquet_rows
from client_tools import POLARS

pytestmark = pytest.mark.timeout(300)


def test_frames_are_written_and_scanned_in_each_format(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    POLARS.do(endpoint, "files", bucket=bucket, rows=40_000)
    many = {f"many/{n} ü.parquet": 5_000 for n in range(8)}
    assert parquet_rows(endpoint, bucket, tmp_path) == {"eager.parquet": 40_000, **many}
    assert {"eager.csv", "lazy.ndjson", "lazy.arrow"} <= set(endpoint.keys(bucket))
    assert {r["framing"] for r in endpoint.sent(bucket)} == {POLARS.framing[endpoint.scheme]}


def test_a_partitioned_sink_is_scanned_by_partition(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    POLARS.do(endpoint, "partitions", bucket=bucket, rows=12_000)
    rows = parquet_rows(endpoint, bucket, tmp_path)
    assert rows.pop("by town.parquet") == 3
    assert list(rows.values()) == [1_000] * 12


def test_a_wide_file_goes_up_in_parts_and_one_column_comes_down(endpoint: Endpoint, bucket: str) -> None:
    POLARS.do(endpoint, "columns", bucket=bucket, rows=400_000)
    size = endpoint.boto().head_object(Bucket=bucket, Key="wide.parquet")["ContentLength"]
    assert len(endpoint.requests(bucket, "UploadPart")) > 1
    reads = endpoint.requests(bucket, "GetObject")
    assert {r["status"] for r in reads} == {206}
    assert sum(r["sent"] for r in reads) < size / 4
