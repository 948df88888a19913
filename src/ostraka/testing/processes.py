"""A real server in a process of its own, and clients for it.

For tests of what only a real process shows: start-up, signals, ``kill -9``, a store that outlives its server::

    with ServerProcess([tmp / "a", tmp / "b"]) as server:
        s3 = server.client()
        s3.create_bucket(Bucket="b")
        server.kill9()
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

LOG_LINES_MAX = 20_000


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago. Prefer port 0 where the server can tell."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class ServerFailed(Exception):
    """The server ended before it was ready, or did not become ready in time. The message carries its log."""


class ServerProcess:
    """``ostraka serve`` over these directories, ready when the context opens (or ``start`` returns).

    Credentials are made up unless given, and handed over in the environment. ``environment`` is added to ours, from
    which every ``OSTRAKA_*`` setting was taken out. The server leads a process group of its own, so that ``kill9``
    ends its workers with it. May be started again after it ended; ``url`` then changes with the port.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *arguments: str,
        access_key: str = "",
        secret_key: str = "",
        environment: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1:0",
        ready_seconds: float = 60.0,
    ) -> None:
        self.command = [sys.executable, "-P", "-m", "ostraka", "serve", *map(str, directories)]
        self.command += ["--listen", listen, "--json", *arguments]
        self.access_key = access_key or f"test{secrets.token_hex(6)}"
        self.secret_key = secret_key or secrets.token_hex(20)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("OSTRAKA_")}
        self.environment["OSTRAKA_ROOT_ACCESS_KEY"] = self.access_key
        self.environment["OSTRAKA_ROOT_SECRET_KEY"] = self.secret_key
        self.environment.update(environment or {})
        self.ready_seconds = ready_seconds
        self.url = ""
        self.greeting: dict[str, Any] = {}
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    # -- its life

    def start(self) -> Self:
        """Start, and wait for the line that tells the URL. Raises ServerFailed with the log."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        self.log = []
        process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            self._readers = [self._read(process.stderr)]
            self._await_ready(process)
        except BaseException:  # Ctrl-C too: nobody else would end it
            self.kill9()
            raise
        return self

    def _await_ready(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        late = threading.Timer(self.ready_seconds, self._signal_group, [signal.SIGKILL])  # ends the wait below
        late.start()
        try:
            line = process.stdout.readline()
        finally:
            late.cancel()
        self._readers.append(self._read(process.stdout))
        try:
            self.greeting = json.loads(line)
            self.url = self.greeting["url"]
        except (ValueError, KeyError) as e:
            self.kill9()
            raise ServerFailed(self._why_not(process.returncode)) from e

    def _why_not(self, status: int) -> str:
        """One line that says why it did not become ready; its log, if there is more to it."""
        log = self.log_text()
        said = [line for line in log.splitlines() if line.startswith("ostraka: ")]
        if said:
            why = said[-1].removeprefix("ostraka: ")
        else:
            timed_out = status == -signal.SIGKILL
            why = f"not ready after {self.ready_seconds:g} s" if timed_out else f"not ready, ended with {status}"
        more = f"; its log:\n{log}" if log.strip() not in ("", *said) else ""
        return f"ostraka serve: {why}{more}"

    def kill9(self) -> None:
        """SIGKILL to the server and all its workers; returns when they are gone. Harmless if it ended already."""
        self._signal_group(signal.SIGKILL)
        self._reap()

    def terminate(self, seconds: float = 60.0) -> int:
        """SIGTERM, and wait for the drain; returns the exit status. Raises ServerFailed if it does not end."""
        process = self._process
        assert process is not None, "it was never started"
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired as e:
            self.kill9()
            raise ServerFailed(f"did not end within {seconds} s of SIGTERM; its log:\n{self.log_text()}") from e
        self._signal_group(signal.SIGKILL)  # a worker that it forgot
        self._reap()
        return process.returncode

    def wait(self, seconds: float) -> int:
        """Wait until it ends by itself; returns the exit status."""
        assert self._process is not None, "it was never started"
        return self._process.wait(seconds)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was never started"
        return self._process.pid

    def log_text(self) -> str:
        """What it wrote to standard error so far, and to standard output after its first line."""
        return "".join(self.log)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill9()
            error.add_note(f"the server's log ends with:\n{''.join(self.log[-60:])}")
        elif self.running:
            self.terminate()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        for reader in self._readers:
            reader.join()  # the streams end when the last worker is gone

    def _read(self, stream: IO[str]) -> threading.Thread:
        """Keep what comes, so that no pipe fills up."""

        def run() -> None:
            with stream:
                for line in stream:
                    self.log.append(line)
                    if len(self.log) > LOG_LINES_MAX:
                        del self.log[: LOG_LINES_MAX // 2]

        reader = threading.Thread(target=run, daemon=True)
        reader.start()
        return reader

    # -- its clients

    def client(self, **config: Any) -> Any:
        """A boto3 S3 client of the root account; ``config`` is botocore's Config."""
        return s3_client(self.url, self.access_key, self.secret_key, **config)


def s3_client(
    url: str,
    access_key: str,
    secret_key: str,
    *,
    session_token: str | None = None,
    region: str = "us-east-1",
    verify: bool | str = True,
    **config: Any,
) -> Any:
    """A boto3 S3 client for an endpoint. Path-style and without retries unless ``config`` says otherwise.

    A test wants the first answer, not the third; give ``retries=...`` to test retrying. ``verify``: False, or the
    path of a certificate, for HTTPS.
    """
    import boto3
    from botocore.config import Config

    settings: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": 1},
        "connect_timeout": 10,
        "read_timeout": 60,
    }
    return boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=session_token,
        region_name=region,
        verify=verify,
        config=Config(**(settings | config)),
    )
