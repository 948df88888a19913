"""After kill -9, a reboot, a power cut or damage at rest: what was acknowledged is found, and nothing else believed."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.errors import Absent, Corrupt, OstrakaError
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.nodes import recovery
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
from ostraka.segments.format import Identity
from ostraka.testing.files import FaultyFiles

STORE = b"s" * 16
SMALL = replace(LIMITS, segment_size_max=400_000)


def open_disk(
    path: Path, incarnation: int = 1, limits: Limits = SMALL, files: FaultyFiles | None = None, boot: str | None = None
) -> LocalDisk:
    path.mkdir(exist_ok=True)
    return LocalDisk.open_owner(path, 7, STORE, bytes([incarnation]) * 16, Host(files, boot=boot), limits)


def wid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def put(disk: LocalDisk, number: int, body: bytes) -> None:
    disk.write([ShardWrite(wid(number), 0, 1, 0, Owner.CHUNK, b"owner", len(body), [body])])


def fill(disk: LocalDisk, rng: random.Random, count: int) -> dict[int, bytes]:
    """Shards small and large, so that buffered and direct segments are both sealed and open."""
    bodies = {n: rng.randbytes(rng.choice([100, 5000, 70_000, 131_072, 200_704])) for n in range(1, count + 1)}
    for number, body in bodies.items():
        put(disk, number, body)
    return bodies


def check(disk: LocalDisk, bodies: dict[int, bytes]) -> None:
    for number, body in bodies.items():
        assert disk.read(wid(number), 0, 0, len(body)) == body, number
    with pytest.raises(Absent):
        disk.read(wid(999_999), 0, 0, 1)


def crash(disk: LocalDisk) -> None:
    """The process is gone: nothing is sealed, nothing marked clean; only the index's memory map is let go."""
    disk.index.close()
    disk._index = None
    disk._closed = True
    disk.space.close()


WRITER = """
import os, sys, random
from dataclasses import replace
from pathlib import Path
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
import threading
path, incarnation, first, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
limits = replace(LIMITS, segment_size_max=400_000)
disk = LocalDisk.open_owner(path, 7, b"s" * 16, bytes([incarnation]) * 16, Host(), limits)
def write(lane):
    n = first + lane
    while True:
        rng = random.Random(n)
        body = rng.randbytes(rng.choice([100, 5000, 70_000, 131_072, 200_704]))
        disk.write([ShardWrite(n.to_bytes(16, "big"), 0, 1, 0, Owner.CHUNK, b"owner", len(body), [body])])
        os.write(1, b"%d\\n" % n)
        n += 4
for lane in range(4):
    threading.Thread(target=write, args=(lane,), daemon=True).start()
threading.Event().wait()
"""


def test_kill_9_in_a_loop_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "d"
    path.mkdir()
    acknowledged: set[int] = set()
    for round_number in range(1, 7):
        command = [sys.executable, "-c", WRITER, str(path), str(round_number), str(round_number * 100_000), str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            for _ in range(rng.randrange(1, 60)):
                acknowledged.add(int(process.stdout.readline()))
        finally:
            process.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")}
        process.wait()
        if round_number % 2:
            continue  # the next writer opens it as the crash left it
        disk = open_disk(path, 100 + round_number)
        for n in acknowledged:
            body_rng = random.Random(n)
            body = body_rng.randbytes(body_rng.choice([100, 5000, 70_000, 131_072, 200_704]))
            assert disk.read(wid(n), 0, 0, len(body)) == body
            disk.verify(wid(n), 0)
        if round_number == 4:
            disk.close()
        else:
            crash(disk)
    assert len(acknowledged) > 20


def test_a_clean_stop_is_believed_and_a_crash_of_the_same_boot_once(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "d"
    path.mkdir()
    identity = Identity(STORE, 7)
    assert recovery.prepare(Host(), path, identity), "a new disk has no index to believe"
    disk = open_disk(path, 2)
    bodies = fill(disk, random.Random(seed), 10)
    disk.close()
    assert not recovery.prepare(Host(), path, identity), "closed cleanly"
    assert not recovery.prepare(Host(), path, identity), "a process of this boot died with it open"
    assert recovery.prepare(Host(), path, identity), "and so did the next: perhaps of the index"
    check(open_disk(path, 3), bodies)


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_reboot_an_index_that_was_not_closed_cleanly_is_built_anew(
    tmp_path: Path, clean: bool, seed: int
) -> None:
    path = tmp_path / "d"
    disk = open_disk(path, 1, boot="first")
    bodies = fill(disk, random.Random(seed), 12)
    if clean:
        disk.close()
    else:
        crash(disk)
    (path / "shards" / "data.mdb").write_bytes(os.urandom(1 << 16))  # a power cut left whatever it left
    disk = open_disk(path, 2, boot="second")
    check(disk, bodies)
    assert disk.index.count() == len(bodies)
    disk.close()


@pytest.mark.parametrize("what", ["data.mdb", "lock.mdb", "mark", "shared"])
@pytest.mark.parametrize("how", ["gone", "noise", "cut"])
def test_whatever_happened_to_the_index_while_the_disk_was_closed_it_serves_again(
    tmp_path: Path, what: str, how: str, seed: int
) -> None:
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 8)
    disk.close()
    target = path / "shards" / what
    if how == "gone":
        target.unlink()
    elif how == "noise":
        target.write_bytes(random.Random(seed).randbytes(target.stat().st_size))
    else:
        os.truncate(target, target.stat().st_size // 2)
    disk = open_disk(path, 2)
    check(disk, bodies)
    disk.close()


def test_every_flipped_bit_of_the_index_at_rest_is_noticed_at_the_start(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 6)
    disk.close()
    data = path / "shards" / "data.mdb"
    whole, rng = data.read_bytes(), random.Random(seed)
    for _ in range(12):
        spoiled = bytearray(whole)
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        data.write_bytes(spoiled)
        disk = open_disk(path, 2)
        check(disk, bodies)
        disk.close()


def test_bits_that_flip_anywhere_in_segments_never_give_wrong_bytes(tmp_path: Path, seed: int) -> None:
    """Any record kind: headers, cells, data, padding, footers. Read through the old index and through a new one."""
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 14)
    disk.close()
    rng = random.Random(seed)
    segments = sorted((path / "segments").iterdir())
    sealed = 0
    for attempt in range(40):
        segment = rng.choice(segments)
        whole = segment.read_bytes()
        spoiled = bytearray(whole)
        at = rng.choice([rng.randrange(len(whole)), rng.randrange(200), len(whole) - 1 - rng.randrange(200)])
        spoiled[at] ^= 1 << rng.randrange(8)
        segment.write_bytes(spoiled)
        disk = open_disk(path, 100, boot=f"boot {attempt}" if attempt % 2 else None)
        wrong = 0
        for number, body in bodies.items():
            try:
                assert disk.read(wid(number), 0, 0, len(body)) == body, (segment.name, at)
            except (Corrupt, Absent):
                wrong += 1
        assert wrong <= 1, (segment.name, at)
        sealed += wrong == 0
        segment.write_bytes(whole)
        disk.close()
    assert sealed, "some flips hit a footer or padding and cost nothing"


def test_what_was_not_synced_may_vanish_and_what_was_acknowledged_may_not(tmp_path: Path, seed: int) -> None:
    files = FaultyFiles()
    path = tmp_path / "d"
    disk = open_disk(path, 1, files=files, boot="first")
    bodies = fill(disk, random.Random(seed), 15)
    for writer in disk._writers:
        writer.seal()  # footers are written and not synced
    files.tear()
    crash(disk)
    disk = open_disk(path, 2, files=files, boot="second")
    check(disk, bodies)
    disk.close()


def test_after_a_crash_old_tails_are_neither_appended_to_nor_cut(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "d"
    disk = open_disk(path, 1)
    bodies = fill(disk, random.Random(seed), 5)
    crash(disk)
    before = {p.name: p.read_bytes() for p in (path / "segments").iterdir()}
    disk = open_disk(path, 2)
    put(disk, 77, b"new")
    check(disk, bodies | {77: b"new"})
    disk.close()
    after = {p.name: p.read_bytes() for p in (path / "segments").iterdir()}
    assert {name: after[name] for name in before} == before


def test_two_copies_of_a_shard_found_by_a_rebuild_serve_for_each_other(tmp_path: Path) -> None:
    """A shard that was written anew after a failed sync, or repaired in place, is there twice; one may be damaged."""
    for damaged in (0, 1):
        path = tmp_path / str(damaged)
        disk = open_disk(path, 1)
        put(disk, 1, b"x" * 9000)
        for writer in disk._writers:
            writer.seal()
        put(disk, 1, b"x" * 9000)
        crash(disk)
        segment = sorted((path / "segments").iterdir())[damaged]
        raw = bytearray(segment.read_bytes())
        raw[5000] ^= 1
        segment.write_bytes(raw)
        disk = open_disk(path, 2, boot="another")
        check(disk, {1: b"x" * 9000})
        disk.release([(wid(1), 0)])
        assert disk.index.count() == 0, "a release forgets both"
        disk.close()


def test_a_rebuild_that_was_cut_short_starts_again(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 10)
    disk.close()
    mark = json.loads((path / "shards" / "mark").read_text())
    (path / "shards" / "mark").write_text(json.dumps(mark | {"state": "building"}))
    with (path / "shards" / "data.mdb").open("r+b") as file:
        file.truncate(8192)
    disk = open_disk(path, 2)
    check(disk, bodies)
    disk.close()


def test_a_segment_that_cannot_be_read_during_a_rebuild_makes_no_shard_absent(tmp_path: Path, seed: int) -> None:
    files = FaultyFiles()
    path = tmp_path / "d"
    disk = open_disk(path, 1)
    bodies = fill(disk, random.Random(seed), 12)
    disk.close()
    victim = sorted((path / "segments").iterdir())[0].name
    files.fail("preadv", victim, 5, count=10_000)
    disk = open_disk(path, 2, files=files, boot="another")
    failed = 0
    for number, body in bodies.items():
        try:
            assert disk.read(wid(number), 0, 0, len(body)) == body
        except OSError:
            failed += 1
    assert 0 < failed < len(bodies)
    files.heal()
    check(disk, bodies)
    disk.close()


def test_an_index_of_another_store_or_disk_is_not_believed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "d"
    disk = open_disk(path)
    fill(disk, random.Random(seed), 3)
    disk.close()
    assert recovery.prepare(Host(), path, Identity(b"t" * 16, 7))
    assert recovery.prepare(Host(), path, Identity(STORE, 8))


def test_an_index_in_which_damage_was_met_is_built_anew_at_the_next_start(tmp_path: Path, seed: int) -> None:
    """It was marked clean when it was closed, damage and all, and so was never mended."""
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 5)
    with disk.index._env.begin(write=True, db=disk.index._rows) as txn:
        txn.put(next(iter(txn.cursor()))[0], b"damage")
    check(disk, bodies)  # what the index has lost the segments still have
    disk.close()
    assert recovery.is_doubted(Host(), path)
    assert recovery.prepare(Host(), path, disk.identity)
    assert not recovery.is_doubted(Host(), path)
    disk = open_disk(path)
    check(disk, bodies)
    disk.close()
    assert not recovery.prepare(Host(), path, disk.identity)


def test_an_index_of_another_version_is_built_anew(tmp_path: Path, seed: int) -> None:
    """Or of a mark with a bit that flipped: nothing is lost, segments have a version of their own."""
    path = tmp_path / "d"
    disk = open_disk(path)
    bodies = fill(disk, random.Random(seed), 3)
    disk.close()
    mark = json.loads((path / "shards" / "mark").read_text())
    (path / "shards" / "mark").write_text(json.dumps(mark | {"version": 3}))
    disk = open_disk(path)
    check(disk, bodies)
    disk.close()


def test_workers_share_what_each_of_them_wrote(tmp_path: Path, seed: int) -> None:
    """A worker process writes; this one, which had the index open all the time, reads; and the other way round."""
    path = tmp_path / "d"
    disk = open_disk(path)
    put(disk, 1, b"from the owner")
    script = """
import sys
from pathlib import Path
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
disk = LocalDisk.open_shared(Path(sys.argv[1]), 7, b"s" * 16, sys.argv[2].encode() * 4, Host(), LIMITS)
assert disk.read((1).to_bytes(16, "big"), 0, 0, 14) == b"from the owner"
disk.write([ShardWrite((2).to_bytes(16, "big"), 0, 1, 0, Owner.PACK, b"owner", 13, [b"from a worker"])])
print("written", flush=True)
sys.stdin.readline()
if sys.argv[2] == "stop":
    disk.close()
"""
    for number, end in enumerate(("stop", "kill")):
        worker = subprocess.Popen(
            [sys.executable, "-c", script, str(path), end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None and worker.stdout.readline() == "written\n"  # noqa: PT018
        assert bytes(disk.read(wid(2), 0, 0, 13)) == b"from a worker"
        if end == "kill":
            worker.kill()
        worker.communicate("\n")
        put(disk, 10 + number, b"after")
        assert bytes(disk.read(wid(2), 0, 0, 13)) == b"from a worker"
    disk.close()


def test_no_answer_of_a_disk_is_anything_but_the_four(tmp_path: Path) -> None:
    assert issubclass(Absent, OstrakaError)
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x" * 100)
    with pytest.raises(Corrupt, match="has 100 bytes"):
        disk.read(wid(1), 0, 90, 20)
    disk.close()
