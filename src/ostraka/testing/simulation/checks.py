"""What must be true of a store that has come to rest, whatever happened before.

The checks know what a store promises, and nothing of how it may break: what was acknowledged is there, byte for byte;
listings say the same as reads; counts are what rows refer to; what is named is whole on its disks; and once everything
was deleted and collected, nothing is left.
"""

from collections import Counter
from collections.abc import Iterator

from ostraka.chunks.rows import (
    CHUNK_COUNTERS,
    CHUNKS,
    PACKS,
    SLOT_COUNTERS,
    SLOT_DEAD,
    ZERO,
    chunk_key,
    decode_pack,
    pack_key,
    slots_of,
)
from ostraka.chunks.types import Kind
from ostraka.errors import OstrakaError
from ostraka.jobs import rebalance
from ostraka.jobs.stripes import pages, read_named
from ostraka.objects import check as tables
from ostraka.objects import rows as object_rows
from ostraka.state import State, counter, rows_under, totals
from ostraka.store.store import WEIGHED, Store
from ostraka.testing.simulation.clients import KEYS, World, list_keys, list_versions, read_key, read_version

_TABLES_OF_BODIES = (
    CHUNKS,
    CHUNK_COUNTERS,
    PACKS,
    SLOT_COUNTERS,
    ZERO,
    object_rows.VERSION,
    object_rows.LIVE,
    object_rows.UPLOAD,
    object_rows.PART,
    object_rows.PAGE,
    object_rows.REFERENCES,
    object_rows.COMPLETED,
    object_rows.DEAD,
    object_rows.PENDING,
)


async def verify_answers(world: World, store: Store, who: str) -> None:
    """Every key is read, in every way; nothing may fail. Nobody else uses the store."""
    for bucket, versioning in world.buckets.items():
        for key in KEYS:
            try:
                await read_key(world, store, bucket, key, who)
                for version in await list_versions(world, store, bucket, key, who):
                    if versioning and version.etag:
                        await read_version(world, store, bucket, key, version, who)
            except OstrakaError as error:
                world.fail(f"{who}: {bucket}/{key[:4]!r} cannot be read: {error!r}")
        try:
            await list_keys(world, store, bucket, who)
        except OstrakaError as error:
            world.fail(f"{who}: {bucket} cannot be listed: {error!r}")


def verify_references(store: Store) -> Iterator[str]:
    """The tables against each other, and counts against what is counted. Nothing may be written meanwhile."""
    state = store.state
    for finding in tables.check(state):
        yield f"{finding.kind}: {finding.message}"
    referenced: Counter[tuple[int, bytes, int]] = Counter()
    for entry in tables.chunk_references(state):
        referenced[entry.kind, entry.id, entry.slot] += 1
    mistaken = totals.wrong(state, WEIGHED)
    if mistaken is not None:
        yield f"totals are not what the tables come to: {[op.key for op in mistaken.operations]}"
    queued = {key[1:] for key, _ in rows_under(state, ZERO)}
    yield from _chunks(state, referenced, queued)
    yield from _packs(state, referenced, queued)


def _chunks(state: State, referenced: "Counter[tuple[int, bytes, int]]", queued: set[bytes]) -> Iterator[str]:
    counts = {key[1:]: counter(value) for key, value in rows_under(state, CHUNK_COUNTERS)}
    rows = {key[1:] for key, _ in rows_under(state, CHUNKS)}
    wanted = {chunk_key(name)[1:]: number for (kind, name, _), number in referenced.items() if kind == Kind.CHUNK}
    for name in sorted(counts.keys() | wanted.keys()):
        if counts.get(name, 0) != wanted.get(name, 0):
            yield f"chunk {_short(name)} is counted {counts.get(name)} times, and referred to {wanted.get(name)}"
    for name in sorted(wanted.keys() - rows):
        yield f"chunk {_short(name)} is referred to, and is not there"
    for name in sorted(rows - wanted.keys()):
        if CHUNKS + name not in queued:
            yield f"chunk {_short(name)} is referred to by nobody, and not queued to be collected"


def _short(key: bytes) -> str:
    """Of a chunk's key, what is enough to tell it from others."""
    return key[-32:].hex()[:8]


def _packs(state: State, referenced: "Counter[tuple[int, bytes, int]]", queued: set[bytes]) -> Iterator[str]:
    counts = {(key[1:-2], int.from_bytes(key[-2:], "big")): counter(v) for key, v in rows_under(state, SLOT_COUNTERS)}
    wanted = {(name, slot): number for (kind, name, slot), number in referenced.items() if kind == Kind.SLOT}
    for (name, slot), number in sorted(counts.items()):
        if wanted.get((name, slot)) != number:
            yield f"slot {name.hex()[:8]}.{slot} is counted {number} times, and referred to {wanted.get((name, slot))}"
    for (name, slot), number in sorted(wanted.items()):
        if number != counts.get((name, slot), 1):
            yield f"slot {name.hex()[:8]}.{slot} is referred to {number} times, and counted {counts.get((name, slot))}"
        value = state.get(pack_key(name))
        if value is None:
            yield f"pack {name.hex()[:8]} is referred to, and is not there"
        elif slots_of(decode_pack(value))[slot].flags & SLOT_DEAD:
            yield f"slot {name.hex()[:8]}.{slot} is referred to, and marked dead"


async def verify_shards(store: Store) -> list[str]:
    """Every shard of every stripe that a row names is whole on its disk."""
    found = []
    for page in pages(store.state, b"", 500):
        for key, value in page:
            named = read_named(key, value)
            for shard in await store.pools.verify(named.stripe):
                if shard.state != "good":
                    found.append(f"{named.name[:14]}: shard {shard.index} on disk {shard.disk} is {shard.state}")
    return found


async def verify_whole(store: Store) -> list[str]:
    """Every disk is in service, as many copies of the state as there should be, and every shard in its place."""
    epoch = store.membership.epoch
    found = [f"disk {d.number} is down" for d in epoch.members if not d.up]
    found += [f"disk {d.number} is still healing" for d in epoch.members if d.healing]
    found += [f"disk {d.number} is still drained" for d in epoch.members if d.draining]
    if rebalance.pending(store):
        found.append("shards are not where they belong")
    copies = {d.disk_id for d in epoch.members if d.state and d.up}
    if len(copies) != epoch.m + 1:
        found.append(f"{len(copies)} copies of the state by the epoch, {epoch.m + 1} are due")
    if {position.disk for position in store.state.meta().copies} != copies:
        found.append("commits go to other copies of the state than the epoch says")
    return [*found, *await verify_shards(store)]


async def empty(store: Store) -> None:
    """Delete all that there is."""
    objects = store.objects
    for bucket in objects.list_buckets(None, "", "", 100)[0]:
        for info in objects.list_versions(bucket.name, "", "", "", "", 1000).entries:
            named = info.version_id if bucket.versioning else None
            await objects.delete(bucket.name, info.key, named, owner=bucket.owner)
        for upload in objects.list_uploads(bucket.name, "", "", "", "", 1000).entries:
            await objects.abort_upload(bucket.name, upload.key, upload.upload_id)


def verify_nothing_left(store: Store) -> Iterator[str]:
    """After all was deleted and collected: no row, but of packs with a slot that a crash left to fsck."""
    for table in _TABLES_OF_BODIES:
        for key, value in rows_under(store.state, table):
            if table == PACKS and any(not slot.flags & SLOT_DEAD for slot in slots_of(decode_pack(value))):
                continue
            yield f"a row is left: {key[:20].hex()}"


def verify_no_bytes_left(store: Store) -> Iterator[str]:
    """After that, and a restart that sealed every segment: on no disk is anything alive that no row names."""
    named = {key[1:] for key, _ in rows_under(store.state, PACKS)}
    for number, disk in sorted(store.disks.items()):
        for found in disk.iterate():
            if found.named and found.extent.header.owner_id not in named:
                yield f"disk {number} keeps a shard of {found.extent.header.owner_id.hex()[:8]}, which nobody names"
