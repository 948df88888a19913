"""Iceberg tables with pyiceberg on a SQL catalog, through pyarrow and through s3fs, over HTTP and HTTPS."""

from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tables import parquet_rows
from client_tools import NEW, PYICEBERG

pytestmark = pytest.mark.timeout(300)
BY_PYARROW, BY_S3FS = "pyiceberg.io.pyarrow.PyArrowFileIO", "pyiceberg.io.fsspec.FsspecFileIO"


@pytest.mark.parametrize(
    ("files", "framing"), [(BY_PYARROW, PYICEBERG.framing), (BY_S3FS, NEW)], ids=["pyarrow", "s3fs"]
)
def test_a_table_is_filled_changed_extended_and_read_as_it_was(
    files: str, framing: dict[str, str], endpoint: Endpoint, bucket: str, tmp_path: Path
) -> None:
    names = PYICEBERG.do(endpoint, "table", bucket=bucket, database=str(tmp_path / "catalog.db"), files=files)
    rows = parquet_rows(endpoint, bucket, tmp_path)
    assert sum(rows[name] for name in names) == 115
    assert {r["framing"] for r in endpoint.sent(bucket)} == {framing[endpoint.scheme]}


def test_two_writers_and_a_purge(endpoint: Endpoint, bucket: str, tmp_path: Path) -> None:
    PYICEBERG.do(endpoint, "writers", bucket=bucket, database=str(tmp_path / "catalog.db"), files=BY_PYARROW)
    left = [key for key in endpoint.keys(bucket) if not key.endswith("/")]
    assert len(left) == 1, "a purge leaves what no snapshot names: the file of the change that was refused"
