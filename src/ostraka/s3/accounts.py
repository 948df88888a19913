"""Who may sign requests: accounts kept in the state, each with one access key.

The door asks with an access key on every request, so answers are cached in the process. A cached answer is good for
as long as the state's sequence has not moved; when it has, one row is read and compared, which costs microseconds.
So an account that one worker changed is seen by every other worker at its next request.

Root's credentials do not live here: they lie beside each copy of the state and are given at the start. They win over
a row with the same access key. Secrets are never part of a message or a repr.
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from ostraka.errors import Conflict, Exists, Invalid
from ostraka.objects.types import Account
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


class StateAccounts:
    """Accounts over the state, root included."""

    __slots__ = ("_cache", "_root", "_state")

    def __init__(self, state: State, root_access_key: str, root_secret_key: str) -> None:
        self._state = state
        self._root = (Account(ROOT_NAME, root_access_key, root=True), root_secret_key)
        self._cache: dict[str, tuple[int, bytes, tuple[Account, str]]] = {}

    def by_access_key(self, access_key: str) -> tuple[Account, str] | None:
        """The account and its secret key, or None; raises Unavailable when the state cannot be asked."""
        if access_key == self._root[0].access_key:
            return self._root
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
                "OSTRAKA_ROOT_SECRET_KEY",
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

    def names(self) -> Iterator[tuple[str, str]]:
        """(account name, access key) of all but root, in the order of names."""
        for key, value in rows_under(self._state, NAME_ROWS):
            yield key[len(NAME_ROWS) :].decode(), value.decode()


def _checked(text: str, what: str, limit: int) -> bytes:
    encoded = text.encode("utf-8")
    if not 0 < len(encoded) <= limit or not text.isprintable():
        raise Invalid(f"the {what} must be 1 to {limit} printable bytes", reason="account")
    return encoded
