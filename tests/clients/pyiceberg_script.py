"""What a data platform does with pyiceberg: tables in a bucket, their catalog in SQL.

Credentials and, for HTTPS, the authority (SSL_CERT_FILE for pyarrow, AWS_CA_BUNDLE for s3fs) come from the environment.
"""

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import EqualTo, GreaterThanOrEqual
from pyiceberg.types import StringType


def connect(url, bucket, database, files):
    return SqlCatalog(
        "ostraka",
        **{
            "uri": f"sqlite:///{database}",
            "warehouse": f"s3://{bucket}/warehouse",
            "s3.endpoint": url,
            "s3.region": "us-east-1",
            "py-io-impl": files,  # pyiceberg.io.pyarrow.PyArrowFileIO or pyiceberg.io.fsspec.FsspecFileIO
        },
    )


def rows(first, count, town="Thíva +"):
    numbers = pa.array(range(first, first + count), pa.int64())
    return pa.table(
        {"id": numbers, "town": pa.array([town] * count, pa.string()), "weight": pa.array([1.0] * count, pa.float64())}
    )


def ids(table, **scan):
    return sorted(table.scan(selected_fields=("id",), **scan).to_arrow()["id"].to_pylist())


def table(url, bucket, database, files):
    """A partitioned table is filled, changed, extended, read as it was before, and opened anew."""
    catalog = connect(url, bucket, database, files)
    catalog.create_namespace("museum")
    found = catalog.create_table("museum.sherds", rows(0, 0).schema)
    with found.update_spec() as spec:
        spec.add_identity("town")
    for n, town in enumerate(("Athína", "Kórinthos", "Thíva +")):
        found.append(rows(n * 100, 100, town))
    before = found.current_snapshot().snapshot_id
    found.delete(EqualTo("town", "Kórinthos"))
    found.overwrite(rows(500, 10, "Athína"), overwrite_filter=EqualTo("town", "Athína"))
    found.upsert(rows(295, 10), join_cols=["id"])
    with found.update_schema() as schema:
        schema.add_column("finder", StringType())
    wanted = [*range(200, 305), *range(500, 510)]
    again = connect(url, bucket, database, files).load_table("museum.sherds")
    assert ids(again) == wanted
    assert ids(again, row_filter=GreaterThanOrEqual("id", 500)) == list(range(500, 510))
    assert ids(again, snapshot_id=before) == list(range(300))
    assert again.scan().to_arrow()["finder"].null_count == len(wanted)
    prefix = f"s3://{bucket}/"
    return [file.removeprefix(prefix) for file in again.inspect.files()["file_path"].to_pylist()]


def writers(url, bucket, database, files):
    """Two writers who began at the same snapshot: both append, one's change over the other's is refused."""
    catalog = connect(url, bucket, database, files)
    catalog.create_namespace("museum")
    catalog.create_table("museum.ledger", rows(0, 0).schema).append(rows(0, 10))
    mine, theirs = catalog.load_table("museum.ledger"), catalog.load_table("museum.ledger")
    theirs.append(rows(10, 5))
    mine.append(rows(20, 5))
    stand = [*range(15), *range(20, 25)]
    assert ids(catalog.load_table("museum.ledger")) == stand
    mine, theirs = catalog.load_table("museum.ledger"), catalog.load_table("museum.ledger")
    theirs.delete(GreaterThanOrEqual("id", 20))
    try:
        mine.overwrite(rows(100, 5))
        raise AssertionError("a commit went through over another's")
    except (CommitFailedException, ValidationException):
        pass
    assert ids(catalog.load_table("museum.ledger")) == stand[:15]
    catalog.purge_table("museum.ledger")
    assert catalog.list_tables("museum") == []
    catalog.drop_namespace("museum")
