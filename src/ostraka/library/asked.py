"""What callers ask for, looked at before the core sees it: one line that names what cannot be, and the way out.

The core trusts its doors. What a row could not hold, or what could not be given back over HTTP, is refused here, as
S3's door refuses it: Invalid, and nothing was done. Types are looked at too: not every caller has a type checker.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ostraka.config import MASTER_KEY_SIZE, parse_geometry, parse_master_keys
from ostraka.errors import Invalid
from ostraka.limits import LIMITS
from ostraka.objects import recipes
from ostraka.objects.publish import NO_CONDITIONS
from ostraka.objects.tiers import STANDARD
from ostraka.objects.types import Attributes, CustomerKey, Encryption, WriteConditions
from ostraka.s3.errors import S3Error
from ostraka.s3.ops import tags as tag_rules
from ostraka.s3.ops.attributes import KEPT
from ostraka.s3.ops.call import valid_bucket_name

CUSTOMER_KEY_SIZE = 32
CONTENT_TYPE = "binary/octet-stream"  # what S3 says of a body of which nobody said anything

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name, of which a metadata name is a part
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def text(what: str, value: object) -> None:
    """Raises Invalid for what is no text."""
    if not isinstance(value, str):
        raise Invalid(f"{what} is text, not {value!r}", reason="type")


def number(what: str, value: object) -> None:
    """Raises Invalid for what is no whole number."""
    if not isinstance(value, int):
        raise Invalid(f"{what} is a whole number, not {value!r}", reason="type")


def version(version_id: str | None) -> None:
    """Raises Invalid for what is no version id, nor None."""
    if version_id is not None:
        text("a version id", version_id)


def directories(named: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The paths of a store's directories. Raises Invalid for what is none."""
    if not named:
        raise Invalid("name at least one directory", reason="directories")
    found = []
    for each in named:
        try:
            path = os.fsdecode(each)
        except TypeError:
            message = f"a directory is a path, not {each!r}: name several one after the other"
            raise Invalid(message, reason="directories") from None
        if not path or "\0" in path:
            raise Invalid(f"{path!r} is no directory: name one (it need not exist yet)", reason="directories")
        if _URL.match(path):
            message = f"{path} is no directory: a store is opened by its directories, a server is for S3 clients"
            raise Invalid(message, reason="directories")
        found.append(Path(path))
    return found


def geometry(ec: str | None) -> tuple[int, int] | None:
    """(k, m), or None if it is left to us. Raises Invalid."""
    if ec is None:
        return None
    if not isinstance(ec, str):
        raise Invalid(f"ec is K+M, such as '4+2', not {ec!r}", reason="geometry")
    return parse_geometry(ec)


def master_keys(given: str | bytes | None) -> tuple[bytes, ...]:
    """Master keys, the first of which seals. Raises Invalid, and quotes none of it."""
    if given is None:
        return ()
    if isinstance(given, bytes) and len(given) == MASTER_KEY_SIZE:
        return (given,)
    if not isinstance(given, str):
        message = f"a master key is {MASTER_KEY_SIZE} bytes, or text in base64 or hex"
        raise Invalid(message, reason="master-key")
    return parse_master_keys(given)


def encryption(word: str) -> Encryption | None:
    """What an object is to be encrypted by, None for what its bucket says. Raises Invalid."""
    text("encryption", word)
    if not word:
        return None
    algorithm, key = recipes.encryption_of(word)
    return Encryption(algorithm, key)


def customer_key(key: bytes | None) -> CustomerKey | None:
    """Raises Invalid, and does not quote it."""
    if key is None:
        return None
    if not isinstance(key, bytes) or len(key) != CUSTOMER_KEY_SIZE:
        raise Invalid(f"a customer's key is {CUSTOMER_KEY_SIZE} bytes", reason="customer-key")
    return CustomerKey(key)


def bucket_name(name: str) -> None:
    """Raises Invalid for what S3 does not allow."""
    text("a bucket's name", name)
    if not valid_bucket_name(name):
        raise Invalid(
            f"bucket {name!r}: a name is 3 to 63 lower case letters, digits, dots and hyphens", reason="bucket"
        )


def keys(named: Iterable[str]) -> list[str]:
    """Several keys. Raises Invalid for one alone: its letters would be taken for keys."""
    if isinstance(named, str | bytes):
        raise Invalid(f"keys are several, not {named!r}: put it in a list", reason="key")
    found = list(named)
    for key in found:
        text("a key", key)
    return found


def etags(if_match: str | Sequence[str]) -> tuple[str, ...]:
    """The ETags that are demanded; none. Raises Invalid for an empty one: it would demand nothing."""
    found = (if_match,) if isinstance(if_match, str) else if_match
    if not isinstance(found, list | tuple) or not all(isinstance(etag, str) and etag for etag in found):
        raise Invalid(f"if_match is an ETag, several of them, or '*', not {if_match!r}", reason="etag")
    return tuple(found)


def conditions(create_only: bool, if_match: str | Sequence[str]) -> WriteConditions:
    """What must hold when a write lands."""
    if not create_only and if_match == ():
        return NO_CONDITIONS
    return WriteConditions(create_only, etags(if_match))


def attributes(
    content_type: str,
    headers: Mapping[str, str] | None,
    metadata: Mapping[str, str] | None,
    tags: Mapping[str, str] | None,
    storage_class: str = STANDARD,
) -> Attributes:
    """What is kept beside a body. Raises Invalid for what could not be given back."""
    said = {"content-type": _value("content_type", content_type) if content_type else CONTENT_TYPE}
    for name, value in headers.items() if headers else ():
        if name not in KEPT:
            raise Invalid(f"header {name!r}: {', '.join(sorted(KEPT))} are kept; all else is metadata", reason="header")
        said[name] = _value(f"header {name!r}", value)
    kept = {}
    for name, value in metadata.items() if metadata else ():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"metadata {name!r}: a name is letters, digits and hyphens, without blanks"
            raise Invalid(message, reason="metadata")
        kept[name] = _unicode(f"metadata {name!r}", value)
    text("a storage class", storage_class)
    return Attributes(said, kept, _tags(tags) if tags else {}, storage_class)


def _unicode(what: str, value: object) -> str:
    text(what, value)
    assert isinstance(value, str)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{what} is not Unicode text: {value!r}", reason="type") from None
    return value


def _value(what: str, value: object) -> str:
    """A header's value: nothing in it may end its line."""
    found = _unicode(what, value)
    if _CONTROL.search(found):
        raise Invalid(f"{what} has a line's end or another control character in it: {found!r}", reason="header")
    return found


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    for name, value in tags.items():
        text("a tag's name", name)
        text(f"tag {name!r}", value)
    try:
        return tag_rules.checked(tags.items(), LIMITS.tags_per_object_max, "Object")
    except S3Error as e:
        raise Invalid(f"tags {tags!r}: {e}", reason="tags") from None
