"""Power cuts: what was not synced is forgotten, torn or reordered, and nothing that was acknowledged is lost.

A program that embeds the store runs on disks whose power is cut under it (testing/powercut.py). `test_fsyncs.py`
takes the syncs away one call site at a time: each time, the same check must notice.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_kill import crash_loop

from ostraka.testing.ledger import MIB, SIZES, Content, Key
from ostraka.testing.powercut import PowerCutDisk, missing
from ostraka.testing.processes import ServerProcess

WRITER = str(Path(__file__).with_name("writer.py"))
BOOTS = itertools.count()

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "FUSE is here")


class Lost(AssertionError):
    """Something acknowledged is not there, or something is there that never was written."""


class Machine:
    """Disks whose power is cut together, and the record of what was acknowledged."""

    def __init__(self, disks: Sequence[PowerCutDisk], without_sync: str = "") -> None:
        self.disks = disks
        self.without_sync = without_sync  # FILE:LINE of a sync that the writer leaves out
        self.forget_all = False  # nothing that was not synced survives, instead of what the seed says
        self.hits = 1  # after how many of these it ends by itself
        self.keys: dict[str, Key] = {}
        self.acknowledged = 0

    def start(self, *words: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OSTRAKA_TEST_BOOT_ID": f"boot-{next(BOOTS)}"}
        if self.without_sync:
            environment |= {"OSTRAKA_TEST_WITHOUT_SYNC": self.without_sync, "OSTRAKA_TEST_HITS": str(self.hits)}
        command = [sys.executable, WRITER, *words, *(str(d.path / "store") for d in self.disks)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def cut(self, seed: int) -> None:
        for disk in self.disks:
            disk.cut(seed, forget_all=self.forget_all)

    def write(self, seed: int, rounds: int, stop_after: int) -> None:
        """Run the writer until so many changes were acknowledged (or it ends), then cut the power."""
        process = self.start(str(seed), str(rounds))
        assert process.stdout is not None
        done = 0
        for line in process.stdout:
            self._note(json.loads(line))
            done += '"done"' in line
            if done >= stop_after:
                break
        process.kill()
        for line in process.stdout:  # what it had said before it died was acknowledged too
            with contextlib.suppress(json.JSONDecodeError):
                self._note(json.loads(line))
        _, err = process.communicate()
        assert self.keys, f"the writer wrote nothing: {err[-1500:]}"
        self.cut(seed)

    def _note(self, line: dict[str, Any]) -> None:
        if "begin" in line:
            outcome = None if line["size"] is None else Content(line["seed"], line["size"])
            self.keys.setdefault(line["begin"], Key()).in_flight.append(outcome)
        elif "done" in line:
            key = self.keys[line["done"]]
            self.acknowledged += 1
            key.acknowledged, key.in_flight = key.in_flight[0], key.in_flight[1:]

    def verify(self) -> None:
        """Start on what survived, and compare. Raises Lost."""
        process = self.start("verify")
        out, err = process.communicate()
        if process.returncode:
            assert "ostraka.errors." in err.splitlines()[-1], f"not a refusal, a failure of its own: {err[-1500:]}"
            raise Lost(f"the store does not open: {err[-1500:]}")
        found: dict[str, str] = json.loads(out.splitlines()[-1])["found"]
        for name, key in self.keys.items():
            for outcome in key.possible:
                if found.get(name) == (None if outcome is None else outcome.sha256()):
                    key.acknowledged, key.in_flight = outcome, []
                    break
            else:
                raise Lost(f"{name}: found {found.get(name)}, possible {key.possible}")
        if strangers := found.keys() - self.keys.keys():
            raise Lost(f"never written: {strangers}")


@contextlib.contextmanager
def machine(tmp_path: Path, count: int, without_sync: str = "") -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(PowerCutDisk(tmp_path / f"b{i}", tmp_path / f"d{i}")) for i in range(count)]
        yield Machine(disks, without_sync)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [1, 3], ids=["1+0", "2+1"])
def test_power_cuts_in_a_loop_lose_nothing_acknowledged(tmp_path: Path, seed: int, count: int) -> None:
    with machine(tmp_path, count) as computer:
        for turn in range(5):
            computer.write(seed + turn, 40, 20 + 23 * turn)
            computer.verify()
        assert computer.acknowledged > 100


def cut_loop(tmp_path: Path, seed: int, count: int, rounds: int) -> None:
    """The loop of test_kill.py with the power cut each time, under the whole server."""
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(PowerCutDisk(tmp_path / f"b{i}", tmp_path / f"d{i}")) for i in range(count)]

        def cut(server: ServerProcess, turn: int) -> None:
            for disk in disks:
                disk.cut(seed + turn)
            server.environment["OSTRAKA_TEST_BOOT_ID"] = f"boot-{next(BOOTS)}"

        sizes = [size for size in SIZES if size <= 5 * MIB]
        crash_loop([disk.path / "store" for disk in disks], seed, rounds, cut, sizes)


@pytest.mark.timeout(300)
def test_power_cuts_under_the_whole_server_lose_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    cut_loop(tmp_path, seed, 3, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_soak_power_cuts_under_the_whole_server(tmp_path: Path, seed: int, count: int) -> None:
    cut_loop(tmp_path, seed, count, 30)
