"""A program adds disks to its own store, empties one, and changes how bodies are spread."""

import random
import shutil
from pathlib import Path

import pytest

import ostraka
from ostraka.errors import Invalid, Refused


def test_a_program_grows_its_store_and_takes_a_disk_away(tmp_path: Path, seed: int) -> None:
    paths = [tmp_path / f"disk{i}" for i in range(3)]
    bodies = {f"k{i}": random.Random(seed + i).randbytes(300_000) for i in range(8)}
    with ostraka.open(*paths) as store:
        bucket = store.create_bucket("kept")
        for key, body in bodies.items():
            bucket.put(key, body)
        assert store.ec == (2, 1)
        assert [(disk.number, disk.status) for disk in store.disks.list()] == [(0, "up"), (1, "up"), (2, "up")]
        with pytest.raises(Refused, match="disk add"):
            store.disks.drain(0)
        with pytest.raises(Invalid, match="K"):
            store.disks.set_geometry("many")
        for i in (3, 4):
            paths.append(tmp_path / f"disk{i}")
            assert store.disks.add(paths[-1]) == i
        assert store.disks.wait()
        store.disks.set_geometry("2+2", convert=True)
        assert store.disks.wait()
        assert store.ec == (2, 2)
        store.disks.drain(paths[3])
        store.disks.keep(3)
        store.disks.drain(4)
        assert store.disks.wait()
        assert [disk.number for disk in store.disks.list()] == [0, 1, 2, 3]
    shutil.rmtree(paths.pop(4))
    shutil.rmtree(paths[1])
    with ostraka.open(*(path for path in paths if path.exists())) as store:
        bucket = store.bucket("kept")
        assert store.disks.replace(tmp_path / "new") == 5
        assert all(disk.holds for disk in store.disks.list() if disk.status == "up")
        assert {key: bucket.get(key) for key in bodies} == bodies


def test_the_disk_with_the_index_of_the_metadata_leaves_at_the_next_opening(tmp_path: Path) -> None:
    paths = [tmp_path / f"disk{i}" for i in range(4)]
    with ostraka.open(*paths, ec="2+1") as store:
        store.create_bucket("kept").put("k", bytes(500_000))
        store.disks.drain(0)
        assert not store.disks.wait()
        assert [disk.status for disk in store.disks.list()] == ["draining", "up", "up", "up"]
        assert store.disks.list()[0].holds == 0
    with ostraka.open(*paths) as store:
        assert store.disks.wait()
        assert [disk.number for disk in store.disks.list()] == [1, 2, 3]
    shutil.rmtree(paths[0])
    with ostraka.open(*paths[1:]) as store:
        assert store.bucket("kept").get("k") == bytes(500_000)
