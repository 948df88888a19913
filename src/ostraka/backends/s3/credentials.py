"""Where the keys come from: named secrets, the environment, a profile, the machine's own identity, or nobody.

``Default`` asks in the order of AWS's own tools: variables, the profile, a web identity (AWS_WEB_IDENTITY_TOKEN_FILE,
as Kubernetes gives it), a container's endpoint, the instance's. What is lent for a time is fetched anew before it ends.
"""

import configparser
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from os import environ
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ostraka.backends.configs import Secret
from ostraka.backends.remote.documents import parsed
from ostraka.backends.remote.expiring import Expiring, Lent
from ostraka.backends.remote.wire import Answer, Request, Wire
from ostraka.errors import Forbidden, Unavailable
from ostraka.host import Clock, Files
from ostraka.sigv4 import Keys

INSTANCE_ENDPOINT: Final = "http://169.254.169.254"
CONTAINER_ENDPOINT: Final = "http://169.254.170.2"
TOKEN_SECONDS: Final = 21600

Fetch = Callable[[], Awaitable[Lent[Keys] | None]]


class Default(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="default"):
    """The first of the places that AWS's tools ask."""


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="environment"):
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if set, AWS_SESSION_TOKEN."""


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="from", tag="keys"):
    """Keys that stay: the secret by reference."""

    access_key: str
    secret_key: Secret
    session_token: Secret | None = None


class Profile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="from", tag="profile"
):
    """Keys from a file such as ``aws configure`` writes. "" stands for AWS_PROFILE or "default", and for
    AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials."""

    name: str = ""
    file: str = ""


class Instance(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="from", tag="instance"
):
    """The role of the machine, from its metadata endpoint (version 2 of that protocol only). ``endpoint``: "" stands
    for AWS_EC2_METADATA_SERVICE_ENDPOINT or the address that it has on every instance."""

    endpoint: str = ""


class Anonymous(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="nobody"):
    """Requests without a signature, for what is public."""


Credentials = Default | Environment | Named | Profile | Instance | Anonymous


def keys_of(credentials: Credentials, wire: Wire, files: Files, clock: Clock) -> Expiring[Keys | None]:
    """The keys that are good now; None for nobody. Raises Forbidden ("credentials") if there are none, Unavailable if
    who should lend them does not answer."""
    places = _Places(wire, files, clock)

    async def fetch() -> Lent[Keys | None]:
        match credentials:
            case Anonymous():
                return Lent(None)
            case Named(access_key, secret, token):
                return Lent(Keys(access_key, secret.read(files), token.read(files) if token else ""))
            case Environment():
                found = await places.environment()
            case Profile(name, file):
                found = await places.profile(name, file)
            case Instance(endpoint):
                found = await places.instance(endpoint)
            case _:
                found = await places.first()
        if found is None:
            raise Forbidden(f"no keys for S3: {_MISSING[type(credentials)]}", reason="credentials")
        keys: Keys | None = found.value
        return Lent(keys, found.until)

    return Expiring(fetch, clock)


_MISSING: Final[Mapping[type, str]] = {
    Environment: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
    Profile: "the profile has none, or is not there",
    Instance: "this machine has no role",
    Default: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or give it a role",
}


class _Document(msgspec.Struct):
    """Keys as the metadata endpoints give them."""

    access_key: str = msgspec.field(name="AccessKeyId")
    secret_key: str = msgspec.field(name="SecretAccessKey")
    token: str = msgspec.field(name="Token")
    expiration: datetime = msgspec.field(name="Expiration")


class _Places:
    """Each place that may hold keys; None where there are none."""

    def __init__(self, wire: Wire, files: Files, clock: Clock) -> None:
        self._wire = wire
        self._files = files
        self._clock = clock

    async def first(self) -> Lent[Keys] | None:
        for place in (self.environment, self.profile, self.web_identity, self.container):
            found = await place()
            if found is not None:
                return found
        if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        try:
            return await self.instance()
        except Unavailable:  # as everywhere but on an instance
            return None

    async def environment(self) -> Lent[Keys] | None:
        access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            return None
        return Lent(Keys(access, secret, environ.get("AWS_SESSION_TOKEN", "")))

    async def profile(self, name: str = "", file: str = "") -> Lent[Keys] | None:
        file = file or environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(self._files.read(_at_home(file)).decode())
            section = parser[name or environ.get("AWS_PROFILE") or "default"]
            keys = Keys(
                section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token", "")
            )
        except (OSError, UnicodeDecodeError, configparser.Error, KeyError):
            return None
        return Lent(keys)

    async def web_identity(self) -> Lent[Keys] | None:
        role, file = environ.get("AWS_ROLE_ARN"), environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        if not role or not file:
            return None
        endpoint = environ.get("AWS_ENDPOINT_URL_STS", "").rstrip("/")
        endpoint = endpoint or f"https://sts.{environ.get('AWS_REGION') or 'us-east-1'}.amazonaws.com"
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": environ.get("AWS_ROLE_SESSION_NAME", "ostraka"),
            "WebIdentityToken": Secret(file=file).read(self._files),
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self._asked(Request("POST", f"{endpoint}/", headers, urlencode(form).encode()))
        found = {element.tag: element.text or "" for element in parsed(answer.body).iter()}
        try:
            until = datetime.fromisoformat(found["Expiration"]).timestamp()
            return Lent(Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]), until)
        except (KeyError, ValueError):
            raise Unavailable("the token service sent no keys", reason="service") from None

    async def container(self) -> Lent[Keys] | None:
        relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        url = CONTAINER_ENDPOINT + relative if relative else environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        if not url:
            return None
        file = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        token = Secret(file=file).read(self._files) if file else environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        return _lent(await self._asked(Request("GET", url, {"authorization": token} if token else {})))

    async def instance(self, endpoint: str = "") -> Lent[Keys] | None:
        endpoint = endpoint or environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE_ENDPOINT
        base = endpoint.rstrip("/") + "/latest"
        lifetime = {"x-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        token = (await self._asked(Request("PUT", f"{base}/api/token", lifetime))).body.decode("latin-1")
        headers = {"x-aws-ec2-metadata-token": token}
        roles = f"{base}/meta-data/iam/security-credentials/"
        answer = await self._wire.send(Request("GET", roles, headers))
        names = answer.body.decode("utf-8", "replace").splitlines()
        if answer.status == 404 or not names:
            return None
        return _lent(await self._asked(Request("GET", roles + quote(names[0]), headers)))

    async def _asked(self, request: Request) -> Answer:
        answer = await self._wire.send(request)
        if answer.good:
            return answer
        what = f"{urlsplit(request.url).netloc} was asked for keys and answered {answer.status}"
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable(what, reason="service")
        raise Forbidden(f"{what}: {_MISSING[Default]} that may", reason="credentials")


def _at_home(file: str) -> Path:
    return Path(file).expanduser()


def _lent(answer: Answer) -> Lent[Keys]:
    try:
        found = msgspec.json.decode(answer.body, type=_Document)
    except msgspec.DecodeError:
        raise Unavailable("the credentials' endpoint sent no keys", reason="service") from None
    return Lent(Keys(found.access_key, found.secret_key, found.token), found.expiration.timestamp())
