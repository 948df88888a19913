"""Five replicas, processes of their own, on real byte stores: directory, `ostraka serve`, Azurite. All that can go
wrong does: answers are lost, writes happen after their callers gave up, the server says 503, preconditions fail in
storms, clocks are minutes apart, the lock has two holders, deletes are denied; processes are killed, also between
putting and deleting, and stopped for longer than the lock may be held. In the end the books are held against what is
there, and all replicas against each other.

``OSTRAKA_TEST_SOAK_SECONDS`` says how long the slow ones take (five minutes each); a few seconds run in CI.
"""

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from tests.backends.remote.remote_services import Account, Served
from tests.metadatadb import soak_replica
from tests.metadatadb.soak_replica import LIMITS_SMALL, NAMESPACE, PREFIX, Part
from tests.metadatadb.working import Ledger, check, dump

from ostraka.backends import from_config
from ostraka.backends.configs import encode
from ostraka.metadatadb import AsyncStore, Journal

REPLICAS = 5
SECONDS = float(os.environ.get("OSTRAKA_TEST_SOAK_SECONDS", "300"))
ANSWER_SECONDS = 120.0
SWEEP_SECONDS = 60.0
FAULTS = {
    *("answer lost", "late", "refused by the server", "unread", "storm"),
    *("lock stolen", "crash before a delete", "delete denied"),
}

processes = get_context("forkserver")
processes.set_forkserver_preload(["tests.metadatadb.soak_replica"])


@dataclass(frozen=True)
class Store:
    """A byte store, as a configuration that other processes can use."""

    config: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Running:
    """A process that is one of the replicas."""

    process: BaseProcess
    pipe: Connection

    def ask(self, word: str) -> Any:
        self.pipe.send(word)
        return self.answer()

    def answer(self) -> Any:
        assert self.pipe.poll(ANSWER_SECONDS), "a replica does not answer"
        return self.pipe.recv()


class Soak:
    """Replicas that are started, killed, stopped and replaced."""

    def __init__(self, store: Store, directory: Path, seed: int, pace: float, weather_seconds: float) -> None:
        self._store = store
        self._directory = directory
        self._chance = random.Random(seed)
        self._pace = pace
        self._weather_seconds = weather_seconds
        self._born = 0
        self.killed = Counter[str]()
        self.running: list[Running] = []

    def start(self) -> Running:
        self._born += 1
        part = Part(
            f"p{self._born}",
            self._chance.randrange(1 << 32),
            self._store.config,
            self._store.environment,
            self._directory / f"ledger-{self._born}",
            self._pace,
            self._weather_seconds,
        )
        ours, theirs = Pipe()
        process = processes.Process(target=soak_replica.main, args=(part, theirs), daemon=True)
        process.start()
        theirs.close()
        return Running(process, ours)

    def run(self, seconds: float) -> None:
        """Let them work, with deaths and standstills every now and then."""
        end = time.monotonic() + seconds
        self.running = [self.start() for _ in range(REPLICAS)]
        while time.monotonic() < end:
            time.sleep(min(self._chance.expovariate(1 / self._weather_seconds), max(0.0, end - time.monotonic())))
            self._chance.choice([self._kill, self._stand_still])()
            self._replace_the_dead()
        self._replace_the_dead()

    def _kill(self) -> None:
        victim = self._chance.choice(self.running).process
        victim.kill()
        victim.join()
        self.killed["by us"] += 1

    def _stand_still(self) -> None:
        """For longer than the lock may be held."""
        victim = self._chance.choice(self.running).process.pid
        assert victim is not None
        try:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(self._chance.uniform(0.5, 1.5))
            os.kill(victim, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def _replace_the_dead(self) -> None:
        for number, running in enumerate(self.running):
            if not running.process.is_alive():
                assert running.process.exitcode == -signal.SIGKILL, "a replica failed: see its traceback"
                self.killed["in all"] += 1
                self.running[number] = self.start()

    def all_say(self, word: str) -> list[Any]:
        """All of them at once."""
        for running in self.running:
            running.pipe.send(word)
        return [running.answer() for running in self.running]

    def calm(self) -> None:
        """The work ends. Who dies of the last bad weather is replaced."""
        for number, running in enumerate(self.running):
            while True:
                try:
                    running.ask("calm")
                    break
                except (EOFError, ConnectionError):
                    running.process.join()
                    assert running.process.exitcode == -signal.SIGKILL, "a replica failed: see its traceback"
                    running = self.running[number] = self.start()

    def ledger(self) -> tuple[Ledger, Counter[str]]:
        """The books of all that ever lived, and which faults there were."""
        ledger, faults = Ledger(), Counter[str]()
        for path in self._directory.glob("ledger-*"):
            ledger.read(path)
            faults.update(line[6:-1] for line in path.read_text().splitlines(keepends=True) if line[:6] == "fault ")
        return ledger, faults

    def end(self) -> None:
        for running in self.running:
            running.process.kill()
            running.process.join()


@contextmanager
def soaking(store: Store, directory: Path, seed: int, pace: float, weather_seconds: float) -> Iterator[Soak]:
    soak = Soak(store, directory, seed, pace, weather_seconds)
    try:
        yield soak
    finally:
        soak.end()


def soak_for(
    seconds: float, store: Store, directory: Path, seed: int, *, pace: float, weather_seconds: float
) -> Counter[str]:
    """Let it run, and check. Which faults there were."""
    directory.mkdir()
    with soaking(store, directory, seed, pace, weather_seconds) as soak:
        soak.run(seconds)
        soak.calm()
        soak.all_say("flush")
        soak.all_say("flush")
        first, *others = soak.all_say("show")
        assert all(other == first for other in others), "they do not agree"
        soak.all_say("close")
        for running in soak.running:
            running.process.join()
        ledger, faults = soak.ledger()
        asyncio.run(check_again(store, ledger, first))
    entries = len(first["log"][1]) if "log" in first else 0
    print(f"{entries} batches, {ledger.turns('done').total()} turns, killed {dict(soak.killed)}, faults {dict(faults)}")
    return faults


async def check_again(store: Store, ledger: Ledger, expected: dict[str, Any]) -> None:
    """One that comes later finds the same; and what lies there becomes little."""
    os.environ.update(store.environment)
    async with from_config(store.config) as backend:
        replica = Journal(backend, prefix=PREFIX, sync_interval=0.05, limits=LIMITS_SMALL)
        async with AsyncStore(replica) as later:
            namespace = await later.namespace(NAMESPACE)
            check(namespace, ledger)
            assert dump(namespace) == expected
            assert namespace.status().stuck == 0
            end = time.monotonic() + SWEEP_SECONDS
            while (
                len(left := [path async for path in backend.list(PREFIX)])
                > 4 + LIMITS_SMALL.metadatadb_entries_loose_max
            ):
                assert time.monotonic() < end, f"garbage stays: {left}"
                await namespace.refresh()
                await asyncio.sleep(0.1)
            assert dump(namespace) == expected


def local(directory: Path) -> Store:
    return Store({"type": "local", "root": str(directory / "root")})


def test_five_replicas_on_a_directory(tmp_path: Path, seed: int) -> None:
    faults = soak_for(4.0, local(tmp_path), tmp_path / "books", seed, pace=0.02, weather_seconds=0.5)
    assert faults


@pytest.fixture(params=["directory", "ostraka serve", "azurite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The byte stores whose conditions are atomic."""
    if request.param == "directory":
        return local(tmp_path)
    prefix = f"soak-{secrets.token_hex(4)}"
    if request.param == "ostraka serve":
        served: Served = request.getfixturevalue("own")
        return Store(encode("s3", served.config(prefix=prefix)), {served.variable: served.secret_key})
    account: Account = request.getfixturevalue("azure")
    return Store(encode("azure", account.config(prefix=prefix)), {account.variable: account.access.key})


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_five_replicas_in_the_long_run(store: Store, tmp_path: Path, seed: int) -> None:
    faults = soak_for(SECONDS, store, tmp_path / "books", seed, pace=0.1, weather_seconds=4.0)
    assert not FAULTS - set(faults) or SECONDS < 60, f"did not happen: {FAULTS - set(faults)}"
