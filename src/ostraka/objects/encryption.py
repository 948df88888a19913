"""What encryption a write gets, and what a read must bring for it (ENGINE 17).

A write asks for the store's own key (SSE-S3), for a named one (SSE-KMS), or brings a customer's (SSE-C); if it says
nothing its bucket does. What was chosen is kept with the version or the upload: with a customer's key a salted hash to
know it again by, never the key. Bodies in chunks and packs are sealed there (`chunks.sealing`); one that rides inline
in its version's row is sealed here, under a data key of its own.
"""

import hashlib
import hmac

import msgspec

from ostraka.chunks.keyring import DEFAULT, Keyring
from ostraka.chunks.sealing import PLACE, Domain
from ostraka.chunks.types import Codec, Recipe
from ostraka.errors import Forbidden, Invalid
from ostraka.host import Buffer, Host
from ostraka.objects.types import AES256, CUSTOMER, KMS, UNENCRYPTED, CustomerKey, Encryption, Storage

INLINE = b"inline"  # what the seal of an inline body is bound to
SALT_SIZE = 16


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """What a body is encrypted under. ``encryption`` is kept with it."""

    encryption: Encryption = UNENCRYPTED
    domain: Domain | None = None

    @property
    def row(self) -> Encryption | None:
        """As records have it."""
        return self.encryption if self.encryption.algorithm else None

    def recipe(self, recipe: Recipe) -> Recipe:
        """A bucket's recipe, with the key that this body is sealed under."""
        return recipe if self.domain is None else msgspec.structs.replace(recipe, domain=self.domain)

    @property
    def hides(self) -> bool:
        """Whether the etag is not to be the MD5: with a key that is not the store's own it would tell what is equal."""
        return self.encryption.algorithm in (KMS, CUSTOMER)

    def etag(self, etag: str, host: Host) -> str:
        """From the MD5 of a body to what is shown of it."""
        return host.random(16).hex() if self.hides else etag

    def inline(self, body: bytes | None, host: Host) -> tuple[bytes | None, bytes | None]:
        """(inline body as its row has it, seal)."""
        if self.domain is None or not body:
            return body, None
        seal, key = self.domain.new(INLINE, host)
        return key.seal(0, body, _bound(len(body))), seal

    def shares(self, other: "Chosen") -> bool:
        """Whether bytes of the one may be bytes of the other as they are."""
        mine, yours = self.domain, other.domain
        return mine is yours or (mine is not None and yours is not None and mine.id == yours.id)


PLAIN = Chosen()


def _bound(size: int) -> bytes:
    return PLACE.pack(0, 0, Codec.RAW, size)


def chosen(
    keyring: Keyring, storage: Storage, asked: Encryption | None, customer: CustomerKey | None, host: Host
) -> Chosen:
    """What a new body gets. Raises what `Keyring.domain` does: Absent("kms-key"), NotSupported and Unavailable
    ("master-key")."""
    if customer is not None:
        return Chosen(
            Encryption(CUSTOMER, proof=_proof(customer, host.random(SALT_SIZE))), keyring.customer(customer.key)
        )
    if asked is None:
        if not storage.encryption:
            return PLAIN
        asked = Encryption(storage.encryption, bucket_key=storage.bucket_key)
    if not asked.algorithm:
        return PLAIN
    if asked.algorithm == KMS and not asked.key:
        asked = msgspec.structs.replace(asked, key=storage.kms_key or DEFAULT)
    return Chosen(asked, keyring.domain(asked.key or DEFAULT))


def kept(keyring: Keyring, encryption: Encryption, customer: CustomerKey | None) -> Chosen:
    """What a body that is there was given, or the parts of an upload. Raises as `check_customer` does."""
    check_customer(encryption, customer)
    if customer is not None:
        return Chosen(encryption, keyring.customer(customer.key))
    return Chosen(encryption, keyring.domain(encryption.key or DEFAULT)) if encryption.algorithm else PLAIN


def customer_domain(keyring: Keyring, encryption: Encryption, customer: CustomerKey | None) -> Domain | None:
    """What opens a body, where the store does not know by itself. Raises as `check_customer` does."""
    check_customer(encryption, customer)
    return None if customer is None else keyring.customer(customer.key)


def check_customer(encryption: Encryption, customer: CustomerKey | None) -> None:
    """Invalid("customer-key-missing") for what takes a customer's key, ("customer-key-unwanted") for what takes none,
    Forbidden("customer-key") for another key."""
    if encryption.algorithm != CUSTOMER:
        if customer is not None:
            raise Invalid(
                "The encryption parameters are not applicable to this object.", reason="customer-key-unwanted"
            )
        return
    if customer is None:
        raise Invalid(
            "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to "
            "retrieve the object.",
            reason="customer-key-missing",
        )
    if not hmac.compare_digest(_proof(customer, encryption.proof[:SALT_SIZE]), encryption.proof):
        raise Forbidden("this is encrypted with another customer's key", reason="customer-key")


def _proof(customer: CustomerKey, salt: bytes) -> bytes:
    return salt + hmac.digest(salt, customer.key, hashlib.sha256)


def open_inline(keyring: Keyring, inline: bytes, seal: bytes | None, size: int, domain: Domain | None) -> Buffer:
    """The inline body of a version's row."""
    if seal is None:
        return inline
    key = keyring.open(seal, INLINE) if domain is None else domain.open(seal, INLINE)
    return key.open(0, inline, _bound(size))


def check_storage(keyring: Keyring, storage: Storage) -> None:
    """What a bucket may say of encryption. Raises Invalid("storage"), and what `Keyring.find` does."""
    if storage.encryption not in ("", AES256, KMS):
        raise Invalid(f"{storage.encryption!r} is no encryption of a bucket: {AES256} or {KMS}", reason="storage")
    if storage.kms_key and storage.encryption != KMS:
        raise Invalid(f"a key is named with {KMS} only", reason="storage")
    if storage.encryption:
        keyring.find(storage.kms_key or DEFAULT)
