"""Replicas from configuration, what may stand in it, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ostraka.backends import LocalBackend, MemoryBackend
from ostraka.errors import Exists, Invalid
from ostraka.metadatadb import REGISTRY, AsyncStore, Journal, Memory, Periodic, Registry, Replica
from ostraka.metadatadb.registry import register_memory, register_shared


def test_each_kind_comes_back_from_its_configuration(tmp_path: Path) -> None:
    for replica in (
        Memory(),
        Journal(LocalBackend(tmp_path), prefix="a/", sync_interval=3.0, lock_ttl=7.0),
        Periodic(MemoryBackend()),
    ):
        config = msgspec.json.decode(msgspec.json.encode(replica.to_config()))
        again = REGISTRY.create(config)
        assert type(again) is type(replica)
        assert again.to_config() == replica.to_config()


def test_a_configured_replica_works_and_closes_its_byte_store(tmp_path: Path) -> None:
    config = {"type": "journal", "backend": {"type": "local", "root": str(tmp_path / "root")}}

    async def main() -> None:
        for turn in range(2):
            replica = REGISTRY.create(config)
            assert isinstance(replica, Journal)
            async with AsyncStore(replica) as store:
                n = (await store.namespace("ns")).int("n")
                assert n.get() == turn
                await n.add(1)
            with pytest.raises(Exception, match="closed"):
                await replica.backend.read("x")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("config", "reason", "words"),
    [
        ({}, "type", "there are journal, memory, periodic"),
        ({"type": "etcd"}, "type", "'etcd'"),
        ({"type": "memory", "size": 3}, "config", "size"),
        ({"type": "journal"}, "config", "backend"),
        ({"type": "journal", "backend": {"type": "memory"}, "sync-interval": 3}, "config", "sync-interval"),
        ({"type": "periodic", "backend": {"type": "memory"}, "sync_interval": "3"}, "config", "sync_interval"),
        ({"type": "periodic", "backend": {"type": "memory"}, "sync_interval": 0}, "config", "more than 0"),
        ({"type": "periodic", "backend": {"type": "tape"}}, "config", "tape"),
        ({"type": "periodic", "backend": {"type": "memory"}, "prefix": "../"}, "path", ".."),
    ],
)
def test_what_describes_nothing_is_refused_by_name(config: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        REGISTRY.create(config)
    assert refused.value.reason == reason


def test_the_schema_says_what_may_stand_there() -> None:
    schema = REGISTRY.schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    kinds = {kind["title"]: kind for kind in schema["oneOf"]}
    assert set(kinds) == {"memory", "journal", "periodic"}
    journal = kinds["journal"]
    assert journal["properties"]["type"] == {"const": "journal"}
    assert set(journal["properties"]) == {"type", "backend", "prefix", "lock_ttl", "sync_interval"}
    assert journal["required"] == ["type", "backend"]
    assert journal["properties"]["sync_interval"]["default"] == 15.0
    assert kinds["periodic"]["properties"]["sync_interval"]["default"] == 30.0
    assert all(kind["additionalProperties"] is False and kind["description"] for kind in kinds.values())


def test_a_registry_of_ones_own_holds_kinds_of_ones_own() -> None:
    class Mine(msgspec.Struct, forbid_unknown_fields=True):
        size: int = 3

    made = []

    def make(config: Mine) -> Replica:
        made.append(config.size)
        return Memory()

    registry = Registry()
    assert not registry.exists("memory")
    register_memory(registry)
    register_shared(registry)
    registry.register("mine", "of my own", Mine, make)
    assert registry.exists("mine")
    registry.create({"type": "mine", "size": 5})
    registry.create({"type": "mine"})
    assert made == [5, 3]
    with pytest.raises(Exists):
        registry.register("mine", "again", Mine, make)
    assert not REGISTRY.exists("mine")
    assert "mine" in {kind["title"] for kind in registry.schema()["oneOf"]}
