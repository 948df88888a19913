"""Disks that go, fill up, hang and come back under a real server with two workers: nothing acknowledged is lost.

Every test speaks S3 through boto3 and `ostraka disk` through its own process, as an operator would.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.crash.test_kill import fsck

from ostraka.jobs.records import HEAL_KEY, HealRecord, decode
from ostraka.jobs.stripes import pages, read_named
from ostraka.store.store import open_here
from ostraka.testing.ledger import KIB, MIB, PART_SIZE, Content, Key, Ledger, Load
from ostraka.testing.powercut import PowerCutDisk, missing
from ostraka.testing.processes import ServerFailed, ServerProcess

BUCKET = "ledger"
SIZES = (0, 900, 4 * KIB + 1, 20 * KIB, 128 * KIB + 1, 700 * KIB, 9 * MIB)  # inline, packed, chunked
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


def carriers(disks: Sequence[Path]) -> list[Path]:
    """Where current copies of the state are."""
    return [Path(row["path"]) for row in disk_rows(disks) if row["state"] and row["status"] != "missing"]


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
        fsck(disks)
        with serve(disks, like=server) as healed:
            assert ledger.verify(healed.client()) > 0
            assert set(statuses(disks).values()) == {"up"}
            assert sum(row["state"] for row in disk_rows(disks)) == 3


def stripes(disks: Sequence[Path]) -> list[tuple[int, int, tuple[int, ...]]]:
    """(k, m, disks) of every stripe that the state of a stopped store names."""

    async def read() -> list[tuple[int, int, tuple[int, ...]]]:
        async with open_here(disks, existing=True) as store:
            named = [read_named(key, value).stripe for page in pages(store.state, b"", 100) for key, value in page]
            return [(stripe.k, stripe.m, stripe.disks) for stripe in named]

    return asyncio.run(read())


def heal_record(disks: Sequence[Path]) -> HealRecord:
    """What the heal job has noted in a stopped store."""

    async def read() -> HealRecord:
        async with open_here(disks, existing=True) as store:
            value = store.state.get(HEAL_KEY)
            assert value is not None
            record = decode(HEAL_KEY, value)
            assert isinstance(record, HealRecord)
            return record

    return asyncio.run(read())


@pytest.mark.timeout(120)
def test_while_two_of_six_are_lost_new_stripes_are_narrower_with_the_same_m(tmp_path: Path, seed: int) -> None:
    disks = directories(tmp_path, 6)
    ledger = Ledger(BUCKET, seed)
    with serve(disks) as server:
        server.client().create_bucket(Bucket=BUCKET)
    assert not stripes(disks)
    shutil.rmtree(disks[1])
    shutil.rmtree(disks[4])
    left = [disks[i] for i in (0, 2, 3, 5)]
    with serve(left, like=server) as degraded:
        fill(ledger, degraded.client(), "narrow", seed)
    found = stripes(left)
    assert found
    assert {(k, m) for k, m, _ in found} == {(2, 2)}
    assert {n for _, _, numbers in found for n in numbers} == {0, 2, 3, 5}


@pytest.mark.timeout(180)
def test_a_disk_that_comes_back_is_verified_and_only_what_it_lacks_is_rebuilt(tmp_path: Path, seed: int) -> None:
    disks = directories(tmp_path, 6)
    ledger = Ledger(BUCKET, seed)
    server = serve(disks)
    with server:
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)
    named = sum(0 in numbers for _, _, numbers in stripes(disks))
    for segment in (disks[0] / "segments").iterdir():  # each is written to, and one of them will be missing
        assert segment.stat().st_size > 0
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", disks[0], kept], check=True)
    shutil.rmtree(disks[0])
    with serve(disks[1:], like=server) as without:
        s3 = without.client()
        fill(ledger, s3, "while-away", seed + 100)
        for size in SIZES[2:4]:
            ledger.attempt(f"before/{size}", None, partial(s3.delete_object, Bucket=BUCKET, Key=f"before/{size}"))
        assert ledger.verify(s3) > 0
    (kept / "state" / "what-was-true-then").write_text("stale")
    (kept / "index" / "what-was-true-then").write_text("stale")
    segments = sorted((kept / "segments").iterdir(), key=lambda p: p.stat().st_size)
    segments[0].unlink()
    came_back = {p.name for p in segments[1:]}
    assert came_back
    shutil.move(kept, disks[0])
    with serve(disks, like=server) as whole:
        assert ledger.verify(whole.client()) > 0
        wait_until(lambda: set(statuses(disks).values()) == {"up"}, "the disk that came back is up")
        # nothing that came back was erased before it was whole
        assert came_back <= {p.name for p in (disks[0] / "segments").iterdir()}
        assert not (disks[0] / "state" / "what-was-true-then").exists()
        assert not (disks[0] / "index").exists()
        assert ledger.verify(whole.client()) > 0
    record = heal_record(disks)
    assert 0 < record.repaired < named, "some shards were missing, and others were there"
    fsck(disks)
    # what came back counts: any two others may go now
    shutil.rmtree(disks[2])
    shutil.rmtree(disks[5])
    with serve([disks[i] for i in (0, 1, 3, 4)], like=server) as degraded:
        assert ledger.verify(degraded.client()) > 0


@pytest.mark.timeout(120)
def test_a_store_of_which_only_a_stale_state_is_left_is_not_started(tmp_path: Path, seed: int) -> None:
    disks = directories(tmp_path, 6)  # 2+1 on six: the state is on two of them
    ledger = Ledger(BUCKET, seed)
    server = serve(disks, "--ec", "2+1")
    with server:
        server.client().create_bucket(Bucket=BUCKET)
        put(ledger, server.client(), "old", Content(seed, 300 * KIB))
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", disks[0], kept], check=True)
    shutil.rmtree(disks[0])
    with serve(disks[1:], like=server) as without:
        put(ledger, without.client(), "old", Content(seed + 1, 300 * KIB))  # what the old state does not know
        wait_until(lambda: len(carriers(disks[1:])) == 2, "the state has two copies again")
        current = carriers(disks[1:])
    shutil.move(kept, disks[0])
    aside = {disk: tmp_path / f"aside-{disk.name}" for disk in current}
    for disk, where in aside.items():
        shutil.move(disk, where)
    left = [disk for disk in disks if disk not in current]
    with pytest.raises(ServerFailed) as refused:
        serve(left, like=server).start()
    assert "bring back one of the disks" in str(refused.value)
    assert "Traceback" not in str(refused.value)
    assert (disks[0] / "state").is_dir(), "a start that was refused discards nothing"
    for disk, where in aside.items():
        shutil.move(where, disk)
    with serve(disks, like=server) as whole:
        assert ledger.verify(whole.client()) == 1


@pytest.mark.timeout(180)
@pytest.mark.parametrize("serving", [True, False], ids=["serving", "stopped"])
def test_a_two_disk_store_that_lost_one_reads_only_until_it_is_replaced(
    tmp_path: Path, seed: int, serving: bool
) -> None:
    disks = directories(tmp_path, 2)
    ledger = Ledger(BUCKET, seed)
    server = serve(disks)
    with server:
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "first", seed)
    shutil.rmtree(disks[0])
    new = tmp_path / "new"
    with serve(disks[1:], like=server) as lone:
        s3 = lone.client()
        assert ledger.verify(s3) > 0
        for size in SIZES:
            with pytest.raises(ClientError) as told:
                s3.put_object(Bucket=BUCKET, Key=f"refused/{size}", Body=bytes(size))
            assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert "ostraka disk replace" in lone.log_text()  # the way out is for the operator, not for the client
        with pytest.raises(ClientError) as told:
            s3.delete_object(Bucket=BUCKET, Key="first/900")
        assert told.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert ledger.verify(s3) > 0  # nothing was stored, nothing was deleted
        if serving:
            assert replace(disks[1:], new)["repaired"] > 0
            assert len(disk_rows([new])) == 2  # the server answers in the directory that joined it
            fill(ledger, s3, "after", seed + 100)
            assert ledger.verify(s3) > 0
    if not serving:
        assert replace(disks[1:], new)["repaired"] > 0
    with serve([new, disks[1]], like=server) as both:
        fill(ledger, both.client(), "later", seed + 200)
        assert ledger.verify(both.client()) > 0
    fsck([new, disks[1]])
    with serve([new], like=server) as lone:  # what it was given is all there
        assert ledger.verify(lone.client()) > 0


# -- disks that fail under a server


class Rack:
    """Disks that can be made to fail, and a plain directory as the last: the mounts hold no control socket."""

    def __init__(self, where: Path, stack: contextlib.ExitStack, count: int) -> None:
        mounts = range(count - 1)
        self.disks = [stack.enter_context(PowerCutDisk(where / f"b{i}", where / f"d{i}")) for i in mounts]
        self.paths = [*(disk.path / "store" for disk in self.disks), where / "plain"]


@contextlib.contextmanager
def rack(where: Path, count: int = 6) -> Iterator[Rack]:
    with contextlib.ExitStack() as stack:
        racked = Rack(where, stack, count)
        yield racked
        for disk in racked.disks:
            disk.heal()


def under_load(ledger: Ledger, server: ServerProcess, count: int, strike: Callable[[], None]) -> None:
    """Clients with boto3's default retries write, before and after ``strike``."""
    load = Load(ledger, lambda: server.client(retries={}, read_timeout=120), threads=3, sizes=LOAD_SIZES)
    load.start()
    try:
        for turn in range(2):
            target = ledger.acknowledged + count
            wait_until(
                lambda target=target: ledger.acknowledged >= target or not load.running, "the load goes on", 1500
            )
            if turn == 0:
                strike()
    finally:
        load.stop()


@needs_fuse
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [0, 4], ids=["with the state's index", "with shards only"])
def test_a_disk_that_vanishes_under_load_fails_no_call(tmp_path: Path, seed: int, number: int) -> None:
    ledger = Patient(BUCKET, seed)
    new = tmp_path / "new"
    with rack(tmp_path) as racked, serve(racked.paths) as server:
        s3 = server.client(retries={})
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)
        under_load(ledger, server, 30, racked.disks[number].vanish)
        assert ledger.failures == []
        assert ledger.verify(s3) > 0
        left = [path for i, path in enumerate(racked.paths) if i != number]
        assert statuses(left)[number] in ("down", "missing")
        assert replace(left, str(number), new)["repaired"] > 0
        fill(ledger, s3, "after", seed + 100)
        assert ledger.verify(s3) > 0
        server.terminate()
        fsck([*left, new])


IMPATIENT = """
import sys
from dataclasses import replace
from pathlib import Path
from ostraka.config import resolve
from ostraka.limits import LIMITS
from ostraka.server.run import run

given = {"directories": tuple(sys.argv[1:]), "listen": "127.0.0.1:0", "json": True, "workers": "2"}
sys.exit(run(resolve(given, config=None), replace(LIMITS, disk_seconds_max=2.0)))
"""


def impatient(disks: Sequence[Path]) -> ServerProcess:
    """A server that gives a disk two seconds instead of thirty."""
    server = ServerProcess(disks)
    server.command = [sys.executable, "-P", "-c", IMPATIENT, *map(str, disks)]
    return server


@contextlib.contextmanager
def healed(disk: PowerCutDisk) -> Iterator[PowerCutDisk]:
    """Whatever happens inside: nothing can be stopped that hangs in a disk."""
    try:
        yield disk
    finally:
        disk.heal()


@needs_fuse
@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", [1, 4], ids=["with a copy of the state", "with shards only"])
def test_a_disk_that_hangs_is_taken_out_of_service_and_fails_no_call(tmp_path: Path, seed: int, number: int) -> None:
    ledger = Patient(BUCKET, seed)
    with rack(tmp_path) as racked, impatient(racked.paths) as server:
        s3 = server.client(retries={})
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)
        with healed(racked.disks[number]) as disk:
            under_load(ledger, server, 15, disk.stall)
            assert ledger.failures == []
            assert ledger.verify(s3) > 0
            assert statuses(racked.paths[5:])[number] == "down"


def counted(server: ServerProcess, name: str) -> float:
    """A metric of the server."""
    with urllib.request.urlopen(f"{server.url}/-/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@needs_fuse
@pytest.mark.timeout(240)
def test_a_disk_that_hangs_while_nobody_writes_is_noticed_by_a_read(tmp_path: Path, seed: int) -> None:
    """Each read of it waited for the deadline, again and again: only writes took it out of service. Reads go around it
    while it is asleep, and find out about it all the same."""
    ledger = Ledger(BUCKET, seed)
    with rack(tmp_path) as racked, impatient(racked.paths) as server:
        s3 = server.client(retries={})
        s3.create_bucket(Bucket=BUCKET)
        put(ledger, s3, "body", Content(seed, 9 * MIB))
        server.terminate()  # what is in the page cache hangs not
        server.start()
        s3 = server.client(retries={})
        for path in (racked.paths[4] / "segments").iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with healed(racked.disks[4]) as disk:
            disk.stall()
            assert ledger.verify(s3) == 1
            wait_until(lambda: statuses(racked.paths[5:])[4] == "down", "a read that was left behind finds out")
            assert ledger.verify(s3) == 1
            assert counted(server, "ostraka_pool_hedged_reads_total") > 0


def status_of(call: Callable[[], object]) -> tuple[int, str]:
    """(HTTP status, S3 code) of a call; (200, "") when it went well."""
    try:
        call()
    except ClientError as e:
        return e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["Error"]["Code"]
    return 200, ""


@needs_fuse
@pytest.mark.timeout(240)
@pytest.mark.parametrize("full", ["one", "all"])
def test_a_full_disk_stops_no_delete_and_loses_nothing(tmp_path: Path, seed: int, full: str) -> None:
    ledger = Ledger(BUCKET, seed)
    with rack(tmp_path, 4) as racked, serve(racked.paths[:3]) as server:  # 2+1 on three mounts
        s3 = server.client()
        s3.create_bucket(Bucket=BUCKET)
        fill(ledger, s3, "before", seed)
        limited = racked.disks[:1] if full == "one" else racked.disks
        for disk in limited:
            disk.limit_space(4 * MIB)
        refused = set()
        for i in range(12):
            content = Content(seed + i, 3 * MIB)
            answer = status_of(
                lambda i=i, content=content: s3.put_object(Bucket=BUCKET, Key=f"more/{i}", Body=content.bytes())
            )
            if answer == (200, ""):
                ledger.keys[f"more/{i}"] = Key(content)
            else:
                refused.add(answer)
        assert refused == (set() if full == "one" else {(507, "InsufficientStorage")}), refused
        assert ledger.verify(s3) > 0
        for size in SIZES:
            name = f"before/{size}"
            assert ledger.attempt(name, None, partial(s3.delete_object, Bucket=BUCKET, Key=name))
        assert ledger.verify(s3) > 0
        for disk in limited:
            disk.heal()
            disk.limit_space(1 << 40)
        wait_until(
            lambda: status_of(lambda: s3.put_object(Bucket=BUCKET, Key="probe", Body=bytes(MIB)))[0] == 200,
            "there is room again",
        )
        s3.delete_object(Bucket=BUCKET, Key="probe")
        fill(ledger, s3, "after", seed + 50)
        assert ledger.verify(s3) > 0
