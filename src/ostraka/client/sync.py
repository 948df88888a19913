"""What has to be done so that a target has what a source has: both sides walked in the order of keys, and compared.

A file is taken for the same if its size is, and the target is not older than the source. Downloads give a file the
object's time, so that this holds the next time, too. Times are compared in whole seconds, for that is what S3 tells;
where an upload's fall into the same second, the checksums decide. `SIZE_ONLY` looks at the size alone, `CHECKSUM` at
the bytes, by their checksum.

What the target has beyond the source is not touched, unless it is asked for; and then it is deleted only after
everything else went well.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ostraka.client.actions import DELETE, Action, Actions
from ostraka.client.bodies import FileBody
from ostraka.client.types import Client, Entry, entries, place
from ostraka.client.verifying import Verifier
from ostraka.client.walk import Filter, OnProblem, files, path_in
from ostraka.errors import Corrupt, Invalid, Refused
from ostraka.host import Host

Comparison = Literal["", "size-only", "checksum"]
SIZE_ONLY: Comparison = "size-only"
CHECKSUM: Comparison = "checksum"


class Item(msgspec.Struct, frozen=True, gc=False):
    """A file or an object as the comparison sees it. ``name``: its key from the folder on."""

    name: str
    size: int
    modified: float


class Side(Protocol):
    """A folder: in the store, or on disk."""

    def items(self) -> Iterator[Item]:
        """In the order of names."""
        ...

    def same_bytes(self, name: str, other: "Side") -> bool: ...

    def deletion(self, name: str) -> Action: ...


class StoreSide:
    """A prefix in a bucket."""

    def __init__(self, client: Client, bucket: str, folder: str, host: Host) -> None:
        self.client = client
        self.bucket = bucket
        self.folder = folder
        self._host = host

    def items(self) -> Iterator[Item]:
        for e in entries(self.client, self.bucket, self.folder):
            name = e.key[len(self.folder) :]
            if name and not (name.endswith("/") and not e.size):  # a folder that others showed by an empty object
                yield Item(name, e.size, e.modified)

    def key(self, name: str) -> str:
        return self.folder + name

    def same_bytes(self, name: str, other: Side) -> bool:
        info = self.client.head(self.bucket, self.key(name))
        if isinstance(other, StoreSide):
            theirs = other.client.head(other.bucket, other.key(name))
            if info.checksum_type == theirs.checksum_type and (common := info.checksums.keys() & theirs.checksums):
                return all(info.checksums[c] == theirs.checksums[c] for c in common)
            return info.etag == theirs.etag
        assert isinstance(other, DiskSide)
        return other.has_bytes_of(name, self)

    def deletion(self, name: str) -> Action:
        key = self.key(name)

        def do() -> None:
            for failure in self.client.delete(self.bucket, [(key, "")]):
                if failure is not None:
                    raise failure

        return Action(DELETE, place(self.bucket, key), "", 0, do)


class DiskSide:
    """A directory; one that is not there is empty."""

    def __init__(self, directory: Path, host: Host, on_problem: OnProblem, *, may_lack: bool) -> None:
        self.directory = directory
        self._host = host
        self._on_problem = on_problem
        self._may_lack = may_lack

    def items(self) -> Iterator[Item]:
        try:
            for f in files(self.directory, self._on_problem):
                yield Item(f.key, f.size, f.modified)
        except FileNotFoundError:
            if not self._may_lack:
                raise

    def path(self, name: str) -> Path:
        return path_in(self.directory, name)

    def has_bytes_of(self, name: str, store: StoreSide) -> bool:
        """Whether the file verifies as the object's bytes."""
        path = self.path(name)
        verifier = Verifier(store.client, store.client.head(store.bucket, store.key(name)))
        file = self._host.files.open(path)
        try:
            size = file.size()
            for piece in FileBody(file, path, 0, size).pieces() if size else ():
                verifier.update(piece)
        finally:
            file.close()
        try:
            verifier.finish()
        except Corrupt:
            return False
        return True

    def same_bytes(self, name: str, other: Side) -> bool:
        assert isinstance(other, StoreSide)
        return self.has_bytes_of(name, other)

    def deletion(self, name: str) -> Action:
        path = self.path(name)
        return Action(DELETE, str(path), "", 0, lambda: self._host.files.unlink(path))


class Sync:
    """The comparison. `actions` first; then, if all went well and it is wanted, `deletions`."""

    def __init__(
        self,
        source: StoreSide | DiskSide,
        target: StoreSide | DiskSide,
        actions: Actions,
        chosen: Filter,
        comparison: Comparison,
        on_problem: Callable[[Exception, str], None],
    ) -> None:
        self._source = source
        self._target = target
        self._actions = actions
        self._chosen = chosen
        self._comparison = comparison
        self._on_problem = on_problem
        self.unchanged = 0
        self._empty = True  # the source

    def actions(self) -> Iterator[Action]:
        """What brings the target what it lacks, or has otherwise."""
        for mine, theirs in self._pairs():
            if mine is not None:
                self._empty = False
                try:
                    if theirs is not None and self._same(mine, theirs):
                        self.unchanged += 1
                    else:
                        yield self._action(mine)
                except Invalid as e:  # a key that can be no file
                    self._on_problem(e, mine.name)

    def deletions(self) -> Iterator[Action]:
        """What the target has beyond the source, by looking at both once more. Raises Refused where that is all."""
        for mine, theirs in self._pairs():
            if mine is None and theirs is not None:
                if self._empty:
                    raise Refused(
                        "the source has nothing in it, so --delete would delete all of the target: is something not "
                        "mounted? If it is meant: ostraka rm -r",
                        reason="empty",
                    )
                yield self._target.deletion(theirs.name)

    def _pairs(self) -> Iterator[tuple[Item | None, Item | None]]:
        for mine, theirs in _merged(self._source.items(), self._target.items()):
            either = mine or theirs
            if either is not None and self._chosen(either.name):
                yield mine, theirs

    def _same(self, mine: Item, theirs: Item) -> bool:
        if mine.size != theirs.size:
            return False
        if self._comparison == SIZE_ONLY:
            return True
        if self._comparison == CHECKSUM:
            return self._source.same_bytes(mine.name, self._target)
        ours, others = int(mine.modified), int(theirs.modified)
        if ours == others and isinstance(self._source, DiskSide):
            return self._source.same_bytes(mine.name, self._target)
        return ours <= others

    def _action(self, mine: Item) -> Action:
        source, target = self._source, self._target
        if isinstance(source, DiskSide):
            assert isinstance(target, StoreSide)
            return self._actions.upload(source.path(mine.name), mine.size, target.bucket, target.key(mine.name))
        entry = Entry(source.key(mine.name), mine.size, mine.modified, "")
        if isinstance(target, DiskSide):
            return self._actions.download(source.bucket, entry, target.path(mine.name))
        return self._actions.copy(source.bucket, entry, target.bucket, target.key(mine.name))


def _merged(source: Iterator[Item], target: Iterator[Item]) -> Iterator[tuple[Item | None, Item | None]]:
    """Two sides in the order of names, side by side."""
    mine, theirs = next(source, None), next(target, None)
    while mine is not None or theirs is not None:
        if theirs is None or (mine is not None and mine.name < theirs.name):
            yield mine, None
            mine = next(source, None)
        elif mine is None or theirs.name < mine.name:
            yield None, theirs
            theirs = next(target, None)
        else:
            yield mine, theirs
            mine, theirs = next(source, None), next(target, None)
