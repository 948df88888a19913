"""The keys under which the store encrypts, seen and changed by an operator's word. No key itself is ever shown."""

from typing import Any

from ostraka.chunks.keyring import DEFAULT, Key
from ostraka.errors import NotSupported
from ostraka.objects.types import KMS
from ostraka.store.store import Store

BUCKETS_PAGE = 1000


def _row(store: Store, key: Key) -> dict[str, Any]:
    known = {master.fingerprint for master in store.keyring.masters}
    return {
        "name": key.row.name,
        "created": key.row.created,
        "version": key.row.current.number,
        "rotated": key.row.current.created if key.row.current.number > 1 else None,
        "older_versions": len(key.row.versions) - 1,
        "master_key": key.row.master.hex(),
        "usable": key.row.master in known,
    }


def list_keys(store: Store) -> dict[str, Any]:
    """All keys of the store, by name, and the fingerprints of the master keys that were given."""
    masters = [master.fingerprint.hex() for master in store.keyring.masters]
    return {"master_keys": masters, "keys": [_row(store, key) for key in store.keyring.all()]}


def show(store: Store, name: str) -> dict[str, Any]:
    """One key, with its versions, and the buckets that encrypt with it by themselves. Raises Absent."""
    key = store.keyring.find(name)
    versions = [{"number": v.number, "created": v.created} for v in key.row.versions]
    return {**_row(store, key), "id": key.id.hex(), "versions": versions, "buckets": _buckets(store, name)}


def _buckets(store: Store, name: str) -> list[str]:
    found: list[str] = []
    after, more = "", True
    while more:
        page, more = store.objects.list_buckets(None, "", after, BUCKETS_PAGE)
        for bucket in page:
            storage, after = bucket.storage, bucket.name
            if storage.encryption and name == ((storage.kms_key if storage.encryption == KMS else "") or DEFAULT):
                found.append(bucket.name)
    return found


async def create(store: Store, name: str) -> dict[str, Any]:
    """A new key. Raises Exists, Invalid, TooLarge, NotSupported and Unavailable ("master-key")."""
    return _row(store, await store.keyring.create(name))


async def rotate(store: Store, name: str) -> dict[str, Any]:
    """A new version of a key, for what is written from now on; the job `rewrap` sees to what was before."""
    key = await store.keyring.rotate(name)
    if store.jobs is not None:
        store.jobs.wake()
    return _row(store, key)


async def rotate_master(store: Store) -> dict[str, Any]:
    """Bring all keys under the first of the master keys that this process was given."""
    if not store.keyring.masters:
        raise NotSupported("no master key was given", reason="master-key")
    changed = await store.keyring.rewrap()
    complaint = store.keyring.complaint()
    return {"master_key": store.keyring.masters[0].fingerprint.hex(), "rewrapped": changed, "complaint": complaint}
