"""Names that go over the wire and lead straight back to a row: version ids and upload ids.

A version id is one AES block over (commit sequence, 8 random bytes) under a key that only this store has, as 32 hex
digits: it says nothing of order or rate to those who see it, costs no row to resolve, and one that was made up or
comes from another store resolves to a sequence whose random bytes do not match. An upload id is the same over
(microsecond, 8 random bytes) under another key, so that uploads of a key sort by their initiation.

The block cipher is used as a permutation of single 16-byte values, each unique: no mode is wanted.
"""

import hashlib
import re

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

NULL_VERSION = "null"
_hex32 = re.compile(r"[0-9a-f]{32}").fullmatch


class Permutation:
    """16 bytes to 32 hex digits and back."""

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        key = hashlib.blake2b(b"", key=secret[:64], person=purpose, digest_size=16).digest()
        cipher = Cipher(AES(key), ECB())
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update

    def text(self, block: bytes) -> str:
        assert len(block) == 16
        return self._encrypt(block).hex()

    def block(self, text: str) -> bytes | None:
        """The 16 bytes, or None when the text has not the form of an id."""
        return self._decrypt(bytes.fromhex(text)) if _hex32(text) else None


class Identity:
    """The two kinds of ids of one store. ``secret``: the store's, at least 16 bytes, kept with the state."""

    __slots__ = ("uploads", "versions")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the store's secret has fewer than 16 bytes")
        self.versions = Permutation(secret, b"ostraka-version")
        self.uploads = Permutation(secret, b"ostraka-upload")

    def version_id(self, sequence: int, nonce: bytes) -> str:
        return self.versions.text(sequence.to_bytes(8, "big") + nonce)

    def version(self, text: str) -> tuple[int, bytes] | None:
        """(sequence, nonce) of a version id, or None when it has not the form of one."""
        block = self.versions.block(text)
        return None if block is None else (int.from_bytes(block[:8], "big"), block[8:])
