"""Manifests: the immutable, paged list of slices that a large body is (ENGINE 13).

A page is a row keyed by the offset of its first byte, so that a range finds its page by one reverse scan. While a
body streams, pages are committed in increments that nothing names but the PENDING row of our incarnation; the last
page grows until it is full. The entries of a page hold one reference each to what they name, for as long as the page
stands. A manifest's own references are counted beside it; a page of one manifest may name others (the parts of a
multipart object).
"""

from collections.abc import Iterable, Iterator, Sequence

from ostraka.chunks.types import Entry, Kind
from ostraka.errors import Corrupt
from ostraka.objects import rows
from ostraka.state import Absent as NoRow
from ostraka.state import Add, Delete, Operation, Precondition, Present, Put, State

DEPTH_MAX = 4  # a version names a manifest, which names those of parts; more is damage


def more_references(manifest: bytes, delta: int = 1) -> Operation:
    return Add(rows.REFERENCES + manifest, delta, initial=1, drop_at=1)


def leaves(state: State, entries: Iterable[Entry], offset: int, length: int, depth: int = 0) -> Iterator[Entry]:
    """The CHUNK and SLOT slices that hold [offset, offset + length) of the entries' bytes, cut to it, in order.

    Reads pages as it goes. Raises Corrupt when the entries do not hold that much, or a page is missing.
    """
    if not length:
        return
    for entry in entries:
        if offset >= entry.length:
            offset -= entry.length
            continue
        take = min(entry.length - offset, length)
        if entry.kind == Kind.MANIFEST:
            yield from _pages(state, entry.id, entry.offset + offset, take, depth + 1)
        elif take == entry.length:
            yield entry
        else:
            yield Entry(entry.kind, entry.id, entry.offset + offset, take, entry.slot)
        length -= take
        offset = 0
        if not length:
            return
    raise Corrupt(f"a list of slices ends {length} bytes early", reason="manifest")


def _pages(state: State, manifest: bytes, offset: int, length: int, depth: int) -> Iterator[Entry]:
    if depth > DEPTH_MAX:
        raise Corrupt("manifests nested too deep", reason="manifest")
    first = rows.PAGE + manifest
    found = state.scan(first, rows.page_key(manifest, offset) + b"\x00", 1, True)
    if not found:
        raise Corrupt(f"manifest {manifest.hex()} has no page for offset {offset}", reason="manifest")
    start, value = int.from_bytes(found[0][0][-8:], "big"), found[0][1]
    while True:
        page = rows.page_of(value)
        end = start + sum(entry.length for entry in page)
        if offset >= end:
            raise Corrupt(f"manifest {manifest.hex()} has no page for offset {offset}", reason="manifest")
        take = min(end - offset, length)
        yield from leaves(state, page, offset - start, take, depth)
        offset += take
        length -= take
        if not length:
            return
        start = offset
        following = state.get(rows.page_key(manifest, offset))
        if following is None:
            raise Corrupt(f"manifest {manifest.hex()} has no page for offset {offset}", reason="manifest")
        value = following


class Draft:
    """A manifest that is being written. What was committed of it is invisible until the PENDING row goes."""

    __slots__ = ("_page", "_page_max", "_pending_key", "_start", "id", "pending", "size")

    def __init__(self, manifest: bytes, incarnation: bytes, page_entries_max: int) -> None:
        self.id = manifest
        self.size = 0  # bytes of the entries that were committed
        self.pending = False  # whether the PENDING row may stand
        self._pending_key = rows.pending_key(incarnation, manifest)
        self._page_max = page_entries_max
        self._start = 0  # of the last page
        self._page: list[Entry] = []  # its entries, as committed

    def stage(self, entries: Sequence[Entry]) -> list[Operation]:
        """The operations that append entries: pages written or rewritten. `adopt` once they are committed."""
        return [Put(rows.page_key(self.id, start), rows.encode(page)) for start, page in self._grown(entries)]

    def adopt(self, entries: Sequence[Entry]) -> None:
        grown = self._grown(entries)
        if grown:
            self._start, self._page = grown[-1]
        self.size += sum(entry.length for entry in entries)

    def invisibly(self) -> tuple[Precondition, list[Operation]]:
        """What an increment adds, so that the manifest is ours until it is visible, or given up."""
        if self.pending:
            return Present(self._pending_key, "pending"), []
        return NoRow(self._pending_key, "pending"), [Put(self._pending_key, b"")]

    def visibly(self) -> tuple[list[Precondition], list[Operation]]:
        """What the last commit adds."""
        if self.pending:
            return [Present(self._pending_key, "pending")], [Delete(self._pending_key)]
        return [], []

    def _grown(self, entries: Sequence[Entry]) -> list[tuple[int, list[Entry]]]:
        if not entries:
            return []
        pages: list[tuple[int, list[Entry]]] = []
        start, page, offset = self._start, list(self._page), self.size
        for entry in entries:
            if len(page) >= self._page_max:
                if offset > self.size:  # else it was full before, and stands as it is
                    pages.append((start, page))
                start, page = offset, []
            page.append(entry)
            offset += entry.length
        pages.append((start, page))
        return pages
