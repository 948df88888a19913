"""What an operator can ask of an open store: the same words on the command line and on the control socket.

An operation is ``async (store, progress, **arguments) -> dict``; `server/control.py` calls it, in the process that owns
the store or in one of its own when nobody serves it. Each can be given again after it was cut short. Those of `AT_ONCE`
only look, and are answered while another is under way.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from ostraka.store import disks, fsck
from ostraka.store.disks import Progress
from ostraka.store.store import Store

__all__ = ["AT_ONCE", "OPERATIONS", "Progress"]


async def _disk_ls(store: Store, progress: Progress) -> dict[str, Any]:
    return await disks.list_disks(store)


async def _disk_replace(store: Store, progress: Progress, *, new: str, old: str = "") -> dict[str, Any]:
    return await disks.replace(store, progress, old=old, new=new)


async def _disk_forget(store: Store, progress: Progress, *, old: str) -> dict[str, Any]:
    return await disks.forget(store, progress, old=old)


async def _fsck(store: Store, progress: Progress, *, repair: bool = False) -> dict[str, Any]:
    return await fsck.run(store, progress, repair=repair)


async def _endpoint(store: Store, progress: Progress) -> dict[str, Any]:
    """Where the server is reached, and as whom: for the store's owner, who may read the credentials' file anyway."""
    serving = store.serving
    if serving is None:
        return {"url": None}
    access_key, secret_key = store.keys.root_access_key, store.keys.root_secret_key
    return {
        "url": serving.url,
        "certificate": serving.certificate,
        "access_key": access_key,
        "secret_key": secret_key,
    }


Operation = Callable[..., Coroutine[Any, Any, dict[str, Any]]]

OPERATIONS: dict[str, Operation] = {
    "disk-ls": _disk_ls,
    "disk-replace": _disk_replace,
    "disk-forget": _disk_forget,
    "endpoint": _endpoint,
    "fsck": _fsck,
}
AT_ONCE = frozenset({"disk-ls", "endpoint"})
