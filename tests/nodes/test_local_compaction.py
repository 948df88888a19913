"""Room comes back, and nobody who reads or writes meanwhile notices."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ostraka.errors import Absent, Corrupt
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
from ostraka.testing.files import FaultyFiles

STORE = b"s" * 16
SMALL = replace(LIMITS, segment_size_max=300_000)


def open_disk(path: Path, incarnation: int = 1, files: FaultyFiles | None = None, limits: Limits = SMALL) -> LocalDisk:
    path.mkdir(exist_ok=True)
    return LocalDisk.open_owner(path, 7, STORE, bytes([incarnation]) * 16, Host(files), limits)


def wid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def put(disk: LocalDisk, number: int, body: bytes) -> None:
    disk.write([ShardWrite(wid(number), 0, 1, 0, Owner.CHUNK, b"owner", len(body), [body])])


def fill(disk: LocalDisk, seed: int, count: int) -> dict[int, bytes]:
    rng = random.Random(seed)
    bodies = {n: rng.randbytes(rng.choice([100, 9000, 70_000, 135_168])) for n in range(1, count + 1)}
    for number, body in bodies.items():
        put(disk, number, body)
    return bodies


def alive(bodies: dict[int, bytes]) -> Callable[[int, bytes, bytes, int], bool]:
    return lambda owner, owner_id, write_id, index: int.from_bytes(write_id, "big") in bodies


def check(disk: LocalDisk, bodies: dict[int, bytes]) -> None:
    for number, body in bodies.items():
        assert disk.read(wid(number), 0, 0, len(body)) == body, number


def compact_all(disk: LocalDisk, bodies: dict[int, bytes]) -> int:
    return sum(disk.compact(info.segment, alive(bodies)) for info in disk.segments())


def used(disk: LocalDisk) -> int:
    return sum(p.stat().st_size for p in disk.directory.iterdir())


def test_dead_bytes_come_back_and_live_ones_stay(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = fill(disk, seed, 60)
    dead = {n: bodies.pop(n) for n in list(bodies) if n % 3}
    disk.release([(wid(n), 0) for n in dead])
    disk.settle(map(wid, bodies))
    before = used(disk)
    assert sum(info.live for info in disk.segments()) < before / 2
    freed = compact_all(disk, bodies)
    assert used(disk) <= (before - freed) * 1.02, "headers and footers of the new segments are not counted"
    assert used(disk) < sum(map(len, bodies.values())) + sum(map(len, dead.values())) / 3
    check(disk, bodies)
    with pytest.raises(Absent):
        disk.read(wid(next(iter(dead))), 0, 0, 1)
    disk.close()
    disk = open_disk(tmp_path / "d", 2)
    check(disk, bodies)
    disk.close()


def test_open_segments_and_writes_that_are_not_settled_are_left_alone(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = fill(disk, seed, 30)
    assert compact_all(disk, {}) == 0, "nothing is committed: no state names it yet, and all of it may be"
    check(disk, bodies)
    disk.settle(map(wid, list(bodies)[:-1]))
    open_now = {s for writer in disk._writers for s in writer.open_segments()}
    left = {info.segment for info in disk.segments() if disk.compact(info.segment, alive(bodies)) == 0}
    assert open_now <= left
    check(disk, bodies)
    disk.close()


def test_segments_of_another_live_process_wait_until_that_process_has_settled_them(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    script = """
import sys
from dataclasses import replace
from pathlib import Path
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.types import Owner, ShardWrite
limits = replace(LIMITS, segment_size_max=300_000)
disk = LocalDisk.open_shared(Path(sys.argv[1]), 7, b"s" * 16, b"w" * 16, Host(), limits)
write_ids = [n.to_bytes(16, "big") for n in range(1, 13)]
for write_id in write_ids:
    disk.write([ShardWrite(write_id, 0, 1, 0, Owner.CHUNK, b"owner", 60_000, [b"x" * 60_000])])
print("written", flush=True)
sys.stdin.readline()
disk.settle(write_ids)
disk.tend()
print("settled", flush=True)
sys.stdin.readline()
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "d")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdin is not None
    try:
        assert worker.stdout.readline() == "written\n"
        live = {b"w" * 16}
        segments = [info.segment for info in disk.segments()]
        assert len(segments) == 3
        assert [disk.compact(s, lambda *_: False, live) for s in segments] == [0, 0, 0]
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "settled\n"
        freed = [disk.compact(s, lambda *_: False, live) > 0 for s in segments]
        assert freed.count(False) == 1, "all but the one that is still open"
    finally:
        worker.kill()
        worker.communicate()
    assert all(disk.compact(info.segment, lambda *_: False) for info in disk.segments()), "a dead process holds nothing"
    disk.close()


def test_readers_and_writers_run_on_while_segments_are_compacted_under_them(tmp_path: Path, seed: int) -> None:
    disk = open_disk(tmp_path / "d")
    bodies = fill(disk, seed, 40)
    disk.settle(map(wid, bodies))
    lock, stop, errors = threading.Lock(), threading.Event(), []
    reads = 0

    def read(lane: int) -> None:
        nonlocal reads
        rng = random.Random(seed + lane)
        try:
            while not stop.is_set():
                with lock:
                    number, body = rng.choice(list(bodies.items()))
                offset = rng.randrange(len(body))
                found = disk.read_now(wid(number), 0, offset, len(body) - offset)
                if found is None:
                    found = disk.read(wid(number), 0, offset, len(body) - offset)
                assert found == body[offset:]
                reads += 1
        except BaseException as e:
            errors.append(e)

    def write(lane: int) -> None:
        rng = random.Random(seed * 7 + lane)
        try:
            for n in range(1000 * lane, 1000 * lane + 40):
                body = rng.randbytes(rng.choice([500, 20_000, 135_168]))
                put(disk, n, body)
                with lock:
                    bodies[n] = body
                disk.settle([wid(n)])
                if n % 2:
                    with lock:
                        del bodies[n]
        except BaseException as e:
            errors.append(e)

    readers = [threading.Thread(target=read, args=(lane,)) for lane in range(3)]
    writers = [threading.Thread(target=write, args=(lane,)) for lane in (1, 2)]
    for thread in readers + writers:
        thread.start()
    rounds = 0
    while any(t.is_alive() for t in writers) or rounds < 5:
        for info in disk.segments():
            with lock:
                kept = dict(bodies)
            disk.compact(info.segment, named_by(kept))
        rounds += 1
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not errors, errors
    assert reads > 100
    check(disk, bodies)
    disk.close()


def named_by(kept: dict[int, bytes]) -> Callable[[int, bytes, bytes, int], bool]:
    """As the state would say now: even numbers are never deleted, so one that came after ``kept`` is named too."""
    return lambda owner, owner_id, write_id, index: write_id[-1] % 2 == 0 or int.from_bytes(write_id, "big") in kept


def test_a_reader_that_found_the_old_place_looks_up_once_again(tmp_path: Path) -> None:
    """ENOENT after a lookup means that the shard moved, never that it is absent."""
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x" * 5000)
    disk.settle([wid(1)])
    for writer in disk._writers:
        writer.seal()
    stale = disk.index.get(wid(1), 0)
    assert stale is not None
    original, answers = disk.index.get, [stale]
    disk.index.get = lambda write_id, index: answers.pop() if answers else original(write_id, index)  # type: ignore[method-assign]
    disk.descriptors.close()
    assert disk.compact(stale.segment, lambda *_: True) >= 0
    answers[:] = [stale]
    assert disk.read(wid(1), 0, 0, 5000) == b"x" * 5000
    assert not answers
    disk.close()


def test_a_cached_descriptor_of_a_compacted_segment_is_let_go_in_every_process(tmp_path: Path) -> None:
    owner = open_disk(tmp_path / "d")
    put(owner, 1, b"x" * 5000)
    owner.settle([wid(1)])
    for writer in owner._writers:
        writer.seal()
    script = """
import os, sys
from pathlib import Path
from ostraka.host import Host
from ostraka.limits import LIMITS
from ostraka.nodes.local import LocalDisk
disk = LocalDisk.open_shared(Path(sys.argv[1]), 7, b"s" * 16, b"w" * 16, Host(), LIMITS)
disk.read((1).to_bytes(16, "big"), 0, 0, 5000)
disk.tend()
held = lambda: sum(".segment" in os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                   if os.path.lexists(f"/proc/self/fd/{n}"))
print(held(), flush=True)
sys.stdin.readline()
disk.read((1).to_bytes(16, "big"), 0, 0, 5000)
disk.tend()
gone = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{n}")]
print([name for name in gone if ".segment (deleted)" in name], flush=True)
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "d")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "1\n"
    (info,) = owner.segments()
    assert owner.compact(info.segment, lambda *_: True) >= 0
    out, _ = worker.communicate("\n")
    assert out == "[]\n", "compaction frees nothing while somebody holds the file"
    owner.close()


@pytest.mark.parametrize("op", ["sync_data", "pwritev", "sync_directory"])
def test_compaction_unlinks_nothing_before_the_copies_are_durable(tmp_path: Path, op: str, seed: int) -> None:
    files = FaultyFiles()
    disk = open_disk(tmp_path / "d", files=files)
    bodies = fill(disk, seed, 10)
    disk.settle(map(wid, bodies))
    for writer in disk._writers:
        writer.seal()
    before = {info.segment for info in disk.segments()}
    files.fail(op, "", 5, count=2)
    with pytest.raises(OSError, match="Input/output"):
        disk.compact(sorted(before)[0], alive(bodies))
    assert before <= {info.segment for info in disk.segments()}
    check(disk, bodies)
    files.heal()
    compact_all(disk, bodies)
    files.tear()
    disk.index.close()
    disk._index = None
    disk.descriptors.close()
    disk.space.close()
    again = LocalDisk.open_owner(tmp_path / "d", 7, STORE, b"z" * 16, Host(boot="another"), SMALL)
    check(again, bodies)
    again.close()


def test_a_live_shard_that_is_damaged_stops_the_compaction_of_its_segment(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x" * 5000)
    put(disk, 2, b"y" * 5000)
    disk.settle([wid(1), wid(2)])
    for writer in disk._writers:
        writer.seal()
    extent = disk.index.get(wid(1), 0)
    assert extent is not None
    path = next(disk.directory.iterdir())
    raw = bytearray(path.read_bytes())
    raw[extent.offset + extent.header.data_offset + 99] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Corrupt, match="repaired"):
        disk.compact(extent.segment, lambda *_: True)
    assert path.exists()
    put(disk, 1, b"x" * 5000)  # repaired, in place
    disk.settle([wid(1)])
    assert disk.compact(extent.segment, lambda *_: True) > 0
    check(disk, {1: b"x" * 5000, 2: b"y" * 5000})
    disk.close()


def test_a_good_copy_is_never_dropped_for_a_damaged_one(tmp_path: Path) -> None:
    """The index names the newer copy, which is damaged; the older one, in the segment to be compacted, is good."""
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x" * 5000)
    for writer in disk._writers:
        writer.seal()
    (old,) = disk.segments()
    put(disk, 1, b"x" * 5000)
    disk.settle([wid(1)])
    new = disk.index.get(wid(1), 0)
    assert new is not None
    assert new.segment != old.segment
    path = next(p for p in disk.directory.iterdir() if new.segment[16:].hex() == p.stem.split("-")[1])
    raw = bytearray(path.read_bytes())
    raw[new.offset + new.header.data_offset] ^= 1
    path.write_bytes(raw)
    assert disk.compact(old.segment, lambda *_: True) >= 0
    assert old.segment not in {info.segment for info in disk.segments()}
    check(disk, {1: b"x" * 5000})
    disk.close()


def test_a_shard_released_while_it_is_being_moved_stays_released(tmp_path: Path) -> None:
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x" * 5000)
    put(disk, 2, b"y" * 5000)
    disk.settle([wid(1), wid(2)])
    for writer in disk._writers:
        writer.seal()
    (info,) = disk.segments()

    def is_live(owner: int, owner_id: bytes, write_id: bytes, index: int) -> bool:
        if write_id == wid(2):
            disk.release([(wid(1), 0)])
        return True

    disk.compact(info.segment, is_live)
    assert disk.index.get(wid(1), 0) is None
    assert sum(i.live for i in disk.segments()) < 6000
    check(disk, {2: b"y" * 5000})
    disk.close()


def test_a_segment_of_which_nothing_is_known_is_listed_and_can_be_compacted(tmp_path: Path) -> None:
    """A crash between making a file and its first record leaves one that no row names."""
    disk = open_disk(tmp_path / "d")
    put(disk, 1, b"x")
    disk.index.close()
    disk._index = None
    disk.space.close()
    name = "ee" * 16 + "-00000000.segment"
    (tmp_path / "d" / "segments" / name).write_bytes(b"")
    disk = open_disk(tmp_path / "d", 2)
    empty = [info for info in disk.segments() if info.incarnation == b"\xee" * 16]
    assert len(empty) == 1
    disk.compact(empty[0].segment, lambda *_: True)
    assert not (tmp_path / "d" / "segments" / name).exists()
    disk.close()
