"""Byte order out of Azure's: names come in the order of UTF-16, where U+E000 to U+FFFF follow what lies beyond them.

The two orders differ only among names that agree up to a place where one has a character beyond U+FFFF and another one
of U+E000 to U+FFFF. From the first such character on, names are held until none can come any more that belongs before
them: as long as they begin with what stood before it. Of other names none is held.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, TypeVar

from ostraka.errors import TooLarge

HELD_MAX: Final = 100_000  # names; a listing that would hold more cannot be put in order

T = TypeVar("T")
_beyond = re.compile("[\U00010000-\U0010ffff]").search


async def in_byte_order(items: AsyncIterator[T], name: Callable[[T], str], prefix: str = "") -> AsyncGenerator[T, None]:
    """The items in the order of their names' UTF-8; all names begin with prefix."""
    held: list[T] = []
    stem = ""
    async for item in items:
        if held and not name(item).startswith(stem):
            for one in _sorted(held, name):
                yield one
            held.clear()
        if not held:
            found = _beyond(name(item), len(prefix))
            if found is None:
                yield item
                continue
            stem = name(item)[: found.start()]
        held.append(item)
        if len(held) > HELD_MAX:
            raise TooLarge(f"too many names beside {name(held[0])!r} to be put in order", reason="list")
    for one in _sorted(held, name):
        yield one


def _sorted(held: list[T], name: Callable[[T], str]) -> list[T]:
    return sorted(held, key=lambda item: name(item).encode())
