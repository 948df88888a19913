"""Byte stores addressed by path - a local directory, S3, Azure, memory - behind one interface that may be retried.

backend.py says what every one of them means, paths.py which paths there are, configs.py how one is described, urls.py
how one is named in a word. Public: a program uses it by itself, and the backend pool, the block store's remote and
``ostraka.metadatadb`` stand on it.
"""

from ostraka.backends.backend import (
    Backend,
    Capability,
    Copies,
    DeleteFailure,
    DeletesBatches,
    DeletesConditionally,
    Entry,
    ListsDirectories,
    Partial,
    Presigns,
    Reading,
    RemovesDirectories,
    Resumes,
    Sink,
    Source,
    Stat,
    WritesConditionally,
    require,
)
from ostraka.backends.configs import Secret, from_config, known_types, register
from ostraka.backends.local import LocalBackend
from ostraka.backends.memory import MemoryBackend
from ostraka.backends.metered import MeteredBackend, metrics_for
from ostraka.backends.partitions import Measurement, for_engine, present
from ostraka.backends.resilience import BreakerState, Resilience, ResilientBackend, Statistics
from ostraka.backends.urls import Address, address
from ostraka.backends.wrapper import Operation

__all__ = [
    "Address",
    "Backend",
    "BreakerState",
    "Capability",
    "Copies",
    "DeleteFailure",
    "DeletesBatches",
    "DeletesConditionally",
    "Entry",
    "ListsDirectories",
    "LocalBackend",
    "Measurement",
    "MemoryBackend",
    "MeteredBackend",
    "Operation",
    "Partial",
    "Presigns",
    "Reading",
    "RemovesDirectories",
    "Resilience",
    "ResilientBackend",
    "Resumes",
    "Secret",
    "Sink",
    "Source",
    "Stat",
    "Statistics",
    "WritesConditionally",
    "address",
    "for_engine",
    "from_config",
    "known_types",
    "metrics_for",
    "present",
    "register",
    "require",
]
