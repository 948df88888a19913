"""Settings: one name, three places, one rule.

``--listen`` on the command line is ``OSTRAKA_LISTEN`` in the environment is ``listen`` under ``[serve]`` in a file
(TOML).
The flag wins over the environment, the environment over the file; a file is read only if ``--config`` or
``OSTRAKA_CONFIG`` names it. A secret has a second form that names a file: ``OSTRAKA_ROOT_SECRET_KEY_FILE``.

What is not known is not passed over in silence: an unknown key of the file is refused with a suggestion, an unknown
``OSTRAKA_*`` variable is refused when it is within two edits of a known one (a slip of the pen), and otherwise named in
one warning (orchestrators inject such names as ``OSTRAKA_PORT``). ``OSTRAKA_TEST_*`` belongs to tests and is ignored.
"""

import base64
import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ostraka.errors import Invalid

PREFIX = "OSTRAKA_"
TEST_PREFIX = "OSTRAKA_TEST_"
EDITS_OF_A_SLIP = 2
MASTER_KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class AccountSetting:
    """An account to create or update at start."""

    name: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class BucketSetting:
    """A bucket to make at start, owned by that account ("" is root)."""

    name: str
    account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Everything `ostraka serve` can be told."""

    directories: tuple[str, ...] = ()
    listen: str = "127.0.0.1:9000"
    ec: tuple[int, int] | None = None
    existing: bool = False
    region: str = "us-east-1"
    domain: tuple[str, ...] = ()
    workers: int = 0  # 0: one for each core
    tls_cert: str = ""
    tls_key: str = ""
    json: bool = False
    log_level: str = "info"
    access_log: str = ""  # a file, or "-" for standard error; "": none
    root_access_key: str = ""
    root_secret_key: str = ""
    master_key: tuple[bytes, ...] = field(default=(), repr=False)  # the first wraps, the others only open
    sse_c_over_http: bool = False
    scrub_days: float = 30.0  # 0: only when told to
    scrub_rate: int = 0  # bytes a second of each disk; 0: what keeps the period
    accounts: tuple[AccountSetting, ...] = ()
    buckets: tuple[BucketSetting, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def parse_geometry(text: str) -> tuple[int, int]:
    """ "4+2" as (4, 2). Raises Invalid."""
    match = re.fullmatch(r"(\d{1,3})\+(\d{1,3})", text.strip())
    if not match:
        raise Invalid(f"{text!r} is no K+M: give two numbers, such as 4+2", reason="geometry")
    return int(match[1]), int(match[2])


def parse_listen(text: str) -> tuple[str, int]:
    """ "host:port", ":port" or "[v6]:port" as (host, port); port 0 picks a free one. Raises Invalid."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%a-z]+)\]|([^:\[\]]*)):(\d{1,5})", text.strip())
    if not match or int(match[3]) > 65535:
        raise Invalid(f"{text!r} is no address to listen on: give HOST:PORT, such as 127.0.0.1:9000", reason="listen")
    return match[1] or match[2] or "0.0.0.0", int(match[3])


def parse_size(text: str) -> int:
    """ "20GiB", "512M" or "4096" as bytes. Raises Invalid."""
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise Invalid(f"{text!r} is no size: give a number and a unit, such as 20GiB", reason="size")
    return int(match[1]) << 10 * " KMGT".index(match[2].upper() or " ")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise Invalid(f"{value!r} is neither true nor false") from None


def _number(value: object) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise Invalid(f"{value!r} is no whole number") from None
    if not 0 <= number <= 256:
        raise Invalid(f"{number} is not between 0 and 256")
    return number


def _days(value: object) -> float:
    try:
        days = float(str(value))
    except ValueError:
        raise Invalid(f"{value!r} is no number of days") from None
    if not 0 <= days <= 3650:
        raise Invalid(f"{value} is not between 0 and 3650 days")
    return days


def _rate(value: object) -> int:
    text = str(value).strip()
    if text.lower() == "auto":
        return 0
    match = re.fullmatch(r"(?i)(\d{1,12})\s*([KMG]iB)?(?:/s)?", text)
    if not match:
        raise Invalid(f"{value!r} is no rate: give bytes a second, such as 20MiB, or auto")
    rate = int(match[1]) << {"": 0, "kib": 10, "mib": 20, "gib": 30}[(match[2] or "").lower()]
    if rate < 1 << 16:
        raise Invalid(f"{value} is too slow to come to an end: 64KiB at least, or auto")
    return rate


def _words(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(w for w in (str(i).strip() for i in items) if w)


def _region(value: object) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,62})", str(value)):
        raise Invalid(f"{value!r} is no region: small letters, digits and dashes, such as us-east-1")
    return str(value)


def _domains(value: object) -> tuple[str, ...]:
    names = _words(value)
    for name in names:
        if len(name) > 253 or not re.fullmatch(
            r"(?i)[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*", name
        ):
            raise Invalid(f"{name!r} is no domain: give a name without a port, such as s3.example.org")
    return names


def _level(value: object) -> str:
    level = str(value).lower()
    if level not in ("debug", "info", "warning", "error"):
        raise Invalid(f"{value!r} is no log level: debug, info, warning or error")
    return level


def parse_accounts(text: str) -> tuple[AccountSetting, ...]:
    """ "name:access:secret,..." Raises Invalid without ever quoting a secret."""
    found = []
    for i, item in enumerate(filter(None, (t.strip() for t in text.split(","))), 1):
        parts = item.split(":")
        if len(parts) != 3 or not all(parts):
            raise Invalid(
                f"account {i} is not name:access:secret; keys with commas or colons go into [[account]] of a --config "
                "file",
                reason="accounts",
            )
        found.append(AccountSetting(*parts))
    return tuple(found)


def parse_buckets(text: str) -> tuple[BucketSetting, ...]:
    """ "a,b:name": bucket a of root, bucket b of account name."""
    items = (t.strip() for t in text.split(","))
    return tuple(BucketSetting(name, account) for name, _, account in (i.partition(":") for i in items if i))


def parse_master_keys(text: str) -> tuple[bytes, ...]:
    """Master keys, one a line: 32 bytes each, in base64 or in 64 hex digits. Raises Invalid, and quotes none of it."""
    found = []
    for number, line in enumerate(filter(None, (t.strip() for t in text.splitlines())), 1):
        try:
            key = bytes.fromhex(line) if len(line) == 64 else base64.b64decode(line, validate=True)
        except ValueError:
            key = b""
        if len(key) != MASTER_KEY_SIZE:
            raise Invalid(
                f"master key {number} is no {MASTER_KEY_SIZE} bytes in base64 or hex: `openssl rand -hex 32` makes one",
                reason="master-key",
            )
        if key in found:
            raise Invalid(f"master key {number} is given twice", reason="master-key")
        found.append(key)
    return tuple(found)


def master_key_text(environment: Mapping[str, str] | None = None) -> str | None:
    """What the environment says of master keys, for commands that open a store themselves. Raises Invalid."""
    env = os.environ if environment is None else environment
    variable = BY_NAME["master-key"].variable
    text, file = env.get(variable, ""), env.get(variable + "_FILE", "")
    if text and file:
        raise Invalid(f"{variable} and {variable}_FILE are both set: set one", reason="config")
    return secret_file(file, f"{variable}_FILE") if file else text or None


def master_keys(environment: Mapping[str, str] | None = None) -> tuple[bytes, ...]:
    """The same, read."""
    return parse_master_keys(master_key_text(environment) or "")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table from which flags, variables and file keys all follow."""

    name: str  # as the flag has it, without dashes before it
    parse: Callable[[Any], Any]
    help: str
    secret: bool = False

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.field.upper()


SERVE: tuple[Setting, ...] = (
    Setting("listen", lambda v: (parse_listen(str(v)), str(v))[1], "HOST:PORT to listen on; port 0 picks a free one"),
    Setting("ec", lambda v: parse_geometry(str(v)), "K+M: K data shards and M parity shards; any M disks may be lost"),
    Setting("existing", _boolean, "never format: fail if there is no store in the directories"),
    Setting("region", _region, "the region that the server says it is in"),
    Setting("domain", _domains, "a domain for virtual-host style requests (bucket.NAME); may be given several times"),
    Setting("workers", _number, "worker processes; 0: one for each core"),
    Setting("tls-cert", str, "certificate chain (PEM); with --tls-key, serve HTTPS"),
    Setting("tls-key", str, "private key (PEM)"),
    Setting("json", _boolean, "print one JSON object with the bound URL as the first line, and logs as JSON"),
    Setting("log-level", _level, "debug, info, warning or error"),
    Setting("access-log", str, "FILE for one JSON line a request; - is standard error"),
    Setting("scrub-days", _days, "days within which every stored byte is read and verified; 0: only when told to"),
    Setting("scrub-rate", _rate, "bytes a second that a scrub reads of each disk, such as 20MiB; auto keeps the days"),
    Setting("root-access-key", str, "access key of the root account", secret=True),
    Setting("root-secret-key", str, "secret key of the root account", secret=True),
    Setting(
        "master-key",
        lambda v: parse_master_keys(str(v)),
        "master key of encryption at rest: 32 bytes, base64 or hex; of several lines the first seals, the others open",
        secret=True,
    ),
    Setting(
        "sse-c-over-http",
        _boolean,
        "take customers' encryption keys (SSE-C) over plain HTTP from anywhere: for a proxy in front that ends TLS",
    ),
    Setting(
        "accounts",
        lambda v: parse_accounts(str(v)),
        "name:access:secret,...: accounts to create or update",
        secret=True,
    ),
    Setting(
        "buckets",
        lambda v: parse_buckets(",".join(_words(v))),
        "a,b:name: buckets to make, of root or of that account",
    ),
)
BY_NAME = {s.name: s for s in SERVE}


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, *, config: str | None = None
) -> ServeConfig:
    """One ServeConfig out of the three places. ``flags`` holds only what was given. Raises Invalid."""
    env = os.environ if environment is None else environment
    path = config or env.get(PREFIX + "CONFIG")
    values: dict[str, Any] = {}
    accounts: tuple[AccountSetting, ...] = ()
    if path:
        values, accounts = _from_file(Path(path))
    from_env, warnings = _from_environment(env)
    values.update(from_env)
    for name, value in flags.items():
        if name in BY_NAME:
            values[BY_NAME[name].field] = _parsed(BY_NAME[name], value, f"--{name}")
    directories = tuple(flags.get("directories") or ()) or _store_of(env) or values.pop("directories", ())
    values.pop("directories", None)
    values["accounts"] = (*accounts, *values.get("accounts", ()))
    chosen = ServeConfig(directories=directories, warnings=tuple(warnings), **values)
    _check_whole(chosen)
    return chosen


def _store_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """The directories that OSTRAKA_STORE names, as every command understands it (cli/grammar.py)."""
    value = env.get(PREFIX + "STORE", "")
    if value.startswith(("http://", "https://")):
        raise Invalid(f"OSTRAKA_STORE={value} is a server already: name the directories to be served", reason="store")
    return tuple(word for word in value.split(os.pathsep) if word)


def _check_whole(chosen: ServeConfig) -> None:
    if bool(chosen.tls_cert) != bool(chosen.tls_key):
        raise Invalid("--tls-cert and --tls-key go together: give both, or neither", reason="tls")
    if bool(chosen.root_access_key) != bool(chosen.root_secret_key):
        raise Invalid(
            "OSTRAKA_ROOT_ACCESS_KEY and OSTRAKA_ROOT_SECRET_KEY go together: set both, or neither",
            reason="credentials",
        )
    names = [a.name for a in chosen.accounts]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"account {name!r} is given twice", reason="accounts")


def _parsed(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.parse(value)
    except Invalid as e:
        raise Invalid(f"{where}: {e.message}", reason=e.reason or setting.name) from None


def _from_file(path: Path) -> tuple[dict[str, Any], tuple[AccountSetting, ...]]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise Invalid(f"--config {path}: {e.strerror}", reason="config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Invalid(f"--config {path} is no TOML: {e}", reason="config") from None
    _refuse_unknown(content, ["serve", "account"], str(path), "table")
    serve = content.get("serve", {})
    if not isinstance(serve, dict):
        raise Invalid(f"{path}: [serve] is a table", reason="config")
    files = {s.name + "-file": s for s in SERVE if s.secret}
    _refuse_unknown(serve, [*BY_NAME, *files, "directories"], f"{path} [serve]", "key")
    values: dict[str, Any] = {}
    if "directories" in serve:
        values["directories"] = _words(serve["directories"])
    for name, value in serve.items():
        if name in files:
            values[files[name].field] = _parsed(files[name], secret_file(str(value), name), f"{path} {name}")
        elif name in BY_NAME:
            values[BY_NAME[name].field] = _parsed(BY_NAME[name], value, f"{path} {name}")
    return values, tuple(_account(path, i, a) for i, a in enumerate(content.get("account", []), 1))


def _account(path: Path, number: int, table: Mapping[str, Any]) -> AccountSetting:
    where = f"{path} [[account]] {number}"
    keys = ["name", "access-key", "secret-key", "secret-key-file"]
    _refuse_unknown(table, keys, where, "key")
    secret = table.get("secret-key") or (
        secret_file(str(table["secret-key-file"]), where) if "secret-key-file" in table else ""
    )
    if not table.get("name") or not table.get("access-key") or not secret:
        raise Invalid(f"{where} needs name, access-key and secret-key (or secret-key-file)", reason="accounts")
    return AccountSetting(str(table["name"]), str(table["access-key"]), str(secret))


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str, kind: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise Invalid(f"{where}: unknown {kind} {name!r}{hint}", reason="config")


def secret_file(path: str, where: str) -> str:
    """A secret from the file that ``where`` names. Raises Invalid."""
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except OSError as e:
        raise Invalid(f"{where}: {path}: {e.strerror}", reason="config") from None
    except UnicodeDecodeError:
        raise Invalid(f"{where}: {path} is no UTF-8 text", reason="config") from None


def _from_environment(env: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    known = {s.variable: s for s in SERVE}
    files = {s.variable + "_FILE": s for s in SERVE if s.secret}
    others = {PREFIX + "CONFIG", PREFIX + "STORE"}
    values: dict[str, Any] = {}
    strangers = []
    for name, value in sorted(env.items()):
        if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX) or name in others:
            continue
        if name in known:
            if value != "":
                values[known[name].field] = _parsed(known[name], value, name)
        elif name in files:
            if known[files[name].variable].variable in env:
                raise Invalid(f"{files[name].variable} and {name} are both set: set one", reason="config")
            values[files[name].field] = _parsed(files[name], secret_file(value, name), name)
        else:
            near = _nearest(name, [*known, *files, *others])
            if near:
                raise Invalid(f"unknown variable {name}: did you mean {near}?", reason="config")
            strangers.append(name)
    if strangers:
        return values, [f"not settings of Ostraka, and ignored: {', '.join(strangers)}"]
    return values, []


def _nearest(name: str, known: Sequence[str]) -> str | None:
    best = min(known, key=lambda k: _distance(name, k))
    return best if _distance(name, best) <= EDITS_OF_A_SLIP else None


def _distance(a: str, b: str) -> int:
    """Edits (insert, delete, replace, swap of neighbours) from a to b."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
