"""A store with a master key, in a program's own process: sealed on its disks, and of no use without the key."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostraka
from ostraka.errors import Absent, Forbidden, Invalid, Unavailable

MASTER = b"m" * 32
MARK = b"the potter's mark "
BODIES = {"inline": MARK * 50, "pack": MARK * 1000, "chunks": MARK * 300_000}


def stored(place: Path) -> bytes:
    """All bytes of a store's files, the holes of its index left out."""
    return b"".join(run for path in place.rglob("*") if path.is_file() for run in _runs(path))


def _runs(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield os.pread(file.fileno(), end - start, start)


@pytest.mark.parametrize("disks", [1, 3])
def test_a_store_with_a_master_key_tells_nothing_without_it(tmp_path: Path, disks: int) -> None:
    places = [tmp_path / str(n) for n in range(disks)]
    with ostraka.open(*places, master_key=MASTER.hex()) as store:
        bucket = store.create_bucket("clay")
        for key, body in BODIES.items():
            bucket.put(key, body)
            bucket.copy(key, key + " again")
        held = store.chunks.write(MARK * 5000)
    content = stored(tmp_path)
    assert MARK not in content
    assert MASTER not in content
    assert hashlib.md5(MARK * 5000).digest() not in content
    with ostraka.open(*places) as store:
        bucket = store.bucket("clay")
        assert [entry.key for entry in bucket.list()] == sorted([*BODIES, *(key + " again" for key in BODIES)])
        for key in BODIES:
            with pytest.raises(Unavailable, match="OSTRAKA_MASTER_KEY") as refused:
                bucket.get(key)
            assert refused.value.reason == "master-key"
        for attempt in (lambda: bucket.put("more", b"x"), lambda: store.chunks.get(held.id)):
            with pytest.raises(Unavailable, match="OSTRAKA_MASTER_KEY"):
                attempt()
        store.create_bucket("another")  # which encrypts as well, once there is a key to do it with
    with ostraka.open(*places, master_key=MASTER) as store:
        bucket = store.bucket("clay")
        for key, body in BODIES.items():
            assert bucket.get(key) == bucket.get(key + " again") == body
            assert bucket.get(key, offset=7, length=100) == body[7:107]
        assert store.chunks.get(held.id) == MARK * 5000
        store.bucket("another").put("k", MARK * 9)
    assert MARK not in stored(tmp_path)


def test_a_store_without_a_master_key_is_as_it_was_and_starts_to_encrypt_when_it_gets_one(tmp_path: Path) -> None:
    with ostraka.open(tmp_path) as store:
        store.create_bucket("before").put("k", MARK * 20)
    assert MARK in stored(tmp_path)
    with ostraka.open(tmp_path, master_key=MASTER) as store:
        store.create_bucket("after")
        for name in ("before", "after"):
            store.bucket(name).put("new", os.urandom(2000) + b"the other mark")
            assert store.bucket(name).get("new").endswith(b"the other mark")
        store.bucket("before").copy("k", "moved", to_bucket="after")
        assert store.bucket("after").get("moved") == store.bucket("before").get("k") == MARK * 20
        assert store.bucket("after").head("moved").encryption.algorithm == "AES256"
        assert not store.bucket("before").head("new").encryption.algorithm
    assert b"the other mark" in stored(tmp_path / "state"), "the bucket that was there before goes on as it was"


def test_an_object_and_a_bucket_may_say_by_what_they_are_encrypted(tmp_path: Path) -> None:
    key, other = b"1" * 32, b"2" * 32
    with ostraka.open(tmp_path, master_key=MASTER) as store:
        bucket = store.create_bucket("clay")
        for name, body in BODIES.items():
            bucket.put(name, body, customer_key=key)
            assert bucket.get(name, offset=3, length=70, customer_key=key) == body[3:73]
            with bucket.open(name, customer_key=key) as reader:
                assert b"".join(reader) == body
            with pytest.raises(Forbidden):
                bucket.get(name, customer_key=other)
            with pytest.raises(Invalid, match="must be provided"):
                bucket.get(name)
        assert bucket.put("plain", b"x", encryption="none").encryption.algorithm == ""
        assert bucket.set_storage(encryption="none").encryption == ""
        assert bucket.put("also", b"x").encryption.algorithm == ""
        assert bucket.put("ours", b"x", encryption="aws:kms:default").encryption.key == "default"
        for wrong in ("rot13", "aws:kms:", "AES128"):
            with pytest.raises(Invalid, match="write AES256"):
                bucket.set_storage(encryption=wrong)
        for attempt in (
            lambda: bucket.set_storage(encryption="aws:kms:nobody"),
            lambda: bucket.put("k", b"x", encryption="aws:kms:nobody"),
        ):
            with pytest.raises(Absent, match="ostraka key create nobody"):
                attempt()
        with pytest.raises(Invalid, match="32 bytes"):
            bucket.put("k", b"x", customer_key=b"hush")


def test_a_master_key_that_is_none_is_refused_and_not_quoted(tmp_path: Path) -> None:
    for wrong in ("hush hush", b"hush", 7):
        with pytest.raises(Invalid, match="32 bytes") as refused, ostraka.open(tmp_path, master_key=wrong):  # type: ignore[arg-type]
            pass
        assert "hush" not in str(refused.value)
