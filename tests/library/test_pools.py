"""A program keeps its cold objects elsewhere."""

import random
from pathlib import Path

import pytest

import ostraka
from ostraka.errors import Absent, Invalid, Refused


def test_a_program_keeps_objects_of_a_class_in_a_directory_elsewhere_and_brings_them_back(
    tmp_path: Path, seed: int
) -> None:
    body = random.Random(seed).randbytes(300_000)
    cold = tmp_path / "cold"
    cold.mkdir()
    with ostraka.open(memory=True, ec="2+1") as store:
        photos = store.create_bucket("photos")
        with pytest.raises(Invalid, match="no storage class 'GLACIER_IR'"):
            photos.put("early", body, storage_class="GLACIER_IR")
        store.pools.add("cold", f"file://{cold}/", "GLACIER_IR", cache=1 << 24)
        store.pools.add("cold", f"file://{cold}/", "GLACIER_IR", cache=1 << 24)
        photos.put("amphora", body, storage_class="GLACIER_IR")
        with photos.upload("krater", storage_class="GLACIER_IR") as upload:
            upload.put(1, body[::-1])
            upload.complete()
        assert [pool.name for pool in store.pools.list()] == ["disks", "cold"]
        assert [pool.chunks for pool in store.pools.list()] == [0, 2]
        assert photos.get("amphora") == body
        assert photos.head("krater").attributes.storage_class == "GLACIER_IR"
        photos.copy("amphora", "amphora", storage_class="STANDARD")
        assert store.pools.move() == 1
        assert [pool.chunks for pool in store.pools.list()] == [1, 1]
        with pytest.raises(Refused, match="already"):
            store.pools.add("cold", f"file://{cold}/", "DEEP_ARCHIVE")
        store.pools.remove("cold")
        store.pools.move()
        assert [pool.chunks for pool in store.pools.list()] == [2, 0]
        assert (photos.get("amphora"), photos.get("krater")) == (body, body[::-1])
        with pytest.raises(Absent, match="no pool"):
            store.pools.remove("warm")
