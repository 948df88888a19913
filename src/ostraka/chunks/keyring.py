"""The keys under which a store seals: their rows in the state, wrapped under a master key that is written nowhere.

Two rows a key (docs/format/key-rows.md): under its id what it is, and under its name its id. A key has a secret of its
own for chunk ids, which never changes, and wrapping keys, a new one with each rotation: the newest seals, all open.
``default`` is the store's own (SSE-S3); the others have the names that SSE-KMS headers give.

Of several master keys the first wraps, the others only open: with a new one in front of the old, `rewrap` (at every
start) writes all rows anew in one commit, and the old one may go. A store opens without its master key, and says so;
what needs a key then fails with Unavailable("master-key"), and all that needs none goes on.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ostraka.chunks import sealing
from ostraka.chunks.sealing import KEY_ID_SIZE, KEY_SIZE, DataKey, Domain, Wrapper, customer_domain, derive, key_of
from ostraka.errors import Absent, Corrupt, Exists, Forbidden, Invalid, NotSupported, Refused, TooLarge, Unavailable
from ostraka.host import Host
from ostraka.limits import LIMITS, Limits
from ostraka.state.types import Absent as NoRow
from ostraka.state.types import Delete, Equals, Mutation, Operation, Precondition, Put, Rejected, State, prefix_end

KEYS = b"k"  # table: `k` `i` id -> KeyRow; `k` `n` name -> id; `k` `g` id version(4): what may be sealed with
BY_ID = KEYS + b"i"
BY_NAME = KEYS + b"n"
GATES = KEYS + b"g"
TABLES = (KEYS,)
ROW_VERSION = 1
DEFAULT = "default"  # the store's own key
FINGERPRINT_SIZE = 8
SETTING = "OSTRAKA_MASTER_KEY"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class KeyVersion(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """``wrapped``: the wrapping key, under the master key."""

    number: int
    created: float
    wrapped: bytes


class KeyRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key. ``master``: the fingerprint of the master key that wraps it; ``secret``: that of its chunk ids, wrapped;
    ``versions``: the newest last."""

    version: int
    name: str
    created: float
    master: bytes
    secret: bytes
    versions: tuple[KeyVersion, ...]

    @property
    def current(self) -> KeyVersion:
        return self.versions[-1]


_decode = msgspec.msgpack.Decoder(KeyRow).decode
encode = msgspec.msgpack.Encoder().encode


def decode(value: bytes) -> KeyRow:
    """A key's row; Corrupt when it is none, Refused when a newer program wrote it."""
    try:
        row = _decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a key's row that cannot be read: {error}", reason="row") from error
    if row.version != ROW_VERSION:
        raise Refused(f"a key's row of version {row.version}; this program reads {ROW_VERSION}", reason="version")
    if not row.versions:
        raise Corrupt("a key without a version", reason="row")
    return row


def check_row(key: bytes, value: bytes) -> None:
    """Corrupt for what is no row of this table, Refused for a newer version's: for fsck."""
    kind, rest = key[:2], key[2:]
    if kind == BY_ID and len(rest) == KEY_ID_SIZE:
        decode(value)
    elif not (kind == BY_NAME and rest and len(value) == KEY_ID_SIZE) and not (
        kind == GATES and len(rest) == KEY_ID_SIZE + 4 and not value
    ):
        raise Corrupt(f"a key that is none of the keys' table: {key[:32].hex()}", reason="row")


def gate_key(key_id: bytes, number: int) -> bytes:
    """The row that stands for as long as new bodies may be sealed under this version of a key."""
    return GATES + key_id + number.to_bytes(4, "big")


def gate_of(seal: bytes) -> bytes:
    """The gate of what a seal was made with, "" for a customer's key."""
    key_id, number = key_of(seal)
    return gate_key(key_id, number) if number else b""


def id_key(key_id: bytes) -> bytes:
    return BY_ID + key_id


def name_key(name: str) -> bytes:
    return BY_NAME + name.encode()


class Master:
    """A master key. ``fingerprint`` names it, and tells nothing of it."""

    __slots__ = ("_wrapping", "fingerprint")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise Invalid(f"a master key is {KEY_SIZE} bytes, not {len(key)}", reason="master-key")
        self.fingerprint = derive("ostraka 2026 master key fingerprint", key, size=FINGERPRINT_SIZE)
        self._wrapping = Wrapper(derive("ostraka 2026 master key wraps", key))

    def __repr__(self) -> str:
        return f"Master({self.fingerprint.hex()})"

    def wrap(self, key: bytes, of: bytes, host: Host) -> bytes:
        return self._wrapping.wrap(key, of, host)

    def unwrap(self, wrapped: bytes, of: bytes) -> bytes:
        return self._wrapping.unwrap(wrapped, of)


def _of_version(key_id: bytes, number: int) -> bytes:
    """What a wrapped wrapping key is bound to."""
    return b"version" + key_id + number.to_bytes(4, "big")


def _of_secret(key_id: bytes) -> bytes:
    return b"secret" + key_id


class Key(NamedTuple):
    """A key as its row says."""

    id: bytes
    row: KeyRow
    value: bytes  # the row as read


class Keyring:
    """The keys of one store, in one process (`chunks.types.Keyring`). ``masters``: 32 bytes each, the first wraps.
    ``secret``: the store's, mixed into the domains of customers' keys."""

    def __init__(
        self, state: State, secret: bytes, masters: Sequence[bytes] = (), *, host: Host, limits: Limits = LIMITS
    ) -> None:
        self._state = state
        self._secret = secret
        self._host = host
        self._limits = limits
        self._cipher = sealing.best_cipher(host.files)
        self.masters = tuple(Master(key) for key in masters)
        self._wrapping: dict[tuple[bytes, int], Wrapper] = {}  # opened; what a version is never changes
        self._domains: dict[str, tuple[bytes, Domain]] = {}  # by name, with the row each was opened from

    # -- sealing and opening

    def domain(self, name: str = DEFAULT) -> Domain:
        """What new bodies are sealed under. Absent("kms-key") when there is no such key; NotSupported("master-key")
        while the store has no keys at all; Unavailable("master-key") without the master key that it takes."""
        key = self.find(name)
        known = self._domains.get(name)
        if known is not None and known[0] == key.value:
            return known[1]
        secret = self._master_of(key.row).unwrap(key.row.secret, _of_secret(key.id))
        number = key.row.current.number
        domain = Domain(key.id, number, self._opened(key, number), secret, self._cipher, gate=gate_key(key.id, number))
        self._domains[name] = key.value, domain
        return domain

    def customer(self, key: bytes) -> Domain:
        """The domain of a key that a customer brought."""
        return customer_domain(key, self._secret, self._cipher)

    def open(self, seal: bytes, of: bytes) -> DataKey:
        return sealing.open_seal(self.wrapping(*key_of(seal)), seal, of)

    def wrapping(self, key_id: bytes, number: int) -> Wrapper:
        """A version of a wrapping key; raises as `open`."""
        known = self._wrapping.get((key_id, number))
        if known is not None:
            return known
        value = self._state.get(id_key(key_id))
        if value is None:
            raise Forbidden("sealed under a key that is not one of this store's", reason="key")
        return self._opened(Key(key_id, decode(value), value), number)

    def _opened(self, key: Key, number: int) -> Wrapper:
        for version in key.row.versions:
            if version.number == number:
                found = Wrapper(self._master_of(key.row).unwrap(version.wrapped, _of_version(key.id, number)))
                self._wrapping[key.id, number] = found
                return found
        raise Unavailable(f"version {number} of key {key.row.name!r} was dropped: look at the row again", reason="key")

    def _master_of(self, row: KeyRow) -> Master:
        for master in self.masters:
            if master.fingerprint == row.master:
                return master
        raise self._missing(row)

    def _missing(self, row: KeyRow) -> Unavailable:
        given = ", ".join(m.fingerprint.hex() for m in self.masters)
        return Unavailable(
            f"key {row.name!r} is wrapped under the master key with fingerprint {row.master.hex()}, and "
            + (f"another one was given ({given})" if given else "none was given")
            + f": set {SETTING} or {SETTING}_FILE",
            reason="master-key",
        )

    # -- looking

    @property
    def active(self) -> bool:
        """Whether new buckets encrypt: there is a key to do it with, or there was one."""
        return bool(self.masters) or self._state.get(name_key(DEFAULT)) is not None

    def find(self, name: str) -> Key:
        """A key by its name; raises as `domain`, for what its row alone tells."""
        key_id = self._state.get(name_key(name)) if name else None
        if key_id is None:
            if not self.active:
                raise NotSupported(
                    f"encryption was asked for, and this store has no master key: set {SETTING} or {SETTING}_FILE",
                    reason="master-key",
                )
            raise Absent(f"there is no key {name!r}: `ostraka key create {name}` makes it", reason="kms-key")
        value = self._state.get(id_key(key_id))
        if value is None:
            raise Corrupt(f"key {name!r} has a name and no row", reason="key")
        return Key(key_id, decode(value), value)

    def names(self, seal: bytes) -> bool:
        """Whether a seal was made with a key and version that the store has, or a customer's key. Raises Corrupt."""
        key_id, number = key_of(seal)
        if not number:
            return True
        value = self._state.get(id_key(key_id))
        return value is not None and any(version.number == number for version in decode(value).versions)

    def all(self) -> list[Key]:
        """All keys, by name."""
        found = [
            Key(key[len(BY_ID) :], decode(value), value)
            for key, value in self._state.scan(BY_ID, prefix_end(BY_ID), self._limits.keys_max)
        ]
        return sorted(found, key=lambda key: key.row.name)

    def complaint(self) -> str:
        """What to tell an operator about keys that cannot be opened; "" when all can."""
        known = {master.fingerprint for master in self.masters}
        for key in self.all():
            if key.row.master not in known:
                return self._missing(key.row).message
        return ""

    # -- changing

    async def prepare(self) -> None:
        """At every start of a process that has a master key: make the store's own key if there is none yet, and bring
        what an older master key wraps under the first. Another process may do the same at once."""
        if not self.masters:
            return
        if self._state.get(name_key(DEFAULT)) is None:
            try:
                await self.create(DEFAULT)
            except Exists:
                pass
        await self.rewrap()

    async def create(self, name: str) -> Key:
        """A new key. Invalid("key-name"), Exists("key"), TooLarge("keys"); Unavailable("master-key") also where other
        keys of the store are wrapped under a master key that was not given: one store has one."""
        if not _NAME.fullmatch(name):
            message = (
                f"{name!r} is no name of a key: up to 128 letters, digits, dots, dashes, and a letter or digit first"
            )
            raise Invalid(message, reason="key-name")
        there = self.all()
        for key in there:
            self._master_of(key.row)
        if not self.masters:
            raise NotSupported(f"a key takes a master key: set {SETTING} or {SETTING}_FILE", reason="master-key")
        if len(there) >= self._limits.keys_max:
            raise TooLarge(f"the store has {len(there)} keys, the most allowed", reason="keys")
        now, key_id, master = self._host.clock.time(), self._host.random(KEY_ID_SIZE), self.masters[0]
        secret = master.wrap(self._host.random(KEY_SIZE), _of_secret(key_id), self._host)
        row = KeyRow(ROW_VERSION, name, now, master.fingerprint, secret, (self._new_version(key_id, 1, master),))
        value = encode(row)
        try:
            await self._state.commit(
                Mutation(
                    [NoRow(name_key(name), "key"), NoRow(id_key(key_id), "key")],
                    [Put(name_key(name), key_id), Put(id_key(key_id), value), Put(gate_key(key_id, 1), b"")],
                )
            )
        except Rejected:
            raise Exists(f"there is a key {name!r} already", reason="key") from None
        return Key(key_id, row, value)

    def _new_version(self, key_id: bytes, number: int, master: Master) -> KeyVersion:
        wrapped = master.wrap(self._host.random(KEY_SIZE), _of_version(key_id, number), self._host)
        return KeyVersion(number, self._host.clock.time(), wrapped)

    async def rotate(self, name: str) -> Key:
        """A new version, under which all new bodies are sealed; the job `rewrap` brings the old ones under it."""
        for _ in range(self._limits.commit_attempts_max):
            key = self.find(name)
            if len(key.row.versions) >= self._limits.key_versions_max:
                message = f"key {name!r} has {len(key.row.versions)} versions, the most allowed: let `rewrap` end first"
                raise TooLarge(message, reason="key-versions")
            version = self._new_version(key.id, key.row.current.number + 1, self._master_of(key.row))
            row = msgspec.structs.replace(key.row, versions=(*key.row.versions, version))
            if await self._replace([(key, row)], [Put(gate_key(key.id, version.number), b"")]):
                return Key(key.id, row, encode(row))
        raise Unavailable(f"others kept changing key {name!r}; try again", reason="contention")

    async def close(self, keys: Sequence[Key], more: Sequence[Operation]) -> bool:
        """In one commit, with what more there is to it: from now on nothing is sealed under the older versions of these
        keys. False, and nothing is done, if a row is another by now."""
        gates = [Delete(gate_key(key.id, version.number)) for key in keys for version in key.row.versions[:-1]]
        return await self._replace([(key, key.row) for key in keys], [*gates, *more])

    async def drop(self, key: Key) -> bool:
        """Forget the older versions of a key: after `close`, when no seal names them any more. False as there."""
        return await self._replace([(key, msgspec.structs.replace(key.row, versions=key.row.versions[-1:]))])

    async def rewrap(self) -> int:
        """Bring all keys under the first master key, in one commit. How many that were; those of a master key that was
        not given stay as they are."""
        for _ in range(self._limits.commit_attempts_max):
            old = [key for key in self.all() if self._can_open(key.row) and not self._is_under_first(key.row)]
            if not old or await self._replace([(key, self._rewrapped(key)) for key in old]):
                return len(old)
        raise Unavailable("others kept changing the store's keys; try again", reason="contention")

    def _can_open(self, row: KeyRow) -> bool:
        return any(master.fingerprint == row.master for master in self.masters)

    def _is_under_first(self, row: KeyRow) -> bool:
        return self.masters[0].fingerprint == row.master

    def _rewrapped(self, key: Key) -> KeyRow:
        old, new = self._master_of(key.row), self.masters[0]

        def again(wrapped: bytes, of: bytes) -> bytes:
            return new.wrap(old.unwrap(wrapped, of), of, self._host)

        versions = tuple(
            KeyVersion(v.number, v.created, again(v.wrapped, _of_version(key.id, v.number))) for v in key.row.versions
        )
        secret = again(key.row.secret, _of_secret(key.id))
        return msgspec.structs.replace(key.row, master=new.fingerprint, secret=secret, versions=versions)

    async def _replace(self, changes: Sequence[tuple[Key, KeyRow]], more: Sequence[Operation] = ()) -> bool:
        """Commit changed rows, all or none; False if one of them is another by now."""
        same: list[Precondition] = [Equals(id_key(key.id), key.value, "key") for key, _ in changes]
        rows: list[Operation] = [*(Put(id_key(key.id), encode(row)) for key, row in changes), *more]
        try:
            await self._state.commit(Mutation(same, rows))
        except Rejected:
            return False
        return True
