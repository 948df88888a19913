"""From what a bucket says of its storage to what chunks are told: the words, their bounds and their defaults."""

from ostraka.chunks.types import RECIPE, Codec, Recipe
from ostraka.errors import Invalid
from ostraka.objects.types import STORAGE, Storage

CODECS = {"none": Codec.RAW, "zstd": Codec.ZSTD, "lz4": Codec.LZ4}
LEVELS = {"none": range(1), "zstd": range(23), "lz4": range(13)}  # 0: what was measured to be best


def recipe_of(storage: Storage) -> Recipe:
    """Raises Invalid("storage") for words and levels that mean nothing."""
    if storage == STORAGE:
        return RECIPE
    codec = CODECS.get(storage.compression)
    if codec is None:
        raise Invalid(f"{storage.compression!r} is no compression: one of {', '.join(CODECS)}", reason="storage")
    levels = LEVELS[storage.compression]
    if storage.level not in levels:
        raise Invalid(
            f"{storage.compression} has no level {storage.level}: 0 (its default) to {levels[-1]}", reason="storage"
        )
    return Recipe(codec, storage.level or RECIPE.level)
