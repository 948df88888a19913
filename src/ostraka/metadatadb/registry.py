"""Replicas from configuration: each kind is registered with the type of its settings and a function that builds it.

A configuration is a table of what JSON or TOML has, whose ``type`` names the kind; ``schema`` says as JSON Schema what
may stand in it. A registry of one's own can hold other kinds; `REGISTRY` has the ones of this room.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from ostraka.backends import from_config
from ostraka.errors import Exists, Invalid
from ostraka.metadatadb.replica import (
    JOURNAL_SYNC_SECONDS,
    LOCK_SECONDS,
    PERIODIC_SYNC_SECONDS,
    PREFIX,
    Journal,
    Memory,
    Periodic,
    Replica,
)

C = TypeVar("C", bound=msgspec.Struct)

Factory = Callable[[C], Replica]


@dataclass(frozen=True, slots=True)
class Registered(Generic[C]):
    """A kind of replica: what it is, what its settings are, what makes one."""

    description: str
    config: type[C]
    factory: Factory[C]


class Registry:
    """The kinds of replica that a configuration may name."""

    def __init__(self) -> None:
        self._kinds: dict[str, Registered[Any]] = {}

    def register(self, type: str, description: str, config: type[C], factory: Factory[C]) -> None:
        """Add a kind. Exists (reason "type") if there is one of that name."""
        if type in self._kinds:
            raise Exists(f"a kind of replica {type!r} is registered already", reason="type")
        self._kinds[type] = Registered(description, config, factory)

    def exists(self, type: str) -> bool:
        """Whether there is a kind of that name."""
        return type in self._kinds

    def create(self, config: Mapping[str, Any]) -> Replica:
        """The replica that a configuration describes. Invalid (reason "type" or "config") if it describes none."""
        settings = dict(config)
        kind = self._kinds.get(str(settings.pop("type", "")))
        if kind is None:
            raise Invalid(
                f"no kind of replica {config.get('type')!r}: there are {', '.join(sorted(self._kinds))}", reason="type"
            )
        try:
            checked = msgspec.convert(settings, kind.config)
        except msgspec.ValidationError as e:
            raise Invalid(f"replica of type {config['type']!r}: {e}", reason="config") from None
        return kind.factory(checked)

    def schema(self) -> dict[str, Any]:
        """A JSON Schema of every configuration that ``create`` takes."""
        names = list(self._kinds)
        shapes, definitions = msgspec.json.schema_components([self._kinds[n].config for n in names])
        kinds = []
        for name, shape in zip(names, shapes, strict=True):
            found = dict(definitions[shape["$ref"].rpartition("/")[2]])
            found["title"], found["description"] = name, self._kinds[name].description
            found["properties"] = {"type": {"const": name}, **found["properties"]}
            found["required"] = ["type", *found["required"]]
            kinds.append(found)
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", "oneOf": kinds}


class MemoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It has no settings."""


class SharedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``backend``: as `ostraka.backends.from_config` takes it; times are seconds."""

    backend: dict[str, Any]
    prefix: str = PREFIX
    lock_ttl: float = LOCK_SECONDS


class JournalConfig(SharedConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    sync_interval: float = JOURNAL_SYNC_SECONDS


class PeriodicConfig(SharedConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    sync_interval: float = PERIODIC_SYNC_SECONDS


def register_memory(registry: Registry) -> None:
    registry.register("memory", "In this process's memory only.", MemoryConfig, lambda _: Memory())


def register_shared(registry: Registry) -> None:
    """Both disciplines over a byte store."""

    def journal(c: JournalConfig) -> Replica:
        backend = from_config(c.backend)
        return Journal(backend, prefix=c.prefix, sync_interval=c.sync_interval, lock_ttl=c.lock_ttl, owned=True)

    def periodic(c: PeriodicConfig) -> Replica:
        backend = from_config(c.backend)
        return Periodic(backend, prefix=c.prefix, sync_interval=c.sync_interval, lock_ttl=c.lock_ttl, owned=True)

    registry.register("journal", "Shared; an operation is durable when it returns.", JournalConfig, journal)
    registry.register("periodic", "Shared; durable with the next sync or flush.", PeriodicConfig, periodic)


REGISTRY = Registry()
register_memory(REGISTRY)
register_shared(REGISTRY)
