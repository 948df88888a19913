"""DuckDB reads partitions by the globs of a span: on files, on `ostraka serve` below a prefix."""

import asyncio
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from remote_services import REPOSITORY, Served

from ostraka.backends import Backend, LocalBackend, Measurement, for_engine, present
from ostraka.backends.azure import AzureBackend, AzureConfig
from ostraka.backends.s3 import S3Backend

BEGIN = datetime(2025, 12, 30, 22, tzinfo=UTC)
HOURS = 60  # over the end of a day, of a month and of a year
CPU = Measurement("db", "cpu")

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from duckdb_script import connect
db = connect(sys.argv[2])
job = json.load(sys.stdin)
for number in range(job["hours"]):
    db.execute(f"COPY (SELECT {number} AS hour) TO '{job['files']}/{number}.parquet' (FORMAT parquet)")
for globs in job["queries"]:
    rows = db.execute("SELECT hour FROM read_parquet($1) ORDER BY hour", [globs]).fetchall()
    print(json.dumps([hour for (hour,) in rows]), flush=True)
"""


def duckdb(served: Served, **job: object) -> list[list[int]]:
    python = REPOSITORY / ".venv-data/bin/python"
    if not python.exists():
        pytest.skip("DuckDB is not installed: run scripts/install")
    words = [str(python), "-c", SCRIPT, str(REPOSITORY / "tests/clients"), served.url]
    keys = {"AWS_ACCESS_KEY_ID": served.access_key, "AWS_SECRET_ACCESS_KEY": served.secret_key}
    ran = subprocess.run(
        words, input=json.dumps(job), env={**os.environ, **keys}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_duckdb_reads_a_span_and_no_other_hour(own: Served, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    duckdb(own, hours=HOURS, files=str(tmp_path / "files"), queries=[])
    moments = [BEGIN + timedelta(hours=n) for n in range(HOURS)]
    year = datetime(2026, 1, 1, tzinfo=UTC)
    spans = [
        (BEGIN, BEGIN + timedelta(hours=HOURS)),
        (year, year + timedelta(hours=1)),  # hour 0 of a day
        (year - timedelta(minutes=1), year + timedelta(minutes=1)),
        (BEGIN - timedelta(days=400), BEGIN + timedelta(hours=3)),  # most of it holds nothing
    ]
    wanted = [[n for n, at in enumerate(moments) if a < at + timedelta(hours=1) and at < b] for a, b in spans]

    async def main() -> list[list[str]]:
        queries = []
        async with (
            LocalBackend(tmp_path / "a [local] store?") as local,
            S3Backend(own.config(prefix="lake/é +x")) as s3,
        ):
            stores: list[Backend] = [local, s3]
            for store in stores:
                for number, moment in enumerate(moments):
                    data = (tmp_path / f"files/{number}.parquet").read_bytes()
                    await store.write(CPU.path(moment, "a.parquet"), data)
                    await store.write(CPU.path(moment, "a.parquet.txt"), b"none")
                for begin, end in spans:
                    globs = await present(store, CPU.globs(begin, end))
                    queries.append([for_engine(store, glob) for glob in globs])
                queries.append([for_engine(store, CPU.glob())])
                queries.append([for_engine(store, CPU.glob(2026, 1, 1, 0))])
        return queries

    queries = asyncio.run(main())
    wanted += [list(range(HOURS)), [26]]
    assert duckdb(own, hours=0, files="", queries=queries) == wanted * 2


def test_what_azure_holds_is_named_as_engines_name_it() -> None:
    async def main() -> str:
        async with AzureBackend(AzureConfig(container="c", account="me", prefix="lake")) as azure:
            return for_engine(azure, CPU.glob(2026))

    assert asyncio.run(main()) == "az://c/lake/db/cpu/2026/*/*/*/*.parquet"
