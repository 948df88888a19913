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
        for part in raw.decode().split("&"):
            if part:
                name, _, value = part.partition("=")
                if "%" in part or "+" in part:
                    name, value = _decode(name), _decode(value)
                pairs.append((name, value))
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None
    return pairs


def _decode(text: str) -> str:
    text = text.replace("+", " ")
    return unquote_to_bytes(text).decode() if "%" in text else text


def first(query: Query, name: str) -> str | None:
    """The first value of that name, or None."""
    for n, v in query:
        if n == name:
            return v
    return None
