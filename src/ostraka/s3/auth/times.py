"""The dates of signatures: ISO 8601 basic (20130524T000000Z) and HTTP dates, as POSIX seconds."""

import calendar
import re
import time
from email.utils import mktime_tz, parsedate_tz

_iso = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z").fullmatch
_CACHE_MAX = 256
_parsed: dict[str, float] = {}  # a second's requests share their date


def parse_basic(text: str) -> float | None:
    """POSIX seconds of a basic ISO 8601 date, or None."""
    known = _parsed.get(text)
    if known is not None:
        return known
    m = _iso(text)
    if m is None:
        return None
    year, month, day, hour, minute, second = map(int, m.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    try:
        value = float(calendar.timegm((year, month, day, hour, minute, second)))
    except (ValueError, OverflowError):
        return None
    if len(_parsed) >= _CACHE_MAX:
        _parsed.clear()
    _parsed[text] = value
    return value


def parse_any(text: str) -> float | None:
    """POSIX seconds of a basic ISO 8601 or HTTP (RFC 822) date, or None."""
    value = parse_basic(text)
    if value is not None:
        return value
    try:
        parts = parsedate_tz(text)
        seconds = None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError, TypeError):
        return None
    return seconds if seconds is None or seconds >= 0 else None  # before the epoch is no date to S3


def basic(seconds: float) -> str:
    """20130524T000000Z."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def extended(seconds: float) -> str:
    """2013-05-24T00:00:00Z, as error documents print it."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return str(seconds)
