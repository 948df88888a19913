"""The seam between a backend and a store behind HTTP: what S3 and Azure both can, one request a method.

Keys are the store's own names, the physical prefix included. Errors are those that ostraka.backends.backend names; none
of these calls repeats itself.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ostraka.backends.backend import Stat
from ostraka.errors import OstrakaError
from ostraka.host import Buffer


@dataclass(frozen=True, slots=True)
class Got:
    """A range on its way: ``version`` names the bytes that are there to a later ``get``."""

    stat: Stat
    version: str
    pieces: AsyncIterator[Buffer]


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a listing: keys with what is known of them, or what stands between the prefix and the delimiter.
    ``cursor``: where the next page begins; "" after the last."""

    entries: Sequence[tuple[str, Stat]]
    directories: Sequence[str]
    cursor: str


class Service(Protocol):
    """A bucket or container, and what it is asked. ``name`` is for people: "the bucket photos at http://..."."""

    name: str
    part_count_max: int
    batch_count_max: int  # keys of one `delete_many`

    async def stat(self, key: str) -> Stat:
        """Absent ("path") if nothing is there."""
        ...

    def get(
        self, key: str, offset: int, size: int, *, if_match: str | None = None, version: str = ""
    ) -> AbstractAsyncContextManager[Got]:
        """At most ``size`` (1 or more) bytes from offset. Invalid ("range") if there is no byte at offset. With a
        ``version`` it is that one or PreconditionFailed ("changed")."""
        ...

    async def put(self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """Keep the body; the ETag."""
        ...

    async def begin(self, key: str) -> str:
        """Begin an upload in parts; its name."""
        ...

    async def put_part(self, key: str, upload: str, number: int, *, body: bytes) -> str:
        """Keep part ``number`` (from 1); what ``complete`` wants to know of it."""
        ...

    async def parts(self, key: str, upload: str) -> dict[int, str]:
        """What was told of each part that is there, by number. Absent ("upload") if the upload is not."""
        ...

    async def complete(self, key: str, upload: str, parts: Sequence[str], *, if_absent: bool = False) -> str:
        """Publish the parts, in order; the ETag."""
        ...

    async def abort(self, key: str, upload: str) -> None:
        """Forget the upload. No error if it is not there."""
        ...

    async def page(self, prefix: str, *, delimiter: str = "", start_after: str = "", cursor: str = "") -> Listed:
        """A page of the keys that begin with prefix, in the store's order."""
        ...

    async def delete(self, key: str, *, if_match: str | None = None) -> None:
        """No error if nothing is there."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> dict[str, OstrakaError]:
        """Delete up to ``batch_count_max`` keys in one request; those that failed. Raises if the request did."""
        ...

    async def presign(self, key: str, method: str, seconds: float) -> str: ...

    async def close(self) -> None: ...
