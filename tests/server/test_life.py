"""A server's processes are ended in every way, and nothing that was acknowledged is lost."""

import contextlib
import hashlib
import http.client
import itertools
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from server_processes import Served, until, watched

pytestmark = pytest.mark.timeout(300)
SIZES = [0, 100, 2048, 2049, 40_000, 131_072, 131_073, 1_000_000]  # either side of every threshold
WRITERS = 3


class Writing:
    """Clients that write, delete and read without pause, and remember what they were promised."""

    def __init__(self, server: Served, seed: int) -> None:
        self._server = server
        self._ended = threading.Event()
        self.promised: dict[str, str | None] = {}  # key to SHA-256; None: deleted
        self.answers = 0
        self.failures: list[str] = []
        self.wrong: list[str] = []
        server.client().create_bucket(Bucket="written")
        self._threads = [threading.Thread(target=self._write, args=(n, seed + n)) for n in range(WRITERS)]

    def __enter__(self) -> "Writing":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for that many more acknowledgements."""
        wanted = self.answers + count
        until(lambda: self.answers >= wanted, f"{count} more answers (failures: {self.failures[-3:]})")

    def _write(self, number: int, seed: int) -> None:
        rng = random.Random(seed)
        client = self._server.client()
        for turn in itertools.count():
            if self._ended.is_set():
                return
            key = f"{number}/{turn if turn % 3 else rng.randrange(turn + 1)}"
            body = rng.randbytes(rng.choice(SIZES))
            self.promised.pop(key, None)  # in flight: either outcome is allowed
            try:
                if turn % 7 == 6:
                    client.delete_object(Bucket="written", Key=key)
                    self.promised[key] = None
                else:
                    client.put_object(Bucket="written", Key=key, Body=body)
                    self.promised[key] = hashlib.sha256(body).hexdigest()
                    got = client.get_object(Bucket="written", Key=key)["Body"].read()
                    if got != body:
                        self.wrong.append(f"{key}: {len(got)} bytes instead of {len(body)}")
                self.answers += 1
            except (BotoCoreError, ClientError, OSError, http.client.HTTPException) as e:
                self.failures.append(f"{key}: {e}")

    def verify(self) -> None:
        """Every promise, as the server keeps it now; LIST equals GET."""
        assert self.wrong == []
        client = self._server.client()
        for key, digest in self.promised.items():
            if digest is None:
                with pytest.raises(client.exceptions.NoSuchKey):
                    client.get_object(Bucket="written", Key=key)
            else:
                body = client.get_object(Bucket="written", Key=key)["Body"].read()
                assert hashlib.sha256(body).hexdigest() == digest, key
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="written")
        listed = {o["Key"] for page in pages for o in page.get("Contents", [])}
        assert {k for k, d in self.promised.items() if d} <= listed
        assert not {k for k, d in self.promised.items() if d is None} & listed


@contextlib.contextmanager
def uploading(server: Served, key: str, size: int) -> Iterator[socket.socket]:
    """A PUT of which the head and half of the body are sent."""
    url = server.client(signature_version="s3").generate_presigned_url("put_object", {"Bucket": "slow", "Key": key})
    target = url.removeprefix(server.url)
    with socket.create_connection(server.address, timeout=60) as sock:
        head = f"PUT {target} HTTP/1.1\r\nHost: {':'.join(map(str, server.address))}\r\nContent-Length: {size}\r\n\r\n"
        sock.sendall(head.encode() + b"a" * (size // 2))
        yield sock


def answer_of(sock: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return b"".join(iter(lambda: sock.recv(65536), b""))
    return b""


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_finishes_what_is_under_way_takes_nothing_new_and_ends_with_0(tmp_path: Path) -> None:
    size = 3_000_001
    with Served(tmp_path) as server:
        server.client().create_bucket(Bucket="slow")
        children = server.children()
        with uploading(server, "finished", size) as slow, watched(*children) as gone:
            kept = http.client.HTTPConnection(*server.address, timeout=30)
            kept.request("GET", "/-/health/live")
            kept.getresponse().read()
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: refuses(server.address), "new connections are refused")
            assert kept.sock is None or kept.sock.recv(1) == b"", "an idle connection was kept"
            slow.sendall(b"a" * (size - size // 2))
            assert answer_of(slow).startswith(b"HTTP/1.1 200 ")
            assert server.wait(60) == 0
            gone()
    assert [line for line in server.log if '"error"' in line] == []
    with server:
        body = server.client().get_object(Bucket="slow", Key="finished")["Body"].read()
        assert body == b"a" * size


def test_ctrl_c_on_a_terminal_which_goes_to_every_process_ends_it_the_same_way(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        server.client().create_bucket(Bucket="slow")
        with uploading(server, "finished", 300_000) as slow:
            os.killpg(server.pid, signal.SIGINT)
            until(lambda: refuses(server.address), "new connections are refused")
            slow.sendall(b"a" * 150_000)
            assert answer_of(slow).startswith(b"HTTP/1.1 200 ")
        assert server.wait(60) == 0
    assert "Traceback" not in server.log_text()
    assert [line for line in server.log if '"error"' in line] == []


def kill_and_await_another(server: Served, victim: int) -> None:
    """SIGKILL to one child; returns when another has taken its place, and only its place."""
    before = set(server.children())

    def replaced() -> bool:
        now = set(server.children())
        return victim not in now and len(now) == len(before)

    os.kill(victim, signal.SIGKILL)
    until(replaced, "it is replaced")
    assert before - set(server.children()) == {victim}


def test_a_worker_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    with Served(tmp_path) as server:
        with Writing(server, seed) as writing:
            for turn in range(4):
                writing.more(25)
                kill_and_await_another(server, server.workers[turn % 2])
            writing.more(25)
        assert len(writing.failures) <= 4 * WRITERS, "more failed than was in flight"
        writing.verify()
        assert server.get("/-/health/ready")[0] == 200
    with server:
        writing.verify()


def test_the_owner_that_is_killed_is_replaced_while_workers_serve_on(tmp_path: Path, seed: int) -> None:
    with Served(tmp_path) as server:
        workers = set(server.workers)
        with Writing(server, seed) as writing:
            for _ in range(2):
                writing.more(25)
                (owner,) = set(server.children()) - workers
                kill_and_await_another(server, owner)
            writing.more(25)
        assert writing.failures == []
        writing.verify()


@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGSEGV])
def test_after_a_memory_fault_the_store_is_recovered_and_served_again(
    number: signal.Signals, tmp_path: Path, seed: int
) -> None:
    with Served(tmp_path) as server:
        with Writing(server, seed) as writing:
            writing.more(40)
            before = server.children()
            with watched(*before) as gone:
                os.kill(server.workers[0], number)
                gone()
            server.until_ready()
            writing.more(40)
        assert not set(before) & set(server.children())
        assert "is recovered before it is served again" in server.log_text()
        writing.verify()
        assert server.terminate() == 0


def test_children_end_when_their_supervisor_alone_is_killed_and_the_store_starts_again(
    tmp_path: Path, seed: int
) -> None:
    with Served(tmp_path) as server:
        with Writing(server, seed) as writing:
            writing.more(40)
            with watched(*server.children()) as gone:
                os.kill(server.pid, signal.SIGKILL)
                gone()
        server.kill9()
        server.start()
        writing.verify()


def test_a_kill_of_everything_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    with Served(tmp_path) as server:
        with Writing(server, seed) as writing:
            writing.more(60)
            server.kill9()
        server.start()
        writing.verify()


def test_a_client_that_leaves_in_the_middle_stores_nothing(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        client = server.client()
        client.create_bucket(Bucket="slow")
        with uploading(server, "left", 3_000_000):
            pass
        until(lambda: b'"left"' in server.access_log.read_bytes(), "it is logged")
        assert "Contents" not in client.list_objects_v2(Bucket="slow")


def test_commands_reach_the_serving_process_through_a_socket_for_its_owner_alone(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        server.client().create_bucket(Bucket="b-1")
        assert (server.store / "control.sock").stat().st_mode & 0o777 == 0o600
        command = [*server.command[: server.command.index("serve")], "fsck", str(server.store)]
        done = subprocess.run(command, env=server.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert " 0 findings" in done.stdout
