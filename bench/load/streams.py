"""Clients of large bodies: a process each, plain sockets, one buffer, so that they take little of the machine.

All clients make their body ready, meet at a barrier, and send or receive; the clock runs from the first that leaves the
barrier to the last byte of the last. No body is ever sent twice, since a store that deduplicates would not store it
again.
"""

import hashlib
import json
import mmap
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from load.signing import UNSIGNED, Signer
from load.wrk import WrongAnswers

KIB, MIB = 1 << 10, 1 << 20
STAMP_EVERY = 4 * KIB


@dataclass(frozen=True)
class Job:
    """What one client does once. ``content`` and ``seed`` decide the bytes, of a PUT and of the GET that checks it."""

    method: str
    path: str
    size: int
    content: str  # "random" or "text"
    seed: int
    signed: bool = True


def make_body(size: int, content: str, seed: int) -> mmap.mmap:
    """Bytes that no other seed makes, on pages of their own."""
    body = mmap.mmap(-1, size)
    chosen = random.Random(seed)
    if content == "random":
        block = chosen.randbytes(MIB)
    else:
        lines = []
        for _ in range(MIB // 100):
            status, spent = chosen.choice((200, 200, 206, 304, 404)), chosen.random() * 100
            record = {"time": chosen.randrange(10**9), "peer": f"10.0.{chosen.randrange(256)}.{chosen.randrange(256)}"}
            lines.append(json.dumps({**record, "operation": "GetObject", "status": status, "seconds": spent}))
        block = "\n".join(lines).encode()[:MIB]
        block = block.ljust(MIB, b"\n")
    for at in range(0, size, MIB):
        body[at : at + MIB] = block[: min(MIB, size - at)]
    for at in range(0, size - 16, STAMP_EVERY):  # no two pieces alike, whatever the cut
        body[at : at + 16] = b"%08x%08x" % (seed & 0xFFFFFFFF, at // STAMP_EVERY)
    return body


def run(host: str, port: int, jobs: Sequence[Job]) -> float:
    """Do the jobs at the same time; returns seconds. Raises WrongAnswers for any answer that is not the right one."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(len(jobs) + 1)
    pipes, processes = [], []
    for job in jobs:
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_client, args=(host, port, job, barrier, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        barrier.wait(120)
        begins, ends = list[float](), list[float]()
        for pipe in pipes:
            try:
                begin, end, wrong = pipe.recv()
            except EOFError:
                raise WrongAnswers("a client of large bodies died") from None
            if wrong:
                raise WrongAnswers(wrong)
            begins.append(begin)
            ends.append(end)
        return max(ends) - min(begins)  # not by this process's clock: it may leave the barrier last
    finally:
        for process in processes:
            process.join(60)


def _client(host: str, port: int, job: Job, barrier: Barrier, pipe: Connection) -> None:
    body = memoryview(make_body(job.size, job.content, job.seed))
    signer = Signer(host, port)
    digest = hashlib.sha256(body).hexdigest() if job.signed and job.method == "PUT" else UNSIGNED
    etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    into = memoryview(mmap.mmap(-1, job.size + 64 * KIB))
    if job.method == "GET":
        for at in range(0, len(into), 4096):
            into[at] = 0  # the pages are there before the clock runs
    length = job.size if job.method == "PUT" else None
    head = signer.head(job.method, job.path, length=length, digest=digest)
    with socket.create_connection((host, port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        barrier.wait(120)
        begin = time.monotonic()
        try:
            s.sendall(head)
            if job.method == "PUT":
                s.sendall(body)
                got, status, headers, _ = _receive(s, into, 0)
                end = time.monotonic()
                wrong = "" if status == 200 and headers.get("etag") == etag else f"PUT: {status} {headers}"
            else:
                got, status, headers, start = _receive(s, into, job.size)
                end = time.monotonic()
                same = got == start + job.size and into[start:got] == body
                wrong = "" if status == 200 and headers.get("etag") == etag and same else f"GET: {status} {headers}"
        except OSError as error:
            end, wrong = time.monotonic(), f"{job.method}: {error}"
    pipe.send((begin, end, wrong))


def _receive(s: socket.socket, into: memoryview, size: int) -> tuple[int, int, dict[str, str], int]:
    """(bytes received, status, headers, where the body begins)."""
    got, start = 0, -1
    status, headers = 0, dict[str, str]()
    while start < 0 or got < start + size:
        count = s.recv_into(into[got : got + 4 * MIB])
        if not count:
            break
        got += count
        if start < 0:
            found = bytes(into[: min(got, 16 * KIB)]).find(b"\r\n\r\n")
            if found >= 0:
                start = found + 4
                lines = bytes(into[:found]).decode("latin-1").split("\r\n")
                status = int(lines[0].split()[1])
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
                if status >= 300:
                    break
    return got, status, headers, start


def new_seed() -> int:
    """Of a body that was never sent before, in this run or another."""
    return int.from_bytes(os.urandom(4), "big")
