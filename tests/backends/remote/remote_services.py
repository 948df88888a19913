"""Stores in processes of their own on loopback, and backends over them."""

import base64
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from ostraka.backends import Backend, Secret
from ostraka.backends.azure.backend import AzureBackend, AzureConfig
from ostraka.backends.azure.credentials import AccountKey
from ostraka.backends.azure.signing import VERSION, Access, signed_headers
from ostraka.backends.s3.backend import S3Backend, S3Config
from ostraka.backends.s3.credentials import Named
from ostraka.testing.backends import Factory
from ostraka.testing.processes import free_port, s3_client

REPOSITORY = Path(__file__).parents[3]
READY_SECONDS = 60.0


class Served:
    """An S3 endpoint with a bucket, for backends below prefixes of their own."""

    def __init__(self, url: str, access_key: str, secret_key: str, **claims: bool) -> None:
        self.url = url
        self.access_key = access_key
        self.secret_key = secret_key
        self.claims = claims
        self.variable = f"OSTRAKA_TEST_SECRET_{access_key.upper()}"
        os.environ[self.variable] = secret_key
        self.client = s3_client(url, access_key, secret_key)
        self.bucket = self.new_bucket()

    def new_bucket(self) -> str:
        name = f"backends-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def config(self, **fields: Any) -> S3Config:
        keys = Named(access_key=self.access_key, secret_key=Secret(variable=self.variable))
        given = {"bucket": self.bucket, "endpoint": self.url, "credentials": keys, **self.claims, **fields}
        return S3Config(**given)

    def empty(self, **fields: Any) -> Factory:
        """Makes backends below a prefix that nobody else has."""

        @asynccontextmanager
        async def factory() -> AsyncIterator[Backend]:
            async with S3Backend(self.config(prefix=f"below/{secrets.token_hex(4)}", **fields)) as backend:
                yield backend

        return factory


@contextmanager
def process(
    command: Sequence[str],
    url: str,
    environment: dict[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> Iterator[None]:
    """A server that answers at url when the context opens."""
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed: run scripts/install")
    env = {**os.environ, **(environment or {})}
    running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(url, trust):
            assert running.poll() is None, f"{command[0]} ended with {running.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield
    finally:
        running.terminate()
        running.wait(30)


def _answers(url: str, trust: ssl.SSLContext | None) -> bool:
    try:
        urlopen(url, timeout=5, context=trust).close()
    except URLError as error:
        return hasattr(error, "code")  # an answer, if no success
    except OSError:
        return False
    return True


@contextmanager
def moto_server() -> Iterator[Served]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process([str(REPOSITORY / ".venv-moto/bin/moto_server"), "-H", "127.0.0.1", "-p", str(port)], url):
        yield Served(url, "moto", "secret of moto", conditional_deletes=True)


class Account:
    """Azurite's blob service, with an account and a container."""

    def __init__(self, url: str, account: str, key: str, trust: ssl.SSLContext | None) -> None:
        self.access = Access(account, f"{url}/{account}", key)
        self.trust = trust
        self.variable = f"OSTRAKA_TEST_AZURE_KEY_{secrets.token_hex(4).upper()}"
        os.environ[self.variable] = key
        self.container = self.new_container()

    def new_container(self) -> str:
        name = f"backends-{secrets.token_hex(6)}"
        query = {"restype": "container"}
        path = urlsplit(self.access.endpoint).path + f"/{name}"
        headers = signed_headers(self.access, time.time(), "PUT", path, query, {"x-ms-version": VERSION})
        request = Request(f"{self.access.endpoint}/{name}?restype=container", headers=headers, method="PUT")
        urlopen(request, timeout=30, context=self.trust).close()
        return name

    def config(self, **fields: Any) -> AzureConfig:
        given = {
            "container": self.container,
            "account": self.access.account,
            "endpoint": self.access.endpoint,
            "credentials": AccountKey(key=Secret(variable=self.variable)),
        }
        return AzureConfig(**{**given, **fields})

    def empty(self, **fields: Any) -> Factory:
        """Makes backends below a prefix that nobody else has."""

        @asynccontextmanager
        async def factory() -> AsyncIterator[Backend]:
            async with AzureBackend(self.config(prefix=f"below/{secrets.token_hex(4)}", **fields)) as backend:
                yield backend

        return factory


@contextmanager
def azurite(directory: Path, *arguments: str, authority: Path | None = None) -> Iterator[Account]:
    """Azurite, with an account; over HTTPS if the arguments name a certificate, which authority vouches for."""
    port, key = free_port(), base64.b64encode(secrets.token_bytes(32)).decode()
    program = REPOSITORY / ".venv-node/node_modules/azurite/dist/src/blob/main.js"
    if not program.exists():
        pytest.skip("Azurite is not installed: run scripts/install")
    command = [str(REPOSITORY / ".venv-node/node"), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--location", str(directory), "--disableTelemetry", "--silent", *arguments]
    trust = ssl.create_default_context(cafile=authority) if authority else None
    url = f"{'https' if trust else 'http'}://127.0.0.1:{port}"
    with process(command, url, {"AZURITE_ACCOUNTS": f"account:{key}"}, trust):
        yield Account(url, "account", key, trust)
