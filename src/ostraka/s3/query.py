"""The query string, split and percent-decoded once; both routing and authentication read this one reading of it."""

from urllib.parse import unquote_to_bytes

from ostraka.s3.errors import S3Error

Query = list[tuple[str, str]]


def parse_query(raw: bytes) -> Query:
    """Names and values in the order given; "+" is a space, as S3 reads it; a name without "=" has the value "".

    Raises S3Error InvalidURI if a name or value is not UTF-8.
    """
    if not raw:
        return []
    pairs = []
    try:
        for part in raw.split(b"&"):
            if part:
                name, _, value = part.partition(b"=")
                pairs.append((_decode(name), _decode(value)))
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None
    return pairs


def _decode(raw: bytes) -> str:
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode()


def first(query: Query, name: str) -> str | None:
    """The first value of that name, or None."""
    for n, v in query:
        if n == name:
            return v
    return None
