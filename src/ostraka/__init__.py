"""Ostraka: durable object storage that ``pip install`` brings.

`open` gives a store to an ordinary program, `open_async` to an asyncio one (library/); `ostraka serve` is the same
store as an S3 endpoint. Errors are in `ostraka.errors`; `StoreInUse` is its InUse.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostraka.errors import InUse as StoreInUse
    from ostraka.library import open_async
    from ostraka.library import open_store as open

__version__ = "0.1.0"
__all__ = ["StoreInUse", "__version__", "open", "open_async"]


def __getattr__(name: str) -> Any:
    """Import the library with its first use: the command line and tools that read the version need none of it."""
    if name == "StoreInUse":
        from ostraka.errors import InUse

        return InUse
    if name in ("open", "open_async"):
        from ostraka import library  # raises NotSupported where it cannot work

        return library.open_store if name == "open" else library.open_async
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
