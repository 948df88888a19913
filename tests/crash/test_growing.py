"""A store under a real server grows and shrinks while clients write: no call fails, nothing acknowledged is lost."""

import contextlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_disks import (
    BUCKET,
    LOAD_SIZES,
    Patient,
    command,
    directories,
    disk_rows,
    fill,
    needs_fuse,
    replace,
    serve,
    statuses,
    stripes,
    wait_until,
)
from tests.crash.test_kill import fsck

from ostraka.testing.ledger import Ledger, Load
from ostraka.testing.powercut import PowerCutDisk
from ostraka.testing.processes import ServerProcess

GIB = 1 << 30


def layout(store: Path, *words: str | Path) -> dict[str, Any]:
    """`ostraka disk WORDS` of a store that is served, to the end of what it begins."""
    lines = command("disk", *words, "--store", store, "--wait", "--json").splitlines()
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["done"], result
    return result


def loaded(ledger: Ledger, server: ServerProcess, work: Callable[[], None], *, threads: int = 3) -> None:
    """Clients with boto3's default retries write before, while and after that is done."""
    load = Load(ledger, lambda: server.client(retries={}, read_timeout=120), threads=threads, sizes=LOAD_SIZES)
    load.start()
    try:
        for turn in range(2):
            target = ledger.acknowledged + 10
            wait_until(
                lambda target=target: ledger.acknowledged >= target or not load.running, "the load goes on", 1500
            )
            if turn == 0:
                work()
    finally:
        load.stop()


@pytest.mark.timeout(240)
def test_a_disk_is_added_and_the_one_with_the_states_index_drained_and_no_call_fails(tmp_path: Path, seed: int) -> None:
    disks = directories(tmp_path, 4)
    new = tmp_path / "new"
    ledger = Patient(BUCKET, seed)
    with serve(disks, "--ec", "2+1") as server:
        s3 = server.client(retries={})
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)

        def work() -> None:
            assert layout(disks[1], "add", new)["new"] == 4
            assert layout(disks[1], "drain", disks[0])["left"]

        loaded(ledger, server, work)
        assert ledger.failures == []
        assert statuses([disks[1]]) == dict.fromkeys((1, 2, 3, 4), "up")
        shutil.rmtree(disks[0])
        assert ledger.verify(s3) > 0
        fill(ledger, s3, "after", seed + 100)
        assert ledger.verify(s3) > 0
    left = [*disks[1:], new]
    assert not any(0 in numbers for _, _, numbers in stripes(left))
    fsck(left)


@needs_fuse
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_disks_lose_two_are_healed_grow_to_eight_and_one_is_drained_under_load(tmp_path: Path, seed: int) -> None:
    """4+2. Disks are of 8 GiB, the seventh has 16 and the eighth 24; the sixth is a plain directory."""
    ledger = Patient(BUCKET, seed)
    with contextlib.ExitStack() as stack:

        def mounted(name: str, size: int) -> PowerCutDisk:
            disk = stack.enter_context(PowerCutDisk(tmp_path / f"b-{name}", tmp_path / name))
            disk.limit_space(size)
            return disk

        mounts = {name: mounted(name, 8 * GIB) for name in [*map(str, range(5)), "n1", "n4"]}
        mounts |= {"seventh": mounted("seventh", 16 * GIB), "eighth": mounted("eighth", 24 * GIB)}
        paths = {name: disk.path / "store" for name, disk in mounts.items()}
        first = [paths[str(i)] for i in range(5)]
        socket = tmp_path / "plain"  # the sixth: a mount holds no control socket
        with serve([*first, socket]) as server:
            s3 = server.client(retries={})
            s3.create_bucket(Bucket=BUCKET)
            fill(ledger, s3, "before", seed)

            def lose() -> None:
                mounts["1"].vanish()
                wait_until(lambda: statuses([socket])[1] in ("down", "missing"), "the first is noticed")
                mounts["4"].vanish()
                wait_until(lambda: statuses([socket])[4] in ("down", "missing"), "the second is noticed")

            loaded(ledger, server, lose)
            assert ledger.failures == []
            assert ledger.verify(s3) > 0

            def heal() -> None:
                for number in ("1", "4"):
                    assert replace([socket], number, paths[f"n{number}"])["repaired"] > 0

            loaded(ledger, server, heal)
            assert ledger.failures == []
            assert ledger.verify(s3) > 0
            assert set(statuses([socket]).values()) == {"up"}

            def grow() -> None:
                assert layout(socket, "add", paths["seventh"])["moved"] > 0
                assert layout(socket, "add", paths["eighth"])["moved"] > 0

            loaded(ledger, server, grow)
            assert ledger.failures == []
            numbers = {row["path"]: row["number"] for row in disk_rows([socket])}

            loaded(ledger, server, lambda: _left(layout(socket, "drain", first[0])))
            assert ledger.failures == []
            rows = disk_rows([socket])
            assert len(rows) == 7
            assert sum(row["state"] for row in rows) == 3
            assert ledger.verify(s3) > 0
            fill(ledger, s3, "after", seed + 100)
            assert ledger.verify(s3) > 0
        members = [Path(row["path"]) for row in rows]
        found = stripes(members)
        assert {(k, m) for k, m, _ in found} == {(4, 2)}
        shards = Counter(number for _, _, disks in found for number in disks)
        assert shards[numbers[str(paths["eighth"])]] > shards[numbers[str(paths["2"])]] > 0, shards
        fsck(members)


def _left(result: dict[str, Any]) -> None:
    assert result["left"], result


# -- killed at random


def restarted(disks: Sequence[Path], like: ServerProcess) -> ServerProcess:
    there = [disk for disk in disks if (disk / "superblock").exists()]
    return serve(there, like=like)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_that_is_killed_again_and_again_still_grows_converts_and_shrinks(tmp_path: Path, seed: int) -> None:
    """kill -9 of all processes at random moments of add, drain and conversion, with clients at work."""
    rng = random.Random(seed)
    disks = directories(tmp_path, 4)
    new = [tmp_path / "new0", tmp_path / "new1"]
    ledger = Ledger(BUCKET, seed)
    server = serve(disks, "--ec", "2+1")
    with server:
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)
        for i in range(3):
            fill(ledger, s3, f"more{i}", seed + 10 * i)
    kills = 0
    steps: list[tuple[str | Path, ...]] = [
        ("add", new[0]),
        ("add", new[1]),
        ("geometry", "3+2", "--convert"),
        ("drain", "0"),
    ]
    for words in steps:
        for attempt in range(8):
            final = attempt == 7
            with restarted([*disks, *new], server) as running:
                store = next(d for d in [*new, *disks[1:]] if (d / "control.sock").exists())
                load = Load(ledger, running.client, threads=2, sizes=LOAD_SIZES)
                load.start()
                try:
                    with contextlib.suppress(AssertionError):
                        command("disk", *words, "--store", store, "--json")
                    if final:
                        layout(store, *words)
                    else:
                        target = ledger.acknowledged + rng.randrange(1, 12)
                        wait_until(
                            lambda target=target, load=load: ledger.acknowledged >= target or not load.running,
                            "the load goes on",
                        )
                        running.kill9()
                        kills += 1
                finally:
                    with contextlib.suppress(Exception):
                        load.stop()
            with restarted([*disks, *new], server) as looked_at:
                assert ledger.verify(looked_at.client()) > 0
    assert kills == 7 * len(steps)
    left = [*disks[1:], *new]
    shutil.rmtree(disks[0])
    assert {(k, m) for k, m, _ in stripes(left)} == {(3, 2)}
    fsck(left)
    with serve(left, like=server) as last:
        assert ledger.verify(last.client()) > 0
