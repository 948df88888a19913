"""Stores through the bare libraries beneath a backend: the same requests and signatures, and no more.

All answer to `inside.Place`. pyreqwest is what our backends speak HTTP with; obstore (of .venv-data, if it is there) is
a store of its own make. One GET a body, one PUT a body, both in memory.
"""

import asyncio
import base64
import hashlib
import secrets
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pyreqwest.client import Client, ClientBuilder

from load.inside import Files
from load.signing import ACCESS, SECRET
from load.target import ROOT, STOP_SECONDS_MAX, clean_environment
from load.wrk import WrongAnswers
from ostraka.backends import Backend
from ostraka.backends.azure import signing as azure_signing
from ostraka.backends.azure.signing import VERSION, Access
from ostraka.sigv4 import EMPTY_SHA256, Keys, Scope, signed_headers
from ostraka.testing.processes import free_port

KEYS = Keys(ACCESS, SECRET)
READ_BYTES = 1 << 20  # asked for at once
SMALL_HASH = 1 << 16  # a thread would cost more than the hash


class ThreadedFiles(Files):
    """Plain files, with a thread for reads as well: who serves others in one loop cannot wait for a disk in it."""

    async def get(self, key: str) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, key)


class Through:
    """A backend of ours."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def put(self, key: str, body: bytes) -> object:
        return await self._backend.write(key, body)

    async def get(self, key: str) -> bytes:
        return await self._backend.read(key)


class _Requests:
    """What the bare clients share."""

    def __init__(self) -> None:
        builder = ClientBuilder().gzip(False).brotli(False).zstd(False).deflate(False)
        self._client: Client = builder.max_connections(64).build()

    async def ask(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
        request = self._client.request(method, url).headers(headers)
        request = (request.body_bytes(body) if body else request).streamed_read_buffer_limit(2 * READ_BYTES)
        async with request.build_streamed() as answer:
            pieces = []
            while piece := await answer.body_reader.read(READ_BYTES):
                pieces.append(piece)
        if not 200 <= answer.status < 300:
            raise WrongAnswers(f"{method}: {answer.status}")
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    async def close(self) -> None:
        await self._client.close()


class BareS3(_Requests):
    """Signed requests to a bucket."""

    def __init__(self, url: str, bucket: str, keys: Keys) -> None:
        super().__init__()
        self._url, self._host, self._bucket = url, urlsplit(url).netloc, bucket
        self._keys, self._scope = keys, Scope("us-east-1")

    def _signed(self, method: str, path: str, digest: str) -> dict[str, str]:
        host = {"host": self._host}
        return signed_headers(self._keys, self._scope, time.time(), method, path, "", host, digest)

    async def put(self, key: str, body: bytes) -> object:
        path = f"/{self._bucket}/{key}"
        digest = _sha256(body) if len(body) < SMALL_HASH else await asyncio.to_thread(_sha256, body)
        return await self.ask("PUT", self._url + path, self._signed("PUT", path, digest), body)

    async def get(self, key: str) -> bytes:
        path = f"/{self._bucket}/{key}"
        return await self.ask("GET", self._url + path, self._signed("GET", path, EMPTY_SHA256))


class BareAzure(_Requests):
    """Signed requests to a container."""

    def __init__(self, access: Access, container: str) -> None:
        super().__init__()
        self._access, self._container = access, container

    async def _ask(self, method: str, key: str, headers: dict[str, str], body: bytes = b"") -> bytes:
        access, below = self._access, f"/{self._container}/{key}"
        path = urlsplit(access.endpoint).path + below
        given = {"x-ms-version": VERSION, **headers}
        signed = azure_signing.signed_headers(access, time.time(), method, path, {}, given, len(body))
        return await self.ask(method, access.endpoint + below, signed, body)

    async def put(self, key: str, body: bytes) -> object:
        return await self._ask("PUT", key, {"x-ms-blob-type": "BlockBlob"}, body)

    async def get(self, key: str) -> bytes:
        return await self._ask("GET", key, {})


class Obstore:
    """obstore's own store."""

    def __init__(self, store: Any) -> None:
        import obstore

        self._obstore, self._store = obstore, store

    async def put(self, key: str, body: bytes) -> object:
        return await self._obstore.put_async(self._store, key, body, use_multipart=False)

    async def get(self, key: str) -> bytes:
        answer = await self._obstore.get_async(self._store, key)
        return bytes(await answer.bytes_async())

    async def close(self) -> None:
        pass


def obstore_s3(url: str, bucket: str, keys: Keys) -> Obstore | None:
    if not _find_obstore():
        return None
    from obstore.store import S3Store

    given = {"access_key_id": keys.access_key, "secret_access_key": keys.secret_key, "region": "us-east-1"}
    return Obstore(S3Store(bucket, endpoint=url, client_options={"allow_http": True}, **given))


def obstore_azure(access: Access, container: str) -> Obstore | None:
    if not _find_obstore():
        return None
    from obstore.store import AzureStore

    given = {"account_name": access.account, "account_key": access.key, "endpoint": access.endpoint}
    return Obstore(AzureStore(container, client_options={"allow_http": True}, **given))


def _find_obstore() -> bool:
    for packages in (ROOT / ".venv-data/lib").glob("python*/site-packages"):
        if packages.parent.name == f"python{sys.version_info.major}.{sys.version_info.minor}":
            site.addsitedir(str(packages))  # behind our own
            return True
    return False


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@contextmanager
def azurite(directory: Path, container: str) -> Iterator[Access | None]:
    """Azurite with a container, while the context is open; None if it is not installed."""
    program = ROOT / ".venv-node/node_modules/azurite/dist/src/blob/main.js"
    if not program.exists():
        yield None
        return
    port, key = free_port(), base64.b64encode(secrets.token_bytes(32)).decode()
    access = Access("account", f"http://127.0.0.1:{port}/account", key)
    command = [str(ROOT / ".venv-node/node"), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(directory), "--disableTelemetry", "--silent"]
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**clean_environment(), "AZURITE_ACCOUNTS": f"account:{key}"}
    )
    try:
        _make_container(access, container)
        yield access
    finally:
        running.terminate()
        running.wait(STOP_SECONDS_MAX)


def _make_container(access: Access, container: str) -> None:
    path, query = f"/account/{container}", {"restype": "container"}
    until = time.monotonic() + 60
    while True:
        headers = azure_signing.signed_headers(access, time.time(), "PUT", path, query, {"x-ms-version": VERSION})
        request = Request(f"{access.endpoint}/{container}?restype=container", headers=headers, method="PUT")
        try:
            urlopen(request, timeout=30).close()
            return
        except HTTPError:
            raise
        except URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
