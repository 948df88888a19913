"""Rows that jobs keep in the state: what they must not forget over a restart (docs/format/job-rows.md).

j  name                 a job's own record, msgpack, its version first
h  write id (16)        a stripe with a shard that was found damaged or missing: HurtRow
"""

import msgspec

from ostraka.errors import Corrupt, Refused
from ostraka.pools.types import Owner, Stripe

JOB = b"j"
HURT = b"h"
TABLES = (JOB, HURT)
VERSION = 1
BY_WRITE_ID = 0
ID_SIZES = {BY_WRITE_ID: 16, int(Owner.CHUNK): 32, int(Owner.PACK): 16}


class HealRecord(msgspec.Struct, frozen=True, array_like=True):
    """How far healing has come. ``settled``: disks that are gone, and that no stripe names any more.

    A pass walks all stripes from ``cursor`` on, for the disks that it began with: ``healing`` came back or are new,
    ``gone`` were replaced or forgotten. Empty: no pass is under way. ``left``: stripes of this pass that are not whole.
    """

    version: int = VERSION
    settled: tuple[int, ...] = ()
    healing: tuple[tuple[int, int], ...] = ()  # (disk, since)
    gone: tuple[int, ...] = ()
    cursor: bytes = b""
    examined: int = 0
    repaired: int = 0
    left: int = 0


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """What decides where shards belong: a pass is for one of these, and a change of it begins another."""

    k: int
    m: int
    staying: tuple[tuple[int, int], ...]  # (disk, since): those that new shards may go to, once they are up
    leaving: tuple[tuple[int, int], ...]  # (disk, the epoch since which it is drained)


class RebalanceRecord(msgspec.Struct, frozen=True, array_like=True):
    """How far rebalancing has come. ``layout``: what the pass is for, first seen in epoch ``since``; when it has
    ``ended``, shards are where that wants them.

    The pass has come to ``cursor``, and has looked at ``examined`` of ``total`` stripes (as many as there were
    when it began). ``settled``: when it began, no write was in flight that had chosen its disks before ``since``.
    ``left``: stripes that still have to change; ``held``: those that were left as they are for want of room.
    ``old``: geometries that stripes may still have and that are not the store's; such stripes are rewritten if
    ``convert`` says so.
    """

    version: int = VERSION
    layout: Layout | None = None
    since: int = 0
    ended: bool = False
    cursor: bytes = b""
    settled: bool = False
    examined: int = 0
    total: int = 0
    moved: int = 0
    moved_bytes: int = 0
    left: int = 0
    held: int = 0
    old: tuple[tuple[int, int], ...] = ()
    convert: bool = False


class ScrubRecord(msgspec.Struct, frozen=True, array_like=True):
    """``finished``: when the last scrub of the state ended, by the wall clock."""

    version: int = VERSION
    finished: float = 0.0


class HurtRow(msgspec.Struct, frozen=True, array_like=True):
    """``stripe``: where to look for who owns it, when the key does not say."""

    version: int = VERSION
    stripe: Stripe | None = None


_heal = msgspec.msgpack.Decoder(HealRecord).decode
_rebalance = msgspec.msgpack.Decoder(RebalanceRecord).decode
_scrub = msgspec.msgpack.Decoder(ScrubRecord).decode
_hurt = msgspec.msgpack.Decoder(HurtRow).decode
encode = msgspec.msgpack.Encoder().encode


def hurt_key(kind: int, name: bytes) -> bytes:
    return HURT + bytes((kind,)) + name


HEAL_KEY = JOB + b"heal"
SCRUB_KEY = JOB + b"scrub"
REBALANCE_KEY = JOB + b"rebalance"


def decode(key: bytes, value: bytes) -> HealRecord | RebalanceRecord | ScrubRecord | HurtRow:
    """A row of these tables. Raises Corrupt for what cannot be one, Refused for a newer version's."""
    row: HealRecord | RebalanceRecord | ScrubRecord | HurtRow
    try:
        if key == HEAL_KEY:
            row = _heal(value)
        elif key == REBALANCE_KEY:
            row = _rebalance(value)
        elif key == SCRUB_KEY:
            row = _scrub(value)
        elif key[:1] == HURT and len(key) > 2 and len(key) == 2 + ID_SIZES.get(key[1], -1):
            row = _hurt(value)
        else:
            raise Corrupt(f"a key that is none of the jobs': {key[:32].hex()}", reason="row")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"a row of a job that cannot be read: {error}", reason="row") from None
    if row.version != VERSION:
        raise Refused(f"a row of a job of version {row.version}; this program reads {VERSION}", reason="version")
    return row
