"""Every error that Ostraka raises on purpose: few kinds, each saying whether a retry can help.

The tree::

    OstrakaError
    ├── Absent              what was named is not there, and we are sure of it
    ├── Unavailable   (r)   it may be there, but it cannot be reached now
    │   └── Overloaded (r)  a queue, buffer or budget was full until the deadline
    ├── Corrupt             bytes failed verification and no other copy was good
    ├── Forbidden           the caller may not
    ├── Conflict      (r)   somebody else changed it first; read again and retry
    ├── Exists              it is there already, and must not be
    ├── PreconditionFailed  a condition that the caller set does not hold
    ├── Invalid             the caller's input cannot be accepted
    │   └── TooLarge        a bound in limits.py was exceeded
    ├── Truncated           the sender ended, or lied about length or checksum, before the end
    ├── Full                no room, by the reserves of limits.py
    ├── InUse               another process owns the store
    ├── Refused             the store, as it stands, must not be opened or changed this way
    └── NotSupported        understood, and not built

(r): the same call may succeed later. The four answers that must never be confused (absent, unavailable,
corrupt, forbidden) are four kinds here, from the disk up to the HTTP status.

``reason`` is a short, stable, machine-readable word within the kind (``Absent(reason="bucket")``): the doors
map (kind, reason) to their protocol's codes in one table each. The message is for people and no contract.
"""

import errno
from typing import ClassVar


class OstrakaError(Exception):
    """Base of all. ``retry``: whether the same call may succeed later without anybody's help."""

    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Absent(OstrakaError):
    """What was named does not exist. Never raised when we merely could not look."""


class Unavailable(OstrakaError):
    """Cannot be reached now: too few disks, state outage, shutting down."""

    retry = True


class Overloaded(Unavailable):
    """A bounded queue or budget stayed full until the deadline."""


class Corrupt(OstrakaError):
    """Bytes failed their checksum, and no other copy or shard could replace them."""


class Forbidden(OstrakaError):
    """The caller is not allowed to do this, or could not prove who it is."""


class Conflict(OstrakaError):
    """A compare-and-set lost: the caller reads again and decides anew."""

    retry = True


class Exists(OstrakaError):
    """It exists already (a bucket of that name, a bucket that is not empty)."""


class PreconditionFailed(OstrakaError):
    """A condition of the caller (If-Match, create-only) does not hold."""


class Invalid(OstrakaError):
    """Input that can never be accepted as it is; the message names the thing and the way out."""


class TooLarge(Invalid):
    """A bound of limits.py was exceeded."""


class Truncated(OstrakaError):
    """A body or record that ended early or does not match its declared length, checksum or signature."""


class Full(OstrakaError):
    """No room left for this kind of write (limits.py, the three reserves)."""


class InUse(OstrakaError):
    """The store is owned by another process, which the message names by pid."""


class Refused(OstrakaError):
    """The store as it stands must not be opened or changed like this; the message tells the way out."""


class NotSupported(OstrakaError):
    """Understood and not built; nothing was done."""


NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
_OF_THE_PATH = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS))


def of_system(error: OSError) -> OstrakaError:
    """What the system refused, where only our own kinds can be told (from process to process): a path that will never
    do is Refused, a full disk is Full, and all else may be otherwise later."""
    where = f"{error.filename}: " if error.filename else ""
    message = f"{where}{error.strerror or error}"
    if error.errno in _OF_THE_PATH:
        return Refused(message, reason="os")
    if error.errno in NO_ROOM:
        return Full(message, reason="os")
    return Unavailable(message, reason="os")
