"""What opens an account: each kind of credentials, with metadata endpoints of our own on loopback."""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from remote_services import Account, azurite
from stub import Asked, Say, stub

from ostraka.backends import Secret, from_config
from ostraka.backends.azure.backend import AzureBackend, AzureConfig
from ostraka.backends.azure.credentials import (
    AccountKey,
    ConnectionString,
    Credentials,
    Default,
    Identity,
    Sas,
    connection,
)
from ostraka.backends.azure.signing import VERSION, Access, query_string, signature
from ostraka.errors import Forbidden, Invalid, OstrakaError, Unavailable

sys.path.insert(0, str(Path(__file__).parents[2] / "clients"))

from client_tls import Authority


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1")


def container_sas(access: Access, container: str, permissions: str = "racwdl") -> str:
    """A shared access signature for a container, as its owner hands it on."""
    start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + s)) for s in (-300, 3600))
    lines = [permissions, start, end, f"/blob/{access.account}/{container}", "", "", "", VERSION, "c", *[""] * 7]
    fields = {"sp": permissions, "st": start, "se": end, "sv": VERSION, "sr": "c"}
    return query_string({**fields, "sig": signature(access.key, lines)})


async def works(config: AzureConfig) -> None:
    """The credentials do, here and in a backend made of the configuration."""
    async with AzureBackend(config) as backend:
        await backend.write("credentials/a b", b"x")
        assert [p async for p in backend.list("credentials/")] == ["credentials/a b"]
        await backend.copy("credentials/a b", "credentials/b")
        assert await backend.delete_batch(["credentials/b"]) == []
        async with from_config(json.loads(json.dumps(backend.to_config()))) as again:
            assert await again.read("credentials/a b") == b"x"


async def refused(config: AzureConfig, kind: type[OstrakaError]) -> OstrakaError:
    async with AzureBackend(config) as backend:
        with pytest.raises(kind) as raised:
            await backend.stat("a")
    return raised.value


def test_an_accounts_key(azure: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(azure.access.key)
    asyncio.run(works(azure.config(credentials=AccountKey(key=Secret(file=str(tmp_path / "key"))))))
    monkeypatch.setenv("AZURE_STORAGE_KEY", azure.access.key)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", azure.access.account)
    asyncio.run(works(azure.config(account="", credentials=Default())))
    missing = azure.config(credentials=AccountKey(key=Secret(variable="NOT_SET")))
    assert asyncio.run(refused(missing, Forbidden)).reason == "credentials"


def test_a_shared_access_signature(azure: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    sas = container_sas(azure.access, azure.container)
    monkeypatch.setenv("A_SAS", "?" + sas)
    asyncio.run(works(azure.config(credentials=Sas(token=Secret(variable="A_SAS")))))
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", sas)
    asyncio.run(works(azure.config(credentials=Default())))
    monkeypatch.setenv("A_SAS", container_sas(azure.access, azure.container, "r"))
    reader = azure.config(credentials=Sas(token=Secret(variable="A_SAS")))

    async def reads_only() -> None:
        async with AzureBackend(reader) as backend:
            assert await backend.read("credentials/a b") == b"x"
            with pytest.raises(Forbidden):
                await backend.write("credentials/a b", b"y")

    asyncio.run(reads_only())


def test_a_connection_string(azure: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    access = azure.access
    strings = [
        f"DefaultEndpointsProtocol=http;AccountName={access.account};AccountKey={access.key};"
        f"BlobEndpoint={access.endpoint};",
        f"BlobEndpoint={access.endpoint};AccountName={access.account};"
        f"SharedAccessSignature={container_sas(access, azure.container)}",
    ]
    for whole in strings:
        monkeypatch.setenv("A_STRING", whole)
        named = ConnectionString(value=Secret(variable="A_STRING"))
        asyncio.run(works(azure.config(account="", endpoint="", credentials=named)))
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", whole)
        asyncio.run(works(azure.config(account="", endpoint="", credentials=Default())))


def test_what_a_connection_string_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def url(whole: str) -> str:
        monkeypatch.setenv("A_STRING", whole)
        config = AzureConfig(container="c", credentials=ConnectionString(value=Secret(variable="A_STRING")))
        async with AzureBackend(config) as backend:
            return (await backend.presign("k ü")).partition("?")[0]

    assert asyncio.run(url("AccountName=a;AccountKey=aw==")) == "https://a.blob.core.windows.net/c/k%20%C3%BC"
    other = "AccountName=a;AccountKey=aw==;EndpointSuffix=core.chinacloudapi.cn;DefaultEndpointsProtocol=https"
    assert asyncio.run(url(other)) == "https://a.blob.core.chinacloudapi.cn/c/k%20%C3%BC"
    assert asyncio.run(url("UseDevelopmentStorage=true")) == "http://127.0.0.1:10000/devstoreaccount1/c/k%20%C3%BC"
    for bad in ("a secret", "AccountName=a", "AccountName=a;AccountKey=", ""):
        with pytest.raises(Forbidden) as raised:
            connection(bad)
        assert "a secret" not in raised.value.message
    with pytest.raises(Invalid):
        asyncio.run(url("AccountName=a;AccountKey=aw==;BlobEndpoint=nowhere"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Account, Path]]:
    """Azurite where tokens are taken, for which it must speak HTTPS; and whom to trust."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key = authority.server()
    arguments = ("--cert", str(certificate), "--key", str(key), "--oauth", "basic")
    with azurite(tmp_path_factory.mktemp("azurite"), *arguments, authority=authority.bundle) as account:
        yield account, authority.bundle


def token() -> str:
    """As Azure's login would sign it, but for the signature, at which Azurite does not look."""
    now = int(time.time())
    issuer = "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/"
    claims = {"aud": "https://storage.azure.com", "iss": issuer, "iat": now - 60, "nbf": now - 60, "exp": now + 3600}
    parts = [json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def given(asked: Asked) -> Say:
    """A machine's metadata endpoint."""
    url = urlsplit(asked.path)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert query["resource"] == "https://storage.azure.com/"
    if url.path == "/metadata/identity/oauth2/token" and asked.headers.get("metadata") == "true":
        if query.get("client_id") not in (None, "one of several"):
            return Say(400)
        return Say(200, json.dumps({"access_token": token(), "expires_in": "3600", "token_type": "Bearer"}).encode())
    if url.path == "/msi/token" and asked.headers.get("x-identity-header") == "a header":
        return Say(200, json.dumps({"access_token": token(), "expires_on": str(int(time.time()) + 3600)}).encode())
    return Say(403)


def test_a_managed_identity(guarded: tuple[Account, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    account, bundle = guarded
    with stub(given) as served:
        for identity in (Identity(endpoint=served.url), Identity(endpoint=served.url, client_id="one of several")):
            asyncio.run(works(account.config(credentials=identity, ca_file=str(bundle))))
        assert len(served.asked) == 4  # once for each backend, not for each request
        stranger = Identity(endpoint=served.url, client_id="nobody")
        assert asyncio.run(refused(account.config(credentials=stranger), Forbidden)).reason == "credentials"
        monkeypatch.setenv("IDENTITY_ENDPOINT", served.url + "/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "a header")
        credentials: list[Credentials] = [Identity(), Default()]
        for named in credentials:
            asyncio.run(works(account.config(credentials=named, ca_file=str(bundle))))


def test_a_workload_identity(guarded: tuple[Account, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    account, bundle = guarded

    def answer(asked: Asked) -> Say:
        form = parse_qs(asked.body.decode())
        if asked.path != "/tenant/oauth2/v2.0/token" or form["client_assertion"] != ["who I am"]:
            return Say(400)
        return Say(200, json.dumps({"access_token": token(), "expires_in": 3600}).encode())

    with stub(answer) as served:
        (tmp_path / "token").write_text("who I am\n")
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
        monkeypatch.setenv("AZURE_CLIENT_ID", "client")
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", served.url + "/")
        asyncio.run(works(account.config(credentials=Default(), ca_file=str(bundle))))


def test_a_certificate_that_nobody_vouches_for_is_no_answer(guarded: tuple[Account, Path]) -> None:
    account, _ = guarded
    assert asyncio.run(refused(account.config(), Unavailable)).reason == "connection"


def test_a_machine_without_an_identity_and_one_that_is_silent_differ(azure: Account) -> None:
    for said, kind, reason in (
        (Say(400), Forbidden, "credentials"),
        (Say(503), Unavailable, "service"),
        (Say(200, b"{}"), Unavailable, "service"),
    ):
        with stub(lambda _, said=said: said) as served:  # type: ignore[misc]
            config = azure.config(credentials=Identity(endpoint=served.url))
            assert asyncio.run(refused(config, kind)).reason == reason
    silent = azure.config(credentials=Identity(endpoint="http://127.0.0.1:1"))
    assert asyncio.run(refused(silent, Unavailable)).reason == "connection"
    nothing = azure.config(credentials=Default())
    assert "AZURE_STORAGE_CONNECTION_STRING" in asyncio.run(refused(nothing, Forbidden)).message
