"""From what a bucket says of its storage to what chunks are told: the words, their bounds and their defaults."""

import functools
import re
from typing import Any

import msgspec

from ostraka.chunks.types import RECIPE, Codec, Cut, Recipe
from ostraka.errors import Invalid
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.objects.tiers import pool_of
from ostraka.objects.types import AES256, KMS, Storage
from ostraka.state import State

CODECS = {"none": Codec.RAW, "zstd": Codec.ZSTD, "lz4": Codec.LZ4}
LEVELS = {"none": range(1), "zstd": range(23), "lz4": range(13)}  # 0: what was measured to be best
CHUNK_SIZE_MIN = 128 * KIB
CHUNK_SIZES_MAX = {"fixed": LIMITS.chunk_size, "cdc": LIMITS.chunk_size // 2}  # of "cdc" the largest is twice as large
CHUNK_SIZES = {"fixed": LIMITS.chunk_size, "cdc": 1 * MIB}  # when a bucket names none; docs/decisions/cutting.md

_WORD = re.compile(r"([a-z0-9]+)(?::(.+))?", re.ASCII)
_SIZE = re.compile(r"(\d{1,9})(?:(k|m)(?:ib)?)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": KIB, "m": MIB}


@functools.lru_cache(64)
def recipe_of(storage: Storage) -> Recipe:
    """Raises Invalid("storage") for words, levels and sizes that mean nothing."""
    codec = CODECS.get(storage.compression)
    if codec is None:
        raise _bad(f"{storage.compression!r} is no compression: one of {', '.join(CODECS)}")
    levels = LEVELS[storage.compression]
    if storage.level not in levels:
        which = f"has no level {storage.level}: it has 1 to {levels[-1]}" if levels[-1] else "has no levels"
        raise _bad(f"compression {storage.compression} {which}")
    if storage.cut not in CHUNK_SIZES:
        raise _bad(f"{storage.cut!r} is no way to cut: one of {', '.join(CHUNK_SIZES)}")
    size, most = storage.chunk_size or CHUNK_SIZES[storage.cut], CHUNK_SIZES_MAX[storage.cut]
    if not CHUNK_SIZE_MIN <= size <= most or size & (size - 1):
        sizes = f"{_told(CHUNK_SIZE_MIN)}, twice that, and so on to {_told(most)}"
        raise _bad(f"cut {storage.cut} has no chunks of {_told(size)}: they have {sizes}")
    return Recipe(codec, storage.level or RECIPE.level, Cut(size, storage.cut == "cdc"))


def for_class(state: State, recipe: Recipe, storage_class: str) -> Recipe:
    """The same, kept where that class is kept. Invalid("storage-class")."""
    pool = pool_of(state, storage_class)
    return msgspec.structs.replace(recipe, pool=pool) if pool else recipe


def changed(storage: Storage, compression: str = "", cut: str = "", encryption: str = "") -> Storage:
    """``storage`` with what people say put in: "zstd", "zstd:9", "lz4", "none"; "fixed", "fixed:1MiB", "cdc:512KiB";
    "AES256", "aws:kms", "aws:kms:NAME", "none".

    What is "" stays. Raises Invalid("storage").
    """
    if compression:
        name, level = _split(compression, "compression", "zstd:3, lz4 or none")
        if level and not (level.isascii() and level.isdigit()):
            raise _bad(f"compression {compression!r}: a level is a number, as in zstd:3")
        number = int(level[:9] or 0)
        if level and not number:
            raise _bad(f"compression {compression!r}: levels begin at 1; without one the best as measured is taken")
        storage = msgspec.structs.replace(storage, compression=name, level=number)
    if cut:
        name, size = _split(cut, "cut", "cdc, cdc:512KiB, fixed or fixed:1MiB")
        storage = msgspec.structs.replace(storage, cut=name, chunk_size=_size(cut, size) if size else 0)
    if encryption:
        algorithm, key = encryption_of(encryption)
        storage = msgspec.structs.replace(storage, encryption=algorithm, kms_key=key, bucket_key=False)
    recipe_of(storage)
    return storage


def described(storage: Storage) -> dict[str, Any]:
    """What is done with a body, defaults filled in."""
    recipe = recipe_of(storage)
    level = recipe.level if recipe.codec != Codec.RAW else None
    return {
        "compression": storage.compression,
        "level": level,
        "cut": storage.cut,
        "chunk_size": recipe.cut.size,
        "encryption": ":".join(filter(None, (storage.encryption, storage.kms_key))) or None,
    }


def encryption_of(word: str) -> tuple[str, str]:
    """(algorithm, name of the key) of what people say. Raises Invalid("storage")."""
    if word == "none":
        return "", ""
    if word in (AES256, KMS):
        return word, ""
    algorithm, _, key = word.rpartition(":")
    if algorithm != KMS or not key:
        raise _bad(f"encryption {word!r}: write {AES256}, {KMS}, {KMS}:NAME or none")
    return algorithm, key


def _split(word: str, what: str, such_as: str) -> tuple[str, str]:
    found = _WORD.fullmatch(word)
    if not found:
        raise _bad(f"{what} {word!r}: write {such_as}")
    return found[1], found[2] or ""


def _size(word: str, size: str) -> int:
    found = _SIZE.fullmatch(size)
    if not found or not int(found[1]):
        raise _bad(f"cut {word!r}: a size is a number with KiB or MiB, as in cdc:512KiB")
    return int(found[1]) * _UNITS[(found[2] or "").lower()]


def _told(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def _bad(message: str) -> Invalid:
    return Invalid(message, reason="storage")
