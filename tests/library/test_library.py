"""The library: what a program does with a store of its own, without a server."""

import asyncio
import doctest
import io
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ostraka
from ostraka import library
from ostraka.errors import Absent, Exists, Invalid, PreconditionFailed, Refused
from ostraka.library import Bucket, Store, aio, blocking
from ostraka.testing.processes import ServerProcess

SIZES = [0, 1, 4096, 4097, 131_072, 131_073, 9_000_001]  # inline, packed, chunked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with ostraka.open(tmp_path / "store") as store:
        yield store


@pytest.fixture
def bucket(store: Store) -> Bucket:
    return store.create_bucket("photos")


async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]


def bodies(body: bytes, path: Path) -> dict[str, Any]:
    """The same bytes in every form that a body may have."""
    path.write_bytes(body)
    return {
        "bytes": body,
        "memoryview": memoryview(body),
        "path": path,
        "file in memory": io.BytesIO(body),
        "iterator": iter([body[: len(body) // 2], b"", body[len(body) // 2 :]]),
        "asynchronous iterator": pieces_of(body),
    }


@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_any_form_comes_back_whole_and_in_ranges(
    bucket: Bucket, tmp_path: Path, seed: int, size: int
) -> None:
    body = random.Random(seed).randbytes(size)
    for form, given in bodies(body, tmp_path / "body").items():
        written = bucket.put(form, given)
        assert written.size == size, form
        assert bucket.get(form) == body, form
        with bucket.open(form) as reader:
            assert b"".join(reader) == body
            assert reader.read(size // 3, 10) == body[size // 3 :][:10]
            assert reader.read(size, 10) == b""
            with pytest.raises(Invalid):
                reader.read(size + 1)
    assert len({entry.etag for entry in bucket.list()}) == 1


def test_a_file_is_stored_from_where_it_stands(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        file.seek(4)
        bucket.put("rest", file)
        assert not file.closed
    assert bucket.get("rest") == b"456789"


def test_what_is_said_of_an_object_comes_back(bucket: Bucket) -> None:
    bucket.put(
        "k",
        b"1",
        content_type="text/plain",
        headers={"cache-control": "no-store"},
        metadata={"a": "ä"},
        tags={"t": "1"},
    )
    info = bucket.head("k")
    assert dict(info.attributes.headers) == {"content-type": "text/plain", "cache-control": "no-store"}
    assert (info.attributes.metadata, info.attributes.tags) == ({"a": "ä"}, {"t": "1"})
    copied = bucket.copy("k", "k2")
    assert (copied.etag, bucket.head("k2").attributes) == (info.etag, info.attributes)


def test_conditions_are_kept(bucket: Bucket) -> None:
    first = bucket.put("k", b"1", create_only=True)
    with pytest.raises(PreconditionFailed):
        bucket.put("k", b"2", create_only=True)
    second = bucket.put("k", b"2", if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        bucket.put("k", b"3", if_match=first.etag)
    with pytest.raises(PreconditionFailed):
        bucket.delete("k", if_match=first.etag)
    assert bucket.get("k") == b"2"
    bucket.delete("k", if_match=second.etag)
    assert not bucket.exists("k")


def test_versions_are_kept_once_that_is_asked_for(bucket: Bucket) -> None:
    bucket.put("k", b"0")
    bucket.set_versioning(True)
    ids = [bucket.put("k", body).version_id for body in (b"1", b"2")]
    marker = bucket.delete("k")
    assert marker.delete_marker
    with pytest.raises(Absent):
        bucket.get("k")
    assert [bucket.get("k", version_id=i) for i in ids] == [b"1", b"2"]
    assert [(v.delete_marker, v.latest) for v in bucket.versions()] == [(True, True)] + [(False, False)] * 3
    bucket.delete("k", version_id=marker.version_id)
    assert bucket.get("k") == b"2"


def test_listings_go_on_over_pages_and_fold_what_shares_a_prefix(bucket: Bucket) -> None:
    names = sorted([f"n/{i:04d}" for i in range(1203)] + ["a", "z/1", "z/2"])
    with ThreadPoolExecutor(8) as threads:  # any thread may call
        list(threads.map(lambda name: bucket.put(name, name.encode()), names))
    assert [entry.key for entry in bucket.list()] == names
    assert [entry.key for entry in bucket.list("n/", start_after="n/1200")] == ["n/1201", "n/1202"]
    first = next(iter(bucket.list("z")))  # an iterator that nobody finishes is closed
    assert (first.key, first.size) == ("z/1", 3)
    page = bucket.page(delimiter="/")
    assert ([e.key for e in page.entries], list(page.prefixes)) == (["a"], ["n/", "z/"])
    bucket.delete_many(names)
    assert list(bucket.list()) == []


def test_a_large_object_comes_in_parts_and_is_there_when_all_of_them_are(bucket: Bucket, seed: int) -> None:
    body = random.Random(seed).randbytes(12_000_000)
    with bucket.upload("k", metadata={"a": "1"}) as upload:
        upload.put(2, body[6_000_000:])
        upload.put(1, body[:6_000_000])
        assert not bucket.exists("k")
        assert [entry.upload_id for entry in bucket.uploads()] == [upload.upload_id]
        assert [(p.number, p.size) for p in upload.parts()] == [(1, 6_000_000), (2, 6_000_000)]
        done = upload.complete()
    assert (done.size, done.etag[-2:], bucket.get("k")) == (len(body), "-2", body)
    assert done.checksums == bucket.put("whole", body).checksums
    assert bucket.head("k").attributes.metadata == {"a": "1"}
    with bucket.upload("copy") as upload:
        upload.copy(1, bucket.head("k"), 0, 6_000_000)
        upload.copy(2, bucket.head("k"), 6_000_000, 6_000_000)
        upload.complete()
    assert bucket.get("copy") == body
    assert list(bucket.uploads()) == []


def test_an_upload_that_is_left_by_an_error_is_aborted(bucket: Bucket) -> None:
    with pytest.raises(ZeroDivisionError), bucket.upload("k") as upload:
        upload.put(1, b"1")
        raise ZeroDivisionError
    assert list(bucket.uploads()) == []
    assert not bucket.exists("k")


def test_a_store_that_must_exist_is_not_made(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(Refused, match="no store"), ostraka.open(place, existing=True):
            pass
        assert list(tmp_path.iterdir()) == []


def test_buckets_are_made_listed_and_removed_when_empty(store: Store, bucket: Bucket) -> None:
    with pytest.raises(Exists):
        store.create_bucket("photos")
    assert store.create_bucket("photos", exist_ok=True).name == "photos"
    with pytest.raises(Invalid, match="lower case"):
        store.create_bucket("Photos!")
    with pytest.raises(Absent):
        store.bucket("films")
    bucket.put("k", b"1")
    with pytest.raises(Exists):
        store.delete_bucket("photos")
    bucket.delete("k")
    store.delete_bucket("photos")
    assert store.buckets() == []


@pytest.mark.parametrize("body", ["text", 7, None])
def test_what_is_no_body_is_named(bucket: Bucket, body: Any) -> None:
    with pytest.raises(Invalid, match="bytes"):
        bucket.put("k", body)
    assert not bucket.exists("k")


def test_a_body_that_fails_on_the_way_stores_nothing(bucket: Bucket) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(200_000)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bucket.put("k", broken())
    assert not bucket.exists("k")


def test_no_directory_and_no_geometry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="directory"), ostraka.open():
        pass
    with pytest.raises(Invalid, match="K"), ostraka.open(tmp_path / "s", ec="four"):
        pass
    assert not (tmp_path / "s").exists()


def test_a_store_has_one_owner_and_the_second_one_learns_its_pid(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ostraka.StoreInUse, match=str(os.getpid())), ostraka.open(tmp_path / "store"):
        pass
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "ostraka", "serve", str(tmp_path / "store"), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode != 0
    assert str(os.getpid()) in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_server_and_the_library_see_the_same_store_in_turn(tmp_path: Path) -> None:
    disks = [tmp_path / f"d{i}" for i in range(3)]
    with ostraka.open(*disks) as store:
        assert store.ec == (2, 1)
        store.create_bucket("photos").put("from/the library", b"x" * 300_000, metadata={"a": "b"})
    with ServerProcess(disks) as server:
        s3 = server.client()
        got = s3.get_object(Bucket="photos", Key="from/the library")
        assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (
            b"x" * 300_000,
            {"a": "b"},
            "binary/octet-stream",
        )
        s3.put_object(Bucket="photos", Key="from/s3", Body=b"y" * 5000)
    with ostraka.open(*disks) as store:
        assert store.bucket("photos").get("from/s3") == b"y" * 5000


def test_asyncio_programs_have_it_without_a_thread_of_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        before = {t.name for t in threading.enumerate()}
        async with ostraka.open_async(tmp_path / "store") as store:
            bucket = await store.create_bucket("photos")
            await asyncio.gather(*(bucket.put(f"k{i}", bytes([i]) * 5000) for i in range(64)))
            assert [e.key async for e in bucket.list()] == sorted(f"k{i}" for i in range(64))
            async with await bucket.open("k7") as reader:
                assert [bytes(p) async for p in reader] == [bytes([7]) * 5000]
            assert "ostraka" not in {t.name for t in threading.enumerate()} - before

    asyncio.run(main())


def test_the_store_of_a_thread_does_not_wait_for_itself(bucket: Bucket) -> None:
    def body() -> Iterator[bytes]:
        yield bucket.get("a")

    bucket.put("a", b"1")
    bucket.put("b", body())  # iterators run beside the loop: they may use the store
    assert bucket.get("b") == b"1"


@pytest.mark.parametrize("module", [library, aio, blocking], ids=lambda m: m.__name__)
def test_the_examples_do_what_they_say(module: Any) -> None:
    found = doctest.testmod(module)
    assert not found.failed
    assert found.attempted


EMBEDDING = """
import sys, ostraka
with ostraka.open(sys.argv[1]) as store:
    bucket = store.create_bucket("kept", exist_ok=True)
    n = int(sys.argv[2])
    while True:
        bucket.put(f"k{n}", (b"%d " % n) * (1 + n % 7 * 3000))
        print(n, flush=True)
        n += 1
"""


def test_a_program_that_is_killed_loses_nothing_that_it_was_told_was_written(tmp_path: Path) -> None:
    written = -1
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", EMBEDDING, str(tmp_path / "store"), str(written + 1)],
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            for line in program.stdout:
                written = int(line)
                if written >= 40 * (turn + 1):
                    break
            program.kill()
            for line in program.stdout:
                written = int(line)
        with ostraka.open(tmp_path / "store") as store:
            bucket = store.bucket("kept")
            for n in range(written + 1):
                assert bucket.get(f"k{n}") == (b"%d " % n) * (1 + n % 7 * 3000)


@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_a_file_that_does_not_block_is_refused_and_not_taken_for_its_end(bucket: Bucket, buffering: int) -> None:
    into, out = os.pipe()
    os.set_blocking(into, False)
    with open(into, "rb", buffering=buffering) as body, open(out, "wb", buffering=0) as begun:
        begun.write(b"x" * 100)
        with pytest.raises(Invalid, match="non-blocking"):
            bucket.put("cut short", body)
    assert [entry.key for entry in bucket.list()] == []


def test_ctrl_c_interrupts_what_is_waited_for_and_the_store_goes_on(bucket: Bucket) -> None:
    interrupted = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x"
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.wait(60)
        yield b"y" * 100_000

    with pytest.raises(KeyboardInterrupt):
        bucket.put("interrupted", body())
    interrupted.set()
    bucket.put("next", b"1")
    assert bucket.get("next") == b"1"
