"""Typed data that replicas of a program share through nothing but a byte store with conditional put.

    from ostraka.metadatadb import Periodic, Store

    with Store(backend) as store:
        git = store.namespace("git")
        clones = git.int_map("clones")
        clones.add("ostraka")          # durable when it returns
        clones.get("ostraka")          # local

    aio.py, blocking.py, naming.py  stores and namespaces, with asyncio and without
    handles.py, values.py           Scalar, Int, IntMap, Set, Map, List; their keys and values as canonical JSON
    operations.py, queries.py       all that can be changed and asked, as closed sums
    state.py, applying.py, answering.py   what follows from them
    replica.py, registry.py         Memory, Journal, Periodic; from configuration
    scope.py, memory.py, journal.py, periodic.py   one namespace in each of them
    sharing.py, copy.py, stamps.py, garbage.py, lock.py   how replicas share one: the protocol
    format.py, objects.py           the bytes and the objects (docs/format/metadatadb.md)
    watching.py, metrics.py

Uses ``ostraka.backends`` and nothing else of Ostraka's stores.
"""

from ostraka.metadatadb.aio import AsyncNamespace, AsyncStore, Change
from ostraka.metadatadb.blocking import Namespace, Store
from ostraka.metadatadb.handles import MISSING, Int, IntMap, List, Map, Scalar, Set
from ostraka.metadatadb.operations import Kind, Op, Transaction
from ostraka.metadatadb.queries import Query
from ostraka.metadatadb.registry import REGISTRY, Registry
from ostraka.metadatadb.replica import Journal, Memory, Periodic, Replica
from ostraka.metadatadb.scope import Status

__all__ = [
    "MISSING",
    "REGISTRY",
    "AsyncNamespace",
    "AsyncStore",
    "Change",
    "Int",
    "IntMap",
    "Journal",
    "Kind",
    "List",
    "Map",
    "Memory",
    "Namespace",
    "Op",
    "Periodic",
    "Query",
    "Registry",
    "Replica",
    "Scalar",
    "Set",
    "Status",
    "Store",
    "Transaction",
]
