"""``S3Backend``: a bucket, or what lies below a prefix in it, as a backend.

Of S3 or of what speaks as it does. What differs between those is said in the configuration: ``conditional_writes`` and
``conditional_deletes`` claim that the store honours If-Match and If-None-Match; one that ignores them would overwrite
or delete what it must not, so claim only what ``ostraka backend check`` has shown.
"""

from collections.abc import Mapping
from functools import partial
from os import environ
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote

import msgspec

from ostraka.backends.backend import Capability, Stat
from ostraka.backends.configs import decode, encode
from ostraka.backends.remote.backend import SECRET_GIVEN, RemoteBackend
from ostraka.backends.remote.expiring import always
from ostraka.backends.remote.uploads import Parts
from ostraka.backends.remote.wire import Wire, check_endpoint, near, trusted
from ostraka.backends.s3.credentials import Credentials, Default, keys_of
from ostraka.backends.s3.service import Place, S3Service
from ostraka.errors import Invalid, PreconditionFailed
from ostraka.host import Host
from ostraka.limits import GIB, LIMITS, Limits
from ostraka.sigv4 import Keys

COPY_SIZE_MAX: Final = 5 * GIB  # of one copy, or of one part that is copied


class S3Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a bucket is and who asks. "" stands for what the environment says, as with AWS's own tools."""

    bucket: str
    prefix: str = ""
    region: str = ""  # AWS_REGION, AWS_DEFAULT_REGION, us-east-1
    endpoint: str = ""  # AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, Amazon's
    path_style: bool | None = None  # None: at an endpoint that is not Amazon's, or where the bucket's name has a dot
    credentials: Credentials = msgspec.field(default_factory=Default)
    conditional_writes: bool = True
    conditional_deletes: bool = False
    ca_file: str = ""  # certificates to trust beside the system's


class S3Backend(RemoteBackend):
    """A bucket as a backend. ``keys``: a secret at hand, in place of the configuration's credentials."""

    type: ClassVar[str] = "s3"

    def __init__(
        self, config: S3Config, *, keys: Keys | None = None, host: Host | None = None, limits: Limits = LIMITS
    ) -> None:
        host = host or Host()
        self._config = config
        self._keys_given = keys is not None
        lender = near(limits)
        lent = always(keys, host.clock) if keys else keys_of(config.credentials, lender, host.files, host.clock)
        wire = Wire(limits, authority=trusted(config.ca_file, host.files))
        self._s3 = S3Service(_place(config), lent, wire, host.clock)
        super().__init__(self._s3, lender, config.prefix, _claims(config), limits)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(decode(config, S3Config))

    def to_config(self) -> dict[str, Any]:
        if self._keys_given:
            raise Invalid(SECRET_GIVEN, reason="config")
        return encode(self.type, self._config)

    @property
    def place(self) -> str:
        return f"s3://{self._config.bucket}/"

    async def copy(self, source: str, target: str, *, if_absent: bool = False) -> str:
        self._check_claimed(Capability.COPY)
        origin, key = self._key(source), self._key(target)
        if not if_absent and origin != key:
            try:
                return await self._s3.copy(origin, key)
            except Invalid as error:
                if error.reason != "request" or (await self._s3.stat(origin)).size <= COPY_SIZE_MAX:
                    raise
        stat = await self._s3.stat(origin)
        if if_absent and await self.exists(target):
            raise PreconditionFailed(f"{target}: it is there already", reason="exists")
        if origin == key:
            return stat.etag
        return await self._uploads.in_parts(key, partial(self._copy_parts, origin, stat), if_absent=if_absent)

    async def _copy_parts(self, origin: str, stat: Stat, parts: Parts) -> None:
        size = max(COPY_SIZE_MAX // 10, -(-stat.size // self._s3.part_count_max))
        for begin in range(0, stat.size or 1, size):
            end = min(begin + size, stat.size)
            part = partial(self._s3.copy_part, parts.key, parts.upload)
            await parts.add(partial(part, source=origin, etag=stat.etag, begin=begin, end=end))


def _claims(config: S3Config) -> set[Capability]:
    claims = {Capability.BATCH_DELETE, Capability.DIRECTORIES, Capability.COPY, Capability.PRESIGN}
    if config.conditional_writes:
        claims.add(Capability.CONDITIONAL)
    if config.conditional_deletes:
        claims.add(Capability.CONDITIONAL_DELETE)
    return claims


def _place(config: S3Config) -> Place:
    if not config.bucket or "/" in config.bucket:
        raise Invalid(f"{config.bucket!r} is the name of no bucket", reason="config")
    region = config.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    own = f"https://s3.{region}.amazonaws.com"
    endpoint = config.endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or own
    url = check_endpoint(endpoint)
    path_style = config.path_style
    if path_style is None:
        path_style = endpoint != own or "." in config.bucket
    bucket = quote(config.bucket, safe="~")
    if path_style:
        return Place(url.scheme, url.netloc, f"/{bucket}", config.bucket, region)
    return Place(url.scheme, f"{bucket}.{url.netloc}", "", config.bucket, region)
