"""The canonical request of Signature Version 4, exactly: path, query, headers.

S3 encodes the path once and normalises nothing. What arrives in canonical form, as almost everything does, is used
as it is; only the rest is decoded and encoded anew.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote_to_bytes

# An escape that encoding would produce: of a byte that is neither unreserved nor, in a path, a slash.
_ESCAPE = rb"%(?:[01][0-9A-F]|2[0-9A-C]|3[A-F]|40|5[B-E]|60|7[BCDF]|[89A-F][0-9A-F])"
_canonical_path = re.compile(rb"(?:[A-Za-z0-9\-._~/]+|" + _ESCAPE + rb")*").fullmatch
_canonical_part = re.compile(rb"(?:[A-Za-z0-9\-._~]+|%2F|" + _ESCAPE + rb")*").fullmatch
_blanks = re.compile(r"[ \t]+")


def path(raw: bytes) -> str:
    """The canonical URI of a path as received."""
    if _canonical_path(raw):
        return raw.decode("ascii")
    return quote(unquote_to_bytes(raw), safe="/~")


def _part(raw: bytes) -> str:
    if raw.isalnum() or not raw or _canonical_part(raw):
        return raw.decode("ascii")
    return quote(unquote_to_bytes(raw.replace(b"+", b" ")), safe="~")


def query(raw: bytes, without: bytes = b"") -> str:
    """The canonical query string: each name and value encoded, sorted; ``without`` names a parameter to leave out."""
    if not raw:
        return ""
    pairs = []
    for piece in raw.split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            if name != without:
                pairs.append((_part(name), _part(value)))
    pairs.sort()
    return "&".join([f"{n}={v}" for n, v in pairs])


def query_as_sent(raw: bytes, without: bytes = b"") -> str:
    """The query sorted but with every name and value as it was sent, which is what some signers sign."""
    pairs = []
    for piece in raw.split(b"&") if raw else ():
        name, _, value = piece.decode("utf-8", "surrogateescape").partition("=")
        if name.encode("utf-8", "surrogateescape") != without:
            pairs.append((name, value))
    return "&".join([f"{n}={v}" for n, v in sorted(pairs)])


def header_value(value: str) -> str:
    """A header's value with blanks trimmed and runs of them made one."""
    if "  " in value or "\t" in value:
        value = _blanks.sub(" ", value)
    return value.strip(" \t")


def as_latin1(text: str) -> str | None:
    """Header text whose bytes were not UTF-8, read as Latin-1; None where they were."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return None


def fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Lower-case name to value; the canonical values of a repeated name are joined with a comma."""
    items = list(headers)
    out = dict(items)
    if len(out) != len(items):
        out = {}
        for name, value in items:
            value = header_value(value)
            out[name] = f"{out[name]},{value}" if name in out else value
    return out


def signed_lines(names: Sequence[str], values: dict[str, str]) -> str:
    """The canonical headers of the names that were signed; one that is absent counts as empty."""
    get = values.get
    lines = "".join([f"{n}:{get(n, '')}\n" for n in names])
    if "  " in lines or "\t" in lines or ": " in lines or " \n" in lines:
        lines = "".join([f"{n}:{header_value(get(n, ''))}\n" for n in names])
    return lines
