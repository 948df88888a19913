"""Each command in each of the situations that a tired person meets: no permission, a full disk, Ctrl-C in the middle.

A wrong store, a wrong server and wrong words at each command are in test_bad_input.py.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Done, Program, one_line
from test_grammar_of_commands import ALL
from zygote import Zygote

import ostraka
from ostraka.testing.powercut import PowerCutDisk

# each command, in words that do something to a store that has s3://there/k
WORDS: dict[str, list[str]] = {
    "ostraka serve": ["serve", "--listen", "127.0.0.1:0", "{store}"],
    "ostraka status": ["status"],
    "ostraka bucket ls": ["bucket", "ls"],
    "ostraka bucket create": ["bucket", "create", "made"],
    "ostraka bucket rm": ["bucket", "rm", "empty"],
    "ostraka bucket storage": ["bucket", "storage", "there", "--compression", "lz4", "--cut", "cdc"],
    "ostraka ls": ["ls", "-r", "s3://there"],
    "ostraka cp": ["cp", "-r", "files", "s3://there/copied"],
    "ostraka sync": ["sync", "files", "s3://there/synced"],
    "ostraka cat": ["cat", "s3://there/k"],
    "ostraka rm": ["rm", "-r", "s3://spare/"],
    "ostraka account ls": ["account", "ls"],
    "ostraka account add": ["account", "add", "bob"],
    "ostraka account rm": ["account", "rm", "ann"],
    "ostraka credentials show": ["credentials", "show"],
    "ostraka credentials rotate": ["credentials", "rotate"],
    "ostraka key ls": ["key", "ls"],
    "ostraka key show": ["key", "show"],
    "ostraka key create": ["key", "create", "kleio"],
    "ostraka key rotate": ["key", "rotate", "default"],
    "ostraka disk ls": ["disk", "ls"],
    "ostraka disk replace": ["disk", "replace", "{new}"],
    "ostraka disk forget": ["disk", "forget", "1"],
    "ostraka disk drain": ["disk", "drain", "0"],
    "ostraka disk geometry": ["disk", "geometry", "1+0", "--convert"],
    "ostraka disk add": ["disk", "add", "{new}"],
    "ostraka pool ls": ["pool", "ls"],
    "ostraka pool add": ["pool", "add", "warm", "file://{new}/", "--storage-class", "STANDARD_IA"],
    "ostraka pool rm": ["pool", "rm", "cold"],
    "ostraka job ls": ["job", "ls"],
    "ostraka job show": ["job", "show", "collect"],
    "ostraka job pause": ["job", "pause", "compact"],
    "ostraka job resume": ["job", "resume", "collect"],
    "ostraka job cancel": ["job", "cancel", "scrub"],
    "ostraka job run": ["job", "run", "compact"],
    "ostraka scrub": ["scrub"],
    "ostraka fsck": ["fsck"],
    "ostraka doctor": ["doctor"],
}
# those that are about a directory of bytes without a store, which has k and spare in it
OF_BYTES: dict[str, list[str]] = {
    "ostraka backend ls": ["backend", "ls", "file://{bytes}/"],
    "ostraka backend cat": ["backend", "cat", "file://{bytes}/k"],
    "ostraka backend stat": ["backend", "stat", "file://{bytes}/k"],
    "ostraka backend check": ["backend", "check", "file://{bytes}/"],
    "ostraka backend cp": ["backend", "cp", "file:files/large", "file://{bytes}/copied"],
    "ostraka backend rm": ["backend", "rm", "file://{bytes}/spare"],
    "ostraka metadatadb ls": ["metadatadb", "ls", "file://{bytes}"],
    "ostraka metadatadb get": ["metadatadb", "get", "file://{bytes}", "there", "k"],
    "ostraka metadatadb set": ["metadatadb", "set", "file://{bytes}", "there", "other", "1"],
}
MASTER = "6d" * 32
WITHOUT_A_PLACE = {"ostraka completion", "ostraka version"}
UNTIL_CTRL_C = {"ostraka metadatadb watch"}  # tests/metadatadb


def test_every_command_is_here() -> None:
    assert set(ALL) == {*WORDS, *OF_BYTES, *WITHOUT_A_PLACE, *UNTIL_CTRL_C}


def looks(directory: Path) -> dict[Path, tuple[int, int]]:
    """Every file's size and time."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in directory.rglob("*")}


class Place:
    """A store in which there is something to be lost, and files beside it."""

    def __init__(self, zygote: Zygote, work: Path, store: Path) -> None:
        self.store = store
        self._names = {"store": str(store), "new": str(work / "new"), "bytes": str(store.with_name("bytes"))}
        store.with_name("bytes").mkdir()
        for name in ("k", "spare"):
            (store.with_name("bytes") / name).write_bytes(b"kept")
        (work / "files").mkdir(exist_ok=True)
        (work / "files" / "small").write_bytes(b"small")
        (work / "files" / "large").write_bytes(bytes(300_000))
        self.program = Program(zygote, work, ("--store", str(store)), {"OSTRAKA_MASTER_KEY": MASTER})
        with ostraka.open(store, master_key=MASTER) as opened:
            opened.create_bucket("there").put("k", b"kept")
            opened.create_bucket("empty")
            opened.create_bucket("spare").put("spared/1", b"1")
        self.program.well("account", "add", "ann")
        cold = store.with_name("cold")
        cold.mkdir()
        self.program.well("pool", "add", "cold", f"file://{cold}/", "--storage-class", "GLACIER_IR")
        self.program.elsewhere().well(*f"metadatadb set file://{store.with_name('bytes')} there k 1".split())

    def run(self, command: str, **how: bool | int) -> Done:
        words = [word.format_map(self._names) for word in {**WORDS, **OF_BYTES}[command]]
        program = self.program if command in WORDS and command != "ostraka serve" else self.program.elsewhere()
        return program(*words, **how)  # type: ignore[arg-type]

    def is_whole(self) -> None:
        """What nobody meant to change is there, and all of it verifies."""
        assert self.program.well("cat", "s3://there/k").out == "kept"
        assert {"there", "spare"} <= {row["name"] for row in self.program.well("bucket", "ls", "--json").rows}
        assert self.program.well("ls", "--incomplete", "s3://there").out == ""
        self.program.well("fsck")
        assert (self.store.with_name("bytes") / "k").read_bytes() == b"kept"


@pytest.fixture
def place(zygote: Zygote, tmp_path: Path) -> Place:
    return Place(zygote, tmp_path, tmp_path / "store")


def test_who_may_not_write_to_the_store_is_told_so_by_each_command(place: Place, tmp_path: Path) -> None:
    if os.geteuid():
        for path in (place.store, *place.store.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    before = looks(tmp_path)
    for command in WORDS:
        done = place.run(command, nobody=os.geteuid() == 0)
        if command == "ostraka doctor":
            assert done.status == 1, done
            assert "cannot be written by this user" in done.out, done
            assert done.err == ""
        else:
            one_line(done, 1, str(place.store), "cannot be written by this user", "change its owner or its mode")
        assert looks(tmp_path) == before, command
    for command in OF_BYTES:
        done = place.run(command, nobody=os.geteuid() == 0)
        if command.removeprefix("ostraka ") in ("backend cp", "backend rm", "metadatadb set"):
            assert done.status in (1, 6), done
            one_line(done, done.status, "Permission denied")
        else:
            assert ("Traceback" in done.err, done.status) in ((False, 0), (False, 1)), done
        assert looks(tmp_path) == before, command


@pytest.fixture
def full(zygote: Zygote, tmp_path: Path) -> Iterator[tuple[Place, PowerCutDisk]]:
    with PowerCutDisk(tmp_path / "backing", tmp_path / "disk") as disk:
        yield Place(zygote, tmp_path, Path(disk.path) / "store"), disk


def test_a_disk_without_any_room_is_told_by_each_command_and_nothing_is_lost(full: tuple[Place, PowerCutDisk]) -> None:
    place, disk = full
    disk.limit_space(0)
    for command in WORDS:
        done = place.run(command)
        if command == "ostraka doctor":
            assert (done.status, done.err) == (1, ""), done
            assert "room" in done.out, done
        elif command == "ostraka serve":  # it has a log
            assert done.status == 1, done
            assert "Traceback" not in done.err, done
            assert f"{place.store}: make some on that disk" in done.err, done
        else:
            one_line(done, 1, str(place.store), "make some on that disk")
    for command in ("ostraka backend cp", "ostraka metadatadb set"):
        one_line(place.run(command), 1, "No space left on device")
    for command in ("ostraka backend cat", "ostraka metadatadb get"):
        assert place.run(command).status == 0
    disk.heal()
    place.is_whole()


def interrupted(place: Place, command: str, call: int) -> None:
    done = place.run(command, interrupt=call)
    assert "Traceback" not in done.err, (call, done)
    if done.status == 130:
        assert done.err == "ostraka: interrupted\n", (call, done)
    elif command != "ostraka serve":
        assert done.status in (0, 1, 3, 4), (call, done)


@pytest.fixture(scope="module")
def kept(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A store that every interrupted command works on, one after the other."""
    work = tmp_path_factory.mktemp("kept")
    place = Place(zygote, work, work / "store")
    yield place
    place.is_whole()


INTERRUPTED = [command for command in {**WORDS, **OF_BYTES} if command not in ("ostraka serve", "ostraka disk forget")]


@pytest.mark.parametrize("command", INTERRUPTED)
def test_ctrl_c_at_any_moment_is_one_line_and_loses_nothing(kept: Place, seed: int, command: str) -> None:
    interrupted(kept, command, int(2 ** random.Random(seed).uniform(5, 15)))
    assert kept.program.well("cat", "s3://there/k").out == "kept"


@pytest.mark.slow
@pytest.mark.parametrize("command", INTERRUPTED)
def test_ctrl_c_at_many_moments_is_one_line_and_loses_nothing(kept: Place, seed: int, command: str) -> None:
    for number in range(12):
        interrupted(kept, command, int(2 ** random.Random(seed + number).uniform(5, 16)))
        kept.is_whole()


def test_ctrl_c_before_an_await_told_of_a_coroutine_that_was_never_awaited() -> None:
    program = """
from ostraka.cli.output import friendly

async def work(): pass

def interrupted():
    left = work()
    raise KeyboardInterrupt

with friendly():
    interrupted()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "ostraka: interrupted\n")
