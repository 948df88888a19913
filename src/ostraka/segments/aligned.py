"""Memory that O_DIRECT accepts: whole pages at page boundaries."""

import ctypes
import mmap
from collections import deque
from collections.abc import Sequence
from typing import Final

from ostraka.host import Buffer
from ostraka.segments.format import DIRECT_ALIGNMENT, align

_PAGES_KEPT: Final = 16
_pages: deque[mmap.mmap] = deque(maxlen=_PAGES_KEPT)  # one page each, for record headers


def is_aligned(piece: Buffer) -> bool:
    """Whether address and length are multiples of the direct alignment (a read-only buffer counts as not)."""
    view = memoryview(piece)
    if view.readonly or view.nbytes % DIRECT_ALIGNMENT:
        return False
    return not view.nbytes or ctypes.addressof(ctypes.c_char.from_buffer(view)) % DIRECT_ALIGNMENT == 0


def aligned_copy(pieces: Sequence[Buffer], size: int) -> memoryview:
    """The pieces one after the other in aligned memory of at least ``size`` bytes, padded with zeros."""
    rounded = align(size, DIRECT_ALIGNMENT)
    view = memoryview(mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE))
    at = 0
    for piece in pieces:
        length = memoryview(piece).nbytes
        view[at : at + length] = piece
        at += length
    assert at <= size, "the pieces fit the size that was told"
    return view


def header_page(raw: bytes) -> mmap.mmap:
    """A page that holds ``raw`` and zeros; give it back with `return_page` once it was written."""
    try:
        page = _pages.popleft()
    except IndexError:
        page = mmap.mmap(-1, DIRECT_ALIGNMENT, flags=mmap.MAP_PRIVATE)
    page.seek(0)
    page.write(raw)
    page.write(bytes(DIRECT_ALIGNMENT - len(raw)))
    return page


def return_page(page: mmap.mmap) -> None:
    _pages.append(page)
