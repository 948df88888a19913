"""Tag sets: S3's rules for their number, characters and sizes, in XML bodies and in x-amz-tagging."""

import unicodedata
from collections.abc import Iterable
from urllib.parse import parse_qsl

from ostraka.s3.errors import S3Error

KEY_CHARACTERS_MAX = 128
VALUE_CHARACTERS_MAX = 256
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 _.:/=+-@")


def checked(pairs: Iterable[tuple[str, str]], limit: int, what: str) -> dict[str, str]:
    """The pairs as a tag set; raises S3Error InvalidTag, or BadRequest when there are more than ``limit``."""
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not key or len(key) > KEY_CHARACTERS_MAX or not _allowed(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", fields={"TagKey": key})
        if len(value) > VALUE_CHARACTERS_MAX or not _allowed(value):
            raise S3Error(
                "InvalidTag", "The TagValue you have provided is invalid", fields={"TagKey": key, "TagValue": value}
            )
        if key[:4].lower() == "aws:":
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", fields={"TagKey": key})
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", fields={"TagKey": key})
        tags[key] = value
        if len(tags) > limit:
            raise S3Error("BadRequest", f"{what} tags cannot be greater than {limit}")
    return tags


def from_header(value: str, limit: int) -> dict[str, str]:
    """The tag set of an x-amz-tagging header: URL query parameters, as S3 takes them."""
    if not value:
        return {}
    try:
        pairs = parse_qsl(
            value, keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=4 * limit + 1
        )
    except ValueError:
        pairs = None
    if pairs is None or len({k for k, _ in pairs}) != len(pairs):
        raise S3Error(
            "InvalidArgument",
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag "
            "name duplicates.",
            fields={"ArgumentName": "x-amz-tagging", "ArgumentValue": value},
        )
    return checked(pairs, limit, "Object")


def _allowed(text: str) -> bool:
    """Letters, digits and spaces of any script, and _ . : / = + - @."""
    if _PLAIN.issuperset(text):
        return True
    return all(c in _PLAIN or unicodedata.category(c)[0] in "LNZ" for c in text)
