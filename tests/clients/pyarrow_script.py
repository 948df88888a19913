"""What a data pipeline does with pyarrow: partitioned datasets, directories, streams.

Credentials come from the environment.
"""

import hashlib
import os
import random
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import csv, fs

MIB = 1 << 20


def connect(url):
    address = urlsplit(url)
    return fs.S3FileSystem(
        endpoint_override=address.netloc,
        scheme=address.scheme,
        region="us-east-1",
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"),
    )


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def table(rows):
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "year": pa.array([2020 + n % 4 for n in range(rows)], pa.int16()),
            "town": pa.array([("Athína", "Kórinthos", "Thíva")[n % 3] for n in range(rows)]),
            "weight": pa.array([n * 0.5 for n in range(rows)]),
        }
    )


def dataset(url, bucket, rows):
    """A partitioned dataset is written, added to, read by partition and by column, and one partition replaced."""
    s3, place = connect(url), f"{bucket}/sherds"
    partitioning = ds.partitioning(pa.schema([("year", pa.int16()), ("town", pa.string())]), flavor="hive")

    def write(part, name, behaviour):
        ds.write_dataset(
            part,
            place,
            filesystem=s3,
            format="parquet",
            partitioning=partitioning,
            basename_template=f"{name}-{{i}}.parquet",
            existing_data_behavior=behaviour,
        )

    whole = table(rows)
    write(whole, "first", "error")
    write(whole, "second", "overwrite_or_ignore")
    found = ds.dataset(place, filesystem=s3, partitioning=partitioning)
    assert len(found.files) == 24, found.files
    assert found.count_rows() == 2 * rows
    some = found.to_table(filter=(pc.field("year") == 2021) & (pc.field("town") == "Thíva"), columns=["id"])
    assert sorted(some["id"].to_pylist()) == sorted(2 * [n for n in range(rows) if n % 4 == 1 and n % 3 == 2])
    write(whole.filter(pc.field("year") == 2020), "third", "delete_matching")
    found = ds.dataset(place, filesystem=s3, partitioning=partitioning)
    assert found.count_rows(filter=pc.field("year") == 2020) == rows // 4
    assert found.count_rows() == 2 * rows - rows // 4
    return sorted(f.removeprefix(f"{bucket}/") for f in found.files)


def directories(url, bucket):
    """Directories are made, found, listed, emptied and deleted; files are moved and copied between them."""
    s3 = connect(url)
    s3.create_dir(f"{bucket}/a/b/c", recursive=True)
    s3.create_dir(f"{bucket}/empty")
    assert s3.get_file_info(f"{bucket}/a/b").type == fs.FileType.Directory
    assert s3.get_file_info(f"{bucket}/not").type == fs.FileType.NotFound
    for n in range(5):
        with s3.open_output_stream(f"{bucket}/a/b/ü {n}+.txt") as file:
            file.write(b"%d" % n)
    s3.move(f"{bucket}/a/b/ü 0+.txt", f"{bucket}/a/moved")
    s3.copy_file(f"{bucket}/a/b/ü 1+.txt", f"{bucket}/a/copied")
    s3.delete_file(f"{bucket}/a/b/ü 2+.txt")
    found = s3.get_file_info(fs.FileSelector(f"{bucket}/a", recursive=True))
    names = {f.path.removeprefix(f"{bucket}/"): f.type == fs.FileType.Directory for f in found}
    directories = {"a/b": True, "a/b/c": True}
    assert names == directories | dict.fromkeys(("a/moved", "a/copied", *(f"a/b/ü {n}+.txt" for n in (1, 3, 4))), False)
    s3.delete_dir_contents(f"{bucket}/a/b")
    assert not s3.get_file_info(fs.FileSelector(f"{bucket}/a/b", recursive=True))
    s3.delete_dir(f"{bucket}/a/b")
    s3.delete_dir(f"{bucket}/empty")
    assert s3.get_file_info(f"{bucket}/a/b").type == fs.FileType.NotFound
    assert s3.get_file_info(f"{bucket}/a").type == fs.FileType.Directory
    assert s3.get_file_info(f"{bucket}/empty").type == fs.FileType.NotFound
    return {"a/moved": sha256(b"0"), "a/copied": sha256(b"1")}


def streams(url, bucket, seed):
    """A file larger than one part is written as a stream, with metadata, and read from anywhere."""
    s3, content = connect(url), random.Random(seed).randbytes(23 * MIB)
    metadata = {"Content-Type": "application/x-test", "x-amz-meta-from": "pyarrow"}
    with s3.open_output_stream(f"{bucket}/large", metadata=metadata) as file:
        for start in range(0, len(content), 3 * MIB):
            file.write(content[start : start + 3 * MIB])
    with s3.open_input_file(f"{bucket}/large") as file:
        assert file.size() == len(content)
        file.seek(11 * MIB - 7)
        assert file.read(14) == content[11 * MIB - 7 : 11 * MIB + 7]
        assert file.metadata()["Content-Type"] == b"application/x-test", file.metadata()
    with s3.open_output_stream(f"{bucket}/rows.csv.gz", compression="gzip") as file:
        csv.write_csv(table(1000), file)
    with s3.open_input_stream(f"{bucket}/rows.csv.gz", compression="gzip") as file:
        assert csv.read_csv(file).num_rows == 1000
    return {"large": sha256(content)}


def columns(url, bucket, rows):
    """One column of a wide file costs one column's bytes."""
    s3, draw = connect(url), random.Random(rows)
    wide = pa.table({f"c{n}": pa.array([draw.random() for _ in range(rows)]) for n in range(10)})
    pq.write_table(wide, f"{bucket}/wide.parquet", filesystem=s3, row_group_size=rows // 4, compression="none")
    read = pq.read_table(f"{bucket}/wide.parquet", filesystem=s3, columns=["c7"])
    assert read["c7"].equals(wide["c7"])
    return s3.get_file_info(f"{bucket}/wide.parquet").size


def local_rows(url, directory):
    """How many rows each Parquet file of a local directory has: a reader with no server behind it."""
    found = fs.LocalFileSystem().get_file_info(fs.FileSelector(directory, recursive=True))
    names = [f.path for f in found if f.extension == "parquet"]
    return {name.removeprefix(f"{directory}/"): pq.read_table(name, partitioning=None).num_rows for name in names}
