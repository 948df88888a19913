"""What looking at an index comes to."""

from msgspec import Struct


class IndexReport(Struct, frozen=True):
    """Whether the index is what its commit says; ``note`` tells what is wrong."""

    whole: bool
    commit: int = 0
    rows: int = 0
    note: str = ""
