"""Chunks: bodies cut, hashed, deduplicated, compressed, packed and counted; a pool keeps what comes of it.

`ChunkStore` is what `types.Chunks` promises. It never commits on a request's behalf: it hands out the words of the
commit (laws 2 and 4). `rows` reads what it keeps in the state, for fsck and jobs.
"""

from ostraka.chunks.counters import METRICS, Counters
from ostraka.chunks.rows import Health
from ostraka.chunks.store import ChunkStore
from ostraka.chunks.types import ChunkBuffer, Chunks, Entry, Kind, Placed

__all__ = ["METRICS", "ChunkBuffer", "ChunkStore", "Chunks", "Counters", "Entry", "Health", "Kind", "Placed"]
