"""Listings: pages over the live rows, the version rows and the upload rows, with a cost that the page's size bounds.

With a delimiter, keys that share a prefix up to it fold into one common prefix. After the first of them the scan
seeks past the rest, so that a million keys under one prefix cost two rows. Reads grow while rows are used and shrink
when they were folded away, so that the rows read stay within a small multiple of the items shown.

What is compared with ``after`` is the item as shown, key or common prefix: one rule for start-after, markers and
continuation, and a page that ended with a common prefix resumes after all of it.
"""

from collections.abc import Iterator

from ostraka.errors import Absent, Corrupt, Invalid
from ostraka.objects import rows
from ostraka.objects.buckets import Open
from ostraka.objects.core import Core
from ostraka.objects.identity import NULL_VERSION
from ostraka.objects.plans import find_null
from ostraka.objects.rows import BUCKET_ID_SIZE, escape
from ostraka.objects.types import BadVersionId, Listed, ListPage, ObjectInfo, Upload, UploadPage, VersionPage
from ostraka.state import key_sequence, prefix_end

SCAN_ROWS_MIN = 2
SCAN_ROWS_FIRST = 16
_KEY_START = 1 + BUCKET_ID_SIZE


class Walk:
    """Rows of one table and bucket, in order, from a place that can be moved forward. Counts what it reads."""

    __slots__ = ("_core", "_end", "_ready", "_size", "_size_max", "_start", "rows_read")

    def __init__(self, core: Core, start: bytes, end: bytes | None, expected: int, folding: bool) -> None:
        self._core = core
        self._start = start
        self._end = end
        self._size_max = max(min(expected, core.limits.scan_rows_max), SCAN_ROWS_MIN)
        self._size = min(SCAN_ROWS_FIRST, self._size_max) if folding else self._size_max
        self._ready: list[tuple[bytes, bytes]] = []  # reversed: the next row is the last
        self.rows_read = 0

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            while self._ready:
                yield self._ready.pop()
            if self._end is not None and self._start >= self._end:
                return
            size = self._size
            page = self._core.state.scan(self._start, self._end, size)
            self.rows_read += len(page)
            if not page:
                return
            self._start = page[-1][0] + b"\x00"
            if len(page) < size:
                self._end = self._start
            self._size = min(size * 2, self._size_max)
            page.reverse()
            self._ready = page

    def skip_to(self, start: bytes | None) -> None:
        """Go on at start (None: there is nothing more)."""
        ready = self._ready
        if start is None:
            ready.clear()
            self._end = self._start
            return
        while ready and ready[-1][0] < start:
            ready.pop()
        if not ready and self._start < start:
            self._start = start
            self._size = max(self._size // 4, SCAN_ROWS_MIN)


def _folded(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix that key folds into, or None."""
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


class Place:
    """Where a listing starts: the table's rows of a prefix, and the item after which to begin."""

    __slots__ = ("end", "past", "start", "table")

    def __init__(self, table: bytes, prefix: str, delimiter: str, after: str) -> None:
        """``table``: the first byte and the bucket's id."""
        self.table = table
        self.start = table + escape(_bytes(prefix))
        self.end = prefix_end(self.start)
        self.past = ""  # the common prefix that ``after`` lies in: hidden
        if after:
            folded = _folded(after, prefix, delimiter) if delimiter and after.startswith(prefix) else None
            if folded is not None:
                self.past = folded
                self.begin(prefix_end(table + escape(_bytes(folded))))
            else:
                self.begin(table + escape(_bytes(after)) + b"\x01")  # after the terminator, thus after all its rows

    def begin(self, start: bytes | None) -> None:
        if start is None:
            start = self.end or b"\xff" * 16
        self.start = max(self.start, start)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Invalid("text that is not Unicode", reason="key") from None


def _text(row: bytes, end: int) -> str:
    escaped = row[_KEY_START:end]
    try:
        return escaped.decode() if b"\x01" not in escaped else rows.key_text(escaped)
    except UnicodeDecodeError as error:
        raise Corrupt("a row's key is no text", reason="row") from error


def list_keys(core: Core, bucket: Open, prefix: str, delimiter: str, after: str, limit: int) -> ListPage:
    """Live keys and common prefixes after ``after``."""
    if limit <= 0:
        return ListPage((), (), False)
    place = Place(rows.LIVE + bucket.id, prefix, delimiter, after)
    walk = Walk(core, place.start, place.end, limit + 1, bool(delimiter))
    entries: list[Listed] = []
    prefixes: list[str] = []
    last = ""
    live_of, text = rows.live_of, _text
    for key_row, value in walk.rows():
        if len(entries) + len(prefixes) >= limit:
            return ListPage(entries, prefixes, True, last, walk.rows_read)
        key = text(key_row, -1)
        if delimiter and (folded := _folded(key, prefix, delimiter)) is not None:
            prefixes.append(folded)
            last = folded
            walk.skip_to(prefix_end(place.table + escape(folded.encode())))
            continue
        live = live_of(value)
        entries.append(
            Listed(
                key,
                live.size,
                live.etag,
                live.modified,
                live.storage_class,
                live.owner,
                live.algorithms,
                live.checksum_type,
            )
        )
        last = key
    return ListPage(entries, prefixes, False, "", walk.rows_read)


def list_versions(
    core: Core, bucket: Open, prefix: str, delimiter: str, after_key: str, after_version: str, limit: int
) -> VersionPage:
    """Versions and markers, newest first within a key, after (after_key, after_version); "" is all of after_key."""
    if limit <= 0:
        return VersionPage((), (), False)
    place = Place(rows.VERSION + bucket.id, prefix, delimiter, after_key)
    key, current = after_key, b""  # the key of the last version shown, and what its rows begin with
    if after_key and after_version and not place.past:
        head = place.table + escape(_bytes(after_key)) + b"\x00"
        within = _version_place(core, head, after_version)
        if within is not None:
            place = Place(place.table, prefix, delimiter, "")
            place.begin(within)
            newest = core.state.first(head)
            if newest is not None and newest[0] < within:  # else what was above is gone, and the next is the newest
                current = head
    walk = Walk(core, place.start, place.end, limit + 1, bool(delimiter))
    entries: list[ObjectInfo] = []
    prefixes: list[str] = []
    last_key = last_version = ""
    for row, value in walk.rows():
        if len(entries) + len(prefixes) >= limit:
            return VersionPage(entries, prefixes, True, last_key, last_version, walk.rows_read)
        latest = row[:-8] != current
        if latest:
            key, current = _text(row, -9), row[:-8]
            if delimiter and (folded := _folded(key, prefix, delimiter)) is not None:
                prefixes.append(folded)
                last_key, last_version = folded, ""
                walk.skip_to(prefix_end(place.table + escape(folded.encode())))
                continue
        record, sequence = rows.version_of(value), key_sequence(row)
        wire = core.identity.version_id(sequence, record.nonce)
        shown = NULL_VERSION if record.null else wire
        entries.append(rows.info_of(bucket.name, key, record, sequence, shown, bucket.ever_versioned, latest))
        last_key, last_version = key, wire  # of a null version too: it names the place even once the version is gone
    return VersionPage(entries, prefixes, False, "", "", walk.rows_read)


def _version_place(core: Core, key_prefix: bytes, version: str) -> bytes | None:
    """The first row after a version of the key; None when the version gives no place: then the key is done."""
    if version == NULL_VERSION:
        _, null = find_null(core.state, key_prefix[1:])
        sequence = None if null is None else null[0]
    else:
        parsed = core.identity.version(version)
        if parsed is None:
            raise BadVersionId(version)
        sequence = parsed[0]
    if sequence is None:
        return None
    return rows.version_key(key_prefix[1:], sequence) + b"\x00"


def upload_view(bucket: str, key: str, upload_id: str, record: rows.UploadRecord) -> Upload:
    return Upload(
        bucket,
        key,
        upload_id,
        record.owner,
        record.initiated,
        rows.attributes_of(record),
        record.checksum_algorithm,
        record.checksum_type,
        rows.encryption_of(record),
    )


def list_uploads(
    core: Core, bucket: Open, prefix: str, delimiter: str, after_key: str, after_upload: str, limit: int
) -> UploadPage:
    """Uploads by key, then initiation, after (after_key, after_upload); without the latter, after all of after_key."""
    if limit <= 0:
        return UploadPage((), (), False)
    place = Place(rows.UPLOAD + bucket.id, prefix, delimiter, after_key)
    if after_key and after_upload and not place.past:
        upload = core.identity.uploads.block(after_upload)
        if upload is None:
            raise Absent(f"{after_upload!r} is no upload id", reason="upload")
        within = place.table + escape(_bytes(after_key)) + b"\x00" + upload + b"\x00"
        place = Place(rows.UPLOAD + bucket.id, prefix, delimiter, "")
        place.begin(within)
    walk = Walk(core, place.start, place.end, limit + 1, bool(delimiter))
    entries: list[Upload] = []
    prefixes: list[str] = []
    last_key = last_upload = ""
    for row, value in walk.rows():
        if len(entries) + len(prefixes) >= limit:
            return UploadPage(entries, prefixes, True, last_key, last_upload)
        key = _text(row, -17)
        if delimiter and (folded := _folded(key, prefix, delimiter)) is not None:
            prefixes.append(folded)
            last_key, last_upload = folded, ""
            walk.skip_to(prefix_end(place.table + escape(folded.encode())))
            continue
        upload_id = core.identity.uploads.text(row[-16:])
        entries.append(upload_view(bucket.name, key, upload_id, rows.upload_of(value)))
        last_key, last_upload = key, upload_id
    return UploadPage(entries, prefixes, False)
