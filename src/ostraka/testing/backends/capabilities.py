"""Cases: what a backend says of itself, and the capabilities that need no more than a few lines each."""

import asyncio
import json
import urllib.request

from ostraka.backends import Backend, Capability, Copies, Presigns, from_config, known_types, require
from ostraka.backends.backend import PROTOCOLS
from ostraka.errors import Absent, Invalid, PreconditionFailed
from ostraka.testing.backends.case import Case, collector, content, holds, refused, same, shown_missing, stat_of

CASES: list[Case] = []
case = collector(CASES)


@case()
async def what_is_claimed_is_there_and_nothing_else(backend: Backend) -> None:
    for capability, protocol in PROTOCOLS.items():
        if capability in backend.capabilities:
            holds(require(backend, protocol) is backend, f"{backend.type} is {protocol.__name__}")
        else:
            await shown_missing(backend, capability)


@case()
async def its_configuration_makes_it_again(backend: Backend) -> None:
    config = backend.to_config()
    same(config.get("type"), backend.type, "the type in the configuration")
    holds(backend.type in known_types(), f"{backend.type} is known to from_config")
    told = json.loads(json.dumps(config))
    same(told, config, "the configuration after JSON")
    await backend.write("a", b"shared")
    async with from_config(told) as again:
        same(again.to_config(), config, "the configuration of what it made")
        same(again.capabilities, backend.capabilities, "the capabilities of what it made")
        if await again.exists("a"):  # all but a memory
            same(await again.read("a"), b"shared", "what the other one sees")
            await again.write("a", b"by the other")
            same(await backend.read("a"), b"by the other", "what the other one wrote")
        else:
            same(backend.type, "memory", "the one type that shares nothing")
    with refused(Invalid, "config", what="an unknown field"):
        from_config({**config, "no such field": 1})


@case(Capability.COPY)
async def a_copy_is_its_own(backend: Backend) -> None:
    copies = require(backend, Copies)
    data = content(3_000_000)
    await backend.write("a/b", data)
    etag = await copies.copy("a/b", "c/d")
    same((await stat_of(backend, "c/d")).etag, etag, "the copy's ETag")
    await backend.write("a/b", b"changed")
    same(await backend.read("c/d"), data, "the copy")
    with refused(PreconditionFailed, "exists"):
        await copies.copy("a/b", "c/d", if_absent=True)
    same(await backend.read("c/d"), data, "what was there and should stay")
    await copies.copy("a/b", "c/d")
    same(await backend.read("c/d"), b"changed", "what was replaced")
    await copies.copy("a/b", "e", if_absent=True)
    same(await backend.read("e"), b"changed", "a copy to where nothing was")
    with refused(Absent, "path", what="a copy of nothing"):
        await copies.copy("nothing", "f")
    same(await backend.stat("f"), None, "a copy of nothing")
    for source, target in (("../a", "b"), ("a/b", "../b")):
        with refused(Invalid, "path"):
            await copies.copy(source, target)


@case(Capability.PRESIGN)
async def a_presigned_url_does_its_one_thing(backend: Backend) -> None:
    presigns = require(backend, Presigns)
    await backend.write("a b/ü", b"for whoever has the URL")
    url = await presigns.presign("a b/ü", seconds=60)
    same(await asyncio.to_thread(_fetch, url), b"for whoever has the URL", "what the URL gave")
    url = await presigns.presign("a b/ü", method="PUT", seconds=60)
    await asyncio.to_thread(_fetch, url, b"by whoever had the URL")
    same(await backend.read("a b/ü"), b"by whoever had the URL", "what the URL took")
    with refused(Invalid, "path"):
        await presigns.presign("../a")


def _fetch(url: str, body: bytes | None = None) -> bytes:
    headers = {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream"}  # the first Azure demands
    request = urllib.request.Request(url, body, headers if body is not None else {})
    request.method = "GET" if body is None else "PUT"
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())
