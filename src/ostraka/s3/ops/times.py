"""Times as HTTP writes and reads them."""

import calendar
import functools
import time
from email.utils import formatdate, parsedate

TEXTS_MAX = 65_536


@functools.lru_cache(TEXTS_MAX)
def _http_date(second: int) -> str:
    return formatdate(second, usegmt=True)


def http_date(moment: float) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT``, the second that began last."""
    return _http_date(int(moment))


def parse_http_date(text: str) -> int | None:
    """POSIX seconds of a date in any of HTTP's three forms, or ISO 8601, which S3 takes as well; None if neither."""
    parsed = parsedate(text)
    try:
        if parsed is not None:
            return calendar.timegm(parsed)
        return calendar.timegm(time.strptime(text.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None
