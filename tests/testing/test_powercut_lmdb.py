"""LMDB on a power-cut disk: kept with its syncs, caught without them. The proof that the simulator has teeth."""

import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import lmdb
import pytest

from ostraka.testing import powercut
from ostraka.testing.powercut import PowerCutDisk

pytestmark = pytest.mark.skipif(bool(powercut.missing()), reason=powercut.missing() or "-")

CUTS = 50
fork = multiprocessing.get_context("fork")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        yield disk


def value_of(commit: int, row: int) -> bytes:
    return random.Random(commit * 100 + row).randbytes(50 + (commit * 37 + row * 211) % 3000)


def rows_of(commit: int) -> dict[bytes, bytes]:
    """Commit n overwrites the rows of its slot, so that pages are freed and used again."""
    return {b"%04d-%02d" % (commit % 97, row): b"%08d" % commit + value_of(commit, row) for row in range(8)}


def worker(path: Path, acknowledged: int, commits: int, pipe: Connection, sync: bool, metasync: bool) -> None:
    """Verify that commit ``acknowledged`` and those before it are there, then commit more; a crash tells as well."""
    with lmdb.open(str(path), map_size=256 << 20, sync=sync, metasync=metasync) as env:
        sync_path(path)
        sync_path(path.parent)
        with env.begin() as txn:
            found = {bytes(k): bytes(v) for k, v in txn.cursor()}
        last = max((int(v[:8]) for v in found.values()), default=-1)
        expected: dict[bytes, bytes] = {}
        for commit in range(max(0, last - 97), last + 1):
            expected.update(rows_of(commit))
        pipe.send("lost" if last < acknowledged else "corrupt" if found != expected else "good")
        for commit in range(last + 1, last + 1 + commits):
            with env.begin(write=True) as txn:
                for key, value in rows_of(commit).items():
                    txn.put(key, value)
            pipe.send(commit)
        signal.pause()  # the power goes while the environment is open


def sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def run_and_cut(disk: PowerCutDisk, seed: int, acknowledged: int, **mode: bool) -> tuple[str, int]:
    """One life of the database: (what it found, the last commit it acknowledged)."""
    commits = random.Random(seed).randint(1, 12)
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=worker, args=(disk.path / "db", acknowledged, commits, there, *mode.values()))
    process.start()
    there.close()
    found = "crashed"
    try:
        found = here.recv()
        for _ in range(commits):
            acknowledged = here.recv()
    except EOFError:
        found = "crashed" if found == "good" else found
    finally:
        disk.cut(seed)
        process.kill()
        process.join()
        here.close()
    return found, acknowledged


def test_synced_lmdb_keeps_every_commit_through_fifty_cuts(disk: PowerCutDisk) -> None:
    acknowledged = -1
    for seed in range(CUTS):
        found, acknowledged = run_and_cut(disk, seed, acknowledged, sync=True, metasync=True)
        assert found == "good", f"seed {seed}"
    assert acknowledged > CUTS


@pytest.mark.parametrize(
    "mode", [{"sync": False, "metasync": True}, {"sync": True, "metasync": False}], ids=["no sync", "no meta-sync"]
)
def test_lmdb_without_its_syncs_is_caught(disk: PowerCutDisk, mode: dict[str, bool]) -> None:
    acknowledged = -1
    for seed in range(CUTS):
        found, acknowledged = run_and_cut(disk, seed, acknowledged, **mode)
        if found != "good":
            return
    pytest.fail(f"{CUTS} cuts lost nothing")


@pytest.mark.parametrize("kind", ["fdatasync", "dsync"])
def test_lmdb_on_a_disk_that_ignores_one_kind_of_its_syncs_is_caught(disk: PowerCutDisk, kind: str) -> None:
    acknowledged = -1
    for seed in range(CUTS):
        disk.ignore_syncs(f"{kind}:*data.mdb")
        found, acknowledged = run_and_cut(disk, seed, acknowledged, sync=True, metasync=True)
        if found != "good":
            return
    pytest.fail(f"{CUTS} cuts lost nothing")
