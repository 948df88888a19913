"""Rows that jobs keep in the state: what they must not forget over a restart (docs/format/job-rows.md).

j  name                 a job's own record, msgpack, its version first
J  name                 what stands of a job beside that: by whom it is paused, its last runs: JobRow
h  kind(1) id           something with a shard that was found damaged or missing: HurtRow
"""

import msgspec

from ostraka.errors import Corrupt, Refused
from ostraka.pools.types import Owner, Stripe

JOB = b"j"
STANDING = b"J"
HURT = b"h"
TABLES = (JOB, STANDING, HURT)
VERSION = 1
BY_WRITE_ID = 0
ID_SIZES = {BY_WRITE_ID: 16, int(Owner.CHUNK): 32, int(Owner.PACK): 16}


class HealRecord(msgspec.Struct, frozen=True, array_like=True):
    """How far healing has come. ``settled``: disks that are gone, and that no stripe names any more.

    A pass walks all stripes from ``cursor`` on, for the disks that it began with: ``healing`` came back or are new,
    ``gone`` were replaced or forgotten. Empty: no pass is under way. ``left``: stripes of this pass that are not whole.

    The most endangered come first: a pass walks once for those that have ``most`` shards (or more) on these disks, then
    for those with one less, and so on; it is in the walk for ``danger`` (0: in none yet), and has passed ``walked`` of
    ``total`` stripes (0: nobody counted them).
    """

    version: int = VERSION
    settled: tuple[int, ...] = ()
    healing: tuple[tuple[int, int], ...] = ()  # (disk, since)
    gone: tuple[int, ...] = ()
    cursor: bytes = b""
    examined: int = 0
    repaired: int = 0
    left: int = 0
    danger: int = 0
    most: int = 0
    walked: int = 0
    total: int = 0


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


class DiskScrub(msgspec.Struct, frozen=True, array_like=True):
    """How far one disk is verified. Moments are by the wall clock, 0.0: never. ``known``: when it was first seen;
    ``since``: when the last pass that came to its end began, so all that is on the disk was written or verified since.
    Of the pass under way: when it ``began`` (0.0: there is none), the last ``segment`` that it has read, and what it
    came to."""

    disk: int
    known: float = 0.0
    since: float = 0.0
    began: float = 0.0
    segment: bytes = b""
    bytes: int = 0
    shards: int = 0
    bad: int = 0


class RowScrub(msgspec.Struct, frozen=True, array_like=True):
    """How far the rows are held against the disks; as DiskScrub. ``cursor``: the next row."""

    known: float = 0.0
    since: float = 0.0
    began: float = 0.0
    cursor: bytes = b""
    rows: int = 0
    bad: int = 0


class ScrubRecord(msgspec.Struct, frozen=True, array_like=True):
    """``finished``: when the last scrub of the state ended, by the wall clock. ``asked``: when an operator began the
    one that is under way, 0.0: nobody did."""

    version: int = VERSION
    finished: float = 0.0
    asked: float = 0.0
    disks: tuple[DiskScrub, ...] = ()
    rows: RowScrub = RowScrub()


class RewrapRecord(msgspec.Struct, frozen=True, array_like=True):
    """How far the re-wrapping of data keys has come. ``targets``: what the pass is for, keys by their id with the
    version that all seals of theirs are to have.

    The pass has come to the key ``cursor``, has looked at ``examined`` rows, changed ``rewrapped`` and could not read
    ``left``. ``closing``: it began when nothing could be sealed under older versions any more, so that they may go when
    it ends with nothing left; else, once it has ``ended``, that is waited for.
    """

    version: int = VERSION
    targets: tuple[tuple[bytes, int], ...] = ()
    cursor: bytes = b""
    examined: int = 0
    rewrapped: int = 0
    left: int = 0
    closing: bool = False
    ended: bool = False


class HurtRow(msgspec.Struct, frozen=True, array_like=True):
    """``stripe``: where to look for who owns it, when the key does not say. ``since``: when it was found (POSIX
    seconds)."""

    version: int = VERSION
    stripe: Stripe | None = None
    since: float = 0.0


class Run(msgspec.Struct, frozen=True, array_like=True):
    """What a job did between two rests. ``began``, ``ended``: by the wall clock. ``outcome``: done, failed (its last
    piece), cancelled or stopped (with the process). ``done``: units; ``errors``: pieces that failed."""

    began: float
    ended: float
    outcome: str
    done: int = 0
    bytes: int = 0
    errors: int = 0
    note: str = ""


class JobRow(msgspec.Struct, frozen=True, array_like=True):
    """What stands of one job. ``paused_since``: POSIX seconds, 0.0: it is not. ``runs``: the newest last."""

    version: int = VERSION
    paused_since: float = 0.0
    paused_by: str = ""
    runs: tuple[Run, ...] = ()


_heal = msgspec.msgpack.Decoder(HealRecord).decode
_rebalance = msgspec.msgpack.Decoder(RebalanceRecord).decode
_rewrap = msgspec.msgpack.Decoder(RewrapRecord).decode
_scrub = msgspec.msgpack.Decoder(ScrubRecord).decode
_hurt = msgspec.msgpack.Decoder(HurtRow).decode
_job = msgspec.msgpack.Decoder(JobRow).decode
encode = msgspec.msgpack.Encoder().encode


def hurt_key(kind: int, name: bytes) -> bytes:
    return HURT + bytes((kind,)) + name


def standing_key(name: str) -> bytes:
    return STANDING + name.encode()


HEAL_KEY = JOB + b"heal"
SCRUB_KEY = JOB + b"scrub"
REBALANCE_KEY = JOB + b"rebalance"
REWRAP_KEY = JOB + b"rewrap"


Row = HealRecord | RebalanceRecord | RewrapRecord | ScrubRecord | JobRow | HurtRow


def decode(key: bytes, value: bytes) -> Row:
    """A row of these tables. Raises Corrupt for what cannot be one, Refused for a newer version's."""
    row: Row
    try:
        if key == HEAL_KEY:
            row = _heal(value)
        elif key == REBALANCE_KEY:
            row = _rebalance(value)
        elif key == REWRAP_KEY:
            row = _rewrap(value)
        elif key == SCRUB_KEY:
            row = _scrub(value)
        elif key[:1] == STANDING and len(key) > 1:
            row = _job(value)
        elif key[:1] == HURT and len(key) > 2 and len(key) == 2 + ID_SIZES.get(key[1], -1):
            row = _hurt(value)
        else:
            raise Corrupt(f"a key that is none of the jobs': {key[:32].hex()}", reason="row")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"a row of a job that cannot be read: {error}", reason="row") from None
    if row.version != VERSION:
        raise Refused(f"a row of a job of version {row.version}; this program reads {VERSION}", reason="version")
    return row
