"""Listing a whole bucket, page after page, and seeing that every key came once and in order."""

import multiprocessing
import re
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from load.signing import Signer
from load.target import BUCKET
from load.wrk import WrongAnswers

_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_HEAD_MAX = 1 << 16


def list_all(host: str, port: int, ranges: Sequence[tuple[str, str]]) -> tuple[int, float]:
    """List each range (after, up to and with) by a client of its own, all at once: (keys, seconds)."""
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    began = time.monotonic()
    for after, last in ranges:
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_client, args=(host, port, after, last, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    total = 0
    for pipe in pipes:
        count, wrong = pipe.recv()
        if wrong:
            raise WrongAnswers(wrong)
        total += count
    seconds = time.monotonic() - began
    for process in processes:
        process.join()
    return total, seconds


def _client(host: str, port: int, after: str, last: str, pipe: Connection) -> None:
    signer, path = Signer(host, port), f"/{BUCKET}"
    until, previous, count, wrong = last.encode(), after.encode(), 0, ""
    with socket.create_connection((host, port)) as s:
        while not wrong:
            query = "list-type=2&max-keys=1000&start-after=" + previous.decode().replace("/", "%2F")
            s.sendall(signer.head("GET", path, query))
            status, page = _answer(s)
            keys = _KEY.findall(page)
            if status != 200 or any(a >= b for a, b in zip([previous, *keys], keys, strict=False)):
                wrong = f"LIST: {status} {page[:300]!r}"
            inside = [k for k in keys if not until or k <= until]
            count += len(inside)
            if len(inside) < 1000 or inside[-1] == until:
                break
            previous = keys[-1]
    pipe.send((count, wrong))


def _answer(s: socket.socket) -> tuple[int, bytes]:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = s.recv(1 << 18)
        if not more or len(data) > _HEAD_MAX << 4:
            raise WrongAnswers("LIST: the connection ended")
        data += more
    head = bytes(data[:end]).lower()
    found = re.search(rb"content-length: *(\d+)", head)
    assert found is not None, head
    total = end + 4 + int(found[1])
    while len(data) < total:
        more = s.recv(total - len(data))
        if not more:
            raise WrongAnswers("LIST: the connection ended")
        data += more
    return int(head.split()[1]), bytes(data[end + 4 :])
