"""s3fs-fuse: a bucket mounted as a directory and worked in with everyday programs, over HTTP and HTTPS."""

import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client_endpoint import Endpoint
from client_tools import needs, run
from client_tree import Tree, assert_same, digests

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no access to /dev/fuse"),
]
MIB = 1 << 20
MOUNT_SECONDS_MAX = 30.0


@contextmanager
def mounted(endpoint: Endpoint, bucket: str, where: Path) -> Iterator[Path]:
    """The bucket as a directory; it is unmounted, and s3fs has ended, when the context is left."""
    where.mkdir(exist_ok=True)
    passwords = endpoint.home / ".passwd-s3fs"
    passwords.write_text(f"{endpoint.server.access_key}:{endpoint.server.secret_key}\n")
    passwords.chmod(0o600)
    options = f"url={endpoint.url},use_path_request_style,passwd_file={passwords},multipart_size=5"
    command = [needs(shutil.which("s3fs") or "/usr/bin/s3fs"), bucket, str(where), "-f", "-o", options]
    log = where.with_suffix(".log")
    with log.open("wb") as said:
        env = endpoint.environment() | ({"CURL_CA_BUNDLE": endpoint.bundle} if endpoint.bundle else {})
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + MOUNT_SECONDS_MAX
        while not where.is_mount():  # no event tells it
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield where
        subprocess.run(["fusermount", "-u", str(where)], check=True, timeout=60)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            subprocess.run(["fusermount", "-u", "-z", str(where)], check=False)
            process.kill()
            process.wait()


def shell(endpoint: Endpoint, *words: str | Path) -> str:
    """An everyday program's output; it fails the test if it fails."""
    return run([str(word) for word in words], endpoint.environment())


def held_files(endpoint: Endpoint, bucket: str) -> dict[str, str]:
    """SHA-256 by key, without the empty objects that stand for directories."""
    return {key: sha256 for key, sha256 in endpoint.held(bucket).items() if not key.endswith("/")}


def test_a_tree_is_copied_into_the_mount_and_is_the_same_in_a_new_mount(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    here = tmp_path / "here"
    Tree(here, seed, name_bytes_max=240, count=100)
    with mounted(endpoint, bucket, tmp_path / "mount") as mount:
        shell(endpoint, "cp", "-r", here, mount / "tree")
        shell(endpoint, "diff", "-r", here, mount / "tree")
    assert_same(held_files(endpoint, bucket), {f"tree/{name}": sha256 for name, sha256 in digests(here).items()})
    with mounted(endpoint, bucket, tmp_path / "again") as mount:
        shell(endpoint, "diff", "-r", here, mount / "tree")
        shell(endpoint, "rm", "-r", mount / "tree")
    assert endpoint.keys(bucket) == []
    assert endpoint.framings(bucket, "PutObject") == {"SHA256"}
    assert [r for r in endpoint.requests(bucket) if r["status"] >= 400 and r["code"] != "NoSuchKey"] == []


def test_files_grow_shrink_change_move_and_go_in_the_mount(
    endpoint: Endpoint, bucket: str, tmp_path: Path, seed: int
) -> None:
    content = random.Random(seed).randbytes(27 * MIB + 1)  # from 25 MiB on s3fs sends parts
    (tmp_path / "big").write_bytes(content)
    with mounted(endpoint, bucket, tmp_path / "mount") as mount:
        shell(endpoint, "cp", tmp_path / "big", mount / "big")
        (mount / "a" / "b").mkdir(parents=True)
        (mount / "a" / "b" / "log").write_text("one\n")
        with (mount / "a" / "b" / "log").open("a") as log:
            log.write("two\n")
        shell(endpoint, "sed", "-i", "s/one/ONE/", mount / "a" / "b" / "log")
        shell(endpoint, "mv", mount / "a", mount / "c d")
        shell(endpoint, "truncate", "--size", "3", mount / "c d" / "b" / "log")
        (mount / "link").symlink_to("c d/b/log")
        assert (mount / "link").read_text() == "ONE"
        (mount / "c d" / "b" / "log").chmod(0o640)
        (mount / "gone").write_text("gone")
        (mount / "gone").unlink()
        with (mount / "big").open("r+b") as big:  # in place, in the middle: the parts around it are copied
            big.seek(11 * MIB)
            big.write(b"changed")
        assert shell(endpoint, "ls", mount).split("\n") == ["big", "c d", "link", ""]
    changed = content[: 11 * MIB] + b"changed" + content[11 * MIB + 7 :]
    wanted = {"big": changed, "c d/b/log": b"ONE", "link": b"c d/b/log"}
    assert held_files(endpoint, bucket) == {name: hashlib.sha256(body).hexdigest() for name, body in wanted.items()}
    with mounted(endpoint, bucket, tmp_path / "again") as mount:
        assert (mount / "c d" / "b" / "log").stat().st_mode & 0o777 == 0o640
        assert shell(endpoint, "tail", "-c", "3", mount / "link") == "ONE"
        assert (mount / "big").read_bytes() == changed
    assert endpoint.framings(bucket, "UploadPart") == {"SHA256"}
    assert len(endpoint.requests(bucket, "UploadPartCopy")) >= 2
    assert [r for r in endpoint.requests(bucket) if r["status"] >= 400 and r["code"] != "NoSuchKey"] == []
