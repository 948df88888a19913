"""Encryption at rest: how the stored bytes of chunks, packs and inline bodies are sealed (docs/format/sealing.md).

Three layers of keys. A *domain* is one customer's or one named key: it has a wrapping key, of which there are versions,
and a secret of its own for chunk ids, so that ids of two domains never meet and nothing deduplicates across them. Under
the wrapping key each stored thing has a fresh random *data key*, wrapped; the wrapped key, a *seal*, stands in the
thing's row. Under the data key each frame or slot is sealed by itself, with its number as the nonce: the data key is
never used for a second thing, so no nonce comes twice, and what is changed, cut, swapped or moved does not open.

No primitive of our own: AES-256-GCM (ChaCha20-Poly1305 where the processor has no AES), AES-256-GCM-SIV for the
wrapping, whose nonces are random, and BLAKE3 to derive keys. Nothing here shows a key: not in a repr, not in an error.
"""

from pathlib import Path
from struct import Struct as Layout

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from ostraka.errors import Corrupt, Refused
from ostraka.host import Buffer, Files, Host

KEY_SIZE = 32
KEY_ID_SIZE = 8
NONCE_SIZE = 12
TAG_SIZE = 16  # what sealing adds to each frame and slot

CIPHER_NONE = 0  # these numbers are on disk
AES_256_GCM = 1
CHACHA20_POLY1305 = 2
CIPHERS: dict[int, type[AESGCM] | type[ChaCha20Poly1305]] = {
    AES_256_GCM: AESGCM,
    CHACHA20_POLY1305: ChaCha20Poly1305,
}

WRAPPED_SIZE = NONCE_SIZE + KEY_SIZE + TAG_SIZE
SEAL = Layout(f">{KEY_ID_SIZE}sIB{WRAPPED_SIZE}s")  # key id, its version, cipher, the wrapped data key
PLACE = Layout(">IIBI")  # what sealed bytes are bound to, behind an id: number, how many there are, codec, plain bytes
_MASK_SIZE = 8

_SEALS = "ostraka 2026 a data key seals and masks"


def derive(context: str, *material: bytes, size: int = KEY_SIZE) -> bytes:
    """Key material for one purpose, which ``context`` names for all time."""
    return blake3(b"".join(material), derive_key_context=context).digest(length=size)


class Wrapper:
    """A key that wraps other keys, and bounds each to what it is for. It has no repr to speak of."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        assert len(key) == KEY_SIZE
        self._aead = AESGCMSIV(key)

    def __repr__(self) -> str:
        return "Wrapper()"

    def wrap(self, key: bytes, of: bytes, host: Host) -> bytes:
        """The key wrapped, with its nonce in front; ``of`` says what it is for."""
        nonce = host.random(NONCE_SIZE)
        return nonce + self._aead.encrypt(nonce, key, of)

    def unwrap(self, wrapped: bytes, of: bytes) -> bytes:
        """The opposite; Corrupt if it does not open."""
        if len(wrapped) != WRAPPED_SIZE:
            raise Corrupt("a wrapped key of the wrong length", reason="seal")
        try:
            return self._aead.decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], of)
        except InvalidTag:
            raise Corrupt("a wrapped key that does not open", reason="seal") from None


class Domain:
    """What a body is sealed under: a key's current version. It has no repr to speak of, and is never written."""

    __slots__ = ("_cipher", "_wrapping", "gate", "id", "secret", "version")

    def __init__(
        self,
        key_id: bytes,
        version: int,
        wrapping: Wrapper,
        secret: bytes,
        cipher: int = AES_256_GCM,
        gate: bytes = b"",
    ) -> None:
        assert len(key_id) == KEY_ID_SIZE
        assert len(secret) == KEY_SIZE
        self.id = key_id
        self.version = version
        self.secret = secret  # keys the ids of the domain's chunks
        self.gate = gate  # row of the state that must stand when something sealed under this is committed; b"": none
        self._wrapping = wrapping
        self._cipher = cipher  # of new data keys

    def __repr__(self) -> str:
        return f"Domain({self.id.hex()}, version {self.version})"

    @property
    def group(self) -> bytes:
        """Equal for what may share one data key: the same key, in the same version."""
        return self.id + self.version.to_bytes(4, "big")

    def new(self, of: bytes, host: Host) -> tuple[bytes, "DataKey"]:
        """A fresh data key for what ``of`` names, and the seal that goes into its row."""
        key = host.random(KEY_SIZE)
        seal = SEAL.pack(self.id, self.version, self._cipher, self._wrapping.wrap(key, of, host))
        return seal, DataKey(key, self._cipher)

    def open(self, seal: bytes, of: bytes) -> "DataKey":
        """The data key of a seal of this key in this version."""
        return open_seal(self._wrapping, seal, of)

    def rewrapped(self, seal: bytes, wrapping: Wrapper, of: bytes, host: Host) -> bytes:
        """The same data key under this domain's wrapping key instead of an older one."""
        _, _, cipher, wrapped = SEAL.unpack(seal)
        key = wrapping.unwrap(wrapped, of)
        return SEAL.pack(self.id, self.version, cipher, self._wrapping.wrap(key, of, host))


def key_of(seal: bytes) -> tuple[bytes, int]:
    """(key id, version) that a seal was made with. Corrupt if it is none."""
    if len(seal) != SEAL.size:
        raise Corrupt("a seal of the wrong length", reason="seal")
    key_id, version, _, _ = SEAL.unpack(seal)
    return key_id, version


def cipher_of(seal: bytes | None) -> int:
    """By what the things under a seal are sealed."""
    return CIPHER_NONE if seal is None else int(SEAL.unpack(seal)[2])


def open_seal(wrapping: Wrapper, seal: bytes, of: bytes) -> "DataKey":
    """The data key of a seal. Corrupt if it does not open, Refused for a cipher that this program does not know."""
    _, _, cipher, wrapped = SEAL.unpack(seal)
    if cipher not in CIPHERS:
        raise Refused(f"sealed by cipher {cipher}; this program reads {', '.join(map(str, CIPHERS))}", reason="version")
    return DataKey(wrapping.unwrap(wrapped, of), cipher)


class DataKey:
    """Seals and opens the frames of one chunk, or the slots of one pack. Threads may share it."""

    __slots__ = ("_aead", "_mask", "cipher")

    def __init__(self, key: bytes, cipher: int) -> None:
        keys = derive(_SEALS, key, size=2 * KEY_SIZE)
        self._aead = CIPHERS[cipher](keys[:KEY_SIZE])
        self._mask = keys[KEY_SIZE:]
        self.cipher = cipher

    def __repr__(self) -> str:
        return "DataKey()"

    def seal(self, number: int, plain: Buffer, bound: bytes) -> bytes:
        return self._aead.encrypt(_nonce(number), plain, bound)

    def seal_into(self, number: int, plain: Buffer, bound: bytes, into: memoryview) -> None:
        """``into``: as long as plain, and TAG_SIZE more."""
        self._aead.encrypt_into(_nonce(number), plain, bound, into)

    def open(self, number: int, sealed: Buffer, bound: bytes) -> bytes:
        """The plaintext; Corrupt for anything that was not sealed like this, at this place."""
        try:
            return self._aead.decrypt(_nonce(number), sealed, bound)
        except InvalidTag:
            raise _broken(number) from None

    def open_into(self, number: int, sealed: Buffer, bound: bytes, into: memoryview) -> None:
        try:
            self._aead.decrypt_into(_nonce(number), sealed, bound, into)
        except InvalidTag:
            raise _broken(number) from None

    def masks(self, first: int, count: int) -> list[int]:
        """What the checksums of plaintext numbered from ``first`` are XORed with, so that they tell nothing."""
        stream = blake3(b"", key=self._mask).digest(length=_MASK_SIZE * count, seek=_MASK_SIZE * first)
        return [int.from_bytes(stream[at : at + _MASK_SIZE], "big") for at in range(0, len(stream), _MASK_SIZE)]


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_SIZE, "big")


def _broken(number: int) -> Corrupt:
    return Corrupt(f"sealed bytes (number {number}) that do not open: changed, or of another place", reason="seal")


def best_cipher(files: Files) -> int:
    """AES-256-GCM where the processor has AES (10 GB/s a core), else ChaCha20-Poly1305 (3.7)."""
    try:
        words = files.read(Path("/proc/cpuinfo")).split()
    except OSError:
        return AES_256_GCM
    return AES_256_GCM if b"aes" in words else CHACHA20_POLY1305


def customer_domain(customer_key: bytes, store_secret: bytes, cipher: int) -> Domain:
    """The domain of a key that a customer brings with each request, and that is kept nowhere (SSE-C)."""
    made = derive("ostraka 2026 customer key", store_secret, customer_key, size=KEY_ID_SIZE + 2 * KEY_SIZE)
    key_id, rest = made[:KEY_ID_SIZE], made[KEY_ID_SIZE:]
    return Domain(key_id, 0, Wrapper(rest[:KEY_SIZE]), rest[KEY_SIZE:], cipher)


def of_chunk(chunk: bytes) -> bytes:
    """What the seal of a chunk is bound to."""
    return b"chunk" + chunk


def of_pack(pack: bytes) -> bytes:
    """What the seal of a pack is bound to."""
    return b"pack" + pack
