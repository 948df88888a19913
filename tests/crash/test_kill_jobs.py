"""kill -9 of the whole server while its jobs are at work, under load and on disks that rot: they go on where they were,
all damage is found and healed, and nothing that was acknowledged is lost."""

import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_kill import BUCKET, client_maker, fsck, wait_for

from ostraka.errors import OstrakaError
from ostraka.server.asking import ask
from ostraka.testing.ledger import Ledger, Load
from ostraka.testing.processes import ServerProcess

JOBS = ("scrub", "collect", "compact", "checkpoint", "heal", "rebalance")


def asked(disks: Sequence[Path], command: str, **arguments: Any) -> dict[str, Any]:
    """What the server answers."""
    answer = ask(disks, command, arguments, lambda *_: None)
    assert answer is not None, "nobody serves the store"
    return answer


class Wanted:
    """An operator who wants a job done again and again, whether the server lives or not."""

    def __init__(self, disks: Sequence[Path], name: str) -> None:
        self._disks = disks
        self._name = name
        self._ended = threading.Event()
        self.done = 0
        self._thread = threading.Thread(target=self._want, daemon=True)
        self._thread.start()

    def _want(self) -> None:
        while not self._ended.is_set():
            try:
                asked(self._disks, "job-run", name=self._name)
                self.done += 1
            except (OstrakaError, AssertionError, OSError, ValueError):
                self._ended.wait(0.05)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def rot(disks: Sequence[Path], rng: random.Random, flips: int) -> None:
    """Flip bits anywhere in the segments of these disks, while nobody has them open."""
    for _ in range(flips):
        files = [path for path in (rng.choice(disks) / "segments").iterdir() if path.stat().st_size > 4096]
        if files:
            path = rng.choice(sorted(files))
            with path.open("r+b") as file:
                at = rng.randrange(path.stat().st_size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes((byte ^ 1 << rng.randrange(8),)))


def kill_loop(disks: Sequence[Path], seed: int, rounds: int) -> Mapping[str, int]:
    """How often each job came to its end."""
    rng, ledger = random.Random(seed), Ledger(BUCKET, seed)
    server = ServerProcess(disks, "--workers", "2")
    with server:
        server.client().create_bucket(Bucket=BUCKET)
        wanted = [Wanted(disks, name) for name in JOBS]
        for _ in range(rounds):
            load = Load(ledger, client_maker(server))
            target = ledger.acknowledged + rng.randrange(5, 60)
            load.start()
            wait_for(lambda target=target: ledger.acknowledged >= target, load)
            server.kill9()
            load.stop()
            rot(disks[:2], rng, 3)  # of two disks only: 4+2 bears that, healed or not
            server.start()
            assert ledger.verify(server.client()) > 0
        for one in wanted:
            one.end()
        asked(disks, "job-run", name="scrub")
        pause = threading.Event()
        while asked(disks, "status")["hurt"]:
            asked(disks, "job-run", name="heal")
            pause.wait(0.1)
        found = asked(disks, "job-run", name="scrub")
        assert found["outcome"] == "done", found
        assert ledger.verify(server.client()) > 0
        assert not asked(disks, "status")["hurt"]
        assert server.terminate() == 0
    fsck(list(disks), server.environment)
    return {name: one.done for name, one in zip(JOBS, wanted, strict=True)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_kill_9_while_jobs_are_at_work(tmp_path: Path, seed: int) -> None:
    done = kill_loop([tmp_path / f"disk{i}" for i in range(6)], seed, 40)
    assert done["scrub"], "no scrub came to its end"
