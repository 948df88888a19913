"""kill -9 of the whole server, again and again, under mixed load: nothing that was acknowledged is lost."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ostraka.testing.ledger import SIZES, Ledger, Load
from ostraka.testing.processes import ServerProcess

BUCKET = "ledger"


def fsck(disks: list[Path], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """`ostraka fsck --json`: the summary line; fails the test if it is not clean."""
    command = [sys.executable, "-m", "ostraka", "fsck", *map(str, disks), "--json"]
    bare = {k: v for k, v in environment.items() if "_KEY" not in k}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"fsck: {done.stdout}\n{done.stderr}"
    result: dict[str, Any] = lines[-1]
    assert result["clean"]
    return result


def client_maker(server: ServerProcess) -> Callable[[], Any]:
    return lambda: server.client(retries={"max_attempts": 0}, read_timeout=60)


def crash_loop(
    disks: list[Path],
    seed: int,
    rounds: int,
    killed: Callable[[ServerProcess, int], None] = lambda server, turn: None,
    sizes: Sequence[int] = SIZES,
) -> Ledger:
    """Load, kill, restart, verify, as often as ``rounds`` says. Every third time the store is checked while down.

    ``killed`` is called while the server is down, with the turn. On several disks the store encrypts, and is checked
    without its master key.
    """
    ledger = Ledger(BUCKET, seed)
    environment = {"OSTRAKA_MASTER_KEY": "6d" * 32} if len(disks) > 1 else {}
    server = ServerProcess(disks, "--workers", "2", environment=environment)
    with server:
        server.client().create_bucket(Bucket=BUCKET)
        for turn in range(rounds):
            load = Load(ledger, client_maker(server), sizes=sizes)
            target = ledger.acknowledged + 25
            load.start()
            wait_for(lambda target=target: ledger.acknowledged >= target, load)
            server.kill9()
            load.stop()
            killed(server, turn)
            if turn % 3 == 2:
                fsck(disks, server.environment)
            server.start()
            assert ledger.verify(server.client()) > 0
        assert server.terminate() == 0
    fsck(disks, server.environment)
    return ledger


def wait_for(reached: Callable[[], bool], load: Load) -> None:
    """Wait until the load has come so far, or has failed."""
    pulse = threading.Event()
    while not reached() and not load.errors and load.running:
        pulse.wait(0.005)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_kill_9_in_a_loop_loses_nothing_acknowledged(tmp_path: Path, seed: int, count: int) -> None:
    disks = [tmp_path / f"disk{i}" for i in range(count)]
    ledger = crash_loop(disks, seed, 6)
    assert ledger.acknowledged >= 150


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [1, 2, 6], ids=["1+0", "1+1", "4+2"])
def test_soak_kill_9_in_a_long_loop(tmp_path: Path, seed: int, count: int) -> None:
    crash_loop([tmp_path / f"disk{i}" for i in range(count)], seed, 60)
