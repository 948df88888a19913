"""Sources and ranges, as every backend checks them."""

from collections.abc import AsyncGenerator

from ostraka.backends.backend import Source
from ostraka.backends.iterators import ended
from ostraka.errors import Invalid, Truncated
from ostraka.host import Buffer


async def exactly(source: Source, size: int | None) -> AsyncGenerator[Buffer, None]:
    """The pieces of the source; Truncated (reason "body") if they are not ``size`` bytes (None: any number). A source
    that is left early is closed when this is."""
    done = 0
    async with ended(aiter(source() if callable(source) else source)) as pieces:
        async for piece in pieces:
            done += len(memoryview(piece).cast("B"))
            if size is not None and done > size:
                raise Truncated(f"the source holds more than the {size} bytes that were declared", reason="body")
            yield piece
    if size is not None and done < size:
        raise Truncated(f"the source ended after {done} of {size} bytes", reason="body")


def check_range(path: str, total: int, offset: int, size: int | None) -> int:
    """Where a range ends, in bytes; Invalid (reason "range") if it begins outside of what is there."""
    if not 0 <= offset <= total:
        raise Invalid(f"{path}: offset {offset} is outside of its {total} bytes", reason="range")
    if size is not None and size < 0:
        raise Invalid(f"{path}: a size of {size} bytes", reason="range")
    return total if size is None else min(total, offset + size)
