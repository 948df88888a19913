"""Pools over backends, as the state knows them: which storage class goes where (docs/format/pool-rows.md).

``w`` and the pool's number (2 bytes) -> PoolRow. Numbers are given once and never again, so that a stripe that names a
pool names that pool for ever: the row of one that was removed stays.

What is written with a storage class goes to the pool of that class. What is shared with objects of other classes is
kept where the most wanted of them wants it: on the store's own disks, else in the pool of the lowest number.
"""

import msgspec

from ostraka.errors import Corrupt, Invalid, Refused
from ostraka.state import State, rows_under

POOL = b"w"
VERSION = 1
NUMBER_SIZE = 2
STANDARD = "STANDARD"
DISKS = 0  # the number of the pool of the store's own disks

ACTIVE = "active"
LEAVING = "leaving"  # nothing new goes there, and what is there moves to the disks
GONE = "gone"


class PoolRow(msgspec.Struct, frozen=True, array_like=True):
    """A pool. ``url``: of its backend, without secrets; ``cache_bytes``: of the local cache, 0: there is none."""

    version: int
    name: str
    url: str
    storage_class: str
    status: str = ACTIVE
    cache_bytes: int = 0


_decode = msgspec.msgpack.Decoder(PoolRow).decode
encode = msgspec.msgpack.Encoder().encode


def pool_key(number: int) -> bytes:
    return POOL + number.to_bytes(NUMBER_SIZE, "big")


def decode(key: bytes, value: bytes) -> tuple[int, PoolRow]:
    """(number, row). Raises Corrupt, Refused for a newer version's."""
    try:
        row = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"the row of a pool cannot be read: {error}", reason="row") from None
    if row.version != VERSION:
        raise Refused(f"the row of a pool has version {row.version}; this program reads {VERSION}", reason="version")
    if len(key) != 1 + NUMBER_SIZE or row.status not in (ACTIVE, LEAVING, GONE):
        raise Corrupt("the row of a pool that cannot be", reason="row")
    return int.from_bytes(key[1:], "big"), row


def pools(state: State) -> dict[int, PoolRow]:
    """All that there are or were, by number."""
    return dict(decode(key, value) for key, value in rows_under(state, POOL))


def pool_of(state: State, storage_class: str) -> int:
    """Where new bytes of a class go. Invalid("storage-class") where there is no such class."""
    if storage_class == STANDARD:
        return DISKS
    known = [STANDARD]
    for number, row in pools(state).items():
        if row.status == ACTIVE:
            if row.storage_class == storage_class:
                return number
            known.append(row.storage_class)
    raise Invalid(
        f"there is no storage class {storage_class!r} here; there are: {', '.join(known)}", reason="storage-class"
    )


def homes(state: State) -> dict[str, int]:
    """Storage class to the pool where its objects belong now: those of a class whose pool leaves belong on disks."""
    return {row.storage_class: number for number, row in pools(state).items() if row.status == ACTIVE}
