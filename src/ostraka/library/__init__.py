"""The library: a store in this process, without a server between.

`ostraka.open` gives a `Store` to ordinary programs, `ostraka.open_async` an `AsyncStore` to asyncio ones. Both stand on
the core that the server stands on: the same files, the same commits, the same promise. When a call that writes
returns, what it wrote is on stable storage on every disk in service; whoever is killed after that loses nothing of it.

    aio.py       AsyncStore, AsyncBucket, AsyncReader: all that there is to do
    blocking.py  Store, Bucket, Reader: the same names, waiting; an event loop in a thread runs the ones above
    uploads.py   AsyncUpload: a large object in parts
    asked.py     what callers ask for, looked at before anything is done
    bodies.py    what may be stored: bytes, paths, files, iterables, as a source that the core reads

Knows nothing of HTTP. One process owns a store: another one that opens or serves it gets `StoreInUse` with its pid.
"""

from ostraka import machine

machine.check()  # before anything is imported that is only there on Linux

from ostraka.library.aio import AsyncBucket, AsyncReader, AsyncStore, open_async  # noqa: E402
from ostraka.library.blocking import Bucket, Reader, Store, Upload, open_store  # noqa: E402
from ostraka.library.uploads import AsyncUpload  # noqa: E402

__all__ = [
    "AsyncBucket",
    "AsyncReader",
    "AsyncStore",
    "AsyncUpload",
    "Bucket",
    "Reader",
    "Store",
    "Upload",
    "open_async",
    "open_store",
]
