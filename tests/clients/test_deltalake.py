"""Delta tables with deltalake, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tables import parquet_rows
from client_tools import DELTALAKE

pytestmark = pytest.mark.timeout(300)


def test_concurrent_commits_of_two_processes_are_all_there_once(
    endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    DELTALAKE.do(endpoint, "commits", bucket=bucket, threads=2, commits=5)
    log = [key for key in endpoint.keys(bucket) if key.startswith("events/_delta_log/") and key.endswith(".json")]
    assert log == [f"events/_delta_log/{n:020}.json" for n in range(21)]
    assert sorted(parquet_rows(endpoint, bucket, tmp_path).values()) == [10] * 20
    puts = endpoint.requests(bucket, "PutObject")
    assert [r for r in puts if r["status"] == 412], "they never met"
    assert {r["framing"] for r in puts} == {DELTALAKE.framing[endpoint.scheme]}


def test_upserts_time_travel_and_upkeep(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    files = DELTALAKE.do(endpoint, "upkeep", bucket=bucket)
    rows = parquet_rows(endpoint, bucket, tmp_path)
    assert sum(rows[name] for name in files) == 400
    data = [name for name in rows if "_delta_log" not in name]
    assert data == files, "the files that were swept are still there"


def test_a_change_over_anothers_is_refused(endpoint: Endpoint, bucket: str) -> None:
    DELTALAKE.do(endpoint, "conflict", bucket=bucket)
    assert len([k for k in endpoint.keys(bucket) if k.startswith("shared/_delta_log/")]) == 2
