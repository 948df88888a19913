"""The library: a store in this process, without a server between.

`ostraka.open` gives a `Store` to ordinary programs, `ostraka.open_async` an `AsyncStore` to asyncio ones. Both stand on
the core that the server stands on: the same files, the same commits, the same promise. When a call that writes
returns, what it wrote is on stable storage on every disk in service; whoever is killed after that loses nothing of it.

    aio.py       AsyncStore, AsyncBucket, AsyncReader: all that there is to do
    chunks.py    AsyncChunks: the chunk store beneath the buckets
    disks.py     AsyncDisks: the disks that it is all on
    pools.py     AsyncPools: the disks as a whole, and places elsewhere for other storage classes
    blocking.py  Store, Bucket, Reader: the same names, waiting; an event loop in a thread runs the ones above
    uploads.py   AsyncUpload: a large object in parts
    asked.py     what callers ask for, looked at before anything is done
    bodies.py    what may be stored: bytes, paths, files, iterables, as a source that the core reads

Knows nothing of HTTP. One process owns a store: another one that opens or serves it gets `StoreInUse` with its pid.

What a day with it looks like (a body is bytes, a Path, a binary file, or an iterable of bytes):

>>> import io
>>> import tempfile
>>> import ostraka
>>> place = tempfile.TemporaryDirectory()
>>> with ostraka.open(place.name) as store:
...     logs = store.create_bucket("logs")
...     first = logs.put("2026/day", b"one two three", content_type="text/plain", metadata={"host": "kiln"})
...     print(logs.get("2026/day", offset=4, length=3), dict(logs.head("2026/day").attributes.metadata))
...
...     # streams, in and out: neither is ever in memory as a whole
...     large = logs.put("2026/large", io.BytesIO(bytes(3_000_000)))
...     with logs.open("2026/large") as reader:
...         print(large.size, sum(len(piece) for piece in reader))
...
...     # only if nobody was there first; only if it is still what was read
...     try:
...         logs.put("2026/day", b"mine", create_only=True)
...     except ostraka.errors.PreconditionFailed as e:
...         print("no:", e)
...     second = logs.put("2026/day", b"one two four", if_match=first.etag)
...
...     # old versions, once that is asked for
...     logs.set_versioning(True)
...     third = logs.put("2026/day", b"three")
...     print(len(list(logs.versions("2026/day"))), logs.get("2026/day", version_id=third.version_id))
...     print([entry.key for entry in logs.list("2026/")], logs.delete("2026/day").delete_marker)
b'two' {'host': 'kiln'}
3000000 3000000
no: '2026/day' exists
2 b'three'
['2026/day', '2026/large'] True
>>> place.cleanup()
"""

from ostraka import machine

machine.check()  # before anything is imported that is only there on Linux

from ostraka.library.aio import AsyncBucket, AsyncReader, AsyncStore, open_async  # noqa: E402
from ostraka.library.blocking import Bucket, Chunks, Disks, Pools, Reader, Store, Upload, open_store  # noqa: E402
from ostraka.library.chunks import AsyncChunks, ChunkInfo, ShardPlace, Slice, StripeInfo  # noqa: E402
from ostraka.library.disks import AsyncDisks, DiskInfo  # noqa: E402
from ostraka.library.pools import AsyncPools, PoolInfo  # noqa: E402
from ostraka.library.uploads import AsyncUpload  # noqa: E402

__all__ = [
    "AsyncBucket",
    "AsyncChunks",
    "AsyncDisks",
    "AsyncPools",
    "AsyncReader",
    "AsyncStore",
    "AsyncUpload",
    "Bucket",
    "ChunkInfo",
    "Chunks",
    "DiskInfo",
    "Disks",
    "PoolInfo",
    "Pools",
    "Reader",
    "ShardPlace",
    "Slice",
    "Store",
    "StripeInfo",
    "Upload",
    "open_async",
    "open_store",
]
