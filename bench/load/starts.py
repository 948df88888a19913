"""How long it takes until something answers: processes begun from nothing, each in a directory of its own."""

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from load.machine import Meter, Processes
from load.report import Figure
from load.target import ROOT, clean_environment, moto, stop

MOTO_PYTHON = ROOT / ".venv-moto/bin/python"


def serve(directory: Path, meter: Meter, figure: Figure) -> None:
    """`ostraka serve` over that directory, until it says that it is ready and /-/health/ready agrees."""
    command = [sys.executable, "-m", "ostraka", "serve", str(directory), "--listen", "127.0.0.1:0", "--json"]

    def answered(child: "subprocess.Popen[bytes]") -> None:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line:
            raise RuntimeError("ostraka serve did not start")
        host, _, port = json.loads(line)["url"].removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/-/health/ready")
        assert connection.getresponse().status == 200
        connection.close()

    _time(command, answered, stop, meter, figure)


def program(what: str, where: Path, meter: Meter, figure: Figure) -> None:
    """One of begin.py's beginnings, until it says that it is ready."""
    python = str(MOTO_PYTHON) if what.startswith("moto") else sys.executable
    with tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=where) as made:
        _time([python, "-m", "load.begin", what, f"{made}/store"], _said_ready, _let_end, meter, figure)


def _said_ready(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdout is not None
    if b"ready\n" not in iter(child.stdout.readline, b""):  # moto says more
        raise RuntimeError(f"{child.args!r} did not begin")


def _let_end(child: "subprocess.Popen[bytes]") -> None:
    """It ends with its input, and whatever it began with it."""
    assert child.stdin is not None
    child.stdin.close()
    child.wait(60)


def moto_process(meter: Meter, figure: Figure) -> None:
    """`moto_server`, until it made a bucket; it is asked again and again, since it does not say when it is ready."""
    meter.wait_for_quiet()
    with meter.measure() as spent, contextlib.ExitStack() as stack:
        began = time.monotonic()
        target = stack.enter_context(moto(pause=0.005))
        assert target is not None
        target.make_bucket()
        seconds, cpu = time.monotonic() - began, target.processes.cpu()
    figure.add(seconds * 1e3, cpu * 1e6, spent.foreign)


def _time(
    command: list[str],
    answered: Callable[["subprocess.Popen[bytes]"], None],
    end: Callable[["subprocess.Popen[bytes]"], None],
    meter: Meter,
    figure: Figure,
) -> None:
    """``answered`` waits for the answer; ``end`` ends what was begun. CPU is that of the process and of its group: what
    a fixture begins is in a session of its own, and is not in it."""
    meter.wait_for_quiet()
    with meter.measure() as spent:
        began = time.monotonic()
        child = subprocess.Popen(
            command,
            cwd=ROOT / "bench",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            process_group=0,
        )
        try:
            answered(child)
            seconds, cpu = time.monotonic() - began, Processes(child.pid).cpu()
        finally:
            end(child)
    figure.add(seconds * 1e3, cpu * 1e6, spent.foreign)
