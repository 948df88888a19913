"""How a body lies in shards: geometry, shard size, and which shards a range of the body touches."""

from collections.abc import Iterator, Sequence
from typing import Final

from ostraka.host import Buffer
from ostraka.limits import Limits
from ostraka.pools.buffers import PAGE, PooledBuffer

SMALL_ALIGNMENT: Final = 8


def shard_size(length: int, k: int, limits: Limits) -> int:
    """Bytes of each shard: whole pages once shards are large enough to bypass the page cache, else 8-byte steps."""
    even = -(-length // k)
    rounded = -(-even // SMALL_ALIGNMENT) * SMALL_ALIGNMENT
    if rounded < limits.direct_shard_size_min:
        return max(rounded, SMALL_ALIGNMENT)
    return -(-even // PAGE) * PAGE


def capacity(length: int, k: int, m: int) -> int:
    """Bytes that hold a body, its padding and its parity, whichever way its shards are rounded."""
    even = -(-max(length, 1) // k)
    return (k + (m if k > 1 else 0)) * (-(-even // PAGE) * PAGE)


def slices(offset: int, length: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(shard, offset in it, bytes, offset in the range) of every data shard that a range of the body touches."""
    done = 0
    while done < length:
        index, start = divmod(offset + done, size)
        part = min(length - done, size - start)
        yield index, start, part, done
        done += part


def cut(body: PooledBuffer | Buffer, length: int, k: int, parity: int, size: int) -> list[list[Buffer]]:
    """The data shards, and writable memory for ``parity`` more, of a body whose shards are ``size`` bytes.

    Nothing is copied where the memory behind a pooled buffer has room for padding and parity, and where a body is
    one shard. Each shard is a list of pieces.
    """
    total = (k + parity) * size
    if isinstance(body, PooledBuffer) and len(body.whole) >= total:
        whole = body.whole
        whole[length : k * size] = bytes(k * size - length)
    else:
        view = (body.view if isinstance(body, PooledBuffer) else memoryview(body).cast("B"))[:length]
        if k == 1 and not parity:
            padding = size - length
            return [[view, bytes(padding)] if padding else [view]]
        whole = memoryview(bytearray(total))
        whole[:length] = view
    return [[whole[i * size : (i + 1) * size]] for i in range(k + parity)]


def single(pieces: Sequence[Buffer]) -> Buffer:
    assert len(pieces) == 1, "shards that are encoded are one piece"
    return pieces[0]
