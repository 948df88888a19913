"""A server's process is started, awaited and ended as tests need it: with its workers, and with its log kept."""

import os
import sys
from pathlib import Path

import pytest

from ostraka.testing.processes import ServerFailed, ServerProcess

WORKING = """
import json, os, signal, sys, time
worker = os.fork()
if worker == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
print(json.dumps({"url": "http://127.0.0.1:1", "worker": worker}), flush=True)
print("access", os.environ["OSTRAKA_ROOT_ACCESS_KEY"], file=sys.stderr, flush=True)
print("x" * 200_000)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("started", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""


def process(script: str, ready_seconds: float = 60.0) -> ServerProcess:
    server = ServerProcess([Path("/nowhere")], ready_seconds=ready_seconds)
    server.command = [sys.executable, "-c", script]
    return server


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def await_gone(pid: int) -> None:
    """A killed process closes its files, which is what is waited for, a moment before the kernel calls it dead."""
    while not gone(pid):
        os.sched_yield()


def test_kill9_ends_the_server_and_its_workers_and_it_can_start_again() -> None:
    server = process(WORKING).start()
    worker = server.greeting["worker"]
    assert server.url == "http://127.0.0.1:1"
    assert not gone(worker)
    server.kill9()
    assert not server.running
    await_gone(worker)
    server.kill9()  # harmless
    with server:
        assert server.running
        assert server.greeting["worker"] != worker


def test_terminate_returns_the_exit_status_once_no_process_is_left() -> None:
    server = process(WORKING).start()
    while "started" not in server.log_text():  # its handler of SIGTERM is in place
        os.sched_yield()
    assert server.terminate() == 3
    await_gone(server.greeting["worker"])
    assert f"access {server.access_key}" in server.log_text()


def test_a_server_that_ends_before_it_is_ready_fails_with_its_log() -> None:
    with pytest.raises(ServerFailed, match="no such disk"):
        process("import sys; sys.exit('no such disk')").start()


def test_a_server_that_never_gets_ready_is_given_up() -> None:
    with pytest.raises(ServerFailed, match="not ready"):
        process("import signal; signal.pause()", ready_seconds=0.3).start()


def test_settings_of_the_tests_own_environment_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTRAKA_EC", "4+2")
    server = ServerProcess([Path("/nowhere")], environment={"OSTRAKA_REGION": "eu-west-1"})
    assert {k for k in server.environment if k.startswith("OSTRAKA_")} == {
        "OSTRAKA_ROOT_ACCESS_KEY",
        "OSTRAKA_ROOT_SECRET_KEY",
        "OSTRAKA_REGION",
    }
