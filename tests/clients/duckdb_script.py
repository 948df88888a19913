"""What an analyst does with DuckDB over a bucket: COPY TO, globs, partitions, one column of many.

The httpfs extension comes from its wheel, `pip install duckdb-extension-httpfs`, not from DuckDB's own site.
"""

import os
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import duckdb


def connect(url):
    address = urlsplit(url)
    db = duckdb.connect()
    extension = next(Path(str(files("duckdb_extension_httpfs"))).rglob("httpfs.duckdb_extension"))
    db.load_extension(str(extension))
    db.execute(
        f"""
        CREATE SECRET ostraka (
            TYPE s3, ENDPOINT '{address.netloc}', USE_SSL {address.scheme == "https"}, URL_STYLE 'path',
            REGION 'us-east-1',
            KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}'
        )
        """
    )
    db.execute("SET enable_server_cert_verification = true")  # without this it believes any server
    if ca := os.environ.get("AWS_CA_BUNDLE"):
        db.execute(f"SET ca_cert_file = '{ca}'")
    return db


def one(db, query):
    return db.execute(query).fetchone()


def tables(url, bucket, rows):
    """A table goes out as Parquet, CSV and JSON, partitioned and not, and is found again by globs."""
    db = connect(url)
    db.execute(
        f"""
        CREATE TABLE sherds AS
        SELECT i AS id, 2020 + i % 4 AS year, ['Athens', 'Corinth', 'Thebes ü+'][1 + i % 3] AS town, i * 0.5 AS weight
        FROM range({rows}) t(i)
        """
    )
    wanted = one(db, "SELECT count(*), sum(id), sum(weight) FROM sherds")
    db.execute(f"COPY sherds TO 's3://{bucket}/all.parquet' (COMPRESSION zstd, ROW_GROUP_SIZE 10000)")
    db.execute(f"COPY sherds TO 's3://{bucket}/all.csv.gz' (HEADER)")
    db.execute(f"COPY (SELECT * FROM sherds LIMIT 100) TO 's3://{bucket}/some.json'")
    db.execute(f"COPY sherds TO 's3://{bucket}/parts' (FORMAT parquet, PARTITION_BY (year, town))")
    db.execute(f"COPY sherds TO 's3://{bucket}/files' (FORMAT parquet, PER_THREAD_OUTPUT)")
    for source in ("all.parquet", "all.csv.gz", "files/*.parquet", "parts/**/*.parquet", "parts/*/town=*/*.parquet"):
        found = one(db, f"SELECT count(*), sum(id), sum(weight) FROM 's3://{bucket}/{source}'")
        assert found == wanted, (source, found, wanted)
    assert one(db, f"SELECT count(*), max(id) FROM 's3://{bucket}/some.json'") == (100, 99)
    parts = f"read_parquet('s3://{bucket}/parts/*/*/*.parquet', hive_partitioning = true)"
    assert one(db, f"SELECT count(*) FROM 's3://{bucket}/parts/year=202[01]/*/*.parquet'") == (rows // 2,)
    wanted = one(db, "SELECT count(*), sum(id) FROM sherds WHERE year = 2021 AND town = 'Thebes ü+'")
    assert one(db, f"SELECT count(*), sum(id) FROM {parts} WHERE year = 2021 AND town = 'Thebes ü+'") == wanted
    names = [
        name for (name,) in db.execute(f"SELECT file FROM glob('s3://{bucket}/parts/**') ORDER BY file").fetchall()
    ]
    return [name.removeprefix(f"s3://{bucket}/") for name in names]


def update(url, bucket, rows):
    """Last month's file is replaced by what it said and what is new; two files are joined."""
    db, place = connect(url), f"s3://{bucket}/ledger.parquet"
    db.execute(f"COPY (SELECT i AS id, 1 AS amount FROM range({rows}) t(i)) TO '{place}'")
    db.execute(f"COPY (SELECT id, amount + 1 AS amount FROM '{place}' WHERE id % 2 = 0) TO 's3://{bucket}/new.parquet'")
    db.execute(
        f"""
        CREATE TABLE merged AS
        SELECT id, coalesce(n.amount, l.amount) AS amount
        FROM '{place}' l LEFT JOIN 's3://{bucket}/new.parquet' n USING (id)
        """
    )
    db.execute(f"COPY merged TO '{place}'")
    assert one(db, f"SELECT count(*), sum(amount) FROM '{place}'") == (rows, rows + rows // 2)


def columns(url, bucket, rows):
    """A wide file goes up in parts; one column of it, or a row, costs its own bytes: ranges are asked for."""
    db, place = connect(url), f"s3://{bucket}/wide.parquet"
    db.execute("SET s3_uploader_max_filesize = '50GB'")  # parts of 5 MiB: a part is a 10,000th of it
    wide = ", ".join(f"hash(i * 10 + {n}) AS c{n}" for n in range(10))
    db.execute(f"COPY (SELECT i, {wide} FROM range({rows}) t(i)) TO '{place}' (COMPRESSION uncompressed)")
    fresh = connect(url)  # it has nothing of the file in memory
    (found,) = one(fresh, f"SELECT sum(c7 % 1000) FROM '{place}'")
    assert found == one(db, f"SELECT sum(hash(i * 10 + 7) % 1000) FROM range({rows}) t(i)")[0]
    return one(fresh, f"SELECT c0 FROM '{place}' WHERE i = {rows - 1}") is not None
