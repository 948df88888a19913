"""A served store whose processes can be told apart, hurt and watched; and clients below boto's level."""

import contextlib
import http.client
import os
import select
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ostraka.testing.processes import ServerProcess, s3_client

AWAIT_SECONDS_MAX = 60.0


class Served(ServerProcess):
    """`ostraka serve` with two workers over ``directory/store``, and an access log beside it."""

    def __init__(self, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.store = directory / "store"
        self.access_log = directory / "access.log"
        flags = ["--workers", "2", "--access-log", str(self.access_log), *arguments]
        super().__init__([self.store], *flags, environment=environment)

    def client_of(self, access_key: str, secret_key: str, *, url: str = "", **config: Any) -> Any:
        """A boto3 client of another account, or by another name of the server."""
        return s3_client(url or self.url, access_key, secret_key, **config)

    @property
    def address(self) -> tuple[str, int]:
        parts = urllib.parse.urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def children(self) -> list[int]:
        """Its children, first started first: right after the start, the owner and then the workers."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sorted(map(int, found), key=started_at)

    @property
    def owner(self) -> int:
        return self.children()[0]

    @property
    def workers(self) -> list[int]:
        return self.children()[1:]

    def get(self, path: str) -> tuple[int, bytes]:
        """An unsigned GET on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def until_ready(self) -> None:
        """Wait until it is ready again, however often it cannot be reached."""

        def ready() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.get("/-/health/ready")[0] == 200
            return False

        until(ready, "ready")


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll for what no event tells. Fails after AWAIT_SECONDS_MAX."""
    deadline = time.monotonic() + AWAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"never came to be: {what}"
        time.sleep(0.02)


def started_at(pid: int) -> tuple[int, int]:
    """For sorting by age."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    except FileNotFoundError:
        return sys.maxsize, pid


@contextlib.contextmanager
def watched(*pids: int) -> Iterator[Callable[[], None]]:
    """Take hold of processes before they are ended; call what it gives to wait until all are gone."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for pid in pids:
            fd = os.pidfd_open(pid)
            stack.callback(os.close, fd)
            descriptors.append(fd)

        def wait() -> None:
            for fd in descriptors:
                readable, _, _ = select.select([fd], [], [], AWAIT_SECONDS_MAX)
                assert readable, "a process lives on"

        yield wait


def serve_briefly(
    *words: str, environment: Mapping[str, str] | None = None, prefix: list[str] | None = None
) -> tuple[int, str, str]:
    """Run `ostraka serve` where it is expected to end by itself: its status, output and errors."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OSTRAKA_")} | dict(environment or {})
    command = [*(prefix or []), sys.executable, "-P", "-m", "ostraka", "serve", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def raw(address: tuple[str, int]) -> socket.socket:
    """A TCP connection."""
    return socket.create_connection(address, timeout=60)
