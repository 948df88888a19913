"""`ostraka sync`: the target gets what the source has, nothing is copied twice, nothing goes that was not meant."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from program import Program, one_line
from test_objects import same_files

LONG_AGO = 1_600_000_000


def tree(directory: Path, seed: int) -> None:
    """Some files, in folders whose names sort otherwise than their keys do."""
    randomness = random.Random(seed)
    for name in ("a", "a-b/x", "a.c", "ab", "d/e/f/g", "d/e.txt", "z ä/ü", "big"):
        path = directory / name
        if name == "a":
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(randomness.randbytes(9_000_000 if name == "big" else randomness.randrange(10, 3000)))
        os.utime(path, (LONG_AGO, LONG_AGO))
    (directory / "a").mkdir(exist_ok=True)
    (directory / "a" / "b").write_bytes(b"a/b sorts after a-b/x and before ab")
    os.utime(directory / "a" / "b", (LONG_AGO, LONG_AGO))


def done(program: Program, *words: str) -> dict[str, int]:
    """What a sync did, by verb; "unchanged" among them."""
    row = program.well("sync", *words, "--json").rows[-1]
    assert row["failed"] == 0
    return {**row["done"], "unchanged": row["unchanged"]}


def test_what_changed_is_copied_and_nothing_else(program: Program, bucket: str, seed: int) -> None:
    here = program.directory / "in"
    tree(here, seed)
    assert done(program, "in", f"s3://{bucket}/p") == {"upload": 8, "unchanged": 0}
    assert done(program, "in", f"s3://{bucket}/p") == {"unchanged": 8}
    (here / "ab").write_bytes(b"other size")
    (here / "new").write_bytes(b"new")
    same_size = bytearray((here / "a.c").read_bytes())
    same_size[0] ^= 1
    (here / "a.c").write_bytes(same_size)  # newer, or of the same second
    (here / "d/e.txt").unlink()
    assert done(program, "in", f"s3://{bucket}/p", "--delete", "--dry-run") == {
        "upload": 3,
        "delete": 1,
        "unchanged": 5,
    }
    assert done(program, "in", f"s3://{bucket}/p") == {"upload": 3, "unchanged": 5}
    assert done(program, "in", f"s3://{bucket}/p", "--delete") == {"delete": 1, "unchanged": 8}
    assert done(program, f"s3://{bucket}/p", "out") == {"download": 8, "unchanged": 0}
    same_files(here, program.directory / "out")
    assert done(program, f"s3://{bucket}/p", "out") == {"unchanged": 8}
    (program.directory / "out" / "mine").write_bytes(b"mine")
    assert done(program, f"s3://{bucket}/p", "out") == {"unchanged": 8}
    assert (program.directory / "out" / "mine").exists()
    assert done(program, f"s3://{bucket}/p", "out", "--delete", "--exclude", "min*") == {"unchanged": 8}
    assert done(program, f"s3://{bucket}/p", "out", "--delete") == {"delete": 1, "unchanged": 8}
    assert done(program, f"s3://{bucket}/p", f"s3://{bucket}/q") == {"copy": 8, "unchanged": 0}
    assert done(program, f"s3://{bucket}/p", f"s3://{bucket}/q", "--checksum") == {"unchanged": 8}
    shutil.rmtree(program.directory / "out")
    assert done(program, f"s3://{bucket}/q", "out") == {"download": 8, "unchanged": 0}
    same_files(here, program.directory / "out")


def test_bytes_are_compared_where_that_is_asked_for(remote: Program) -> None:
    remote.well("bucket", "create", "compared")
    here = remote.directory / "in"
    here.mkdir()
    for name, size in (("small", 100), ("large", 9_000_000)):
        (here / name).write_bytes(bytes(size))
        os.utime(here / name, (LONG_AGO, LONG_AGO))
    done(remote, "in", "s3://compared")
    for name in ("small", "large"):
        with (here / name).open("r+b") as file:
            file.write(b"1")
        os.utime(here / name, (LONG_AGO, LONG_AGO))
    assert done(remote, "in", "s3://compared") == {"unchanged": 2}
    assert done(remote, "in", "s3://compared", "--checksum") == {"upload": 2, "unchanged": 0}
    os.utime(here / "small", (time.time() + 100, time.time() + 100))
    assert done(remote, "in", "s3://compared", "--checksum") == {"unchanged": 2}
    assert done(remote, "in", "s3://compared", "--size-only") == {"unchanged": 2}
    assert done(remote, "in", "s3://compared") == {"upload": 1, "unchanged": 1}
    one_line(remote("sync", "in", "s3://compared", "--checksum", "--size-only"), 2, "--checksum", "--size-only")


def test_a_source_that_is_empty_deletes_nothing(remote: Program) -> None:
    remote.well("bucket", "create", "kept")
    remote.well("cp", "-", "s3://kept/k", stdin=b"1")
    (remote.directory / "unmounted").mkdir()
    refused = remote("sync", "unmounted", "s3://kept", "--delete")
    one_line(refused, 1, "nothing in it", "not mounted", "ostraka rm -r")
    assert remote.well("cat", "s3://kept/k").out == "1"
    one_line(remote("sync", "absent", "s3://kept", "--delete"), 1, "absent", "is the path right")
    assert remote.well("cat", "s3://kept/k").out == "1"


def test_what_cannot_be_copied_is_told_and_then_nothing_is_deleted(remote: Program) -> None:
    remote.well("bucket", "create", "tolerant")
    here = remote.directory / "in"
    here.mkdir()
    remote.well("cp", "-", "s3://tolerant/beyond", stdin=b"1")
    (here / "good").write_bytes(b"good")
    (here / "nowhere").symlink_to("absent")
    (here / "loop").symlink_to(".")
    os.mkfifo(here / "fifo")
    Path(os.fsdecode(os.fsencode(here) + b"/\xff")).write_bytes(b"1")
    partly = remote("sync", "in", "s3://tolerant", "--delete")
    assert partly.status == 1
    told = partly.err.splitlines()
    assert len(told) == 5
    for name, why in (("nowhere", "leads nowhere"), ("loop", "link into itself"), ("fifo", "no ordinary file")):
        assert [line for line in told if name in line and why in line], told
    assert [line for line in told if "no UTF-8" in line]
    assert told[-1] == "ostraka: nothing is deleted, for not everything could be copied"
    keys = [row["key"] for row in remote.well("ls", "-r", "s3://tolerant", "--json").rows]
    assert keys == ["beyond", "good"]


def test_no_key_leads_out_of_the_directory(remote: Program) -> None:
    remote.well("bucket", "create", "hostile")
    hostile = ["../escaped", "a/../../escaped", "/absolute", "a//b", "d/./e", "x" * 300, "n\0ul", "ok", "dir", "dir/in"]
    s3 = remote.elsewhere(*remote.way)
    for key in hostile:
        if "\0" not in key:
            s3.well("cp", "-", f"s3://hostile/{key}", "-q", stdin=b"hostile")
    for words in (["cp", "-r"], ["sync"]):
        partly = remote(*words, "s3://hostile", "deep/out")
        assert partly.status in (1, 2)
        assert len(partly.err.splitlines()) == 7, partly.err  # one of dir and dir/in cannot be beside the other
        assert "Traceback" not in partly.err
        out = remote.directory / "deep/out"
        assert (out / "ok").read_bytes() == b"hostile"
        assert {p.name for p in remote.directory.iterdir()} == {"deep"}
        assert not Path("/absolute").exists()
        shutil.rmtree(remote.directory / "deep")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["in", "out"], "s3://"),
        (["file", "s3://b"], "is a file"),
        (["s3://b/x", "s3://b/x/y"], "lie in each other"),
        (["-", "s3://b"], "ostraka cp"),
        (["s3://", "in"], "no bucket"),
    ],
)
def test_what_is_no_pair_to_be_synced_is_one_line(nowhere: Program, words: list[str], says: str) -> None:
    (nowhere.directory / "file").touch()
    one_line(nowhere("sync", *words, "--store", "x"), 2, says)
