"""Configurations: what a backend is made of again, here or in another process, without a secret in it.

A configuration is what JSON can say: ``{"type": "local", "root": "/data"}``. Each backend declares its fields as a
struct; what is missing, unknown or of the wrong kind is refused by its name. A secret stands in it by reference only,
as a ``Secret``: who has the configuration does not have the secret.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from os import environ
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ostraka.backends.backend import Backend
from ostraka.errors import Forbidden, Invalid, NotSupported
from ostraka.host import Files, SystemFiles

Making = Callable[[Mapping[str, Any]], Backend]

_TYPES: Final[dict[str, tuple[str, str]]] = {  # imported when wanted: the remote ones need packages that are an extra
    "local": ("ostraka.backends.local", "LocalBackend"),
    "memory": ("ostraka.backends.memory", "MemoryBackend"),
    "metered": ("ostraka.backends.metered", "MeteredBackend"),
    "resilient": ("ostraka.backends.resilience", "ResilientBackend"),
    "azure": ("ostraka.backends.azure.backend", "AzureBackend"),
    "s3": ("ostraka.backends.s3.backend", "S3Backend"),
}
_registered: dict[str, Making] = {}


def from_config(config: Mapping[str, Any]) -> Backend:
    """The backend that ``to_config`` described. Invalid (reason "config") for what describes none; NotSupported
    (reason "extra") if a package that it needs is not installed. Nothing is opened or asked yet."""
    kind = config.get("type")
    if not isinstance(kind, str) or kind not in known_types():
        raise Invalid(f"no backend of type {kind!r}; there are: {', '.join(known_types())}", reason="config")
    if kind in _registered:
        return _registered[kind](config)
    module, name = _TYPES[kind]
    try:
        made: Backend = getattr(import_module(module), name).from_config(config)
    except ModuleNotFoundError as error:
        message = f"a backend of type {kind} needs {error.name}: install ostraka with the extra 'remote'"
        raise NotSupported(message, reason="extra") from error
    return made


def register(kind: str, make: Making) -> None:
    """Let ``from_config`` make backends of a type of your own. Invalid if the type is taken by another."""
    if kind in _TYPES or _registered.get(kind, make) is not make:
        raise Invalid(f"there is a backend of type {kind!r} already", reason="config")
    _registered[kind] = make


def known_types() -> list[str]:
    return sorted({*_TYPES, *_registered})


class Secret(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a secret is: in an environment variable or in a file, exactly one of them."""

    variable: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        if bool(self.variable) == bool(self.file):
            raise ValueError("a secret is named by a variable or by a file, one of them")

    def read(self, files: Files | None = None) -> str:
        """The secret itself, read anew each time. Forbidden (reason "credentials") if it is not there."""
        if self.variable:
            value = environ.get(self.variable, "")
            if not value:
                raise Forbidden(
                    f"the variable {self.variable} is not set, and a secret should be", reason="credentials"
                )
            return value
        try:
            value = (files or SystemFiles()).read(Path(self.file)).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Forbidden(f"{self.file}, which should hold a secret: {why}", reason="credentials") from None
        if not value:
            raise Forbidden(f"{self.file}, which should hold a secret, is empty", reason="credentials")
        return value


T = TypeVar("T", bound=msgspec.Struct)


def decode(config: Mapping[str, Any], fields: type[T]) -> T:
    """The configuration as the struct that declares its fields (forbid_unknown_fields); ``type`` is left out."""
    try:
        return msgspec.convert({k: v for k, v in config.items() if k != "type"}, fields)
    except msgspec.ValidationError as error:
        message = f"the configuration of a backend of type {config.get('type')!r}: {error}"
        raise Invalid(message, reason="config") from None


def encode(kind: str, fields: msgspec.Struct) -> dict[str, Any]:
    """The struct as a configuration of that type."""
    return {"type": kind, **msgspec.to_builtins(fields)}
