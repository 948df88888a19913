"""Queries: every question there is, as a closed sum of small frozen types, each with the type of its answer.

Keys, members and values are as in operations.py: canonical JSON.
"""

from typing import ClassVar, Generic, TypeVar, get_args

import msgspec

from ostraka.metadatadb.operations import Kind

T = TypeVar("T")


class Question(msgspec.Struct, Generic[T], frozen=True):
    """A question about one name; T is what answers it."""

    kind: ClassVar[Kind | None] = None  # that the name must have; None: any
    name: str


class ScalarGet(Question[bytes | None], frozen=True):
    kind = Kind.SCALAR


class IntGet(Question[int], frozen=True):
    """0 if it is absent."""

    kind = Kind.INT


class IntMapGet(Question[int], frozen=True):
    """0 if it is absent."""

    kind = Kind.INT_MAP
    key: str


class IntMapKeys(Question[list[str]], frozen=True):
    kind = Kind.INT_MAP


class IntMapEntries(Question[dict[str, int]], frozen=True):
    kind = Kind.INT_MAP


class SetContains(Question[bool], frozen=True):
    kind = Kind.SET
    member: str


class SetMembers(Question[list[str]], frozen=True):
    kind = Kind.SET


class MapGet(Question[bytes | None], frozen=True):
    kind = Kind.MAP
    key: str


class MapKeys(Question[list[str]], frozen=True):
    kind = Kind.MAP


class MapEntries(Question[dict[str, bytes]], frozen=True):
    kind = Kind.MAP


class ListEntries(Question[list[bytes]], frozen=True):
    """The values, or those of a slice."""

    kind = Kind.LIST
    start: int | None = None
    stop: int | None = None


class ListLen(Question[int], frozen=True):
    kind = Kind.LIST


class Size(Question[int], frozen=True):
    """How many keys, members or values the name has; 1 for a single value, 0 for what is absent."""


class Expiry(Question[int | None], frozen=True):
    """When the name, or a key or member of it, will be gone: milliseconds since 1970; 0: never; None: it is absent."""

    key: str | None = None


class Names(Question[dict[str, Kind]], frozen=True):
    """The names that begin with ``name``, which may be empty, with their kinds, in order."""


Query = (
    ScalarGet
    | IntGet
    | IntMapGet
    | IntMapKeys
    | IntMapEntries
    | SetContains
    | SetMembers
    | MapGet
    | MapKeys
    | MapEntries
    | ListEntries
    | ListLen
    | Size
    | Expiry
    | Names
)

QUERIES: tuple[type[Question[object]], ...] = get_args(Query)
