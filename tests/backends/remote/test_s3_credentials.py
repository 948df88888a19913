"""Where keys come from: each place that may hold them, with metadata endpoints of our own on loopback."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from remote_services import Served
from stub import Asked, Say, stub

from ostraka.backends import Secret, from_config
from ostraka.backends.remote.expiring import Expiring, Lent
from ostraka.backends.s3.backend import S3Backend
from ostraka.backends.s3.credentials import Credentials, Default, Environment, Instance, Named, Profile
from ostraka.errors import Forbidden, OstrakaError, Unavailable


@pytest.fixture(autouse=True)
def no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")


async def works(served: Served, credentials: Credentials) -> None:
    """The credentials do, here and in a backend made of the configuration."""
    async with S3Backend(served.config(prefix="credentials", credentials=credentials)) as backend:
        await backend.write("a", b"x")
        async with from_config(json.loads(json.dumps(backend.to_config()))) as again:
            assert await again.read("a") == b"x"


async def refused(served: Served, credentials: Credentials, kind: type[OstrakaError]) -> OstrakaError:
    async with S3Backend(served.config(credentials=credentials)) as backend:
        with pytest.raises(kind) as raised:
            await backend.stat("a")
    return raised.value


def document(served: Served, *, seconds: float = 3600.0, token: str = "") -> dict[str, str]:
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "Code": "Success",
        "AccessKeyId": served.access_key,
        "SecretAccessKey": served.secret_key,
        "Token": token,
        "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def metadata(found: Callable[[], dict[str, str] | None]) -> Callable[[Asked], Say]:
    """An instance's metadata endpoint, version 2: nothing without the token of a session."""

    def answer(asked: Asked) -> Say:
        if asked.path == "/latest/api/token":
            lifetime = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            return Say(200, b"session") if asked.method == "PUT" and lifetime.isdigit() else Say(400)
        if asked.headers.get("x-aws-ec2-metadata-token") != "session":
            return Say(401)
        keys = found()
        if keys is None:
            return Say(404)
        if asked.path == "/latest/meta-data/iam/security-credentials/":
            return Say(200, b"a role")
        assert asked.path == "/latest/meta-data/iam/security-credentials/a%20role"
        return Say(200, json.dumps(keys).encode())

    return answer


def test_keys_that_are_named(own: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_SECRET", own.secret_key)
    asyncio.run(works(own, Named(access_key=own.access_key, secret_key=Secret(variable="A_SECRET"))))
    (tmp_path / "secret").write_text(own.secret_key + "\n")
    asyncio.run(works(own, Named(access_key=own.access_key, secret_key=Secret(file=str(tmp_path / "secret")))))
    missing = Named(access_key=own.access_key, secret_key=Secret(file=str(tmp_path / "no secret")))
    assert asyncio.run(refused(own, missing, Forbidden)).reason == "credentials"


def test_keys_of_the_environment(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "AWS_ACCESS_KEY_ID" in asyncio.run(refused(own, Environment(), Forbidden)).message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", own.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", own.secret_key)
    for credentials in (Environment(), Default()):
        asyncio.run(works(own, credentials))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a token that this server never gave")
    assert asyncio.run(refused(own, Environment(), Forbidden)).reason == "credentials"


def test_keys_of_a_profile(own: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = f"aws_access_key_id = {own.access_key}\naws_secret_access_key = {own.secret_key}\n"
    (tmp_path / "credentials").write_text(f"[other]\naws_access_key_id = x\n[work]\n{keys}")
    named = Profile(name="work", file=str(tmp_path / "credentials"))
    asyncio.run(works(own, named))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert asyncio.run(refused(own, Profile(), Forbidden)).reason == "credentials"
    assert asyncio.run(refused(own, Profile(name="other"), Forbidden)).reason == "credentials"
    monkeypatch.setenv("AWS_PROFILE", "work")
    for credentials in (Profile(), Default()):
        asyncio.run(works(own, credentials))


def test_keys_of_the_instance(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(metadata(lambda: document(own))) as served:
        asyncio.run(works(own, Instance(endpoint=served.url)))
        assert [a.path for a in served.asked].count("/latest/api/token") == 2  # one for each backend, not each request
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", served.url + "/")
        for credentials in (Instance(), Default()):
            asyncio.run(works(own, credentials))


def test_an_instance_without_a_role_and_one_that_is_silent_differ(own: Served) -> None:
    with stub(metadata(lambda: None)) as served:
        assert asyncio.run(refused(own, Instance(endpoint=served.url), Forbidden)).reason == "credentials"
    with stub(lambda _: Say(500)) as served:
        assert asyncio.run(refused(own, Instance(endpoint=served.url), Unavailable)).reason == "service"
    with stub(metadata(lambda: {"Code": "Failed"})) as served:
        assert asyncio.run(refused(own, Instance(endpoint=served.url), Unavailable)).reason == "service"
    assert asyncio.run(refused(own, Instance(endpoint="http://127.0.0.1:1"), Unavailable)).reason == "connection"
    assert "AWS_ACCESS_KEY_ID" in asyncio.run(refused(own, Default(), Forbidden)).message


def test_who_is_refused_keys_is_told_where_and_the_way_out(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(lambda _: Say(403)) as served:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", served.url)
        told = asyncio.run(refused(own, Default(), Forbidden)).message
    assert served.url.removeprefix("http://") in told
    assert "AWS_ACCESS_KEY_ID" in told


def test_keys_that_end_soon_are_fetched_anew(own: Served) -> None:
    async def main(url: str) -> None:
        async with S3Backend(own.config(prefix="soon", credentials=Instance(endpoint=url))) as backend:
            for _ in range(3):
                await backend.write("a", b"x")

    for seconds, times in ((-1.0, 3), (3600.0, 1)):
        with stub(metadata(lambda seconds=seconds: document(own, seconds=seconds))) as served:  # type: ignore[misc]
            asyncio.run(main(served.url))
            assert [a.path for a in served.asked].count("/latest/api/token") == times


def test_keys_of_a_container(own: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Say:
        if asked.headers.get("authorization") != "a pass":
            return Say(403)
        return Say(200, json.dumps(document(own)).encode())

    with stub(answer) as served:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{served.url}/keys")
        assert asyncio.run(refused(own, Default(), Forbidden)).reason == "credentials"
        (tmp_path / "pass").write_text("a pass")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "pass"))
        asyncio.run(works(own, Default()))


def test_keys_of_a_web_identity(own: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Say:
        form = asked.body.decode()
        if "Action=AssumeRoleWithWebIdentity" not in form or "WebIdentityToken=who+I+am" not in form:
            return Say(400)
        keys = document(own)
        told = "".join(f"<{n}>{keys[n]}</{n}>" for n in ("AccessKeyId", "SecretAccessKey", "Expiration"))
        told = f"<Credentials>{told}<SessionToken></SessionToken></Credentials>"
        return Say(200, f'<R xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><S>{told}</S></R>'.encode())

    with stub(answer) as served:
        (tmp_path / "token").write_text("who I am\n")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", served.url)
        asyncio.run(works(own, Default()))


def test_a_token_is_sent_with_what_it_is_for(moto: Served) -> None:
    with (
        stub(lambda _: Say(200, b"", {"ETag": '"e"'})) as store,
        stub(metadata(lambda: document(moto, token="a token"))) as served,
    ):

        async def main() -> None:
            config = moto.config(endpoint=store.url, credentials=Instance(endpoint=served.url))
            async with S3Backend(config) as backend:
                await backend.write("a", b"x")

        asyncio.run(main())
        asked = store.asked[0].headers
        assert asked["x-amz-security-token"] == "a token"
        assert "x-amz-security-token" in asked["authorization"]


def test_nobody_signs_nothing() -> None:
    with stub(lambda _: Say(200, b"", {"ETag": '"e"'})) as store:

        async def main() -> None:
            config = {"type": "s3", "bucket": "b", "endpoint": store.url, "credentials": {"from": "nobody"}}
            async with from_config(config) as backend:
                await backend.write("a", b"x")
                assert backend.to_config() == config

        asyncio.run(main())
        assert "authorization" not in store.asked[0].headers


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_what_is_lent_is_fetched_once_for_all_and_kept_while_it_is_good() -> None:
    clock, fetched, failing = Hands(), 0, False

    async def fetch() -> Lent[int]:
        nonlocal fetched
        await asyncio.sleep(0)
        if failing:
            raise Unavailable("away", reason="connection")
        fetched += 1
        return Lent(fetched, clock.now + 1000)

    async def main() -> None:
        nonlocal failing
        lent = Expiring(fetch, clock)
        assert await asyncio.gather(*(lent.get() for _ in range(10))) == [1] * 10
        clock.now += 600
        assert await lent.get() == 1
        clock.now += 101  # within five minutes of its end
        assert await lent.get() == 2
        failing = True
        clock.now += 701
        calls: list[Awaitable[int]] = [lent.get(), lent.get()]
        assert await asyncio.gather(*calls) == [2, 2]  # still good, though no other is to be had
        clock.now += 300
        with pytest.raises(Unavailable):
            await lent.get()
        failing = False
        assert await lent.get() == 3

    asyncio.run(main())
