"""What an operator can ask of an open store: the same words on the command line and on the control socket.

An operation is ``async (store, progress, **arguments) -> dict``; `server/control.py` calls it, in the process that owns
the store or in one of its own when nobody serves it. Each can be given again after it was cut short. Those of `AT_ONCE`
only look, or speak to jobs, which have turns of their own: they are answered while another is under way.
"""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from ostraka.objects import recipes
from ostraka.objects.types import Bucket
from ostraka.store import credentials, disks, fsck, jobs, layout, pools, sealing_keys, status
from ostraka.store.accounts import ROOT_NAME
from ostraka.store.disks import Progress
from ostraka.store.store import Store

__all__ = ["AT_ONCE", "OPERATIONS", "Progress"]


async def _status(store: Store, progress: Progress) -> dict[str, Any]:
    return await status.status(store)


async def _bucket_storage(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    return {"name": name, **recipes.described(store.objects.bucket(name).storage)}


async def _bucket_set_storage(
    store: Store, progress: Progress, *, name: str, compression: str = "", cut: str = "", encryption: str = ""
) -> dict[str, Any]:
    """What is "" stays as it is."""

    def change(bucket: Bucket) -> Bucket:
        return replace(bucket, storage=recipes.changed(bucket.storage, compression, cut, encryption))

    return {"name": name, **recipes.described((await store.objects.update_bucket(name, change)).storage)}


async def _disk_ls(store: Store, progress: Progress) -> dict[str, Any]:
    return await disks.list_disks(store)


async def _disk_replace(store: Store, progress: Progress, *, new: str, old: str = "") -> dict[str, Any]:
    return await disks.replace(store, progress, old=old, new=new)


async def _disk_forget(store: Store, progress: Progress, *, old: str) -> dict[str, Any]:
    return await disks.forget(store, progress, old=old)


async def _disk_add(store: Store, progress: Progress, *, new: str) -> dict[str, Any]:
    return await layout.add(store, progress, new=new)


async def _disk_drain(store: Store, progress: Progress, *, disk: str, cancel: bool = False) -> dict[str, Any]:
    return await layout.drain(store, progress, disk=disk, cancel=cancel)


async def _disk_geometry(store: Store, progress: Progress, *, k: int, m: int, convert: bool = False) -> dict[str, Any]:
    return await layout.geometry(store, progress, k=k, m=m, convert=convert)


async def _disk_wait(store: Store, progress: Progress, *, disk: int | None = None) -> dict[str, Any]:
    return await layout.wait(store, progress, disk=disk)


async def _fsck(store: Store, progress: Progress, *, repair: bool = False) -> dict[str, Any]:
    return await fsck.run(store, progress, repair=repair)


async def _endpoint(store: Store, progress: Progress) -> dict[str, Any]:
    """Where the server is reached, and as whom: for the store's owner, who may read the credentials' file anyway."""
    serving = store.serving
    if serving is None:
        return {"url": None}
    return {"url": serving.url, "certificate": serving.certificate, **credentials.show(store, ROOT_NAME)}


async def _account_ls(store: Store, progress: Progress) -> dict[str, Any]:
    return credentials.list_accounts(store)


async def _account_add(
    store: Store, progress: Progress, *, name: str, access_key: str = "", secret_key: str = ""
) -> dict[str, Any]:
    return await credentials.add(store, name, access_key, secret_key)


async def _account_rm(store: Store, progress: Progress, *, name: str, force: bool = False) -> dict[str, Any]:
    return await credentials.remove(store, name, force)


async def _credentials_show(store: Store, progress: Progress, *, name: str = ROOT_NAME) -> dict[str, Any]:
    return credentials.show(store, name)


async def _credentials_rotate(store: Store, progress: Progress, *, name: str = ROOT_NAME) -> dict[str, Any]:
    return await credentials.rotate(store, name)


async def _pool_ls(store: Store, progress: Progress) -> dict[str, Any]:
    return await pools.list_pools(store)


async def _pool_add(
    store: Store, progress: Progress, *, name: str, url: str, storage_class: str, cache_bytes: int = 0
) -> dict[str, Any]:
    return await pools.add(store, name=name, url=url, storage_class=storage_class, cache_bytes=cache_bytes)


async def _pool_rm(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    return await pools.remove(store, name=name)


async def _key_ls(store: Store, progress: Progress) -> dict[str, Any]:
    return sealing_keys.list_keys(store)


async def _key_show(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    return sealing_keys.show(store, name)


async def _key_create(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    return await sealing_keys.create(store, name)


async def _key_rotate(store: Store, progress: Progress, *, name: str) -> dict[str, Any]:
    return await sealing_keys.rotate(store, name)


async def _key_rotate_master(store: Store, progress: Progress) -> dict[str, Any]:
    return await sealing_keys.rotate_master(store)


Operation = Callable[..., Coroutine[Any, Any, dict[str, Any]]]

OPERATIONS: dict[str, Operation] = {
    "account-add": _account_add,
    "account-ls": _account_ls,
    "account-rm": _account_rm,
    "bucket-set-storage": _bucket_set_storage,
    "bucket-storage": _bucket_storage,
    "credentials-rotate": _credentials_rotate,
    "credentials-show": _credentials_show,
    "disk-add": _disk_add,
    "disk-drain": _disk_drain,
    "disk-geometry": _disk_geometry,
    "disk-ls": _disk_ls,
    "disk-replace": _disk_replace,
    "disk-forget": _disk_forget,
    "disk-wait": _disk_wait,
    "endpoint": _endpoint,
    "fsck": _fsck,
    "job-cancel": jobs.cancel,
    "job-ls": jobs.ls,
    "job-pause": jobs.pause,
    "job-resume": jobs.resume,
    "job-run": jobs.run,
    "job-show": jobs.show,
    "pool-add": _pool_add,
    "pool-ls": _pool_ls,
    "pool-rm": _pool_rm,
    "key-create": _key_create,
    "key-ls": _key_ls,
    "key-rotate": _key_rotate,
    "key-rotate-master": _key_rotate_master,
    "key-show": _key_show,
    "status": _status,
}
AT_ONCE = frozenset(
    {
        "account-ls",
        "bucket-storage",
        "credentials-show",
        "disk-ls",
        "disk-wait",
        "endpoint",
        "job-cancel",
        "job-ls",
        "job-pause",
        "job-resume",
        "job-run",
        "job-show",
        "pool-ls",
        "key-ls",
        "key-show",
        "status",
    }
)
