"""What Ostraka is tested with, public so that users can test with it too.

- ``powercut``: a directory that loses at a power cut whatever was not synced, and that can be made to fail.
- ``processes``: a real server in a process of its own, and clients for it.
- ``backends``: what every backend must do, as cases for backends of anybody's; ``metadatadb``: the same for replicas.
- ``virtual_time``: an event loop on which hours of waiting take no time.
- ``serving``: `serve`, an S3 endpoint for the length of a test; ``plugin``: the same as pytest fixtures.

Nothing but `serve` is imported here, when it is used: FUSE and boto3 are wanted only by those who ask for them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostraka.testing.serving import Endpoint, serve

__all__ = ["Endpoint", "serve"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ostraka.testing import serving

        return getattr(serving, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
