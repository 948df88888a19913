"""What a data scientist does with polars over a bucket: lazy scans, sinks, partitions.

Credentials and, for HTTPS, the authority (SSL_CERT_FILE) come from the environment.
"""

import polars as pl

TOWNS = ["Athína", "Kórinthos", "Thíva +"]


def options(url):
    return {"aws_endpoint_url": url, "aws_region": "us-east-1", "aws_allow_http": "true"}


def frame(rows):
    return pl.DataFrame({"id": range(rows)}).with_columns(
        year=(2020 + pl.col("id") % 4).cast(pl.Int32),
        town=(pl.col("id") % 3).replace_strict(dict(enumerate(TOWNS))),
        weight=pl.col("id") * 0.5,
    )


def files(url, bucket, rows):
    """Frames are written and read in each format; a scan of many files takes what the query asks for."""
    storage, frames, place = options(url), frame(rows), f"s3://{bucket}"
    frames.write_parquet(f"{place}/eager.parquet", storage_options=storage)
    frames.write_csv(f"{place}/eager.csv", storage_options=storage)
    frames.lazy().sink_ndjson(f"{place}/lazy.ndjson", storage_options=storage)
    frames.lazy().sink_ipc(f"{place}/lazy.arrow", storage_options=storage)
    for n, part in enumerate(frames.iter_slices(rows // 8)):
        part.write_parquet(f"{place}/many/{n} ü.parquet", storage_options=storage)
    assert pl.read_parquet(f"{place}/eager.parquet", storage_options=storage).equals(frames)
    for scanned in (
        pl.scan_csv(f"{place}/eager.csv", storage_options=storage),
        pl.scan_ndjson(f"{place}/lazy.ndjson", storage_options=storage),
        pl.scan_ipc(f"{place}/lazy.arrow", storage_options=storage),
        pl.scan_parquet(f"{place}/many/*.parquet", storage_options=storage),
    ):
        totals = scanned.select(pl.col("id").sum(), pl.col("weight").sum()).collect()
        assert totals.row(0) == (frames["id"].sum(), frames["weight"].sum()), scanned
    last = pl.scan_parquet(f"{place}/many/", storage_options=storage).filter(pl.col("id") >= rows - 5)
    assert last.select("id").collect()["id"].to_list() == list(range(rows - 5, rows))


def partitions(url, bucket, rows):
    """A partitioned sink is scanned by partition, and one dataset is made of another without passing through memory."""
    storage, frames, place = options(url), frame(rows), f"s3://{bucket}/sherds"
    frames.lazy().sink_parquet(pl.PartitionBy(place, key=["year", "town"]), storage_options=storage)
    found = pl.scan_parquet(f"{place}/**/*.parquet", storage_options=storage, hive_partitioning=True)
    for town in TOWNS:
        wanted = frames.filter(year=2021, town=town)["id"].to_list()
        assert found.filter(year=2021, town=town).select("id").sort("id").collect()["id"].to_list() == wanted
    by_town = found.group_by("town").agg(pl.len(), pl.col("weight").sum()).sort("town")
    by_town.sink_parquet(f"s3://{bucket}/by town.parquet", storage_options=storage)
    wanted = frames.group_by("town").agg(pl.len(), pl.col("weight").sum()).sort("town")
    assert pl.read_parquet(f"s3://{bucket}/by town.parquet", storage_options=storage).equals(wanted)


def columns(url, bucket, rows):
    """A wide file goes up in parts; one column of it costs one column's bytes."""
    storage, place = options(url), f"s3://{bucket}/wide.parquet"
    wide = pl.select(id=pl.int_range(rows)).with_columns(
        pl.col("id").hash(seed).alias(f"c{seed}") for seed in range(10)
    )
    wide.lazy().sink_parquet(place, storage_options=storage, compression="uncompressed", row_group_size=rows // 4)
    read = pl.scan_parquet(place, storage_options=storage).select("c7").collect()
    assert read["c7"].equals(wide["c7"])
