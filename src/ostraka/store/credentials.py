"""Who may do what is asked of the store over S3: accounts and their keys, seen and changed by an operator's word.

A new key pair is valid when its operation returns, and the old one is not, in every process that serves the store. Of
root it is one commit as well (accounts.py); then the files that people read follow, beside every copy of the state, and
what a crash keeps from following is mended when the store is opened next.
"""

import logging
from typing import Any

import msgspec

from ostraka.errors import Exists, OstrakaError, Refused
from ostraka.jobs import state_copies
from ostraka.jobs.ground import in_thread
from ostraka.nodes import keys as keyring
from ostraka.store.accounts import ROOT_NAME, no_account
from ostraka.store.store import Store

log = logging.getLogger("ostraka.store")

BUCKETS_NAMED_MAX = 5


def list_accounts(store: Store) -> dict[str, Any]:
    """Every account with its access key and how many buckets it owns; root first."""
    owned = _owned(store)
    rows = [(ROOT_NAME, store.accounts.root()[0].access_key), *store.accounts.names()]
    return {
        "accounts": [
            {"name": name, "access_key": access_key, "buckets": len(owned.get(name, ()))} for name, access_key in rows
        ]
    }


def _owned(store: Store) -> dict[str, list[str]]:
    """Bucket names by the account that owns them."""
    owned: dict[str, list[str]] = {}
    after, more = "", True
    while more:
        page, more = store.objects.list_buckets(None, "", after, 1000)
        for bucket in page:
            owned.setdefault(bucket.owner, []).append(bucket.name)
            after = bucket.name
    return owned


async def add(store: Store, name: str, access_key: str, secret_key: str) -> dict[str, Any]:
    """Create an account; keys that are not given are made. Raises Exists, Invalid."""
    if any(known == name for known, _ in store.accounts.names()):
        raise Exists(
            f"there is an account {name!r} already: `ostraka credentials rotate {name}` gives it other keys",
            reason="account",
        )
    made_access, made_secret = keyring.new_pair(store.host)
    if access_key == store.accounts.root()[0].access_key:
        raise Exists("root has this access key: choose another", reason="access-key")
    account = await store.accounts.put(name, access_key or made_access, secret_key or made_secret)
    return {"name": name, "access_key": account.access_key, "secret_key": secret_key or made_secret}


async def remove(store: Store, name: str, force: bool) -> dict[str, Any]:
    """Forget an account. Raises Absent, and Refused while it owns buckets, unless ``force`` leaves them to root."""
    if name == ROOT_NAME:
        raise Refused("root cannot be removed: `ostraka credentials rotate` gives it other keys", reason="account")
    owned = _owned(store).get(name, [])
    if owned and not force:
        shown = ", ".join(owned[:BUCKETS_NAMED_MAX]) + (", ..." if len(owned) > BUCKETS_NAMED_MAX else "")
        raise Refused(
            f"account {name!r} owns buckets ({shown}): remove them first, or leave them to root with --force",
            reason="buckets",
        )
    await store.accounts.remove(name)
    return {"name": name, "buckets": owned}


def show(store: Store, name: str) -> dict[str, Any]:
    """An account's keys. Raises Absent."""
    account, secret = store.accounts.get(name)
    return {"name": name, "access_key": account.access_key, "secret_key": secret}


async def rotate(store: Store, name: str) -> dict[str, Any]:
    """Give an account new keys instead of those that it has. Raises Absent, and Refused where they were given."""
    access_key, secret_key = keyring.new_pair(store.host)
    if name == ROOT_NAME:
        await store.accounts.rotate_root(access_key, secret_key)
        store.keys = msgspec.structs.replace(
            store.keys, root_access_key=access_key, root_secret_key=secret_key, generated=True
        )
        await in_thread(_carry, store)
    else:
        if not any(known == name for known, _ in store.accounts.names()):
            raise no_account(name)
        await store.accounts.put(name, access_key, secret_key)
    log.info("account %s has new keys", name)
    return {"name": name, "access_key": access_key, "secret_key": secret_key}


def _carry(store: Store) -> None:
    """The files follow the commit, as far as they can."""
    membership = store.membership
    for member in state_copies.carriers(membership.epoch):
        path = membership.paths.get(member.number)
        try:
            if path is not None:
                keyring.write(store.keys, [path], store.host)
        except (OSError, OstrakaError) as e:
            log.error("%s: the new keys are not written there: %s", path, e)
