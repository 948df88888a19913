"""How a process comes to an embedded state: the owner recovers it, workers join it."""

from collections.abc import Sequence
from pathlib import Path

from ostraka.errors import Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.state.embedded import EmbeddedState
from ostraka.state.engine import OnCopyFailed
from ostraka.state.index_files import IndexFiles
from ostraka.state.ordered import LmdbMap, OpenMap
from ostraka.state.recover import Opening, recover
from ostraka.state.truth import Copy


def open_owner(
    host: Host,
    store: bytes,
    copies: Sequence[Copy],
    index: Path,
    *,
    epoch: int = 0,
    create: bool = False,
    accept_loss: bool = False,
    on_copy_failed: OnCopyFailed | None = None,
    limits: Limits = LIMITS,
    open_map: OpenMap = LmdbMap,
) -> EmbeddedState:
    """Recover the state that the copies hold, and open it. One process per store, before all others.

    ``store`` is the store's 16-byte id; ``copies`` are those that the membership of ``epoch`` names, judged current by
    the caller; ``index`` is a directory on any disk, its contents can be thrown away. ``create`` formats copies that
    are empty. ``accept_loss`` goes on where an acknowledged commit cannot be had any more: an operator's decision.
    ``EmbeddedState.recovery`` tells what was found. Blocking; about 3 microseconds a row when the index is built.

    Refused: a copy is missing, stale, or another store's. Corrupt: no copy gives a row or record back. Unavailable: no
    copy can be used. Full.
    """
    opening = Opening(
        host, limits, store, copies, index, epoch, create, accept_loss, on_copy_failed or _no_eviction, open_map
    )
    recovery, files, generation, opened = recover(opening)
    return EmbeddedState(
        host,
        limits,
        store,
        files,
        open_map,
        opening.on_copy_failed,
        opened=(generation, opened),
        recovery=recovery,
    )


def open_shared(
    host: Host,
    store: bytes,
    index: Path,
    *,
    on_copy_failed: OnCopyFailed | None = None,
    limits: Limits = LIMITS,
    open_map: OpenMap = LmdbMap,
) -> EmbeddedState:
    """Open the state that an owner has recovered, in another process; the copies are known from the index.

    Unavailable when there is no recovered index.
    """
    files = IndexFiles(host.files, index)
    try:
        return EmbeddedState(host, limits, store, files, open_map, on_copy_failed or _no_eviction)
    except BaseException:
        files.close()
        raise


def _no_eviction(disk: bytes, error: BaseException) -> int:
    raise Unavailable(f"the copy of the state on disk {disk.hex()} failed: {error}", reason="eviction")
