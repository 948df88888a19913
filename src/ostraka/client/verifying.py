"""What was read is held against the checksum that the store has had since it was written, whatever its kind.

A checksum of the whole object needs its bytes in order. A composite one, as many SDKs make for uploads in parts, is a
checksum of the parts' checksums, and is followed over the parts' borders. An object of another maker without either
has at least the MD5 in its ETag, if it was stored whole.
"""

import hashlib
import re
from collections.abc import Sequence

from ostraka.client.types import Client, Info, Part, place
from ostraka.errors import Corrupt
from ostraka.host import Buffer
from ostraka.s3.checksums import ALGORITHMS, COMPOSITE, Hash, composite, encode

_BEST_FIRST = ("CRC64NVME", "CRC32C", "CRC32", "XXHASH128", "XXHASH3", "XXHASH64", "SHA256", "SHA1", "SHA512", "MD5")
_is_md5 = re.compile(r"[0-9a-f]{32}").fullmatch


class Verifier:
    """Fed the bytes of an object in order; `finish` raises if they are not what was stored."""

    def __init__(self, client: Client, info: Info) -> None:
        self._info = info
        self._size = 0
        self._name = next((name for name in _BEST_FIRST if name in info.checksums), "")
        self._parts: Sequence[Part] = ()
        if self._name and info.checksum_type == COMPOSITE:
            self._parts = list(client.parts(info))
            if not self._parts or sum(part.size for part in self._parts) != info.size:
                self._name = ""  # the borders are not known
        self._values: list[str] = []  # of the parts that are through
        self._left = self._parts[0].size if self._parts else -1  # bytes up to the next border
        self._sum = self._new()

    def _new(self) -> Hash | None:
        if self._name:
            return ALGORITHMS[self._name].new()
        return hashlib.md5(usedforsecurity=False) if _is_md5(self._info.etag) else None

    def update(self, data: Buffer) -> None:
        view = memoryview(data)
        self._size += len(view)
        while self._parts and len(view) >= self._left and len(self._values) < len(self._parts):
            assert self._sum is not None
            self._sum.update(view[: self._left])
            view = view[self._left :]
            self._values.append(encode(self._sum.digest()))
            self._sum = self._new()
            number = len(self._values)
            self._left = self._parts[number].size if number < len(self._parts) else self._info.size + 1
        if self._sum is not None and len(view):
            self._sum.update(view)
            self._left -= len(view)

    def finish(self) -> None:
        """Raises Corrupt."""
        info, what = self._info, place(self._info.bucket, self._info.key)
        if self._size != info.size:
            raise Corrupt(f"{what}: {self._size} of its {info.size} bytes came: try again", reason="size")
        if self._sum is None:
            return
        if not self._name:
            found, wanted, name = self._sum.digest().hex(), info.etag, "ETag"
        elif self._parts:
            found, wanted, name = composite(self._name, self._values), info.checksums[self._name], self._name
        else:
            found, wanted, name = encode(self._sum.digest()), info.checksums[self._name], self._name
        if found.partition("-")[0] != wanted.partition("-")[0]:
            raise Corrupt(
                f"{what} did not arrive as it was stored ({name} {found}, not {wanted}): try again; if it stays so, "
                "`ostraka fsck`",
                reason="checksum",
            )
