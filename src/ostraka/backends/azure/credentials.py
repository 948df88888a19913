"""What opens an account: its key, a shared access signature (SAS), a connection string, or the machine's own identity.

``Default`` asks the environment as Azure's tools do: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN,
AZURE_STORAGE_KEY; then a workload identity (AZURE_FEDERATED_TOKEN_FILE, as Kubernetes gives it), then the machine's.
Tokens are fetched anew before they end.
"""

from collections.abc import Mapping
from os import environ
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from ostraka.backends.azure.signing import Access
from ostraka.backends.configs import Secret
from ostraka.backends.remote.expiring import Expiring, Lent
from ostraka.backends.remote.wire import Request, Wire, check_endpoint
from ostraka.errors import Forbidden, Invalid, Unavailable
from ostraka.host import Clock, Files

IDENTITY_ENDPOINT: Final = "http://169.254.169.254"
LOGIN_ENDPOINT: Final = "https://login.microsoftonline.com"
RESOURCE: Final = "https://storage.azure.com/"

# What every emulator of Azure's storage has, and everybody knows
EMULATOR: Final = (
    "AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1"
)


class Default(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="default"):
    """What the environment names, else the machine's identity."""


class AccountKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="account-key"):
    key: Secret


class Sas(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="sas"):
    """A token as the portal gives it, with or without the "?"."""

    token: Secret


class ConnectionString(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="connection-string"
):
    """Account, key or SAS, and endpoint in one: what the configuration says besides goes before it."""

    value: Secret


class Identity(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="from", tag="identity"
):
    """The machine's managed identity; ``client_id`` names one of several. ``endpoint``: "" stands for IDENTITY_ENDPOINT
    (as App Service sets it) or the address that it has on every machine."""

    client_id: str = ""
    endpoint: str = ""


class Anonymous(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="from", tag="nobody"):
    """Requests without a signature, for what is public."""


Credentials = Default | AccountKey | Sas | ConnectionString | Identity | Anonymous


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int | str = ""
    expires_on: int | str = ""


class Accesses:
    """What opens the account now. ``account`` and ``endpoint``: "" for what the credentials or the environment say."""

    def __init__(
        self, credentials: Credentials, account: str, endpoint: str, wire: Wire, files: Files, clock: Clock
    ) -> None:
        self._credentials = credentials
        self._account = account or environ.get("AZURE_STORAGE_ACCOUNT") or environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        self._endpoint = endpoint
        self._wire = wire
        self._files = files
        self._clock = clock
        self.current: Expiring[Access] = Expiring(self._fetch, clock)

    def at_hand(self) -> Access | None:
        """What needs nobody to be asked; None if a token must be fetched. Forbidden if a secret is not there."""
        match self._credentials:
            case AccountKey(key):
                return self._made(key=key.read(self._files))
            case Sas(token):
                return self._made(sas=token.read(self._files))
            case ConnectionString(value):
                return self._of_string(value.read(self._files))
            case Anonymous():
                return self._made()
            case Default():
                return self._of_environment()
        return None

    def _of_environment(self) -> Access | None:
        if whole := environ.get("AZURE_STORAGE_CONNECTION_STRING"):
            return self._of_string(whole)
        if sas := environ.get("AZURE_STORAGE_SAS_TOKEN"):
            return self._made(sas=sas)
        if key := environ.get("AZURE_STORAGE_KEY") or environ.get("AZURE_STORAGE_ACCOUNT_KEY"):
            return self._made(key=key)
        return None

    def _of_string(self, whole: str) -> Access:
        fields = connection(whole)
        account = self._account or fields.get("accountname", "")
        suffix = fields.get("endpointsuffix", "core.windows.net")
        scheme = fields.get("defaultendpointsprotocol", "https")
        endpoint = self._endpoint or fields.get("blobendpoint") or f"{scheme}://{account}.blob.{suffix}"
        key, sas = fields.get("accountkey", ""), fields.get("sharedaccesssignature", "")
        return self._made(account=account, endpoint=endpoint, key=key, sas=sas)

    def _made(self, *, account: str = "", endpoint: str = "", key: str = "", sas: str = "", token: str = "") -> Access:
        account = account or self._account
        endpoint = endpoint or self._endpoint
        if not endpoint and not account:
            raise Invalid("no account is named: account, or AZURE_STORAGE_ACCOUNT", reason="config")
        endpoint = (endpoint or f"https://{account}.blob.core.windows.net").rstrip("/")
        check_endpoint(endpoint, path=True)
        return Access(account, endpoint, key, sas.removeprefix("?"), token)

    async def _fetch(self) -> Lent[Access]:
        found = self.at_hand()
        if found is not None:
            return Lent(found)
        if isinstance(self._credentials, Identity):
            return await self._of_machine(self._credentials)
        workload = await self._of_workload()
        if workload is not None:
            return workload
        try:
            return await self._of_machine(Identity(client_id=environ.get("AZURE_CLIENT_ID", "")))
        except (Unavailable, Forbidden):  # as everywhere but on Azure, and there without an identity
            raise Forbidden(
                "nothing opens the account: set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN or "
                "AZURE_STORAGE_KEY, or give the machine an identity",
                reason="credentials",
            ) from None

    async def _of_machine(self, identity: Identity) -> Lent[Access]:
        query = {"resource": RESOURCE, **({"client_id": identity.client_id} if identity.client_id else {})}
        service = environ.get("IDENTITY_ENDPOINT", "")
        if service and not identity.endpoint:
            headers = {"x-identity-header": environ.get("IDENTITY_HEADER", "")}
            url = f"{service}?{urlencode({'api-version': '2019-08-01', **query})}"
        else:
            headers = {"metadata": "true"}
            base = (identity.endpoint or IDENTITY_ENDPOINT).rstrip("/")
            url = f"{base}/metadata/identity/oauth2/token?{urlencode({'api-version': '2018-02-01', **query})}"
        return await self._token(Request("GET", url, headers))

    async def _of_workload(self) -> Lent[Access] | None:
        file, tenant, client = (
            environ.get(f"AZURE_{name}", "") for name in ("FEDERATED_TOKEN_FILE", "TENANT_ID", "CLIENT_ID")
        )
        if not (file and tenant and client):
            return None
        host = environ.get("AZURE_AUTHORITY_HOST", LOGIN_ENDPOINT).rstrip("/")
        form = {
            "grant_type": "client_credentials",
            "client_id": client,
            "scope": f"{RESOURCE}.default",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": Secret(file=file).read(self._files),
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return await self._token(
            Request("POST", f"{host}/{tenant}/oauth2/v2.0/token", headers, urlencode(form).encode())
        )

    async def _token(self, request: Request) -> Lent[Access]:
        answer = await self._wire.send(request)
        if not answer.good:
            what = f"{urlsplit(request.url).netloc} was asked for a token and answered {answer.status}"
            if answer.status >= 500 or answer.status in (408, 410, 429):  # 410: it is being renewed
                raise Unavailable(what, reason="service")
            raise Forbidden(what, reason="credentials")
        try:
            found = msgspec.json.decode(answer.body, type=_Token)
            until = float(found.expires_on) if found.expires_on else self._clock.time() + float(found.expires_in)
        except (msgspec.DecodeError, ValueError):
            raise Unavailable("the identity's endpoint sent no token", reason="service") from None
        return Lent(self._made(token=found.access_token), until)


def connection(whole: str) -> Mapping[str, str]:
    """The fields of a connection string, names in lower case. Forbidden if it is none."""
    fields = {}
    for field in whole.strip().split(";"):
        name, equals, value = field.partition("=")
        if field and not equals:
            raise Forbidden("the connection string is none: NAME=VALUE;NAME=VALUE... is", reason="credentials")
        fields[name.strip().lower()] = value.strip()
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return connection(EMULATOR)
    if not fields.get("accountkey") and not fields.get("sharedaccesssignature"):
        raise Forbidden(
            "the connection string holds neither AccountKey nor SharedAccessSignature", reason="credentials"
        )
    return fields
