"""The limits of this machine, measured in the same run as what is compared with them.

All in units a second. None of them knows anything of Ostraka, but for the bare HTTP layer.
"""

import asyncio
import hashlib
import mmap
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

MIB = 1 << 20


def md5_rate(seconds: float) -> float:
    """Bytes a second of one MD5 on one core."""
    data, digest = os.urandom(4 * MIB), hashlib.md5(usedforsecurity=False)
    return _rate(lambda: digest.update(data), seconds) * len(data)


def sync_rate(where: Path, batch: int, size: int, seconds: float, disks: int = 1) -> float:
    """Durable appends a second: ``batch`` of ``size`` bytes in one write and fdatasync on each disk at once."""
    data = os.urandom(size * batch)
    with tempfile.TemporaryDirectory(dir=where) as made:
        files = [os.open(Path(made) / str(n), os.O_CREAT | os.O_WRONLY) for n in range(disks)]
        rates = [0.0] * disks

        def one(n: int) -> None:
            def append() -> None:
                os.write(files[n], data)
                os.fdatasync(files[n])

            rates[n] = _rate(append, seconds) * batch

        threads = [threading.Thread(target=one, args=(n,)) for n in range(disks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for fd in files:
            os.close(fd)
        return min(rates)


def disk_rates(where: Path, size: int) -> tuple[float, float]:
    """Bytes a second of sequential O_DIRECT writes (and one fdatasync) and reads, 4 MiB at a time."""
    step = 4 * MIB
    buffer = mmap.mmap(-1, step)
    buffer.write(os.urandom(step))
    with tempfile.TemporaryDirectory(dir=where) as made:
        path = Path(made) / "direct"
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        try:
            began = time.perf_counter()
            for offset in range(0, size, step):
                os.pwrite(fd, buffer, offset)
            os.fdatasync(fd)
            written = size / (time.perf_counter() - began)
            began = time.perf_counter()
            for offset in range(0, size, step):
                os.preadv(fd, [buffer], offset)
            return written, size / (time.perf_counter() - began)
        finally:
            os.close(fd)


def cached_read_rate(where: Path, size: int) -> float:
    """Bytes a second out of the page cache, 1 MiB at a time, into one buffer."""
    with tempfile.TemporaryFile(dir=where) as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        view = bytearray(MIB)
        began = time.perf_counter()
        for offset in range(0, size, MIB):
            os.preadv(file.fileno(), [view], offset)
        return size / (time.perf_counter() - began)


def loopback_rate(size: int) -> float:
    """Bytes a second through one TCP connection between two processes."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    sender = multiprocessing.get_context("fork").Process(target=_send, args=(port, size), daemon=True)
    sender.start()
    connection, _ = listening.accept()
    with listening, connection:
        view, got, began = bytearray(MIB), 0, time.perf_counter()
        while got < size:
            got += connection.recv_into(view)
        seconds = time.perf_counter() - began
    sender.join()
    return size / seconds


def _send(port: int, size: int) -> None:
    data = bytes(MIB)
    with socket.create_connection(("127.0.0.1", port)) as s:
        for _ in range(size // MIB):
            s.sendall(data)


@contextmanager
def bare_http(size: int) -> Iterator[tuple[str, int]]:
    """Ostraka's HTTP layer alone, in a process of its own, answering every request with ``size`` bytes: what is left
    of a GET when nothing is looked up, and of a PUT when nothing is stored. Yields (url, pid)."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve_bare, args=(theirs, size), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield f"http://127.0.0.1:{ours.recv()}", process.pid
    finally:
        process.terminate()
        process.join()


def _serve_bare(pipe: Connection, size: int) -> None:
    import uvloop

    from ostraka.http import Request, Response, Server, bind

    os.setpgid(0, 0)
    body = bytes(size)

    async def handler(request: Request) -> Response:
        if request.body.length:
            request.body.read_now()
            return Response(200, [("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')])
        return Response(200, [("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')], body)

    async def main() -> None:
        server = Server(handler)
        sock = bind("127.0.0.1", 0)
        await server.start([sock])
        pipe.send(sock.getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(main())


def _rate(call: Callable[[], object], seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while True:
        call()
        count += 1
        spent = time.perf_counter() - began
        if spent >= seconds:
            return count / spent
