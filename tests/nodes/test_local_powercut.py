"""Power cuts on a disk that forgets, tears and reorders what was not synced: acknowledged shards are all there.

The loop has teeth: ``NOT_SYNCED`` names each of our syncs, and when the disk ignores one of them, acknowledged shards
get lost, and the loop sees it.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostraka.errors import Absent, Corrupt
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.testing import powercut
from ostraka.testing.powercut import PowerCutDisk

pytestmark = pytest.mark.skipif(bool(powercut.missing()), reason=powercut.missing() or "-")

WRITER = """
import os, random, sys, threading
from dataclasses import replace
from pathlib import Path
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
path, incarnation, first = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
limits = replace(LIMITS, segment_size_max=600_000)
disk = LocalDisk.open_owner(path, 7, b"s" * 16, incarnation, Host(boot=sys.argv[2]), limits)
ids = []
def write(lane):
    for n in range(first + lane, first + 1000, 3):
        rng = random.Random(n)
        body = rng.randbytes(rng.choice([100, 5000, 70_000, 135_168]))
        write_id = n.to_bytes(16, "big")
        disk.write([ShardWrite(write_id, 0, 1, 0, Owner.CHUNK, b"owner", len(body), [body])])
        os.write(1, b"%d\\n" % n)
for lane in range(3):
    threading.Thread(target=write, args=(lane,), daemon=True).start()
def compact():
    live = lambda owner, owner_id, write_id, index: True
    while True:
        for info in disk.segments():
            if info.segment[:16] != incarnation:
                disk.compact(info.segment, live)
threading.Thread(target=compact, daemon=True).start()
threading.Event().wait()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        yield disk


def body_of(number: int) -> bytes:
    rng = random.Random(number)
    return rng.randbytes(rng.choice([100, 5000, 70_000, 135_168]))


def write_and_cut(disk: PowerCutDisk, path: Path, round_number: int, seed: int) -> set[int]:
    """Write from a process of its own, cut the power under it, and tell what it had acknowledged."""
    rng = random.Random(seed * 1000 + round_number)
    incarnation = rng.randbytes(16).hex()
    command = [sys.executable, "-c", WRITER, str(path), incarnation, str(round_number * 1000)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    acknowledged = set()
    try:
        for _ in range(rng.randrange(1, 25)):
            acknowledged.add(int(process.stdout.readline()))
        disk.cut(seed=seed + round_number)
    finally:
        process.send_signal(signal.SIGKILL)
    for line in process.stdout.read().splitlines():  # said before the cut, or in the moment of it, and so durable
        acknowledged.add(int(line))
    process.wait()
    return acknowledged


def lost(path: Path, acknowledged: set[int], boot: str) -> set[int]:
    """What is not there byte for byte, asked of an index that was built anew."""
    opened = LocalDisk.open_owner(path, 7, b"s" * 16, os.urandom(16), Host(boot=boot), LIMITS)
    gone = set()
    for number in acknowledged:
        body = body_of(number)
        try:
            assert opened.read(number.to_bytes(16, "big"), 0, 0, len(body)) == body, "wrong bytes, never"
        except (Absent, Corrupt):
            gone.add(number)
    opened.close()
    return gone


def test_power_cuts_in_a_loop_lose_nothing_that_was_acknowledged(disk: PowerCutDisk, seed: int) -> None:
    """While three lanes write and old segments are compacted all the time."""
    acknowledged: set[int] = set()
    for round_number in range(1, 7):
        acknowledged |= write_and_cut(disk, disk.path, round_number, seed)
        assert not lost(disk.path, acknowledged, f"check {round_number}")
    assert len(acknowledged) > 20


NOT_SYNCED = {
    "the data of segments": "fdatasync:*/segments/*",
    "a new segment's directory entry": "fsyncdir:*/segments",
    "the directory of segments itself": "fsyncdir:/new-?",
}


@pytest.mark.parametrize("what", NOT_SYNCED)
def test_the_loop_would_notice_if_we_did_not_sync(disk: PowerCutDisk, what: str, seed: int) -> None:
    for round_number in range(1, 9):
        path = disk.path / f"new-{round_number}"
        path.mkdir()
        parent = os.open(disk.path, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
        disk.ignore_syncs(NOT_SYNCED[what])
        acknowledged = write_and_cut(disk, path, round_number, seed)
        disk.heal()
        if lost(path, acknowledged, f"check {round_number}"):
            return
    pytest.fail(f"{what}: never missed")
