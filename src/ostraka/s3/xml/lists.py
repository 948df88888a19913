"""Listings, written without the general machinery: a page is a thousand rows, and most of a server's XML.

The element order is S3's own. ``url`` is encoding-type=url: keys and prefixes percent-encoded.
"""

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from ostraka.objects.types import Listed, ObjectInfo
from ostraka.s3.xml.times import iso_time
from ostraka.s3.xml.write import document, escape, escape_all

__all__ = ["common_prefixes", "contents", "iso_time", "list_result", "url_encode", "versions"]

Owner = Callable[[str], tuple[str, str]]  # account name -> (canonical id, display name)
Value = str | int | bool | None


def url_encode(text: str) -> str:
    """A key or prefix under encoding-type=url. A space is %20, which every decoder reads alike."""
    return quote(text, safe="/*-._")


def _owner(owner: Owner | None) -> Callable[[str], str]:
    """The <Owner> element by account, rendered once an account."""
    if owner is None:
        return lambda account: ""
    known: dict[str, str] = {}

    def element(account: str) -> str:
        text = known.get(account)
        if text is None:
            id_, name = owner(account)
            text = f"<Owner><ID>{escape(id_)}</ID><DisplayName>{escape(name)}</DisplayName></Owner>"
            known[account] = text
        return text

    return element


class _Times(dict[int, str]):
    """The texts of one page's seconds: what was stored together is listed together."""

    def __missing__(self, second: int) -> str:
        text = self[second] = iso_time(second)
        return text


def _checksums(algorithms: Sequence[str], kind: str) -> str:
    if not algorithms:
        return ""
    text = "".join([f"<ChecksumAlgorithm>{a}</ChecksumAlgorithm>" for a in algorithms])
    return f"{text}<ChecksumType>{kind}</ChecksumType>" if kind else text


def contents(entries: Sequence[Listed], *, url: bool = False, owner: Owner | None = None) -> str:
    """The <Contents> elements; with ``owner`` each says whose it is."""
    name = url_encode if url else escape_all([e.key for e in entries])
    whose = _owner(owner) if owner else None
    times = _Times()
    return "".join(
        [
            f"<Contents><Key>{name(e.key) if name else e.key}</Key>"
            f"<LastModified>{times[int(e.modified)]}</LastModified><ETag>&quot;{e.etag}&quot;</ETag>"
            f"{_checksums(e.checksum_algorithms, e.checksum_type) if e.checksum_algorithms else ''}"
            f"<Size>{e.size}</Size>{whose(e.owner) if whose else ''}"
            f"<StorageClass>{e.storage_class}</StorageClass></Contents>"
            for e in entries
        ]
    )


def versions(entries: Iterable[ObjectInfo], *, url: bool = False, owner: Owner | None = None) -> str:
    """The <Version> and <DeleteMarker> elements, in the order given."""
    name = url_encode if url else escape
    whose = _owner(owner)
    out = []
    for e in entries:
        head = (
            f"<Key>{name(e.key)}</Key><VersionId>{escape(e.version_id)}</VersionId>"
            f"<IsLatest>{'true' if e.latest else 'false'}</IsLatest>"
            f"<LastModified>{iso_time(e.modified)}</LastModified>"
        )
        if e.delete_marker:
            out.append(f"<DeleteMarker>{head}{whose(e.owner)}</DeleteMarker>")
        else:
            sums = _checksums(tuple(e.checksums), e.checksum_type)
            out.append(
                f"<Version>{head}<ETag>&quot;{e.etag}&quot;</ETag>{sums}<Size>{e.size}</Size>{whose(e.owner)}"
                f"<StorageClass>{escape(e.attributes.storage_class)}</StorageClass></Version>"
            )
    return "".join(out)


def common_prefixes(prefixes: Iterable[str], *, url: bool = False) -> str:
    """The <CommonPrefixes> elements."""
    name = url_encode if url else escape
    return "".join([f"<CommonPrefixes><Prefix>{name(p)}</Prefix></CommonPrefixes>" for p in prefixes])


def list_result(root: str, head: Iterable[tuple[str, Value]], *bodies: str) -> bytes:
    """A listing's document: scalar elements (None is left out; text is escaped here), then rendered elements."""
    parts = []
    for name, value in head:
        if value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        parts.append(f"<{name}>{escape(str(value))}</{name}>")
    return document(root, "".join(parts) + "".join(bodies))
