"""What an answer that is no success means: by the store's error code, else by the status, never by its words."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from ostraka.errors import (
    Absent,
    Conflict,
    Forbidden,
    Full,
    Invalid,
    NotSupported,
    OstrakaError,
    PreconditionFailed,
    TooLarge,
    Unavailable,
)


class Meaning(NamedTuple):
    """An error of ours; ``words`` stand in place of the store's own."""

    kind: type[OstrakaError]
    reason: str
    words: str = ""


ABSENT: Final = Meaning(Absent, "path", "nothing is there")
CREDENTIALS: Final = Meaning(Forbidden, "credentials")
ACCESS: Final = Meaning(Forbidden, "access")
CLOCK: Final = Meaning(Forbidden, "credentials", "this machine's clock and the store's differ too much")
CONFIG: Final = Meaning(Invalid, "config")
PATH: Final = Meaning(Invalid, "path")
RANGE: Final = Meaning(Invalid, "range")
TOO_LARGE: Final = Meaning(TooLarge, "size")
CHANGED: Final = Meaning(PreconditionFailed, "changed", "it was changed")
RIVAL: Final = Meaning(Conflict, "rival", "another write of it was under way")
TIMEOUT: Final = Meaning(Unavailable, "timeout")
THROTTLED: Final = Meaning(Unavailable, "throttled")
SERVICE: Final = Meaning(Unavailable, "service")
DAMAGED: Final = Meaning(Unavailable, "connection", "the bytes were damaged on their way")
NOT_BUILT: Final = Meaning(NotSupported, "service")
FULL: Final = Meaning(Full, "disk")

_STATUSES: Final[dict[int, Meaning]] = {
    **dict.fromkeys((301, 302, 307, 308), Meaning(Invalid, "config", "it is in another place: region or endpoint")),
    401: CREDENTIALS,
    403: ACCESS,
    404: ABSENT,
    408: TIMEOUT,
    409: RIVAL,
    412: CHANGED,
    413: TOO_LARGE,
    416: RANGE,
    429: THROTTLED,
    501: NOT_BUILT,
    503: THROTTLED,
    504: TIMEOUT,
    507: FULL,
}


def error_of(codes: Mapping[str, Meaning], what: str, status: int, code: str = "", words: str = "") -> OstrakaError:
    """The error, about ``what``: a key, or the store's name."""
    meaning = codes.get(code) or _STATUSES.get(status)
    if meaning is None:
        meaning = SERVICE if status >= 500 else Meaning(Invalid, "request")
    name = code or f"status {status}"
    told = f"{name}: {words}" if words else name
    return meaning.kind(f"{what}: {meaning.words or told}", reason=meaning.reason)
