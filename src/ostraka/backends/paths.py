"""Which paths there are: the same on every backend, so that what one keeps any other can keep.

A path is text of 1 to 1,024 bytes of UTF-8: names joined by "/". A name is 1 to 255 bytes, is neither "." nor "..",
and holds no control character. The first name may not be the reserved one, under which a backend stages what is not
published yet. Nothing is ever rewritten to fit: what is no path is refused with the reason.
"""

import re
from typing import Final

from ostraka.errors import Invalid

RESERVED: Final = ".ostraka-staging"
PATH_BYTES_MAX: Final = 1024
NAME_BYTES_MAX: Final = 255
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def check_path(path: str) -> str:
    """The path itself; Invalid (reason "path") if it is none."""
    _check_text(path)
    if not path:
        raise Invalid("an empty path: name what you mean", reason="path")
    for name in path.split("/"):
        _check_name(name, path)
    if path.split("/", 1)[0] == RESERVED:
        raise Invalid(f"{path!r}: {RESERVED} is reserved for what is not published yet", reason="path")
    return path


def check_prefix(prefix: str) -> str:
    """The prefix itself, which may be empty, end in "/" or in the middle of a name; Invalid if no path begins so."""
    _check_text(prefix)
    *names, last = prefix.split("/")
    for name in names:
        _check_name(name, prefix)
    if len(last.encode()) > NAME_BYTES_MAX:
        raise Invalid(f"{prefix!r}: a name of over {NAME_BYTES_MAX} bytes", reason="path")
    return prefix


def check_name(name: str) -> str:
    """The name itself; Invalid (reason "path") if no path could hold it."""
    _check_text(name)
    _check_name(name, name)
    if "/" in name:
        raise Invalid(f"{name!r}: one name, without '/'", reason="path")
    return name


def encoded(path: str) -> bytes:
    """As UTF-8, by which paths are ordered; Invalid if it is no Unicode text."""
    try:
        return path.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{path!r}: no Unicode text", reason="path") from None


def _check_text(path: str) -> None:
    size = len(encoded(path))
    if size > PATH_BYTES_MAX:
        raise Invalid(f"{path[:40]!r}...: a path of {size} bytes; at most {PATH_BYTES_MAX}", reason="path")
    if _CONTROL.search(path):
        raise Invalid(f"{path!r}: a control character in a path", reason="path")


def _check_name(name: str, path: str) -> None:
    if not name:
        raise Invalid(f"{path!r}: an empty name; no path begins or ends with '/' or holds '//'", reason="path")
    if name in (".", ".."):
        raise Invalid(f"{path!r}: {name!r} is no name of a path", reason="path")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise Invalid(f"{path!r}: a name of over {NAME_BYTES_MAX} bytes", reason="path")
