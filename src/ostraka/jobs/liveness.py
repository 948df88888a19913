"""Whether a shard on a disk is one that the state names: the question of compaction and of fsck.

The state is asked, never the disk: a row must name this write id, and this disk at that index. A stripe that lost its
row but waits in the zero queue counts as named, because readers in flight may want it (law 6).

Uncommitted writes are named by nobody and look like dead ones. So only *closed* segments may be judged: those in which
every write was committed or given up (`closed`).
"""

from collections.abc import Callable, Container

from ostraka.chunks.rows import ZERO, chunk_key, decode_chunk, decode_pack, decode_stripe, pack_key
from ostraka.errors import Corrupt
from ostraka.jobs.ground import Ground
from ostraka.nodes.local import LocalDisk
from ostraka.nodes.shard_index import SegmentInfo
from ostraka.objects.rows import INCARNATION
from ostraka.pools.types import Owner, Stripe
from ostraka.state.tables import rows_under
from ostraka.state.types import State

IsLive = Callable[[int, bytes, bytes, int], bool]


def named_stripes(state: State, owner: int, owner_id: bytes, write_id: bytes) -> list[Stripe]:
    """The stripes of that write which rows name: the owner's own, and the one that waits in the zero queue.

    Raises Corrupt for a row that cannot be read: then nobody may say that its shards are dead.
    """
    if owner not in (Owner.CHUNK, Owner.PACK):
        raise Corrupt(f"a shard of an owner of kind {owner}", reason="shard")
    chunk = owner == Owner.CHUNK
    row, queued = state.get_many([(chunk_key if chunk else pack_key)(owner_id), ZERO + b"s" + write_id])
    stripes = []
    if row is not None:
        stripes.append((decode_chunk(row) if chunk else decode_pack(row)).stripe)
    if queued is not None:
        stripes.append(decode_stripe(queued).stripe)
    return [stripe for stripe in stripes if stripe.write_id == write_id]


def liveness(state: State, disk: int) -> IsLive:
    """(owner, owner id, write id, index) -> whether the state names that shard on that disk."""

    def is_live(owner: int, owner_id: bytes, write_id: bytes, index: int) -> bool:
        for stripe in named_stripes(state, owner, owner_id, write_id):
            if index < len(stripe.disks) and stripe.disks[index] == disk:
                return True
        return False

    return is_live


def closed(disk: LocalDisk, info: SegmentInfo, alive: Container[bytes]) -> bool:
    """Whether all writes of a segment are decided, so that what no row names is dead.

    ``alive``: what `undecided` told, *after* the segments were listed and before the state is asked about the shards.
    """
    if info.incarnation == disk.incarnation or info.incarnation in alive:
        return info.sealed and info.settled
    return True


def undecided(ground: Ground) -> set[bytes]:
    """Incarnations whose writes may still be committed. Ask after the segments were listed, before the state is.

    Those of living processes, and those whose row still stands: the last record of a process that was killed may lie
    in the log unseen, until the commit that removes the row rolls it forward (ENGINE 6, 19).
    """
    alive = ground.live_incarnations()
    alive.update(key[1:] for key, _ in rows_under(ground.state, INCARNATION))
    return alive
