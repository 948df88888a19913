"""The store's keys: its secret and the root credentials, beside every copy of the state (docs/format/keys.md).

The secret keys chunk ids and version ids; without it no dedup index and no version id means anything, so it is kept
wherever the state is. The file is JSON for a person to read (the root credentials are in it), mode 0600, replaced as a
whole by law 9, with a checksum over the rest.
"""

import base64
import logging
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import xxhash
from blake3 import blake3

from ostraka.errors import Corrupt, Refused
from ostraka.host import Host

log = logging.getLogger("ostraka.nodes")

NAME = "keys.json"
VERSION = 1
SECRET_SIZE = 32
ALPHABET = string.ascii_uppercase + "234567"


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says. ``generated``: nobody chose the root credentials, so a person needs to be told of them."""

    store_id: str  # hex
    secret: str  # base64 of 32 bytes
    root_access_key: str
    root_secret_key: str
    generated: bool
    version: int = VERSION
    checksum: str = ""  # xxh3_64, hex, of this object encoded with checksum ""

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose, so that no key serves two."""
        return blake3(base64.b64decode(self.secret), derive_key_context=f"ostraka 2026 {purpose}").digest()


def _sealed(keys: Keys) -> Keys:
    return msgspec.structs.replace(keys, checksum=_checksum(msgspec.structs.asdict(keys) | {"checksum": ""}))


def _checksum(said: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(said))


def encode(keys: Keys) -> bytes:
    """The file's content."""
    return msgspec.json.format(msgspec.json.encode(_sealed(keys)), indent=2) + b"\n"


def decode(content: bytes, where: str) -> Keys:
    """The opposite. Raises Corrupt; Refused for a newer version."""
    try:
        said = msgspec.json.decode(content, type=dict[str, Any])
        if said.get("checksum") != _checksum(said | {"checksum": ""}):  # so in every version: it must be whole first
            raise Corrupt(f"{where} does not match its checksum", reason="keys")
        if said.get("version") != VERSION:
            raise Refused(
                f"{where} has version {said.get('version')}, this one knows {VERSION}: use the release that wrote it",
                reason="version",
            )
        return msgspec.convert(said, Keys)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise Corrupt(f"{where} is damaged: {e}", reason="keys") from None


def new_pair(host: Host) -> tuple[str, str]:
    """An access key and a secret key that nobody had before."""
    access = "OSTRAKA" + "".join(ALPHABET[b % 32] for b in host.random(13))
    return access, base64.b64encode(host.random(30)).decode()


def create(store_id: bytes, host: Host, root: tuple[str, str] | None) -> Keys:
    """Fresh keys; ``root`` is (access key, secret key) if somebody chose them."""
    access, secret = new_pair(host)
    return Keys(
        store_id=store_id.hex(),
        secret=base64.b64encode(host.random(SECRET_SIZE)).decode(),
        root_access_key=root[0] if root else access,
        root_secret_key=root[1] if root else secret,
        generated=root is None,
    )


def write(keys: Keys, disks: Iterable[Path], host: Host) -> None:
    """Put the file on each of those disks; durable when it returns."""
    content = encode(keys)
    for disk in disks:
        host.files.publish(disk / NAME, content, mode=0o600)


def load(store_id: bytes, disks: Iterable[Path], host: Host, root: tuple[str, str] | None = None) -> Keys:
    """The keys from the first disk that has them whole; the other disks are given them where theirs are not.

    ``root`` wins over what is stored for as long as it is given, and is not stored.
    Raises Refused when no copy is good.
    """
    found: Keys | None = None
    lacking: list[Path] = []
    problems: list[str] = []
    for disk in disks:
        try:
            keys = decode(host.files.read(disk / NAME), str(disk / NAME))
            if keys.store_id != store_id.hex():
                raise Corrupt(f"{disk / NAME} belongs to another store", reason="keys")
            found = found or keys
        except FileNotFoundError:
            lacking.append(disk)
            problems.append(f"{disk / NAME} is absent")
        except (OSError, Corrupt) as e:
            lacking.append(disk)
            problems.append(str(e))
    if found is None:
        raise Refused(
            "the store's keys cannot be read: " + "; ".join(problems) + ". Restore keys.json from a backup of any disk",
            reason="keys",
        )
    for disk in lacking:
        log.warning("writing the store's keys anew to %s", disk / NAME)
        try:
            write(found, [disk], host)
        except OSError as e:  # the others have them; what is wrong with this disk will show
            log.error("%s cannot be written: %s", disk / NAME, e)
    if root:
        return msgspec.structs.replace(found, root_access_key=root[0], root_secret_key=root[1], generated=False)
    return found
