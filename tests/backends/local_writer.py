"""A process that a test kills: it works on a local backend without pause and prints what was acknowledged.

python local_writer.py count|stream|upload ROOT NAME
"""

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import AsyncIterator

from ostraka.backends import LocalBackend
from ostraka.errors import PreconditionFailed

UPLOAD_SIZE = 12_000_000
PIECE = 100_000


def body_of(name: str, number: int) -> bytes:
    """What the writer of that name wrote as its so-and-so-many-th: it says so itself, and by its length and hash."""
    rng = random.Random(f"{name}/{number}")
    rest = rng.randbytes(rng.choice([0, 100, 70_000, 1_500_000]))
    return b"%s %d %s " % (name.encode(), number, hashlib.sha256(rest).hexdigest().encode()) + rest


def upload_of(name: str) -> bytes:
    return random.Random(name).randbytes(UPLOAD_SIZE)


def say(line: object) -> None:
    print(line, flush=True)


async def count(backend: LocalBackend, name: str) -> None:
    while True:
        data, stat = await backend.read_with_stat("counter")
        counter = json.loads(data)
        counter["total"] += 1
        mine = counter["by"][name] = counter["by"].get(name, 0) + 1
        try:
            await backend.write_if("counter", json.dumps(counter).encode(), match=stat.etag)
        except PreconditionFailed:
            continue
        say(mine)


async def stream(backend: LocalBackend, name: str) -> None:
    number = 0
    while True:
        body = body_of(name, number)

        async def source(body: bytes = body) -> AsyncIterator[bytes]:
            for at in range(0, len(body), 300_000):
                yield body[at : at + 300_000]

        path = f"{name}/{number % 5}/deep/file"
        if number % 3:
            await backend.write_stream(path, source())
        else:
            await backend.write(path, body)
        say(number)
        number += 1


async def upload(backend: LocalBackend, name: str) -> None:
    body = upload_of(name)
    partial = await backend.partial("upload", name)
    offset = partial.length if partial else 0
    if partial:
        assert hashlib.sha256(body[:offset]).hexdigest() == partial.sha256
    say(f"from {offset}")

    async def source() -> AsyncIterator[bytes]:
        for at in range(offset, len(body), PIECE):
            yield body[at : at + PIECE]
            if at // PIECE % 10 == 0:
                say(f"at {at}")

    await backend.append("upload", name, offset, source())
    await backend.promote("upload", name, size=len(body), sha256=hashlib.sha256(body).hexdigest())
    say("published")


async def main(what: str, root: str, name: str) -> None:
    async with LocalBackend(root) as backend:
        say("ready")
        await {"count": count, "stream": stream, "upload": upload}[what](backend, name)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
