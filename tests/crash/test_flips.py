"""Bits that flip at rest, in every file of a store: the right bytes or a typed error, never wrong bytes, never absent.

A template store is made once for each geometry, with objects of every kind and the files of several lives. Each trial
copies it, damages one file (one bit, or a burst of 512 bytes), and hands the copy to a program of its own, which opens
the store, reads everything, checks and repairs it. A trial that kills that program is tried once more, as the
supervisor would: a second death would be a crash loop.

Run as a program (`python -m tests.crash.test_flips`) this file is that program.
"""

import asyncio
import functools
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.crash.writer import SMALL, Bytes

from ostraka.errors import Absent, OstrakaError
from ostraka.limits import KIB
from ostraka.objects.types import Attributes
from ostraka.store import fsck
from ostraka.store.rescue import open_for_repair
from ostraka.store.store import Store, open_here
from ostraka.testing.ledger import Content
from ostraka.testing.processes import ServerProcess

ROOT = Path(__file__).parents[2]
BUCKET = "flips"
SIZES = (0, 900, 4 * KIB + 1, 20 * KIB, 128 * KIB + 1, 700 * KIB)
SECTOR = 512
WAYS_OUT = ("fsck --repair", "from a backup")  # what a refusal must name
LIMITS = replace(SMALL, chunk_size=256 * KIB, segment_size_max=512 * KIB, log_bytes_before_checkpoint=64 * KIB)


# -- the program that opens damaged stores


async def fill(store: Store, seed: int, prefix: str) -> dict[str, str]:
    """Write objects of every kind; name to sha256."""
    made = {}
    for i in range(3):
        for size in SIZES:
            name, content = f"{prefix}/{i}-{size}", Content(seed + i, size)
            body = Bytes(content.bytes())
            await store.objects.put(BUCKET, name, body, body, Attributes(), owner="root")
            made[name] = content.sha256()
    gone = f"{prefix}/1-{SIZES[-1]}"
    await store.objects.delete(BUCKET, gone, owner="root")
    del made[gone]
    return made


def masters(directories: list[Path]) -> list[bytes]:
    """On several disks the store encrypts."""
    return [b"m" * 32] if len(directories) > 1 else []


async def make(directories: list[Path], seed: int, life: int) -> dict[str, str]:
    """One life of a store: opened, written to, closed, or killed in the last line of this."""
    async with open_here(directories, limits=LIMITS, masters=masters(directories)) as store:
        if life == 0:
            await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        made = await fill(store, seed + 10 * life, f"life{life}")
        if life == 1:
            await store.state.checkpoint()
        if life == 3:  # the last one: killed
            sys.stdout.write(json.dumps(made) + "\n")
            sys.stdout.flush()
            os._exit(0)
    return made


async def read_all(store: Store, expected: dict[str, str]) -> dict[str, str]:
    """What is not right: name to what it is instead."""
    wrong: dict[str, str] = {}
    for name, digest in expected.items():
        try:
            reader = store.objects.open(BUCKET, name)
            try:
                body = hashlib.sha256()
                async for piece in reader.read():
                    body.update(piece)
            finally:
                reader.close()
            if body.hexdigest() != digest:
                wrong[name] = "wrong bytes"
        except Absent as e:
            wrong[name] = f"absent: {e}"
        except OstrakaError as e:
            wrong[name] = f"error: {type(e).__name__}: {e}"
    try:
        listed: list[str] = []
        while True:
            page = store.objects.list(BUCKET, "", "", listed[-1] if listed else "", 1000)
            listed += [entry.key for entry in page.entries]
            if not page.truncated:
                break
        if set(listed) != expected.keys():
            wrong["LIST"] = (
                f"absent: {sorted(expected.keys() - set(listed))} more: {sorted(set(listed) - expected.keys())}"
            )
    except Absent as e:
        wrong["LIST"] = f"absent: {e}"
    except OstrakaError as e:
        wrong["LIST"] = f"error: {type(e).__name__}: {e}"
    return wrong


async def examine(directories: list[Path], expected: dict[str, str]) -> dict[str, Any]:
    """Open, read, check; open to repair; open, check and read again."""
    result: dict[str, Any] = {}
    try:
        try:
            async with open_here(directories, existing=True, limits=LIMITS, masters=masters(directories)) as store:
                result["read"] = await read_all(store, expected)
                result["check"] = await fsck.run(store, lambda *_: None, repair=False)
        except OstrakaError as e:
            result["refused"] = f"{type(e).__name__}: {e}"
        async with open_for_repair(directories, limits=LIMITS) as (store, findings):
            result["repair"] = await fsck.run(store, lambda *_: None, repair=True)
            result["rescued"] = [finding.what for finding in findings]
        async with open_here(directories, existing=True, limits=LIMITS, masters=masters(directories)) as store:
            result["again"] = await fsck.run(store, lambda *_: None, repair=False)
            result["read again"] = await read_all(store, expected)
    except OstrakaError as e:
        result["lost"] = f"{type(e).__name__}: {e}"
    except Exception as e:
        result["untyped"] = f"{type(e).__name__}: {e}"
    return result


def program() -> None:
    if sys.argv[1] == "make":
        made = asyncio.run(make([Path(p) for p in sys.argv[4:]], int(sys.argv[2]), int(sys.argv[3])))
        print(json.dumps(made))
        return
    for line in sys.stdin:
        order = json.loads(line)
        result = asyncio.run(examine([Path(p) for p in order["directories"]], order["expected"]))
        print(json.dumps(result), flush=True)


# -- templates and damage


@dataclass
class Template:
    """A store at rest, and what it holds."""

    root: Path
    count: int
    expected: dict[str, str]

    @property
    def files(self) -> list[Path]:
        """Relative paths of all files that hold anything."""
        return sorted(p.relative_to(self.root) for p in self.root.rglob("*") if p.is_file() and p.stat().st_size)


def make_template(root: Path, count: int, seed: int, lives: int) -> Template:
    expected: dict[str, str] = {}
    directories = [str(root / f"disk{i}") for i in range(count)]
    for life in range(lives):
        command = [sys.executable, "-m", "tests.crash.test_flips", "make", str(seed), str(life), *directories]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        expected |= json.loads(done.stdout.splitlines()[-1])
    return Template(root, count, expected)


@pytest.fixture(scope="module")
def template_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Template]:
    """The store of so many disks that was "stopped", or "killed" in its last life."""
    where = tmp_path_factory.mktemp("templates")

    @functools.cache
    def make_one(count: int, how: str) -> Template:
        return make_template(where / f"{count}-{how}", count, 77, {"stopped": 3, "killed": 4}[how])

    return make_one


def kind(path: Path) -> str:
    """What sort of file it is: names without numbers."""
    return re.sub(r"[0-9a-f]{4,}(-[0-9a-f]+)?|disk\d+", "N", "/".join(path.parts[1:]))


def used_sectors(path: Path) -> list[int]:
    """Sectors that are not all zeros; those of a sparse file that were never written are not read."""
    sectors = []
    with path.open("rb") as file:
        size, at = path.stat().st_size, 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // SECTOR * SECTOR
            except OSError:
                break
            end = min(size, os.lseek(file.fileno(), at, os.SEEK_HOLE))
            data = os.pread(file.fileno(), end - at, at)
            sectors += [(at + i) // SECTOR for i in range(0, len(data), SECTOR) if any(data[i : i + SECTOR])]
            at = end
    return sectors


def damage(path: Path, rng: random.Random, *, burst: bool) -> str:
    """Flip one bit, or overwrite up to 512 bytes, where the file holds something; says what was done."""
    start = rng.choice(used_sectors(path) or [0]) * SECTOR
    size = path.stat().st_size
    at = start + rng.randrange(min(SECTOR, size - start))
    with path.open("r+b", buffering=0) as file:
        old = os.pread(file.fileno(), SECTOR if burst else 1, at)
        new = rng.randbytes(len(old)) if burst else bytes([old[0] ^ (1 << rng.randrange(8))])
        os.pwrite(file.fileno(), new, at)
    return f"{'burst' if burst else 'bit'} at {at} of {size}"


class Examiner:
    """The program, and its deaths."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def examine(self, directories: list[Path], expected: dict[str, str]) -> dict[str, Any]:
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.crash.test_flips", "examine"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            order = {"directories": [str(d) for d in directories], "expected": expected}
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if answer:
                result: dict[str, Any] = json.loads(answer)
                return result
            self._process.wait()
        assert self._process is not None
        return {"crash loop": self._process.returncode}

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    made = Examiner()
    yield made
    made.close()


def trial(
    template: Template, where: Path, relative: Path, seed: int, examiner: Examiner, burst: bool
) -> tuple[str, dict[str, Any]]:
    """Damage one file of a copy; (what was done, what came of it)."""
    subprocess.run(["cp", "-a", template.root, where], check=True)
    try:
        done = damage(where / relative, random.Random(seed), burst=burst)
        directories = [where / f"disk{i}" for i in range(template.count)]
        return f"{relative}: {done} (seed {seed})", examiner.examine(directories, template.expected)
    finally:
        shutil.rmtree(where)


def faults(result: dict[str, Any], *, redundant: bool) -> list[str]:
    """What must not be, of a trial's result."""
    found = [f"{name}: {result[name]}" for name in ("crash loop", "untyped") if name in result]
    reads = [*result.get("read", {}).items(), *result.get("read again", {}).items()]
    found += [f"{name} {what}" for name, what in reads if not what.startswith("error: ")]
    if redundant:  # one fault is less than m: nobody is told no, and everything is mended
        found += [f"{name} {what}" for name, what in reads if what.startswith("error: ")]
        found += [f"{name}: {result[name]}" for name in ("refused", "lost") if name in result]
        for step in ("repair", "again"):
            if step in result and not result[step]["clean"]:
                found.append(f"{step}: {result[step]['findings']}")
        if "again" in result and result["again"]["findings"]:
            found.append(f"found again: {result['again']['findings']}")
    elif result.get("read") and result["check"]["clean"]:
        found.append(f"fsck saw nothing of {result['read']}")
    for name in ("refused", "lost"):
        if name in result and not any(word in result[name] for word in WAYS_OUT):
            found.append(f"no way out is told: {result[name]}")
    return found


def run(template: Template, tmp_path: Path, seed: int, examiner: Examiner, each: int, passing: str) -> None:
    """``each`` times a bit or a burst in every kind of file but those that match ``passing``."""
    kinds: dict[str, list[Path]] = {}
    for path in template.files:
        if not re.search(passing, kind(path)):
            kinds.setdefault(kind(path), []).append(path)
    rng = random.Random(seed)
    bad: list[str] = []
    for number, paths in enumerate(kinds.values()):
        for turn in range(each):
            burst = (number + turn) % 2 == 1
            what, result = trial(
                template, tmp_path / "copy", rng.choice(paths), rng.randrange(1 << 32), examiner, burst
            )
            print(what, "refused" in result, result.get("read"))
            bad += [f"{what}: {fault}" for fault in faults(result, redundant=template.count > 1)]
    assert not bad, "\n".join(bad)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("count", "how"), [(1, "stopped"), (1, "killed"), (6, "killed")])
def test_damage_at_rest_gives_the_right_bytes_or_a_typed_error(
    tmp_path: Path,
    seed: int,
    examiner: Examiner,
    template_of: Callable[[int, str], Template],
    count: int,
    how: str,
) -> None:
    run(template_of(count, how), tmp_path, seed, examiner, 1, "lock|slot|shared|current")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_soak_damage_in_every_file(
    tmp_path: Path,
    seed: int,
    examiner: Examiner,
    template_of: Callable[[int, str], Template],
    count: int,
    how: str,
) -> None:
    run(template_of(count, how), tmp_path, seed, examiner, 40, "^$")


def ostraka(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "ostraka", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["log", "snapshot"])
def test_a_lone_state_that_is_damaged_is_made_anew_from_the_index_by_the_command_that_the_refusal_names(
    tmp_path: Path, seed: int, examiner: Examiner, template_of: Callable[[int, str], Template], what: str
) -> None:
    """It was refused with the words "repair from the index with fsck --repair", and that command was refused, too."""
    template = template_of(1, "killed")
    subprocess.run(["cp", "-a", template.root, tmp_path / "copy"], check=True)
    disk = tmp_path / "copy" / "disk0"
    damage(sorted((disk / "state").glob(f"{what}-*"))[-1], random.Random(seed), burst=True)
    refused = ostraka("fsck", disk)
    assert refused.returncode == 5  # bytes are damaged
    assert "fsck --repair" in refused.stderr
    repaired = ostraka("fsck", "--repair", "--json", disk)
    assert repaired.returncode == 0, repaired.stderr
    assert "made anew from the index" in repaired.stdout
    assert ostraka("fsck", disk).returncode == 0
    assert examiner.examine([disk], template.expected)["read"] == {}


@pytest.mark.timeout(120)
def test_a_damaged_superblock_is_written_anew_as_the_other_disks_have_it(
    tmp_path: Path, seed: int, examiner: Examiner, template_of: Callable[[int, str], Template]
) -> None:
    """The disk counted as missing, `fsck --repair` left it so, and `disk replace` would have rebuilt all of it."""
    template = template_of(6, "killed")
    subprocess.run(["cp", "-a", template.root, tmp_path / "copy"], check=True)
    disks = [tmp_path / "copy" / f"disk{i}" for i in range(6)]
    damage(disks[1] / "superblock", random.Random(seed), burst=False)
    assert "is missing" in ostraka("fsck", *disks).stdout
    repaired = ostraka("fsck", "--repair", *disks)
    assert repaired.returncode == 0, repaired.stdout
    assert "superblock" in repaired.stdout
    after = ostraka("fsck", *disks)
    assert after.returncode == 0, after.stdout
    for lost in disks[2:4]:  # it counts again
        shutil.rmtree(lost)
    assert examiner.examine([d for d in disks if d.exists()], template.expected)["read"] == {}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_a_server_on_damaged_segments_answers_the_right_bytes_or_5xx(
    tmp_path: Path, seed: int, template_of: Callable[[int, str], Template], count: int
) -> None:
    template = template_of(count, "killed")
    subprocess.run(["cp", "-a", template.root, tmp_path / "copy"], check=True)
    disks = [tmp_path / "copy" / f"disk{i}" for i in range(count)]
    rng = random.Random(seed)
    for segment in sorted((disks[0] / "segments").iterdir()):
        for _ in range(3):
            damage(segment, rng, burst=True)
    damage(sorted((disks[0] / "index").glob("*.mdb"))[-1], rng, burst=True)
    environment = {"OSTRAKA_MASTER_KEY": "6d" * 32}
    with ServerProcess(disks, "--workers", "2", environment=environment) as server:
        failed, client = set(), server.client()
        for name, digest in template.expected.items():
            try:
                body = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
                assert hashlib.sha256(body).hexdigest() == digest, name
            except ClientError as e:
                assert e.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, name
                failed.add(name)
            except (ConnectionError, BotoCoreError):  # found while the body was on its way: the connection is cut
                failed.add(name)
        assert bool(failed) == (count == 1), failed
        checked = ostraka("fsck", "--repair", *disks)  # on the serving store
        assert (checked.returncode == 0) == (count == 6), checked.stdout
    assert (ostraka("fsck", *disks).returncode == 0) == (count == 6)


if __name__ == "__main__":
    program()
