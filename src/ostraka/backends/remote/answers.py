"""What the headers of an answer say of an object."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache

from ostraka.backends.backend import Stat
from ostraka.errors import Unavailable


def etag_of(value: str, key: str) -> str:
    """The entity tag of a header, without quotes and weakness mark."""
    etag = value.strip().removeprefix("W/").strip('"')
    if not etag:
        raise Unavailable(f"{key}: the store gave no ETag", reason="service")
    return etag


def stat_of(headers: Mapping[str, str], key: str) -> Stat:
    """Of the whole, from the answer to a HEAD or with a range of it."""
    total = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length", "")
    try:
        return Stat(int(total), http_time(headers["last-modified"]), etag_of(headers.get("etag", ""), key))
    except (KeyError, ValueError):
        raise Unavailable(f"{key}: the store's answer has no size or no time", reason="service") from None


@lru_cache(1024)
def http_time(value: str) -> float:
    return parsedate_to_datetime(value).timestamp()
