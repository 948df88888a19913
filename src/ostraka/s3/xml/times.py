"""Times as S3's XML prints them: whole seconds, with ``.000Z``."""

import time

DAYS_MAX = 1024
_days: dict[int, str] = {}  # a listing's times share few days


def iso_time(seconds: float) -> str:
    """``2013-05-24T00:00:00.000Z`` of POSIX seconds."""
    day, rest = divmod(int(seconds), 86400)
    date = _days.get(day)
    if date is None:
        if len(_days) >= DAYS_MAX:
            _days.clear()
        date = _days[day] = time.strftime("%Y-%m-%dT", time.gmtime(day * 86400))
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    return f"{date}{hour:02d}:{minute:02d}:{second:02d}.000Z"
