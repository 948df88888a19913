"""``AzureBackend``: a container of Azure Blob Storage, or what lies below a prefix in it, as a backend.

Every write gives a new ETag here. A listing begins at its beginning only: ``start_after`` costs the pages before it.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Self

import msgspec

from ostraka.backends.azure.credentials import Accesses, Credentials, Default
from ostraka.backends.azure.ordering import in_byte_order
from ostraka.backends.azure.service import AzureService
from ostraka.backends.azure.signing import Access
from ostraka.backends.backend import Capability, Stat
from ostraka.backends.configs import decode, encode
from ostraka.backends.paths import check_path
from ostraka.backends.remote.backend import SECRET_GIVEN, RemoteBackend
from ostraka.backends.remote.expiring import always
from ostraka.backends.remote.wire import Wire, check_endpoint, near, trusted
from ostraka.errors import Forbidden, Invalid
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits


class AzureConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a container is and who asks. "" stands for what the credentials or the environment say."""

    container: str
    prefix: str = ""
    account: str = ""  # AZURE_STORAGE_ACCOUNT
    endpoint: str = ""  # https://ACCOUNT.blob.core.windows.net; an emulator's ends in its account's name
    credentials: Credentials = msgspec.field(default_factory=Default)
    ca_file: str = ""  # certificates to trust beside the system's


class AzureBackend(RemoteBackend):
    """A container as a backend. ``access``: a secret at hand, in place of the configuration's credentials."""

    type: ClassVar[str] = "azure"

    def __init__(
        self, config: AzureConfig, *, access: Access | None = None, host: Host | None = None, limits: Limits = LIMITS
    ) -> None:
        host = host or Host()
        if not config.container or "/" in config.container:
            raise Invalid(f"{config.container!r} is the name of no container", reason="config")
        if config.endpoint:
            check_endpoint(config.endpoint, path=True)
        self._config = config
        self._access_given = access is not None
        lender = near(limits)
        accesses = Accesses(config.credentials, config.account, config.endpoint, lender, host.files, host.clock)
        opened = always(access, host.clock) if access else accesses.current
        wire = Wire(limits, authority=trusted(config.ca_file, host.files))
        self._azure = AzureService(config.container, opened, wire, host)
        super().__init__(self._azure, lender, config.prefix, _claims(access or _at_hand(accesses)), limits)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(decode(config, AzureConfig))

    def to_config(self) -> dict[str, Any]:
        if self._access_given:
            raise Invalid(SECRET_GIVEN, reason="config")
        return encode(self.type, self._config)

    @property
    def place(self) -> str:
        return f"az://{self._config.container}/"

    def _checked(self, path: str) -> str:
        check_path(path)
        if "\\" in path or path.endswith(".") or "./" in path:
            raise Invalid(
                f"{path!r}: Azure takes a backslash for '/', and may drop a dot at the end of a name", reason="path"
            )
        return path

    async def _entries(self, prefix: str, start_after: str) -> AsyncGenerator[tuple[str, Stat], None]:
        async with aclosing(super()._entries(prefix, start_after)) as entries:
            async for entry in in_byte_order(entries, lambda entry: entry[0], prefix):
                yield entry

    async def _directories(self, prefix: str) -> AsyncGenerator[str, None]:
        async with aclosing(super()._directories(prefix)) as directories:
            async for directory in in_byte_order(directories, str, prefix):
                yield directory

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        self._check_claimed(Capability.COPY)
        return await self._azure.copy(self._key(source), self._key(target), if_absent=if_absent)


def _at_hand(accesses: Accesses) -> Access | None:
    try:
        return accesses.at_hand()
    except Forbidden:  # a secret that is missing is told to who first needs it
        return None


def _claims(access: Access | None) -> set[Capability]:
    claims = {
        Capability.BATCH_DELETE,
        Capability.DIRECTORIES,
        Capability.CONDITIONAL,
        Capability.CONDITIONAL_DELETE,
        Capability.COPY,
        Capability.NEW_ETAGS,
        Capability.PLAIN_NAMES,
    }
    if access is not None and access.key:
        claims.add(Capability.PRESIGN)
    return claims
