"""Who may sign requests: accounts kept in the state, each with one access key.

The door asks with an access key on every request, so answers are cached in the process. A cached answer is good for
as long as the state's sequence has not moved; when it has, one row is read and compared, which costs microseconds.
So an account that one worker changed is seen by every other worker at its next request.

Root's credentials lie beside each copy of the state (keys.py), unless they are given at the start, and then win for as
long as they are. Once they were rotated they are in the state as well, as rows like any account's, and the rows win:
so a rotation is one commit, durable on every copy at one moment, and the files follow. A count in shared memory tells
all workers to look again. Secrets are never part of a message or a repr.
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from ostraka.errors import Absent, Conflict, Exists, Invalid, Refused
from ostraka.objects.types import Account
from ostraka.shared import SharedCount
from ostraka.state import Delete, Equals, Mutation, Operation, Precondition, Put, Rejected, State, rows_under

KEY_ROWS = b"ak"  # + access key -> AccessRow
NAME_ROWS = b"an"  # + account name -> the access key it has now

CACHED_KEYS_MAX = 4096
NAME_BYTES_MAX = 64
ACCESS_KEY_BYTES_MAX = 128
SECRET_BYTES_MAX = 256
ROOT_NAME = "root"
ATTEMPTS_MAX = 8


class AccessRow(msgspec.Struct, frozen=True, array_like=True):
    """What the state holds for an access key."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"AccessRow(name={self.name!r})"


class Accounts(Protocol):
    """What the S3 door needs to know about accounts."""

    def by_access_key(self, access_key: str) -> tuple[Account, str] | None:
        """The account and its secret key, or None when no account has this key."""
        ...


class Changes(Protocol):
    """How often the root account was changed, as all processes of the store see it (shared.SharedCount)."""

    def load(self) -> int: ...

    def bump(self) -> int: ...


class StateAccounts:
    """Accounts over the state, root included.

    ``root_given``: root's keys are those of this run, whatever the state says. ``changes``: None where this is the only
    process.
    """

    __slots__ = ("_cache", "_changes", "_initial", "_root", "_root_seen", "_state", "root_given")

    def __init__(
        self,
        state: State,
        root_access_key: str,
        root_secret_key: str,
        *,
        root_given: bool = False,
        changes: Changes | None = None,
    ) -> None:
        self._state = state
        self._root = self._initial = (Account(ROOT_NAME, root_access_key, root=True), root_secret_key)
        self._changes = changes or SharedCount()
        self._root_seen = -1
        self.root_given = root_given
        self._cache: dict[str, tuple[int, bytes, tuple[Account, str]]] = {}

    def root(self) -> tuple[Account, str]:
        """The root account and its secret key. Raises Unavailable when it has to be looked up and cannot be."""
        changes = self._changes.load()
        if changes != self._root_seen and not self.root_given:
            stored = stored_root(self._state)
            self._root = (Account(ROOT_NAME, stored[0], root=True), stored[1]) if stored else self._initial
            self._root_seen = changes
        return self._root

    def by_access_key(self, access_key: str) -> tuple[Account, str] | None:
        """The account and its secret key, or None; raises Unavailable when the state cannot be asked."""
        root = self.root()
        if access_key == root[0].access_key:
            return root
        sequence = self._state.sequence
        cached = self._cache.get(access_key)
        if cached is not None and cached[0] == sequence:
            return cached[2]
        encoded = access_key.encode("utf-8", "surrogateescape")
        if not 0 < len(encoded) <= ACCESS_KEY_BYTES_MAX:
            return None
        row = self._state.get(KEY_ROWS + encoded)
        if row is None:
            self._cache.pop(access_key, None)
            return None
        if cached is not None and cached[1] == row:
            found = cached[2]
        else:
            record = msgspec.msgpack.decode(row, type=AccessRow)
            if record.name == ROOT_NAME:  # a key that root had, or has when none is given
                return None
            found = (Account(record.name, access_key), record.secret)
        if len(self._cache) >= CACHED_KEYS_MAX:
            self._cache.clear()
        self._cache[access_key] = (sequence, row, found)
        return found

    async def put(self, name: str, access_key: str, secret: str) -> Account:
        """Create the account, or give it this key pair instead of the one it had. Durable when it returns.

        Raises Invalid for what cannot be a name or a key, and Exists (reason "access-key") when another account
        has that access key.
        """
        name_key, key_key = (
            NAME_ROWS + _checked(name, "account name", NAME_BYTES_MAX),
            KEY_ROWS + _checked(access_key, "access key", ACCESS_KEY_BYTES_MAX),
        )
        _checked(secret, "secret key", SECRET_BYTES_MAX)
        if name == ROOT_NAME:
            raise Invalid(
                f"{ROOT_NAME} is not an account to create: its keys are OSTRAKA_ROOT_ACCESS_KEY and "
                "OSTRAKA_ROOT_SECRET_KEY, or `ostraka credentials rotate` makes new ones",
                reason="account-name",
            )
        value = msgspec.msgpack.encode(AccessRow(name, secret))
        for _ in range(ATTEMPTS_MAX):
            holder, previous = self._state.get_many([key_key, name_key])
            if holder is not None and msgspec.msgpack.decode(holder, type=AccessRow).name != name:
                raise Exists("another account has this access key", reason="access-key")
            if holder == value and previous == access_key.encode():
                break
            conditions: list[Precondition] = [
                Equals(key_key, holder, "account"),
                Equals(name_key, previous, "account"),
            ]
            operations: list[Operation] = [Put(key_key, value), Put(name_key, access_key.encode())]
            if previous is not None and previous != access_key.encode():
                operations.append(Delete(KEY_ROWS + previous))
            try:
                await self._state.commit(Mutation(conditions, operations))
                break
            except Rejected:
                continue
        else:
            raise Conflict(f"account {name} is being changed by others", reason="account")
        return Account(name, access_key)

    async def remove(self, name: str) -> None:
        """Forget the account and its key, which signs nothing any more when this returns. Raises Absent."""
        name_key = NAME_ROWS + _checked(name, "account name", NAME_BYTES_MAX)
        for _ in range(ATTEMPTS_MAX):
            access_key = self._state.get(name_key) if name != ROOT_NAME else None
            if access_key is None:
                raise no_account(name)
            key_key = KEY_ROWS + access_key
            try:
                await self._state.commit(
                    Mutation([Equals(name_key, access_key, "account")], [Delete(name_key), Delete(key_key)])
                )
            except Rejected:
                continue
            return
        raise Conflict(f"account {name} is being changed by others", reason="account")

    async def rotate_root(self, access_key: str, secret: str) -> None:
        """Give root this key pair instead of the one it has, in one commit. Raises Refused where it was given."""
        if self.root_given:
            raise Refused(
                "root's keys were given to the server, by OSTRAKA_ROOT_ACCESS_KEY and OSTRAKA_ROOT_SECRET_KEY or its "
                "--config: set others there, and start it again",
                reason="credentials",
            )
        name_key, key_key = NAME_ROWS + ROOT_NAME.encode(), KEY_ROWS + access_key.encode()
        try:
            for _ in range(ATTEMPTS_MAX):
                holder, previous = self._state.get_many([key_key, name_key])
                if holder is not None:
                    raise Exists("another account has this access key", reason="access-key")
                operations: list[Operation] = [
                    Put(key_key, msgspec.msgpack.encode(AccessRow(ROOT_NAME, secret))),
                    Put(name_key, access_key.encode()),
                ]
                if previous is not None:
                    operations.append(Delete(KEY_ROWS + previous))
                conditions: list[Precondition] = [
                    Equals(key_key, None, "account"),
                    Equals(name_key, previous, "account"),
                ]
                try:
                    await self._state.commit(Mutation(conditions, operations))
                except Rejected:
                    continue
                return
            raise Conflict("root is being changed by others", reason="account")
        finally:
            self._changes.bump()  # whatever came of it

    def get(self, name: str) -> tuple[Account, str]:
        """The account of that name, root as well, and its secret key. Raises Absent."""
        if name == ROOT_NAME:
            return self.root()
        access_key = self._state.get(NAME_ROWS + _checked(name, "account name", NAME_BYTES_MAX))
        found = self.by_access_key(access_key.decode()) if access_key is not None else None
        if found is None:
            raise no_account(name)
        return found

    def names(self) -> Iterator[tuple[str, str]]:
        """(account name, access key) of all but root, in the order of names."""
        for key, value in rows_under(self._state, NAME_ROWS):
            name = key[len(NAME_ROWS) :].decode()
            if name != ROOT_NAME:
                yield name, value.decode()


def no_account(name: str) -> Absent:
    return Absent(f"there is no account {name!r}: `ostraka account ls` shows what there is", reason="account")


def stored_root(state: State) -> tuple[str, str] | None:
    """Root's access key and secret key as the state has them; None if they were never rotated."""
    access_key = state.get(NAME_ROWS + ROOT_NAME.encode())
    row = state.get(KEY_ROWS + access_key) if access_key is not None else None
    if access_key is None or row is None:
        return None
    return access_key.decode(), msgspec.msgpack.decode(row, type=AccessRow).secret


def _checked(text: str, what: str, limit: int) -> bytes:
    encoded = text.encode("utf-8")
    if not 0 < len(encoded) <= limit or not text.isprintable():
        raise Invalid(f"the {what} must be 1 to {limit} printable bytes", reason="account")
    return encoded
