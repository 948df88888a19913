"""Reading a whole table, however large, through an interface that gives out bounded pages."""

from collections.abc import Iterator

from ostraka.state.types import State, prefix_end

ROWS_AT_ONCE = 500


def rows_under(state: State, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every row whose key starts with prefix, as (key, value), in the order of keys.

    Each page is one consistent moment, all of them together are not: what is committed meanwhile may be seen or not.
    """
    start, end = prefix, prefix_end(prefix)
    while True:
        page = state.scan(start, end, ROWS_AT_ONCE)
        yield from page
        if len(page) < ROWS_AT_ONCE:
            return
        start = page[-1][0] + b"\x00"
