"""A key-value library in the place of LMDB: ordered tables, one writer at a time, readers that see one moment.

It promises what LMDB promises, and no more. A killed process leaves the last committed transaction; what a power cut
leaves of an environment that was not synced may be the last moment, an earlier one, a mixture of both, or nothing that
can be read. A full disk fails a commit. A disk that went away under its map kills whoever touches it, or answers with
an error.

`Library` is what production code finds under the name ``lmdb``; `SimulatedMap` is a `state.ordered.Map` on it.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from ostraka.errors import Full
from ostraka.state.ordered import PAGE_SIZE, Table, Transaction
from ostraka.testing.simulation.disk import Disk, Inode

if TYPE_CHECKING:
    from ostraka.testing.simulation.machine import Process

KEY_SIZE_MAX = 511
_MOMENTS_KEPT = 8
_SUM_SIZE = 8
_FIRST_SIZE = 2 * PAGE_SIZE  # of a file that LMDB has just made: its two meta pages

Tables = dict[bytes, tuple[list[bytes], dict[bytes, bytes]]]  # name to (keys in order, rows)


class Environment:
    """What an environment's file holds, shared by all who have it open. Moments are never changed, only followed."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.moments: list[Tables] = [tables]  # the last few, oldest first
        self.synced: Tables | None = None
        self.writer: WriteTransaction | None = None

    def commit(self, tables: Tables) -> None:
        self.tables = tables
        self.moments = [*self.moments[1 - _MOMENTS_KEPT :], tables]

    def image(self) -> bytes:
        return encode(self.tables)

    def survivor(self, rng: random.Random) -> bytes:
        """The file as a power cut leaves it."""
        if self.synced is self.tables:
            return encode(self.tables)
        fate = rng.random()
        if fate < 0.3:
            return encode(self.tables)
        if fate < 0.6:
            return encode(_mixture(rng.choice(self.moments), self.tables, rng))
        if fate < 0.8:
            return encode(rng.choice(self.moments))
        image = bytearray(encode(self.tables))
        image[rng.randrange(len(image)) :] = b""
        return bytes(image)

    def flip(self, rng: random.Random) -> None:
        """One bit of a value goes wrong: LMDB's pages have no checksums."""
        rows = [
            (name, key) for name in sorted(self.tables) for key in self.tables[name][0] if self.tables[name][1][key]
        ]
        if not rows:
            return
        name, key = rows[rng.randrange(len(rows))]
        keys, values = self.tables[name]
        value = bytearray(values[key])
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        before, self.tables = self.tables, {**self.tables, name: (keys, {**values, key: bytes(value)})}
        self.moments[-1] = self.tables
        if self.synced is before:
            self.synced = self.tables


def _mixture(old: Tables, new: Tables, rng: random.Random) -> Tables:
    """Some rows as they were, some as they are."""
    mixed: Tables = {}
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, ([], {}))[1], new.get(name, ([], {}))[1]
        rows = {}
        for key in sorted(before.keys() | after.keys()):
            value = (before if rng.random() < 0.5 else after).get(key)
            if value is not None:
                rows[key] = value
        mixed[name] = (list(rows), rows)
    return mixed


def encode(tables: Tables) -> bytes:
    """An environment's file: the same bytes for the same rows."""
    rows = [(name, [(key, tables[name][1][key]) for key in tables[name][0]]) for name in sorted(tables)]
    body = msgspec.msgpack.encode(rows)
    return body + xxh3_64_digest(body)


def decode(image: bytes) -> Tables:
    """The opposite; an empty file is an empty environment. lmdb.Error for anything else."""
    if not image:
        return {}
    body = image[:-_SUM_SIZE]
    if xxh3_64_digest(body) != image[-_SUM_SIZE:]:
        raise lmdb.InvalidError("MDB_INVALID: File is not an LMDB file")
    found = msgspec.msgpack.decode(body, type=list[tuple[bytes, list[tuple[bytes, bytes]]]])
    return {name: ([key for key, _ in rows], dict(rows)) for name, rows in found}


class Cursor:
    """A position in one table, as LMDB's."""

    def __init__(self, transaction: "ReadTransaction", name: bytes) -> None:
        self._transaction = transaction
        self._name = name
        self._key: bytes | None = None

    def _keys(self) -> list[bytes]:
        return self._transaction.table(self._name)[0]

    def first(self) -> bool:
        keys = self._keys()
        self._key = keys[0] if keys else None
        return bool(keys)

    def last(self) -> bool:
        keys = self._keys()
        self._key = keys[-1] if keys else None
        return bool(keys)

    def set_range(self, key: bytes) -> bool:
        keys = self._keys()
        at = bisect_left(keys, key)
        self._key = keys[at] if at < len(keys) else None
        return self._key is not None

    def prev(self) -> bool:
        keys = self._keys()
        at = len(keys) if self._key is None else bisect_left(keys, self._key)
        self._key = keys[at - 1] if at else None
        return bool(at)

    def key(self) -> bytes:
        return self._key or b""

    def item(self) -> tuple[bytes, bytes]:
        if self._key is None:
            return b"", b""
        return self._key, self._transaction.table(self._name)[1][self._key]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self.iternext()

    def iternext(self) -> Iterator[tuple[bytes, bytes]]:
        keys, rows = self._transaction.table(self._name)
        at = 0 if self._key is None else bisect_left(keys, self._key)
        while at < len(keys):
            self._key = keys[at]
            yield keys[at], rows[keys[at]]
            at += 1

    def iterprev(self) -> Iterator[tuple[bytes, bytes]]:
        keys, rows = self._transaction.table(self._name)
        at = len(keys) - 1 if self._key is None else bisect_left(keys, self._key)
        while at >= 0:
            self._key = keys[at]
            yield keys[at], rows[keys[at]]
            at -= 1

    def putmulti(
        self, items: Iterable[tuple[bytes, bytes]], dupdata: bool = True, overwrite: bool = True, append: bool = False
    ) -> tuple[int, int]:
        count = 0
        for key, value in items:
            self._transaction.put(key, value, db=self._name)
            count += 1
        return count, count

    def close(self) -> None:
        pass


class ReadTransaction:
    """A moment of an environment; leaving its context ends it."""

    def __init__(self, environment: Environment, tables: Tables, name: bytes | None) -> None:
        self._environment = environment
        self._tables = tables
        self._name = name
        self.ended = False

    def table(self, name: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
        return self._tables.get(name) or ([], {})

    def _named(self, db: Any) -> bytes:
        if self.ended:
            raise lmdb.BadTxnError("the transaction has ended")
        name = db or self._name
        assert name is not None, "a table is named"
        return name

    def get(self, key: bytes, default: None = None, db: Any = None) -> bytes | None:
        return self.table(self._named(db))[1].get(key)

    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: Any = None,
    ) -> bool:
        raise lmdb.ReadonlyError("the transaction only reads")

    def delete(self, key: bytes, value: bytes = b"", db: Any = None) -> bool:
        raise lmdb.ReadonlyError("the transaction only reads")

    def cursor(self, db: Any = None) -> Cursor:
        return Cursor(self, self._named(db))

    def stat(self, db: Any) -> dict[str, int]:
        return {"entries": len(self.table(self._named(db))[0])}

    def commit(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def __enter__(self) -> "ReadTransaction":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ended:
            return
        if kind is None:
            self.commit()
        else:
            self.abort()


class WriteTransaction(ReadTransaction):
    """The one transaction that changes an environment now. Tables are copied when they are first changed."""

    def __init__(
        self, environment: Environment, name: bytes | None, done: Callable[[], object], full: Callable[[], bool]
    ):
        super().__init__(environment, dict(environment.tables), name)
        self._done = done
        self._full = full
        self._own: set[bytes] = set()

    def _mine(self, name: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
        if name not in self._own:
            self._own.add(name)
            keys, rows = self.table(name)
            self._tables[name] = (list(keys), dict(rows))
        return self._tables[name]

    def put(
        self,
        key: bytes,
        value: bytes,
        dupdata: bool = True,
        overwrite: bool = True,
        append: bool = False,
        db: Any = None,
    ) -> bool:
        name = self._named(db)
        if not 0 < len(key) <= KEY_SIZE_MAX:
            raise lmdb.BadValsizeError("MDB_BAD_VALSIZE")
        keys, rows = self._mine(name)
        if key not in rows:
            insort(keys, key)
        elif not overwrite:
            return False
        rows[key] = bytes(value)
        return True

    def delete(self, key: bytes, value: bytes = b"", db: Any = None) -> bool:
        name = self._named(db)
        if key not in self.table(name)[1]:
            return False
        keys, rows = self._mine(name)
        del rows[key]
        del keys[bisect_left(keys, key)]
        return True

    def commit(self) -> None:
        self._named(self._name or b"any")
        if self._own and self._full():
            self.abort()
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")
        if self._own:
            self._environment.commit(self._tables)
        self._end()

    def abort(self) -> None:
        if not self.ended:
            self._end()

    def _end(self) -> None:
        self.ended = True
        self._environment.writer = None
        self._done()


class OpenEnvironment:
    """An environment as one process has it open (lmdb.Environment)."""

    def __init__(self, process: "Process", path: Path, file_name: str) -> None:
        self._process = process
        self._machine = process.machine
        self.path = path / file_name if file_name else path
        self._disk, self._inode = self._find()
        self._readers = 0
        if self._inode.environment is None:
            self._inode.environment = Environment(decode(bytes(self._inode.memory.data)))
        environment = self._inode.environment
        assert isinstance(environment, Environment)
        self.environment = environment
        self._disk.hold(self._inode)
        self._open = True

    def _find(self) -> tuple[Disk, Inode]:
        try:
            disk, parts = self._process.files._enter("open", self.path)
            try:
                return disk, disk.find(parts)
            except FileNotFoundError:
                return disk, disk.create(parts)
        except OSError as error:
            raise lmdb.Error(f"{self.path}: {error.strerror}") from error

    def reader_check(self) -> int:
        return 0

    def open_db(self, name: bytes, create: bool = True) -> bytes:
        return name

    def begin(self, db: bytes | None = None, write: bool = False) -> ReadTransaction:
        """LMDB's own locks order writers, over all processes; one that was killed has given up its turn."""
        process = self._process
        process.touch_map(self._disk, self.path)
        if not self._open:
            raise lmdb.Error("the environment is closed")
        if not write:
            return ReadTransaction(self.environment, self.environment.tables, db)
        turn = process.machine.locks.hold(f"lmdb {self._disk.root} {self._inode.number}", process, wait=True)
        turn.__enter__()
        transaction = WriteTransaction(
            self.environment, db, lambda: turn.__exit__(None, None, None), lambda: self._disk.room < PAGE_SIZE
        )
        self.environment.writer = transaction
        return transaction

    def sync(self) -> None:
        """Everything that was committed is durable."""
        self._process.enter("msync", self._disk, str(self.path))
        if self._disk.lies_now(self._process.rng):
            return
        environment = self.environment
        environment.synced = environment.tables
        self._disk.write_whole(self._inode, environment.image())

    def close(self) -> None:
        if self._open:
            self._open = False
            self._disk.release(self._inode)


class Library:
    """The module ``lmdb``, for one machine: whoever opens is the process that runs."""

    def __init__(self, current: Callable[[], "Process"]) -> None:
        self._current = current

    def open(self, path: str, **options: Any) -> OpenEnvironment:
        return OpenEnvironment(self._current(), Path(path), "data.mdb" if options.get("subdir", True) else "")

    def __getattr__(self, name: str) -> Any:  # errors, which are LMDB's own
        return getattr(lmdb, name)


class SimulatedMap:
    """The index of the state on such an environment (state.ordered.Map)."""

    rows: Table = b"rows"
    tails: Table = b"tails"
    meta: Table = b"meta"

    def __init__(self, process: "Process", path: Path) -> None:
        self._open = OpenEnvironment(process, path, "")

    def begin(self, write: bool = False) -> Transaction:
        return self._open.begin(write=write)

    def reserve(self, size: int) -> None:
        if self._open._disk.room < PAGE_SIZE:
            raise Full("no room for the index of the state", reason="state_index")

    def forget_dead_readers(self) -> int:
        return 0

    def fingerprint(self) -> tuple[int, int]:
        self._open.sync()
        image = self._open.environment.image()
        return len(image), xxh3_64_intdigest(image)

    def size(self) -> int:
        return _FIRST_SIZE + PAGE_SIZE * sum(len(keys) for keys, _ in self._open.environment.tables.values())

    def close(self) -> None:
        self._open.close()
