"""Disks that go, fill up, hang and come back under a real server with two workers: nothing acknowledged is lost.

Every test speaks S3 through boto3 and `ostraka disk` through its own process, as an operator would.
"""

import contextlib
import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_kill import fsck

from ostraka.testing.ledger import KIB, MIB, PART_SIZE, Content, Ledger, Load
from ostraka.testing.powercut import PowerCutDisk, missing
from ostraka.testing.processes import ServerFailed, ServerProcess

BUCKET = "ledger"
SIZES = (0, 900, 2 * KIB + 1, 20 * KIB, 128 * KIB + 1, 700 * KIB, 9 * MIB)  # inline, packed, chunked
MULTIPART = 2 * PART_SIZE + 1
LOAD_SIZES = (900, 20 * KIB, 300 * KIB, 5 * MIB)

needs_fuse = pytest.mark.skipif(bool(missing()), reason=missing() or "FUSE is here")


class Commanded(AssertionError):
    """A command failed that should not, or the other way round."""


def directories(where: Path, count: int) -> list[Path]:
    return [where / f"disk{i}" for i in range(count)]


def serve(disks: Sequence[Path], *arguments: str, like: ServerProcess | None = None) -> ServerProcess:
    """A server with two workers; ``like`` another, it has the same credentials."""
    access, secret = (like.access_key, like.secret_key) if like else ("", "")
    return ServerProcess(disks, "--workers", "2", *arguments, access_key=access, secret_key=secret)


def command(*words: str | Path, status: int = 0) -> str:
    """`ostraka WORDS`: what it prints; fails the test when it ends with another status."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ostraka", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode != status:
        raise Commanded(f"ostraka {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def disk_rows(disks: Sequence[Path]) -> list[dict[str, Any]]:
    lines = command("disk", "ls", *disks, "--json").splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"number"')]


def statuses(disks: Sequence[Path]) -> dict[int, str]:
    return {row["number"]: row["status"] for row in disk_rows(disks)}


def replace(disks: Sequence[Path], *words: str | Path) -> dict[str, Any]:
    store = [word for disk in disks for word in ("--store", disk)]
    lines = command("disk", "replace", *store, "--json", *words).splitlines()
    result: dict[str, Any] = next(json.loads(line) for line in reversed(lines) if '"examined"' in line)
    return result


def wait_until(reached: Callable[[], bool], what: str, tries: int = 600) -> None:
    pulse = threading.Event()
    for _ in range(tries):
        if reached():
            return
        pulse.wait(0.1)
    raise AssertionError(f"waited in vain: {what}")


def put(ledger: Ledger, s3: Any, name: str, content: Content) -> None:
    body = content.bytes()
    assert ledger.attempt(name, content, lambda: s3.put_object(Bucket=BUCKET, Key=name, Body=body)), name


def upload(ledger: Ledger, s3: Any, name: str, content: Content) -> None:
    """As a multipart upload."""
    body = content.bytes()

    def parts() -> None:
        upload_id = s3.create_multipart_upload(Bucket=BUCKET, Key=name)["UploadId"]
        done = []
        for n, at in enumerate(range(0, len(body), PART_SIZE), 1):
            piece = body[at : at + PART_SIZE]
            part = s3.upload_part(Bucket=BUCKET, Key=name, UploadId=upload_id, PartNumber=n, Body=piece)
            done.append({"PartNumber": n, "ETag": part["ETag"]})
        s3.complete_multipart_upload(Bucket=BUCKET, Key=name, UploadId=upload_id, MultipartUpload={"Parts": done})

    assert ledger.attempt(name, content, parts), name


def fill(ledger: Ledger, s3: Any, prefix: str, seed: int) -> None:
    """Objects of all kinds: inline, packed, chunked, in parts; one of them deleted."""
    for i, size in enumerate(SIZES):
        put(ledger, s3, f"{prefix}/{size}", Content(seed + i, size))
    upload(ledger, s3, f"{prefix}/parts", Content(seed + len(SIZES), MULTIPART))
    put(ledger, s3, f"{prefix}/gone", Content(seed, 700 * KIB))
    ledger.attempt(f"{prefix}/gone", None, lambda: s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/gone"))


class Patient(Ledger):
    """A ledger that also says which calls failed."""

    def __init__(self, bucket: str, seed: int) -> None:
        super().__init__(bucket, seed)
        self.failures: list[str] = []

    def attempt(self, name: str, outcome: Content | None, action: Callable[[], object]) -> bool:
        told: list[str] = []

        def act() -> None:
            try:
                action()
            except Exception as e:
                told.append(f"{name}: {type(e).__name__}: {e}")
                raise

        if super().attempt(name, outcome, act):
            return True
        self.failures += told
        return False


# -- disks that are lost, and come back


@pytest.mark.timeout(300)
def test_two_of_six_disks_are_lost_and_healed_and_then_two_others(tmp_path: Path, seed: int) -> None:
    disks = directories(tmp_path, 6)
    ledger = Ledger(BUCKET, seed)
    server = serve(disks)
    with server:
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "first", seed)
    for turn, pair in enumerate(((0, 3), (1, 4))):  # 0, then 1, carry the state
        assert (disks[pair[0]] / "state").is_dir()
        for i in pair:
            shutil.rmtree(disks[i])
        left = [d for i, d in enumerate(disks) if i not in pair]
        fresh = [tmp_path / f"new{turn}{i}" for i in pair]
        with serve(left, like=server) as degraded:
            s3 = degraded.client()
            assert ledger.verify(s3) > 0
            fill(ledger, s3, f"degraded{turn}", seed + 100 * (turn + 1))
            lost = sorted(n for n, status in statuses(left).items() if status != "up")
            assert len(lost) == 2
            result = replace(left, str(lost[0]), fresh[0])  # through the socket of the server
            assert result["repaired"] > 0
            fill(ledger, s3, f"between{turn}", seed + 100 * (turn + 1) + 50)
            assert ledger.verify(s3) > 0
        result = replace([*left, fresh[0]], fresh[1])  # on the stopped store; it is the only one lost
        assert result["repaired"] > 0
        disks = [fresh[pair.index(i)] if i in pair else d for i, d in enumerate(disks)]
        assert fsck(disks)["findings"] == [] if "findings" in fsck(disks) else True
        with serve(disks, like=server) as healed:
            assert ledger.verify(healed.client()) > 0
            assert set(statuses(disks).values()) == {"up"}
            assert sum(row["state"] for row in disk_rows(disks)) == 3
