"""An S3 server of our own in this process: http, door and core as in production, over a state and a pool in memory.

It runs in a thread with a loop of its own, so that tests can use blocking clients: boto3, and plain connections for
what boto3 would never send.
"""

import asyncio
import concurrent.futures
import http.client
import re
import threading
import zlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config as BotoConfig
from botocore.credentials import Credentials

from ostraka.chunks import ChunkStore
from ostraka.chunks.keyring import Keyring
from ostraka.host import Host
from ostraka.http import Request, Server, bind
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.objects.store import ObjectStore
from ostraka.s3.app import AccessRecord, S3App
from ostraka.s3.ops.call import Config
from ostraka.state import MemoryState
from ostraka.store.accounts import StateAccounts
from ostraka.testing.memory_pool import MemoryPool

ROOT = ("ROOTKEY", "root-secret")
ANN = ("ANNKEY", "ann-secret")
BOB = ("BOBKEY", "bob-secret")
SECRET = b"s" * 32
# small, so that a few hundred kilobytes pass every threshold
SMALL = replace(
    LIMITS,
    inline_size_max=2 * KIB,
    pack_size_max=4 * KIB,
    chunk_size=64 * KIB,
    chunks_per_commit_max=4,
    slices_embedded_max=4,
    frame_size=8 * KIB,
    pack_bytes_max=32 * KIB,
    buffers_bytes_max=8 * MIB,
    part_size_min=64 * KIB,
)
T = TypeVar("T")


class Answer(NamedTuple):
    """A raw response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """The error code in the body, or ""."""
        found = re.search(rb"<Code>(.*?)</Code>", self.body)
        return found[1].decode() if found else ""

    def text(self, tag: str) -> str | None:
        """The text of the first such element."""
        found = re.search(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", self.body.decode())
        return found[1] if found else None

    def all(self, tag: str) -> list[str]:
        return re.findall(rf"<{tag}>(.*?)</{tag}>", self.body.decode())


class Rig:
    """A running server and the ways to talk to it. ``ann`` and ``bob`` are accounts' keys."""

    ann = ANN
    bob = BOB

    def __init__(self, *masters: bytes) -> None:
        self.masters = masters
        self.records: list[AccessRecord] = []
        self._clients: dict[Any, Any] = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="server", daemon=True)
        self.thread.start()
        self.port = 0
        self.run(self._start())
        self.endpoint = f"http://127.0.0.1:{self.port}"

    async def _start(self) -> None:
        host = Host()
        self.state = MemoryState(SMALL)
        self.pool = MemoryPool(SMALL, host)
        self.keyring = Keyring(self.state, SECRET, self.masters, host=host, limits=SMALL)
        await self.keyring.prepare()
        self.chunks = ChunkStore(
            self.pool,
            self.state,
            SECRET,
            host=host,
            limits=SMALL,
            pinned_before=lambda: 0,
            keyring=self.keyring,
        )
        self.objects = ObjectStore(
            self.state,
            self.chunks,
            secret=SECRET,
            incarnation=host.random(16),
            limits=SMALL,
            host=host,
            keyring=self.keyring,
        )
        await self.objects.start()
        self.accounts = StateAccounts(self.state, *ROOT)
        await self.accounts.put("ann", *ANN)
        await self.accounts.put("bob", *BOB)
        self.app = S3App(
            self.objects,
            self.accounts,
            SMALL,
            host,
            Config("us-east-1", ("s3.test",)),
            on_answer=self._record,
        )
        self.server = Server(self.app, SMALL)
        socket = bind("127.0.0.1", 0)
        self.port = socket.getsockname()[1]
        await self.server.start([socket])

    def bucket_name(self, word: str) -> str:
        """A valid bucket name made of some text, different for different text."""
        words = re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")
        return f"t-{words[:48].strip('-')}-{zlib.crc32(word.encode()):08x}"

    def _record(self, request: Request, record: AccessRecord) -> None:
        self.records.append(record)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def call(self, function: Callable[[], T]) -> T:
        """Call something synchronous in the server's loop."""

        async def work() -> T:
            return function()

        return self.run(work())

    def close(self) -> None:
        async def stop() -> None:
            await self.server.drain(5)
            await self.objects.close()
            await self.chunks.close()

        try:
            self.run(stop())
        except concurrent.futures.TimeoutError as e:
            raise AssertionError("the server did not stop") from e
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.close()

    def client(self, keys: tuple[str, str] = ROOT, region: str = "us-east-1", **config: Any) -> Any:
        """A boto3 client that does not retry."""
        known = (keys, region, repr(sorted(config.items())))
        if known not in self._clients:
            self._clients[known] = self._new_client(keys, region, config)
        return self._clients[known]

    def _new_client(self, keys: tuple[str, str], region: str, config: dict[str, Any]) -> Any:
        config.setdefault("s3", {"addressing_style": "path"})
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            region_name=region,
            config=BotoConfig(retries={"total_max_attempts": 1}, **config),
        )

    def send(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        keys: tuple[str, str] | None = ROOT,
        chunked: bool = False,
    ) -> Answer:
        """One request with exactly this target, signed by botocore unless ``keys`` is None."""
        url = f"{self.endpoint}{target}"
        given = dict(headers or {})
        if keys is not None:
            request = AWSRequest(method, url, data=body, headers=given)
            S3SigV4Auth(Credentials(*keys), "s3", "us-east-1").add_auth(request)
            given = dict(request.headers.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, target, skip_host="Host" in given, skip_accept_encoding=True)
            for name, value in given.items():
                connection.putheader(name, value.encode("utf-8"))
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders(body, encode_chunked=True)
            else:
                if "Content-Length" not in given and (body or method in ("PUT", "POST")):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body or None)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    running = Rig()
    yield running
    running.close()


@pytest.fixture
def s3(rig: Rig) -> Any:
    return rig.client()


@pytest.fixture
def bucket(rig: Rig, s3: Any, request: pytest.FixtureRequest) -> str:
    """A bucket of root's, named after the test."""
    name = rig.bucket_name(request.node.name)
    s3.create_bucket(Bucket=name)
    return name
