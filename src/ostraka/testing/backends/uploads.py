"""Cases: uploads that are interrupted, go on, and are published only whole."""

import hashlib

from ostraka.backends import Backend, Capability, Partial, Resumes, require
from ostraka.errors import Absent, Conflict, Corrupt, Invalid
from ostraka.testing.backends.case import (
    Broken,
    Case,
    breaking,
    collector,
    content,
    listed,
    pieces,
    refused,
    same,
    stat_of,
)

CASES: list[Case] = []
case = collector(CASES)


def partial_of(data: bytes) -> Partial:
    return Partial(len(data), hashlib.sha256(data).hexdigest())


@case(Capability.RESUME)
async def an_interrupted_upload_goes_on_where_it_stopped(backend: Backend) -> None:
    uploads = require(backend, Resumes)
    data = content(2_000_000)
    wanted = partial_of(data)
    same(await uploads.partial("a/b", "t"), None, "what is there before it began")
    with refused(Broken, what="a source that breaks"):
        await uploads.append("a/b", "t", 0, breaking(data[:700_000], data[700_000:700_006]))
    same(await uploads.partial("a/b", "t"), partial_of(data[:700_006]), "what was kept of it")
    for offset in (0, 700_005, 700_007):
        with refused(Conflict, "offset", what=f"going on at {offset}"):
            await uploads.append("a/b", "t", offset, pieces(b"x"))
    with refused(Corrupt, what="a part of it, published"):
        await uploads.promote("a/b", "t", size=wanted.length, sha256=wanted.sha256)
    same(await listed(backend), [], "what can be seen of it")
    same(await backend.stat("a/b"), None, "what can be seen of it by its path")
    same(await uploads.append("a/b", "t", 700_006, pieces(data[700_006:])), len(data), "the length after that")
    etag = await uploads.promote("a/b", "t", size=wanted.length, sha256=wanted.sha256)
    same(await backend.read("a/b"), data, "what was published")
    same((await stat_of(backend, "a/b")).etag, etag, "its ETag")
    same(await uploads.partial("a/b", "t"), None, "what is left of the upload")
    same(await listed(backend), ["a/b"], "all there is")


@case(Capability.RESUME)
async def an_upload_of_other_bytes_is_never_published(backend: Backend) -> None:
    uploads = require(backend, Resumes)
    await backend.write("a", b"before")
    await uploads.append("a", "t", 0, pieces(b"123456"))
    right = hashlib.sha256(b"123456").hexdigest()
    for size, sha256 in ((6, hashlib.sha256(b"123457").hexdigest()), (5, right), (7, right)):
        with refused(Corrupt, what=f"{size} bytes of {sha256[:8]}"):
            await uploads.promote("a", "t", size=size, sha256=sha256)
    same(await backend.read("a"), b"before", "what was there before")
    same(await uploads.partial("a", "t"), partial_of(b"123456"), "what is left of the upload")
    for _ in range(2):
        await uploads.abandon("a", "t")
        same(await uploads.partial("a", "t"), None, "what was abandoned")
    with refused(Absent, "upload", what="publishing what was abandoned"):
        await uploads.promote("a", "t", size=6, sha256=right)
    with refused(Conflict, "offset", what="going on with what was abandoned"):
        await uploads.append("a", "t", 6, pieces(b"7"))
    same(await backend.read("a"), b"before", "what was there before")


@case(Capability.RESUME)
async def two_uploads_of_one_path_share_nothing(backend: Backend) -> None:
    uploads = require(backend, Resumes)
    await uploads.append("a", "one", 0, pieces(b"1111"))
    await uploads.append("a", "two", 0, pieces(b"22"))
    await uploads.append("b", "one", 0, pieces())
    same(await uploads.partial("a", "one"), partial_of(b"1111"), "one")
    same(await uploads.partial("a", "two"), partial_of(b"22"), "two")
    same(await uploads.partial("b", "one"), partial_of(b""), "one of another path")
    await uploads.promote("a", "two", size=2, sha256=partial_of(b"22").sha256)
    await uploads.promote("a", "one", size=4, sha256=partial_of(b"1111").sha256)
    same(await backend.read("a"), b"1111", "the last that was published")
    await uploads.promote("b", "one", size=0, sha256=partial_of(b"").sha256)
    same(await backend.read("b"), b"", "an upload of nothing")
    for bad in ("", "..", "a\nb"):
        with refused(Invalid, "path", what=f"a token of {bad!r}"):
            await uploads.append("a", bad, 0, pieces(b""))


@case(Capability.RESUME)
async def what_nobody_touches_is_swept(backend: Backend) -> None:
    uploads = require(backend, Resumes)
    await backend.write("a", b"kept")
    await uploads.append("a", "t", 0, pieces(b"1"))
    await uploads.append("b", "t", 0, pieces(b"2"))
    same(await uploads.sweep(3600.0), 0, "how many were swept of what is new")
    same(await uploads.partial("a", "t"), partial_of(b"1"), "what is new")
    same(await uploads.sweep(0.0), 2, "how many were swept")
    same(await uploads.partial("a", "t"), None, "what was swept")
    same(await listed(backend), ["a"], "all there is")
