"""kill -9 of processes that work on one local backend: what they were told is there, and nothing is half there."""

import asyncio
import hashlib
import json
import random
import signal
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from ostraka.backends import LocalBackend
from ostraka.backends.paths import RESERVED

SCRIPT = Path(__file__).with_name("local_writer.py")


def _script() -> Any:
    spec = util.spec_from_file_location("local_writer", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


writer = _script()


class Process:
    """One of them, and the lines that it said."""

    def __init__(self, what: str, root: Path, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), what, str(root), name], stdout=subprocess.PIPE, text=True
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                with self._more:
                    self.lines.append(line.strip())
                    self._more.notify_all()
        with self._more:
            self.lines.append("ended")
            self._more.notify_all()

    def after(self, count: int) -> None:
        """Wait until it has said so many lines, or ended."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count or "ended" in self.lines, 60)

    def kill(self) -> list[str]:
        """All that it said; after "ready", without the end."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.lines[1:-1]


def count_while_being_killed(root: Path, seed: int, kills: int) -> None:
    """Eight processes add 1 to one counter, each time if nobody else did meanwhile; they are killed and begun anew.

    Every increment that was acknowledged is in the counter. One that was killed may have added one more, which nobody
    told it of: so of each the counter has what it was told, and at most one more for each time that it was killed.
    """
    chance = random.Random(seed)

    async def begin() -> None:
        async with LocalBackend(root) as backend:
            await backend.write("counter", b'{"total": 0, "by": {}}')

    asyncio.run(begin())
    told: dict[str, int] = {}
    processes = [Process("count", root, f"p{n}") for n in range(8)]
    for number in range(8, 8 + kills):
        victim = processes.pop(chance.randrange(len(processes)))
        victim.after(chance.randrange(2, 12))
        told[victim.name] = max([int(line) for line in victim.kill()], default=0)
        processes.append(Process("count", root, f"p{number}"))
    for process in processes:
        process.after(2)
    for process in processes:
        told[process.name] = max([int(line) for line in process.kill()], default=0)
    counter = json.loads((root / "counter").read_bytes())
    assert counter["total"] == sum(counter["by"].values())
    assert set(counter["by"]) <= set(told)
    for name, acknowledged in told.items():
        assert acknowledged <= counter["by"].get(name, 0) <= acknowledged + 1, name
    assert sum(told.values()) >= 8


@pytest.mark.timeout(300)
def test_eight_processes_that_are_killed_lose_no_increment(tmp_path: Path, seed: int) -> None:
    count_while_being_killed(tmp_path, seed, 7)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_eight_processes_that_are_killed_lose_no_increment(tmp_path: Path, seed: int) -> None:
    count_while_being_killed(tmp_path, seed, 400)


def check_streams(root: Path, told: dict[str, int]) -> None:
    """Of these writers, at each path is a body that was written there whole, and none older than the last that was
    acknowledged; and no killed one has left anything beside."""

    async def check() -> None:
        async with LocalBackend(root) as backend:
            found = {}
            for path in [path for name in told async for path in backend.list(f"{name}/")]:
                name, slot, *_ = path.split("/")
                data = await backend.read(path)
                number = int(data.split(b" ")[1])
                assert data == writer.body_of(name, number), path
                assert number % 5 == int(slot)
                found[name, int(slot)] = number
            for name, last in told.items():
                for number in range(max(0, last - 4), last + 1):
                    assert found.get((name, number % 5), -1) >= number, f"{name}: {number} was acknowledged"
            assert await backend.sweep(0.0) <= len(told)
            assert [p for part in ("writes", "uploads") for p in (root / RESERVED / part).iterdir()] == []

    asyncio.run(check())


def stream_while_being_killed(root: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    told: dict[str, int] = {}
    for number in range(kills):
        process = Process("stream", root, f"w{number}")
        process.after(chance.randrange(1, 15))
        told[process.name] = max([int(line) for line in process.kill()], default=-1)
        check_streams(root, {process.name: told[process.name]})
    check_streams(root, told)
    assert max(told.values()) >= 0


@pytest.mark.timeout(300)
def test_killed_writers_leave_whole_files_and_none_that_anybody_sees_beside(tmp_path: Path, seed: int) -> None:
    stream_while_being_killed(tmp_path, seed, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_killed_writers_leave_whole_files(tmp_path: Path, seed: int) -> None:
    stream_while_being_killed(tmp_path, seed, 200)


@pytest.mark.timeout(300)
def test_an_upload_that_is_killed_goes_on_where_it_was_until_it_is_published(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    offsets: list[int] = []
    for attempt in range(20):
        process = Process("upload", tmp_path, "u")
        process.after(2 + (chance.randrange(2, 8) if attempt < 4 else 10**9))
        lines = process.kill()
        offsets += [int(line.split()[1]) for line in lines if line.startswith("from ")]
        if "published" in lines:
            break
        assert not (tmp_path / "upload").exists()
    assert (tmp_path / "upload").read_bytes() == writer.upload_of("u")
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0
    digest = hashlib.sha256(writer.upload_of("u")).hexdigest()

    async def check() -> None:
        async with LocalBackend(tmp_path) as backend:
            assert await backend.partial("upload", "u") is None
            assert [path async for path in backend.list()] == ["upload"]
            assert hashlib.sha256(await backend.read("upload")).hexdigest() == digest

    asyncio.run(check())
