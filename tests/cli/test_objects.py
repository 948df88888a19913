"""Objects on the command line, by each of the three ways to a store: what goes in comes out, and is listed."""

import os
import random
import stat
from pathlib import Path

import pytest
from program import Program, one_line

from ostraka.client.transfer import STAGING

SIZES = {"empty": 0, "tiny": 3, "small": 100_000, "whole": 8 << 20, "parts": (8 << 20) + 1, "ranges": 33_000_000}


def fill(directory: Path, seed: int) -> None:
    randomness = random.Random(seed)
    for name, size in SIZES.items():
        (directory / name).write_bytes(randomness.randbytes(size))


def same_files(one: Path, other: Path) -> None:
    def content(directory: Path) -> dict[str, bytes]:
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    assert content(one) == content(other)


def test_files_of_every_size_go_in_and_come_out_the_same(program: Program, bucket: str, seed: int) -> None:
    files = program.directory / "files"
    files.mkdir()
    fill(files, seed)
    up = program.well("cp", "-r", "files", f"s3://{bucket}/in")
    assert up.out.splitlines()[-1] == f"{len(SIZES)} uploaded (47.6 MiB)"
    listed = {row["key"]: row["size"] for row in program.well("ls", "-r", f"s3://{bucket}", "--json").rows}
    assert listed == {f"in/{name}": size for name, size in SIZES.items()}
    program.well("cp", "-r", f"s3://{bucket}/in", "out", "--quiet")
    same_files(files, program.directory / "out")
    one = program.well("cp", f"s3://{bucket}/in/ranges", ".", "--json")
    row = {"action": "download", "source": f"s3://{bucket}/in/ranges", "target": "ranges", "size": 33_000_000}
    assert one.rows == [row, {"done": {"download": 1}, "bytes": 33_000_000, "failed": 0, "dry_run": False}]
    assert (program.directory / "ranges").read_bytes() == (files / "ranges").read_bytes()
    poured = program.well("cat", f"s3://{bucket}/in/tiny", f"s3://{bucket}/in/ranges")
    assert poured.raw == (files / "tiny").read_bytes() + (files / "ranges").read_bytes()
    assert not [p for p in program.directory.rglob("*") if p.name.endswith(STAGING)]


def test_a_stream_is_stored_whole_whatever_its_length(program: Program, bucket: str, seed: int) -> None:
    for size in (0, 5, 40_000_000):
        body = random.Random(seed).randbytes(size)
        program.well("cp", "-", f"s3://{bucket}/stream", stdin=body)
        assert program.well("cp", f"s3://{bucket}/stream", "-").raw == body


def test_keys_may_be_anything_and_the_listing_shows_folders(program: Program, bucket: str) -> None:
    keys = ["a b+c&d", "ä/ö?#", "%41/x", "line\nbreak\tand \x1b[31m", "d/1", "d/2", "d/e/3", "~._-"]
    for key in keys:
        program.well("cp", "-", f"s3://{bucket}/{key}", "-q", stdin=key.encode())
    rows = program.well("ls", "-r", f"s3://{bucket}", "--json").rows
    assert [row["key"] for row in rows] == sorted(keys)
    for key in keys[:4]:
        assert program.well("cat", f"s3://{bucket}/{key}").out == key
    folded = program.well("ls", f"s3://{bucket}/d", "--json").rows
    assert [row.get("key", row.get("prefix")) for row in folded] == ["d/"]
    shown = program.well("ls", f"s3://{bucket}/d/").out
    assert [line.split()[-1] for line in shown.splitlines()] == ["d/1", "d/2", "d/e/"]
    assert "\x1b" not in program.well("ls", f"s3://{bucket}").out
    gone = program.well("rm", *(f"s3://{bucket}/{key}" for key in keys[:5]))
    assert gone.out.splitlines()[-1] == "5 deleted"
    assert program.well("rm", "-r", f"s3://{bucket}", "--json").rows[-1]["done"] == {"delete": 3}
    assert program.well("ls", "-r", f"s3://{bucket}").out == ""


def test_what_is_said_of_an_object_stays_with_it_and_with_its_copy(program: Program, bucket: str) -> None:
    (program.directory / "page.html").write_text("<p>")
    program.well("cp", "page.html", f"s3://{bucket}/", "--metadata", "Found=Athens", "--metadata", "by=Kleió")
    program.well("cp", f"s3://{bucket}/page.html", f"s3://{bucket}/copies/")
    # what a file got at its making is its own: it is seen again when it is copied back with what it had
    assert program.well("cat", f"s3://{bucket}/copies/page.html").out == "<p>"


def test_a_download_keeps_the_target_s_mode_and_takes_the_object_s_time(program: Program, bucket: str) -> None:
    program.well("cp", "-", f"s3://{bucket}/k", stdin=b"new")
    target = program.directory / "k"
    target.write_bytes(b"something longer that was there before")
    target.chmod(0o640)
    (program.directory / "link").symlink_to("k")
    program.well("cp", f"s3://{bucket}/k", "link")
    assert (program.directory / "link").is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert abs(target.stat().st_mtime - os.stat(program.directory / "link", follow_symlinks=False).st_mtime) < 100


def test_versions_are_listed_read_and_deleted_for_good(program: Program, bucket: str) -> None:
    assert program.well("ls", "--versions", f"s3://{bucket}", "--json").rows == []
    program.well("cp", "-", f"s3://{bucket}/k", stdin=b"1")
    (row,) = program.well("ls", "--versions", f"s3://{bucket}", "--json").rows
    assert (row["key"], row["version_id"], row["latest"], row["size"]) == ("k", "null", True, 1)
    assert program.well("cat", "--version-id", "null", f"s3://{bucket}/k").out == "1"
    one_line(program("rm", "--version-id", "3", f"s3://{bucket}/k"), 3, f"s3://{bucket}/k")
    program.well("rm", "--all-versions", f"s3://{bucket}/k")
    assert program.well("ls", "--versions", f"s3://{bucket}").out == ""


def test_a_dry_run_does_nothing(program: Program, bucket: str) -> None:
    (program.directory / "f").write_text("f")
    said = program.well("cp", "f", f"s3://{bucket}/f", "--dry-run")
    assert said.out == f"(dry run) upload: f to s3://{bucket}/f\n"
    assert program.well("ls", f"s3://{bucket}").out == ""
    program.well("cp", "f", f"s3://{bucket}/f")
    assert program.well("rm", "--dry-run", f"s3://{bucket}/f", "--json").rows[0]["dry_run"] is True
    assert program.well("cp", "-n", f"s3://{bucket}/f", "g").out == f"(dry run) download: s3://{bucket}/f to g\n"
    assert not (program.directory / "g").exists()
    assert program.well("cat", f"s3://{bucket}/f").out == "f"


def test_filters_choose_among_all_that_is_in_it(program: Program, bucket: str) -> None:
    for name in ("a.jpg", "b.tmp", "x/c.jpg", "x/d.tmp"):
        (program.directory / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (program.directory / "in" / name).write_text(name)
    program.well("cp", "-r", "in", f"s3://{bucket}/", "--exclude", "*.tmp", "-q")
    assert [r["key"] for r in program.well("ls", "-r", f"s3://{bucket}", "--json").rows] == ["a.jpg", "x/c.jpg"]
    program.well("cp", "-r", f"s3://{bucket}", "out", "--exclude", "*", "--include", "x/*", "-q")
    assert [str(p.relative_to(program.directory)) for p in (program.directory / "out").rglob("*.*")] == ["out/x/c.jpg"]
    program.well("rm", "-r", f"s3://{bucket}", "--include", "*c.jpg", "-q")
    assert [r["key"] for r in program.well("ls", "-r", f"s3://{bucket}", "--json").rows] == ["a.jpg"]


def test_buckets_are_made_listed_and_removed(program: Program, bucket: str) -> None:
    one_line(program("bucket", "create", bucket), 1, bucket, "already")
    assert "is there already" in program.well("bucket", "create", bucket, "--exist-ok").out
    assert bucket in [row["name"] for row in program.well("bucket", "ls", "--json").rows]
    assert bucket in [row["bucket"] for row in program.well("ls", "--json").rows]
    program.well("cp", "-", f"s3://{bucket}/k", stdin=b"1")
    one_line(program("bucket", "rm", bucket), 1, bucket, "--force", "not empty")
    assert program.well("bucket", "rm", "--force", bucket, "--json").rows == [{"name": bucket, "removed": True}]
    one_line(program("bucket", "rm", bucket), 3, bucket)
    one_line(program("ls", f"s3://{bucket}"), 3, bucket, "ostraka bucket ls")


@pytest.mark.parametrize("words", [["cp", "f", "s3://{}/"], ["cp", "-r", "d", "s3://{}"], ["rm", "s3://{}/k"]])
def test_a_bucket_that_is_not_there_is_named_once_however_many_files_were_meant(
    program: Program, words: list[str]
) -> None:
    (program.directory / "d").mkdir()
    for name in ("f", "d/1", "d/2", "d/3"):
        (program.directory / name).write_text("1")
    one_line(program(*[w.format("absent-bucket") for w in words]), 3, "absent-bucket", "ostraka bucket ls")
