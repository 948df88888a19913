"""Byte ranges: RFC 9110 as S3 reads it.

One range is honoured. Several ranges, another unit, or a value that does not parse are ignored and the whole object
is the answer, as S3 does. A range that parses and lies past the end is an error of its own.
"""

from ostraka.errors import Invalid

_DIGITS = frozenset("0123456789")


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """(offset, length) that a Range header asks of ``size`` bytes; None: the whole object, as if it was not sent.

    Raises Invalid(reason="range") when nothing of the object lies in it.
    """
    if value[:6].lower() != "bytes=":
        return None
    first, dash, last = value[6:].strip().partition("-")
    if not dash or (not first and not last):
        return None
    if not (set(first) <= _DIGITS and set(last) <= _DIGITS) or len(first) > 20 or len(last) > 20:
        return None
    if not first:  # the last n bytes
        count = int(last)
        if count == 0 or size == 0:
            raise Invalid("the requested range is not satisfiable", reason="range")
        return max(0, size - count), min(size, count)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Invalid("the requested range is not satisfiable", reason="range")
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


def parse_copy_range(value: str, size: int) -> tuple[int, int]:
    """(offset, length) of x-amz-copy-source-range, which must be exactly bytes=first-last and lie within.

    Raises Invalid with reason "copy-range-form" or "copy-range".
    """
    first, dash, last = value[6:].partition("-")
    if value[:6] != "bytes=" or not dash or not first.isdecimal() or not last.isdecimal() or not value.isascii():
        raise Invalid(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            reason="copy-range-form",
        )
    if len(first) > 20 or len(last) > 20 or int(last) < int(first) or int(last) >= size:
        raise Invalid(f"Range specified is not valid for source object of size: {size}", reason="copy-range")
    return int(first), int(last) - int(first) + 1
