"""The servers under load: a real `ostraka serve` on temporary directories, and moto_server beside it."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from load.machine import Processes
from load.signing import ACCESS, EMPTY, SECRET, Signer

ROOT = Path(__file__).resolve().parents[2]
MOTO = ROOT / ".venv-moto/bin/moto_server"
BUCKET = "bench"
STOP_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Target:
    """A server that runs. ``directories``: where it keeps what it is given; none for moto."""

    name: str
    host: str
    port: int
    processes: Processes
    directories: list[Path]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def signer(self) -> Signer:
        return Signer(self.host, self.port)

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", digest: str = EMPTY) -> tuple[int, bytes]:
        """One signed request, untimed: status and body."""
        head = self.signer.head(method, path, query, length=len(body), digest=digest)
        with socket.create_connection((self.host, self.port), 30) as s:
            s.sendall(head + body)
            answer = http.client.HTTPResponse(s, method=method)
            answer.begin()
            return answer.status, answer.read()

    def make_bucket(self) -> None:
        status, text = self.ask("PUT", f"/{BUCKET}")
        assert status == 200, (status, text)


def clean_environment() -> dict[str, str]:
    """Ours, without settings of Ostraka, and with compiled modules kept, as in an installation by pip."""
    return {n: v for n, v in os.environ.items() if not n.startswith("OSTRAKA_") and n != "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def ostraka(where: Path, disks: int, workers: int | None, filled: Path | None = None) -> Iterator[Target]:
    """Serve from ``disks`` new directories, or from the store in ``filled``, until the context ends."""
    with tempfile.TemporaryDirectory(prefix="ostraka-bench-", dir=where) as made:
        directories = [filled or Path(made) / f"disk{n}" for n in range(disks)]
        command = [sys.executable, "-m", "ostraka", "serve", *map(str, directories), "--listen", "127.0.0.1:0"]
        command += ["--json", *(["--workers", str(workers)] if workers else [])]
        environment = clean_environment() | {"OSTRAKA_ROOT_ACCESS_KEY": ACCESS, "OSTRAKA_ROOT_SECRET_KEY": SECRET}
        log = Path(made) / "log"
        with log.open("wb") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, process_group=0)
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                raise RuntimeError(f"ostraka serve did not start: {log.read_text()[-4000:]}")
            host, _, port = json.loads(line)["url"].removeprefix("http://").rpartition(":")
            name = f"{disks} disk{'s' if disks > 1 else ''}, {workers or 'default'} workers"
            yield Target(name, host, int(port), Processes(child.pid), directories)
        finally:
            stop(child)
            said = log.read_text()
            if "Traceback" in said or '"level":"error"' in said:
                sys.stderr.write(said[-4000:])


@contextlib.contextmanager
def moto(pause: float = 0.1) -> Iterator[Target | None]:
    """moto_server, or None where it is not installed. It keeps all in memory and checks no signature."""
    program = str(MOTO) if MOTO.exists() else shutil.which("moto_server")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    child = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if child.poll() is not None or time.monotonic() > until:
                raise RuntimeError("moto_server did not start")
            time.sleep(pause)
        yield Target("moto_server", "127.0.0.1", port, Processes(child.pid), [])
    finally:
        stop(child)


def stop(child: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and after a minute SIGKILL for the whole group."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def drop_cached(directories: list[Path]) -> None:
    """Ask the kernel to forget the pages of all files in there, so that the next read is the disk's."""
    os.sync()
    for directory in directories:
        for path in directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)
