"""The objects of a namespace as bytes: what each holds, and how it is read and written (docs/format/metadatadb.md).

An object is lines. The first names the format, its version, the kind of object, the size of the rest and a checksum of
it all; every other is a checksum and one JSON document, so that damage has an offset and an entry's line is copied as
it is from the journal into the head. What fails a check is Corrupt with the path and the offset; what another program
wrote, too; what a newer Ostraka wrote is Refused.

An entry's *stamp* says when it was written, by a clock that never runs behind what its writer has seen (stamps.py). The
stamp and the writer are its id, its place in the order, and its name.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw
from xxhash import xxh3_64_hexdigest, xxh3_128_hexdigest

from ostraka.errors import Corrupt, Refused
from ostraka.metadatadb.operations import Count, Int64, Kind, Moment, Transaction
from ostraka.metadatadb.state import Held, State

MAGIC: Final = b"ostraka-metadatadb"
VERSION: Final = 1
SUM_BYTES: Final = 17  # before the JSON of a line: 16 digits and a space

_FIRST_LINE = re.compile(rb"ostraka-metadatadb (\d{1,4}) ([a-z]{1,16}) (\d{1,15}) ([0-9a-f]{32})\n")

Stamp = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Name = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]  # of a writer; and what makes bytes unlike any before
NEVER: Final = "0" * 16

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Transactions that one writer made durable together. ``after``: the stamp of its entry before, NEVER if none."""

    stamp: Stamp
    writer: Name
    after: Stamp
    transactions: tuple[Transaction, ...]

    @property
    def id(self) -> str:
        return f"{self.stamp}-{self.writer}"


class SnapshotRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which snapshot a head stands on: its object's name, the last entry that is in it, and how many bytes it has."""

    name: Annotated[str, Meta(pattern="^snapshot-[0-9a-f-]{1,80}(void)?$")]
    sequence: Count
    size: Count


class HeadLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The head: entries ``first`` to ``sequence`` in their settled order follow, a line each. ``commit`` counts heads;
    of writers whom the snapshot does not name all entries up to ``forgotten`` are in it."""

    commit: Count
    nonce: Name
    first: Count
    sequence: Count
    forgotten: Stamp
    snapshot: SnapshotRef | None = None


class SnapshotLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that entries up to ``sequence`` have made. ``writers``: the stamp of the last entry of each."""

    sequence: Count
    time: Moment
    writers: dict[Name, Stamp]
    names: Count


class NameLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a name holds, as Held; a set's value is the list of its members."""

    name: str
    kind: Kind
    value: Raw
    expires: Moment = 0
    key_expires: dict[str, Moment] = {}


class LockLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds the lock, for at most so many seconds from when it was seen first; owner "": nobody."""

    owner: str
    nonce: Name
    seconds: float


# -- lines and objects


def line_of(record: msgspec.Struct) -> bytes:
    """A record as a line."""
    text = msgspec.json.encode(record)
    return xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


def seal(kind: str, lines: Sequence[bytes]) -> bytes:
    """An object of these lines."""
    body = b"".join(lines)
    about = b"%s %d %s %d" % (MAGIC, VERSION, kind.encode(), len(body))
    return about + b" " + xxh3_128_hexdigest(about + b"\n" + body).encode() + b"\n" + body


def unseal(path: str, data: bytes, kind: str) -> list[tuple[int, bytes]]:
    """The lines of an object of that kind, each with its offset; their own checksums are not looked at yet."""
    first = _FIRST_LINE.match(data)
    if first is None:
        if data and data.startswith(MAGIC[: len(data)]):
            raise Corrupt(f"{path}: byte {len(data[:100].split(b' ')[0])}: its first line is damaged", reason="object")
        raise Corrupt(
            f"{path}: byte 0: no object of this database: it is left as it is; move it away, or choose another prefix",
            reason="foreign",
        )
    about = data[: first.start(4) - 1]
    body = data[first.end() :]
    if len(body) != int(first[3]):
        raise Corrupt(
            f"{path}: byte {len(data)}: it ends here, and should at byte {first.end() + int(first[3])}", reason="object"
        )
    if xxh3_128_hexdigest(about + b"\n" + body).encode() != first[4]:
        raise Corrupt(f"{path}: byte {_damage(data, first.end())}: it does not match its checksum", reason="object")
    if int(first[1]) != VERSION:
        raise Refused(
            f"{path}: a newer Ostraka wrote this (format {int(first[1])}, known is {VERSION}): update this one"
        )
    if first[2] != kind.encode():
        raise Corrupt(f"{path}: byte {first.start(2)}: a {first[2].decode()}, not a {kind}", reason="object")
    return list(_lines(data, first.end()))


def _lines(data: bytes, offset: int) -> Iterable[tuple[int, bytes]]:
    while offset < len(data):
        end = data.find(b"\n", offset)
        end = len(data) if end < 0 else end + 1
        yield offset, data[offset:end]
        offset = end


def _damage(data: bytes, offset: int) -> int:
    """Where the first line lies that does not match its checksum; the first one of all, if the others do."""
    for at, line in _lines(data, offset):
        if xxh3_64_hexdigest(line[SUM_BYTES:-1]).encode() != line[: SUM_BYTES - 1]:
            return at
    return 0


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def record_of(path: str, offset: int, line: bytes, kind: type[T]) -> T:
    """The record that a line holds."""
    text = line[SUM_BYTES:-1]
    if xxh3_64_hexdigest(text).encode() + b" " != line[:SUM_BYTES] or line[-1:] != b"\n":
        raise Corrupt(f"{path}: byte {offset}: a line that does not match its checksum", reason="object")
    record: T = _decode(path, offset + SUM_BYTES, text, kind)
    return record


def _decode(path: str, offset: int, text: bytes | Raw, kind: Any) -> Any:
    try:
        return _decoder(kind).decode(text)
    except (ValueError, RecursionError) as e:
        raise Corrupt(f"{path}: byte {offset}: {e}", reason="object") from None


def only_record(path: str, data: bytes, name: str, kind: type[T]) -> T:
    """The record of an object that has one line."""
    lines = unseal(path, data, name)
    if len(lines) != 1:
        raise Corrupt(f"{path}: {len(lines)} lines in a {name}", reason="object")
    return record_of(path, *lines[0], kind)


# -- heads


class Head(msgspec.Struct, frozen=True):
    """A head that was read or is to be written; ``lines`` are its entries."""

    about: HeadLine
    lines: tuple[bytes, ...]
    offset: int = 0  # of the first of them, where it was read

    def encode(self) -> bytes:
        return seal("head", [line_of(self.about), *self.lines])

    def entries(self, path: str, after: int) -> list[Entry]:
        """The entries that come after that one in the settled order."""
        skip = max(0, after - self.about.first + 1)
        offset = self.offset + sum(map(len, self.lines[:skip]))
        found = []
        for line in self.lines[skip:]:
            found.append(record_of(path, offset, line, Entry))
            offset += len(line)
        return found


def read_head(path: str, data: bytes) -> Head:
    lines = unseal(path, data, "head")
    if not lines:
        raise Corrupt(f"{path}: byte {len(data)}: a head without a line", reason="object")
    about = record_of(path, *lines[0], HeadLine)
    if len(lines) - 1 != about.sequence - about.first + 1:
        raise Corrupt(
            f"{path}: {len(lines) - 1} entries, where there should be {about.first} to {about.sequence}",
            reason="object",
        )
    if about.first > 1 and (about.snapshot is None or about.snapshot.sequence < about.first - 1):
        raise Corrupt(f"{path}: no snapshot has what is before entry {about.first}", reason="object")
    return Head(about, tuple(line for _, line in lines[1:]), lines[0][0] + len(lines[0][1]))


# -- snapshots

_VALUES: dict[Kind, Any] = {
    Kind.SCALAR: Raw,
    Kind.INT: Int64,
    Kind.INT_MAP: dict[str, Int64],
    Kind.SET: list[str],
    Kind.MAP: dict[str, Raw],
    Kind.LIST: list[Raw],
}


def write_snapshot(state: State, about: SnapshotLine) -> bytes:
    lines = [line_of(about)]
    for name, held in state.names.items():
        lines.append(line_of(NameLine(name, held.kind, _pack(held), held.expires, held.key_expires)))
    return seal("snapshot", lines)


def read_snapshot(path: str, data: bytes) -> tuple[SnapshotLine, State]:
    lines = unseal(path, data, "snapshot")
    if not lines:
        raise Corrupt(f"{path}: byte {len(data)}: a snapshot without a line", reason="object")
    about = record_of(path, *lines[0], SnapshotLine)
    if about.names != len(lines) - 1:
        raise Corrupt(f"{path}: {len(lines) - 1} names, where there should be {about.names}", reason="object")
    state = State()
    state.time = about.time
    for offset, line in lines[1:]:
        named = record_of(path, offset, line, NameLine)
        held = Held(named.kind, _unpack(path, offset, named), named.expires, dict(named.key_expires))
        state.put(named.name, held)
    return about, state


def _pack(held: Held) -> Raw:
    match held.kind:
        case Kind.SCALAR:
            return Raw(held.value)
        case Kind.SET:
            value: Any = list(held.value)
        case Kind.MAP:
            value = {key: Raw(text) for key, text in held.value.items()}
        case Kind.LIST:
            value = [Raw(text) for text in held.value]
        case _:
            value = held.value
    return Raw(msgspec.json.encode(value))


def _unpack(path: str, offset: int, named: NameLine) -> Any:
    found = _decode(path, offset, named.value, _VALUES[named.kind])
    match named.kind:
        case Kind.SCALAR:
            return bytes(found)
        case Kind.SET:
            return dict.fromkeys(found)
        case Kind.MAP:
            return {key: bytes(text) for key, text in found.items()}
        case Kind.LIST:
            return [bytes(text) for text in found]
        case _:
            return found
