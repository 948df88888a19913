"""Checking the objects' tables against each other: for fsck, and for tests after every step.

Every reference is held by exactly one row (a row of holds may hold several), which is what makes counting possible:
`walk` yields them all, so that chunks' counters can be compared by who knows them. `check` compares the manifests'
counters and pages, what is newest and what is null, uploads and parts. It reads in pages and never all at one moment:
on a store that serves, a finding may be a change in flight, so that whoever asks looks twice. A repair carries what the
finding was judged on as a precondition.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat

import msgspec

from ostraka.chunks.sealing import TAG_SIZE
from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt
from ostraka.objects import rows
from ostraka.objects.rows import DeadRecord
from ostraka.state import Absent as NoRow
from ostraka.state import (
    Delete,
    Equals,
    Mutation,
    Operation,
    Precondition,
    Present,
    Put,
    Rejected,
    State,
    counter,
    counter_value,
    key_sequence,
    prefix_end,
    rows_under,
)


class Reference(msgspec.Struct, frozen=True, gc=False):
    """``row`` holds one reference to what ``entry`` names (CHUNK, SLOT or MANIFEST)."""

    row: bytes
    entry: Entry


class Finding(msgspec.Struct, frozen=True):
    """Something that does not fit. ``repair``: the mutation that mends it; None when nothing here can."""

    kind: str
    row: bytes
    message: str
    repair: Mutation | None = None


def walk(state: State) -> Iterator[Reference]:
    """Every reference that a row holds: versions, parts, pages, dead rows, holds, pending manifests. Raises Corrupt."""
    for row, value in rows_under(state, rows.VERSION):
        for entry in rows.version_of(value).entries:
            yield Reference(row, entry)
    for row, value in rows_under(state, rows.PART):
        for entry in rows.part_of(value).entries():
            yield Reference(row, entry)
    for row, value in rows_under(state, rows.PAGE):
        for entry in rows.page_of(value):
            yield Reference(row, entry)
    for row, value in rows_under(state, rows.DEAD):
        for entry in rows.dead_of(value).entries:
            yield Reference(row, entry)
    for row, value in rows_under(state, rows.HELD):
        held = Reference(row, Entry(Kind.CHUNK, row[1:], 0, 0))
        yield from repeat(held, counter(value))
    for row, _ in rows_under(state, rows.PENDING):
        yield Reference(row, Entry(Kind.MANIFEST, row[-rows.ID_SIZE :], 0, 0))


def chunk_references(state: State) -> Iterator[Entry]:
    """Every CHUNK and SLOT slice that is referenced, as often as it is: what chunks' counters must come to."""
    for reference in walk(state):
        if reference.entry.kind != Kind.MANIFEST:
            yield reference.entry


def check(state: State) -> list[Finding]:
    """All findings; an empty list means that the tables agree. Rows that do not decode are findings too."""
    findings: list[Finding] = []
    for part in (_manifests, _keys, _buckets, _uploads):
        try:
            findings.extend(part(state))
        except Corrupt as error:
            findings.append(Finding("damaged", b"", f"{part.__name__[1:]}: {error.message}"))
    return findings


async def repair(state: State, findings: Sequence[Finding]) -> int:
    """Commit what the findings offer; returns how many were mended (the others changed meanwhile, or need a person)."""
    mended = 0
    for finding in findings:
        if finding.repair is not None:
            try:
                await state.commit(finding.repair)
                mended += 1
            except Rejected:
                pass
    return mended


# -- manifests


def _manifests(state: State) -> Iterator[Finding]:
    held: Counter[bytes] = Counter()
    needed: dict[bytes, tuple[int, bytes]] = {}  # how far its pages must reach, and for whom
    for reference in walk(state):
        entry = reference.entry
        if entry.kind == Kind.MANIFEST:
            held[entry.id] += 1
            end = entry.offset + entry.length
            if reference.row[:1] != rows.DEAD and end > needed.get(entry.id, (0, b""))[0]:
                needed[entry.id] = end, reference.row
    for key, value in rows_under(state, rows.REFERENCES):
        manifest = key[1:]
        if counter(value) != held[manifest] or held[manifest] < 2:
            yield _count_finding(key, value, held[manifest])
    for manifest, number in held.items():
        key = rows.REFERENCES + manifest
        if number > 1 and state.get(key) is None:
            yield _count_finding(key, None, number)
    yield from _pages(state, held, needed)
    for key, _ in rows_under(state, rows.COMPLETED):
        if not held[key[1 : 1 + rows.ID_SIZE]]:
            yield Finding("part-orphan", key, "a completed part of no manifest", Mutation((), [Delete(key)]))


def _count_finding(key: bytes, value: bytes | None, number: int) -> Finding:
    right: Operation = Put(key, counter_value(number)) if number > 1 else Delete(key)
    found = 1 if value is None else counter(value)
    message = f"manifest {key[1:].hex()} counts {found} references, and has {number}"
    return Finding("manifest-count", key, message, Mutation([Equals(key, value)], [right]))


def _pages(state: State, held: "Counter[bytes]", needed: dict[bytes, tuple[int, bytes]]) -> Iterator[Finding]:
    last, reach = b"", 0
    orphan = b""
    reached: dict[bytes, int] = {}
    for key, value in rows_under(state, rows.PAGE):
        manifest, start = key[1 : 1 + rows.ID_SIZE], int.from_bytes(key[-8:], "big")
        if manifest != last:
            last, reach = manifest, 0
        if not held[manifest] and manifest != orphan:
            orphan = manifest
            dead = DeadRecord((Entry(Kind.MANIFEST, manifest, 0, 0),))
            mend = Mutation([Equals(key, value)], [Put(rows.DEAD, rows.encode(dead), stamp_key=True)])
            yield Finding("manifest-orphan", key, f"manifest {manifest.hex()} is named by nobody", mend)
        if start == reach:
            reach += sum(entry.length for entry in rows.page_of(value))
            if manifest in needed:
                reached[manifest] = reach
    for manifest, (end, row) in needed.items():
        if reached.get(manifest, 0) < end:
            message = f"manifest {manifest.hex()} ends at {reached.get(manifest, 0)} of {end}"
            yield Finding("manifest-short", row, message)


# -- keys


def _keys(state: State) -> Iterator[Finding]:
    """What is newest (LIVE, TOP) and what is null (NULL), compared with the versions."""
    ids = {bucket.id: bool(bucket.versioning) for _, bucket in _all_buckets(state)}
    current = b""
    unowned = b""
    null: int | None = None
    nulls = 0
    for row, value in rows_under(state, rows.VERSION):
        key_tail = row[1:-8]
        record = rows.version_of(value)
        if key_tail != current:
            if current:
                yield from _null(state, current, null, nulls)
            current, null, nulls = key_tail, None, 0
            yield from _newest(state, key_tail, key_sequence(row), record)
            bucket = key_tail[: rows.BUCKET_ID_SIZE]
            if bucket not in ids and bucket != unowned:
                unowned = bucket
                yield Finding("version-unowned", row, f"versions of bucket {bucket.hex()}, which does not exist")
        if record.null:
            null, nulls = key_sequence(row), nulls + 1
        if record.inline is None and sum(entry.length for entry in record.entries) != record.size:
            yield Finding("size", row, f"slices do not come to the size of {record.size}")
        if record.inline is not None and not record.marker:
            size = len(record.inline) - (TAG_SIZE if record.seal is not None else 0)
            if size != record.size:
                yield Finding("size", row, f"{size} bytes inline, and a size of {record.size}")
    if current:
        yield from _null(state, current, null, nulls)
    for prefix in (rows.LIVE, rows.TOP, rows.NULL):
        for row, value in rows_under(state, prefix):
            if state.first(rows.VERSION + row[1:]) is None:
                message = f"a {prefix.decode()} row of a key without versions"
                yield Finding("key-orphan", row, message, Mutation([Equals(row, value)], [Delete(row)]))


def _newest(state: State, key_tail: bytes, sequence: int, record: rows.VersionRecord) -> Iterator[Finding]:
    stamp = sequence.to_bytes(8, "big")
    live_key, top_key = rows.LIVE + key_tail, rows.TOP + key_tail
    live, top = state.get_many([live_key, top_key])
    want_live = None if record.marker else rows.live_record(record) + stamp
    want_top = stamp if record.marker else None
    if (live, top) != (want_live, want_top):
        operations: list[Operation] = [
            Delete(live_key) if want_live is None else Put(live_key, want_live),
            Delete(top_key) if want_top is None else Put(top_key, want_top),
        ]
        guards: list[Precondition] = [Equals(live_key, live), Equals(top_key, top)]
        guards.append(Present(rows.version_key(key_tail, sequence)))
        message = f"the newest version is {sequence}, and the rows that say so do not"
        yield Finding("newest", live_key, message, Mutation(guards, operations))


def _null(state: State, key_tail: bytes, sequence: int | None, count: int) -> Iterator[Finding]:
    """NULL names the null version; without that row only the oldest version can be null."""
    key = rows.NULL + key_tail
    named = state.get(key)
    if count > 1:
        yield Finding("null", key, f"{count} null versions of one key")
    elif named is not None and (sequence is None or int.from_bytes(named, "big") != sequence):
        right: Operation = Delete(key) if sequence is None else Put(key, sequence.to_bytes(8, "big"))
        yield Finding("null", key, "the null version is another", Mutation([Equals(key, named)], [right]))
    elif named is None and sequence is not None:
        prefix = rows.VERSION + key_tail
        oldest = state.scan(prefix, prefix_end(prefix), 1, True)
        if oldest and key_sequence(oldest[0][0]) != sequence:
            mend = Mutation([NoRow(key)], [Put(key, sequence.to_bytes(8, "big"))])
            yield Finding("null", key, "a null version that nothing names", mend)


# -- buckets and uploads


def _all_buckets(state: State) -> Iterator[tuple[bytes, rows.BucketRecord]]:
    for row, value in rows_under(state, rows.BUCKET):
        yield row, rows.bucket_of(value)


def _buckets(state: State) -> Iterator[Finding]:
    ids: set[bytes] = set()
    for row, bucket in _all_buckets(state):
        ids.add(bucket.id)
        gate_key = rows.GATE + bucket.id
        gate = state.get(gate_key)
        if gate != bucket.gate:
            mend = Mutation([Equals(gate_key, gate)], [Put(gate_key, bucket.gate)])
            yield Finding("gate", gate_key, f"the gate of {row[1:]!r} is not what its record says", mend)
    for row, value in rows_under(state, rows.GATE):
        if row[1:] not in ids:
            yield Finding("gate", row, "the gate of no bucket", Mutation([Equals(row, value)], [Delete(row)]))


def _uploads(state: State) -> Iterator[Finding]:
    dead_uploads: set[bytes] = set()
    dead_buckets: set[bytes] = set()
    for _, value in rows_under(state, rows.DEAD):
        dead = rows.dead_of(value)
        dead_uploads.update(dead.uploads)
        dead_buckets.update(dead.buckets)
    ids = {bucket.id for _, bucket in _all_buckets(state)}
    alive: set[bytes] = set()
    told: set[bytes] = set()
    for row, _ in rows_under(state, rows.UPLOAD):
        bucket, upload = row[1 : 1 + rows.BUCKET_ID_SIZE], row[-rows.ID_SIZE :]
        alive.add(upload)
        if bucket not in ids and bucket not in dead_buckets and bucket not in told:
            told.add(bucket)
            mend = Mutation((), [Put(rows.DEAD, rows.encode(DeadRecord(buckets=(bucket,))), stamp_key=True)])
            yield Finding("upload-unowned", row, "an upload to a bucket that does not exist", mend)
    for row, _ in rows_under(state, rows.PART):
        upload = row[1 : 1 + rows.ID_SIZE]
        if upload not in alive and upload not in dead_uploads and upload not in told:
            told.add(upload)
            mend = Mutation((), [Put(rows.DEAD, rows.encode(DeadRecord(uploads=(upload,))), stamp_key=True)])
            yield Finding("part-orphan", row, "parts of an upload that does not exist", mend)
