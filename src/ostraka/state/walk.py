"""The process that walks an index, and may die of it.

    python -m ostraka.state.walk INDEX-FILE MAP-SIZE [structure]

It prints an `IndexReport` as JSON. ``structure`` lets LMDB's own verifier look at every page first, which never follows
a pointer it has not checked, and sees the list of free pages too; it wants that nobody writes meanwhile.
"""

import json
import sys
from pathlib import Path

import lmdb
from lmdb import verify as structure_of

from ostraka.errors import OstrakaError
from ostraka.state.meta import load_meta
from ostraka.state.ordered import LmdbMap, Map
from ostraka.state.rebuild import read_rows
from ostraka.state.report import IndexReport
from ostraka.state.rows import DIGEST_MASK, row_hash

_STRUCTURE_NOTES_MAX = 5


def _walk(path: str, size_max: int, *, structure: bool) -> IndexReport:
    if structure:
        notes = structure_of.verify(path, subdir=False)  # type: ignore[no-untyped-call]
        if notes:
            return IndexReport(False, note="; ".join(notes[:_STRUCTURE_NOTES_MAX]))
    index = LmdbMap(Path(path), size_max, readonly=True)
    try:
        return inspect(index)
    finally:
        index.close()


def inspect(index: Map) -> IndexReport:
    """All rows of an open index, against the digest of its commit."""
    txn = index.begin()
    try:
        meta = load_meta(txn, index)
        if meta is None:
            return IndexReport(False, note="the index has no meta row")
        digest = rows = 0
        last = b""
        for key, value in read_rows(txn, index):
            if key <= last:
                return IndexReport(False, meta.commit, rows, "keys of the index are out of order")
            last = key
            digest += row_hash(key, value)
            rows += 1
        if digest & DIGEST_MASK != int.from_bytes(meta.digest, "big"):
            return IndexReport(False, meta.commit, rows, "the rows of the index do not come to its digest")
        return IndexReport(True, meta.commit, rows)
    except (OstrakaError, lmdb.Error) as error:
        return IndexReport(False, note=str(error))
    finally:
        txn.abort()


def main(arguments: list[str]) -> int:
    path, size_max, *rest = arguments
    try:
        report = _walk(path, int(size_max), structure="structure" in rest)
    except (lmdb.Error, structure_of.VerifyError, OSError) as error:
        report = IndexReport(False, note=str(error))
    print(json.dumps({name: getattr(report, name) for name in report.__struct_fields__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
