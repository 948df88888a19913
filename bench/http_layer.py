"""The HTTP layer alone: requests a second for tiny GETs and 4 KiB PUTs, and MB/s into a sink and out of a source.

    python bench/http_layer.py [--seconds 3] [--only NAME] [--profile]

The server runs pinned to core 0 in a process of its own, wrk (tiny requests) or a plain socket (streams) on core 1.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection

import uvloop

from ostraka.http import Request, Response, Server, bind

SINK_VIEW_SIZE = 1 << 20
STREAM_SIZE = 1 << 30
_PIECE = memoryview(bytearray(1 << 20))


async def _pieces(size: int) -> AsyncIterator[memoryview]:
    while size > 0:
        yield _PIECE[: min(size, len(_PIECE))]
        size -= len(_PIECE)


async def handler(request: Request) -> Response:
    if request.method == "PUT":
        data = request.body.read_now()
        if data is None:
            view = memoryview(bytearray(SINK_VIEW_SIZE))
            while await request.body.fill(view):
                pass
        return Response(200, [("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')])
    if request.raw_path == b"/stream":
        return Response(200, [], _pieces(STREAM_SIZE), length=STREAM_SIZE)
    return Response(200, [("ETag", '"d41d8cd98f00b204e9800998ecf8427e"'), ("Content-Type", "text/plain")], b"hello")


def serve(pipe: Connection, profile: bool) -> None:
    os.sched_setaffinity(0, {0})

    async def main() -> None:
        server = Server(handler)
        sock = bind("127.0.0.1", 0)
        pipe.send(sock.getsockname()[1])
        await server.start([sock])
        stop = asyncio.get_running_loop().create_future()

        def command() -> None:
            if pipe.recv() == "stop":
                stop.set_result(None)
            else:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                pipe.send(usage.ru_utime + usage.ru_stime)

        asyncio.get_running_loop().add_reader(pipe.fileno(), command)
        await stop
        await server.drain(1.0)

    if profile:
        import cProfile
        import pstats

        with cProfile.Profile() as p:
            uvloop.run(main())
        pstats.Stats(p).sort_stats("tottime").print_stats(25)
    else:
        uvloop.run(main())


def cpu(pipe: Connection) -> float:
    pipe.send("cpu")
    return float(pipe.recv())


def wrk(name: str, port: int, seconds: float, pipe: Connection, script: str = "") -> None:
    before = cpu(pipe)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{int(seconds)}s", "-s", lua.name]
        out = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/b/k"], capture_output=True, text=True, check=True
        ).stdout
    match = re.search(r"Requests/sec:\s*([0-9.]+)", out)
    total = re.search(r"(\d+) requests in", out)
    if match is None or total is None or "Non-2xx" in out or "Socket errors" in out:
        sys.exit(out)
    micros = (cpu(pipe) - before) / int(total[1]) * 1e6
    print(f"{name:24} {float(match[1]):10.0f} requests/s   {micros:5.1f} us of CPU each")


def stream(name: str, port: int, pipe: Connection, *, upload: bool) -> None:
    before, start = cpu(pipe), time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as s:
        if upload:
            s.sendall(b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % STREAM_SIZE)
            for _ in range(STREAM_SIZE // len(_PIECE)):
                s.sendall(_PIECE)
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        else:
            s.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            into, count = memoryview(bytearray(1 << 20)), 0
            while n := s.recv_into(into):
                count += n
            assert count > STREAM_SIZE
    seconds = time.perf_counter() - start
    print(f"{name:24} {STREAM_SIZE / seconds / 1e6:10.0f} MB/s         {cpu(pipe) - before:5.2f} s of CPU a GiB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument(
        "--profile", action="store_true", help="run the server under cProfile (figures are then worthless)"
    )
    options.add_argument("--only", default="", help="run what has this in its name")
    chosen = options.parse_args()
    pipe, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, chosen.profile))
    server.start()
    port = int(pipe.recv())
    os.sched_setaffinity(0, {1})
    put = 'wrk.method = "PUT"\nwrk.body = string.rep("x", 4096)\n'
    headers = "".join(f'wrk.headers["x-amz-h{i}"] = "value-{i}-0123456789abcdef"\n' for i in range(8))
    try:
        if shutil.which("wrk") is None:
            sys.exit("wrk is not installed")
        for name, script in (("tiny GET", ""), ("tiny GET, 8 more fields", headers), ("4 KiB PUT", put)):
            if chosen.only in name:
                wrk(name, port, chosen.seconds, pipe, script)
        for name, upload in (("sink, one PUT", True), ("source, one GET", False)):
            for _ in range(3):
                if chosen.only in name:
                    stream(name, port, pipe, upload=upload)
    finally:
        pipe.send("stop")
        server.join(5)
        server.kill()


if __name__ == "__main__":
    main()
