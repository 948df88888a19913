"""What a lakehouse does with deltalake: commits of several writers at once, upserts, time travel, upkeep.

A commit is a file that only one writer can create (`If-None-Match: *`): no lock service is needed. Credentials and, for
HTTPS, the authority (SSL_CERT_FILE) come from the environment.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError


def options(url):
    return {"aws_endpoint_url": url, "aws_region": "us-east-1", "aws_allow_http": "true"}


def rows(first, count, **columns):
    return pa.table(
        {"id": pa.array(range(first, first + count), pa.int64())} | {k: [v] * count for k, v in columns.items()}
    )


def query(table, sql):
    """The answer's rows."""
    answer = QueryBuilder().register("t", table).execute(sql).read_all()
    return list(zip(*(answer.column(name).to_pylist() for name in answer.column_names), strict=True))


def ids(table):
    return [n for (n,) in query(table, "SELECT id FROM t ORDER BY id")]


def append(url, place, writer, commits, together):
    """One writer, who begins each commit together with the others."""
    for n in range(commits):
        part = rows((writer * commits + n) * 10, 10, writer=writer)
        together.wait()
        write_deltalake(place, part, mode="append", storage_options=options(url))


def work(url, place, writers, commits, together):
    """A process with several writers."""
    with ThreadPoolExecutor(len(writers)) as threads:
        list(threads.map(lambda writer: append(url, place, writer, commits, together), writers))


def commits(url, bucket, threads, commits):
    """Two processes append to one table at once: every commit is there, once, in one history."""
    place, count = f"s3://{bucket}/events", 2 * threads * commits
    write_deltalake(place, rows(0, 1, writer=-1).slice(0, 0), storage_options=options(url))
    processes = multiprocessing.get_context("spawn")
    together = processes.Barrier(2 * threads)
    halves = range(threads), range(threads, 2 * threads)
    running = [processes.Process(target=work, args=(url, place, half, commits, together)) for half in halves]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    table = DeltaTable(place, storage_options=options(url))
    assert table.version() == count
    assert ids(table) == list(range(count * 10))
    assert [entry["version"] for entry in table.history()] == list(range(count, -1, -1))


def upkeep(url, bucket):
    """Upserts, deletes and updates; what was before is read; files are compacted, swept and checkpointed."""
    place, storage = f"s3://{bucket}/towns", options(url)
    for n in range(4):
        write_deltalake(
            place,
            rows(n * 100, 100, town="Thíva +", weight=1.0),
            mode="append",
            partition_by=["town"],
            storage_options=storage,
        )
    table = DeltaTable(place, storage_options=storage)
    merge = table.merge(rows(350, 100, town="Thíva +", weight=2.0), "t.id = s.id", source_alias="s", target_alias="t")
    done = merge.when_matched_update_all().when_not_matched_insert_all().execute()
    assert (done["num_target_rows_updated"], done["num_target_rows_inserted"]) == (50, 50), done
    table.delete("id < 50")
    table.update(updates={"weight": "3.0"}, predicate="id >= 440")
    assert ids(table) == list(range(50, 450))
    before = DeltaTable(place, version=3, storage_options=storage)
    assert ids(before) == list(range(400))
    compacted = table.optimize.compact()
    assert compacted["numFilesAdded"] == 1, compacted
    table.create_checkpoint()
    swept = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert swept, "nothing was swept"
    again = DeltaTable(place, storage_options=storage)
    assert ids(again) == list(range(50, 450))
    assert query(again, "SELECT weight, count(*) FROM t GROUP BY weight ORDER BY weight") == [
        (1, 300),
        (2, 90),
        (3, 10),
    ]
    return [uri.removeprefix(f"s3://{bucket}/") for uri in again.file_uris()]


def conflict(url, bucket):
    """Who changes what another has changed meanwhile is told, and the other's change stands."""
    place, storage = f"s3://{bucket}/shared", options(url)
    write_deltalake(place, rows(0, 100, weight=1.0), storage_options=storage)
    mine, theirs = (DeltaTable(place, storage_options=storage) for _ in range(2))
    theirs.update(updates={"weight": "2.0"}, predicate="id < 10")
    try:
        mine.delete("id < 20")
        raise AssertionError("a commit went through over another's")
    except CommitFailedError:
        pass
    after = DeltaTable(place, storage_options=storage)
    assert after.version() == 1
    assert query(after, "SELECT sum(weight) FROM t") == [(110,)]
