"""Tables in a bucket with DuckDB and its httpfs extension, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tables import parquet_rows
from client_tools import DUCKDB

pytestmark = pytest.mark.timeout(300)


def test_tables_go_out_in_each_format_and_are_found_by_globs(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    parts = DUCKDB.do(endpoint, "tables", bucket=bucket, rows=120_000)
    found = parquet_rows(endpoint, bucket, tmp_path)
    assert len(parts) == 12
    assert [found[name] for name in parts] == [10_000] * 12
    assert found["all.parquet"] == sum(n for name, n in found.items() if name.startswith("files/")) == 120_000
    others = {key for key in endpoint.keys(bucket) if not key.endswith(".parquet")}
    assert others == {"all.csv.gz", "some.json"}
    assert {r["framing"] for r in endpoint.sent(bucket)} == {DUCKDB.framing[endpoint.scheme]}


def test_a_table_is_replaced_by_what_was_computed_of_it(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    DUCKDB.do(endpoint, "update", bucket=bucket, rows=50_000)
    assert parquet_rows(endpoint, bucket, tmp_path) == {"ledger.parquet": 50_000, "new.parquet": 25_000}


def test_a_column_is_read_by_ranges_of_a_file_that_went_up_in_parts(endpoint: Endpoint, bucket: str) -> None:
    DUCKDB.do(endpoint, "columns", bucket=bucket, rows=200_000)
    size = endpoint.boto().head_object(Bucket=bucket, Key="wide.parquet")["ContentLength"]
    assert size > 200_000 * 11 * 8
    assert len(endpoint.requests(bucket, "UploadPart")) > 1
    assert endpoint.framings(bucket, "UploadPart") == {DUCKDB.framing[endpoint.scheme]}
    reads = endpoint.requests(bucket, "GetObject")
    assert {r["status"] for r in reads} == {206}
    assert sum(r["sent"] for r in reads) < size / 2, "more came than the two columns that were asked for"
