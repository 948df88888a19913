"""What a program does with obstore, the Python face of Rust's object_store: conditions, parts, ranges, lists.

Credentials come from the environment.
"""

import asyncio
import hashlib
import os
import random
import urllib.request
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

MIB = 1 << 20


def connect(url, bucket):
    ca = os.environ.get("AWS_CA_BUNDLE")
    return S3Store(
        bucket,
        endpoint=url,
        copy_if_not_exists="multipart",
        client_options={"allow_http": True} | ({"root_certificate": Path(ca).read_bytes()} if ca else {}),
    )


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def refused(error, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except error:
        return
    raise AssertionError(f"{call.__name__} was not refused")


def conditions(url, bucket):
    """Who creates first has it; who updates must know what was there; a copy replaces nothing."""
    store = connect(url, bucket)
    first = obstore.put(store, "state/ü+", b"1", mode="create")
    refused(AlreadyExistsError, obstore.put, store, "state/ü+", b"other", mode="create")
    second = obstore.put(store, "state/ü+", b"2", mode={"e_tag": first["e_tag"]})
    refused(PreconditionError, obstore.put, store, "state/ü+", b"late", mode={"e_tag": first["e_tag"]})
    obstore.put(store, "state/ü+", b"3", mode={"e_tag": second["e_tag"]})
    obstore.copy(store, "state/ü+", "state/copy", overwrite=False)
    obstore.put(store, "state/ü+", b"4")
    refused(AlreadyExistsError, obstore.copy, store, "state/ü+", "state/copy", overwrite=False)
    obstore.copy(store, "state/ü+", "state/newer")
    obstore.rename(store, "state/newer", "state/renamed")
    refused(FileNotFoundError, obstore.get, store, "state/newer")
    return {"state/ü+": sha256(b"4"), "state/copy": sha256(b"3"), "state/renamed": sha256(b"4")}


async def race(url, bucket, count):
    """Many create the same object, and many copy to the same name, at once: one of each does."""
    store = connect(url, bucket)
    bodies = [f"{n}".encode() for n in range(count)]

    async def one(coroutine):
        try:
            return await coroutine or True
        except AlreadyExistsError:
            return None

    won = await asyncio.gather(*(one(obstore.put_async(store, "lock", b, mode="create")) for b in bodies))
    assert sum(w is not None for w in won) == 1, won
    winner = next(b for b, w in zip(bodies, won, strict=True) if w)
    for body in bodies:
        obstore.put(store, f"from/{body.decode()}", body)
    copies = (one(obstore.copy_async(store, f"from/{b.decode()}", "copy", overwrite=False)) for b in bodies)
    copied = await asyncio.gather(*copies)
    assert sum(c is not None for c in copied) == 1, copied
    copy = next(b for b, c in zip(bodies, copied, strict=True) if c)
    return {"lock": sha256(winner), "copy": sha256(copy)} | {f"from/{b.decode()}": sha256(b) for b in bodies}


def parts(url, bucket, seed, there):
    """A large object goes up in parts, and comes down whole, as a stream, and in ranges."""
    store = connect(url, bucket)
    content = random.Random(seed).randbytes(23 * MIB + 5)
    attributes = {"Content-Type": "application/x-test", "colour": "blau"}
    obstore.put(store, "large", content, attributes=attributes, tags={"one": "1"}, chunk_size=5 * MIB)
    with obstore.open_writer(store, "written", buffer_size=6 * MIB) as file:
        for start in range(0, len(content), MIB):
            file.write(content[start : start + MIB])
    answer = obstore.get(store, "large")
    assert {k: answer.attributes[k] for k in attributes} == attributes, answer.attributes
    with Path(there).open("wb") as file:
        for piece in answer.stream(min_chunk_size=MIB):
            file.write(piece)
    ranges = obstore.get_ranges(store, "large", starts=[0, 7 * MIB, len(content) - 3], lengths=[5, MIB, 3])
    assert [bytes(r) for r in ranges] == [content[:5], content[7 * MIB : 8 * MIB], content[-3:]]
    tail = obstore.get(store, "large", options={"range": {"suffix": 9}})
    assert bytes(tail.bytes()) == content[-9:]
    return {"large": sha256(content), "written": sha256(content)}


def lists(url, bucket, count):
    """Folders and pages of a list, links, and what is not wanted any more is deleted in one request."""
    store = connect(url, bucket)
    bodies = {f"day={n % 3}/{n:04d} +&.txt": f"{n}".encode() for n in range(count)}
    for key, body in bodies.items():
        obstore.put(store, key, body)
    listed = [meta["path"] for page in obstore.list(store, chunk_size=40) for meta in page]
    assert listed == sorted(bodies)
    after = obstore.list(store, "day=1", offset="day=1/0040 +&.txt").collect()
    assert [m["path"] for m in after] == [k for k in sorted(bodies) if "day=1/0040 +&.txt" < k < "day=2"]
    folders = obstore.list_with_delimiter(store)
    assert (folders["common_prefixes"], list(folders["objects"])) == (["day=0", "day=1", "day=2"], [])
    link = obstore.sign(store, "GET", "day=0/0003 +&.txt", timedelta(minutes=5))
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"3"
    gone = [k for k in bodies if k.startswith("day=2/")]
    obstore.delete(store, gone)
    return {k: sha256(b) for k, b in bodies.items() if k not in gone}
