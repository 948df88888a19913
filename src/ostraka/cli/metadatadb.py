"""`ostraka metadatadb`: what the replicas of programs share through a byte store, looked at and changed by a person.

What a person writes is understood by spelling.py. No Ostraka store is needed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import msgspec
from msgspec import UNSET, Raw, UnsetType

from ostraka.backends import Address, address
from ostraka.backends.iterators import ended
from ostraka.cli import spelling
from ostraka.cli.options import Decorator, json_option
from ostraka.cli.output import human_time, printable, show_json, show_log, show_rows
from ostraka.cli.running import run_orderly
from ostraka.errors import Absent, Invalid, PreconditionFailed
from ostraka.host import Host
from ostraka.metadatadb import AsyncNamespace, AsyncStore, Change, Journal, Kind
from ostraka.metadatadb import queries as q
from ostraka.metadatadb.replica import JOURNAL_SYNC_SECONDS, PREFIX
from ostraka.s3.auth.times import extended

T = TypeVar("T")

url_argument = click.argument("url", metavar="URL")
namespace_argument = click.argument("namespace", metavar="NAMESPACE")
prefix_option: Decorator = click.option(
    "--prefix", default=PREFIX, show_default=True, help="where the program keeps it, below URL"
)
json_key_option: Decorator = click.option(
    "--json-key", is_flag=True, help="""the key is JSON: 12 is a number, '["a", 1]' a tuple; else it is text"""
)


@click.group()
def metadatadb() -> None:
    """Look at and change what programs share with ostraka.metadatadb.

    \b
    file:///data/app                            a directory: LocalBackend("/data/app") in the program
    s3://BUCKET[/PREFIX][?endpoint=http://...]  S3Backend
    az://CONTAINER[/PREFIX][?account=NAME]      AzureBackend

    URL is the program's backend; what it keeps lies below its prefix there, which is metadatadb/ unless the program
    says otherwise. Credentials come from the environment, as with the tools of AWS and Azure.
    """


# -- ls


@metadatadb.command("ls")
@url_argument
@click.argument("namespace", default="", metavar="[NAMESPACE]")
@prefix_option
@json_option
def ls(url: str, namespace: str, prefix: str, as_json: bool) -> None:
    """List the namespaces at URL, or the names in one of them.

    \b
    ostraka metadatadb ls file:///data/app
    ostraka metadatadb ls s3://state/app git --json
    """

    async def listed(store: AsyncStore) -> None:
        if not namespace:
            show_rows([{"namespace": name} for name in await store.namespaces()], ["namespace"], as_json=as_json)
            return
        opened = await _holding(store, url, namespace)
        rows = [
            {"name": name, "kind": kind.value, "size": opened.query(q.Size(name)), "expires": _expiry(opened, name)}
            for name, kind in opened.names().items()
        ]
        show_rows(rows, ["name", "kind", "size", "expires"], as_json=as_json)

    _run(url, prefix, listed)


def _expiry(namespace: AsyncNamespace, name: str) -> str | None:
    found = namespace.query(q.Expiry(name))
    return extended(found / 1000) if found else None


# -- get


@metadatadb.command("get")
@url_argument
@namespace_argument
@click.argument("name", metavar="NAME")
@click.argument("key", default=None, required=False, metavar="[KEY]")
@json_key_option
@prefix_option
@json_option
def get(url: str, namespace: str, name: str, key: str | None, json_key: bool, prefix: str, as_json: bool) -> None:
    """Print what NAME holds as JSON, one value a line; of a map, each key with its value, or the value of KEY.

    Exit status 3 if there is nothing. Of a set, KEY is a member: it is printed if it is there.

    \b
    ostraka metadatadb get file:///data/app git clones
    ostraka metadatadb get s3://state/app git clones ostraka
    ostraka metadatadb get s3://state/app git builds 17 --json-key
    """

    async def got(store: AsyncStore) -> None:
        opened = await _holding(store, url, namespace)
        kind = _kind(opened, name)
        rows = _rows(opened, name, kind)
        if key is not None:
            rows = [_chosen(rows, name, kind, key, json_key)]
        for row in rows:
            if as_json:
                show_json(row)
            elif key is None and "key" in row:
                click.echo(f"{_text(row['key'])}  {_text(row['value'])}")
            else:
                click.echo(_text(row.get("value", row.get("member"))))

    _run(url, prefix, got)


def _rows(namespace: AsyncNamespace, name: str, kind: Kind) -> list[dict[str, Any]]:
    """What a name holds: keys with values, members, values in order, or the one value."""
    match kind:
        case Kind.SCALAR:
            return [{"value": Raw(namespace.query(q.ScalarGet(name)) or b"null")}]
        case Kind.INT:
            return [{"value": namespace.query(q.IntGet(name))}]
        case Kind.LIST:
            return [{"value": Raw(text)} for text in namespace.query(q.ListEntries(name))]
        case Kind.SET:
            members = namespace.query(q.SetMembers(name))
            return [{"member": Raw(text.encode())} for text in _in_order(members)]
        case Kind.INT_MAP:
            numbers = namespace.query(q.IntMapEntries(name))
            return [{"key": Raw(key.encode()), "value": numbers[key]} for key in _in_order(numbers)]
        case Kind.MAP:
            values = namespace.query(q.MapEntries(name))
            return [{"key": Raw(key.encode()), "value": Raw(values[key])} for key in _in_order(values)]


def _in_order(keys: Iterable[str]) -> list[str]:
    """By what they are, where that has an order (9 before 10), else by their text."""
    try:
        return sorted(keys, key=msgspec.json.decode)
    except TypeError:
        return sorted(keys)


def _chosen(rows: list[dict[str, Any]], name: str, kind: Kind, word: str, json_key: bool) -> dict[str, Any]:
    """The row of a key or member. Absent if there is none."""
    if kind not in spelling.KEYED:
        raise Invalid(f"{name!r} is of kind {kind}: it has no keys", reason="key")
    wanted = spelling.key(word, as_json=json_key)
    for row in rows:
        if _key_of(row) == wanted:
            return row
    hint = "; it has one that is no text: give --json-key" if word in map(_key_of, rows) else ""
    raise Absent(f"{name!r} has no {printable(wanted)}{hint}", reason="key")


def _kind(namespace: AsyncNamespace, name: str) -> Kind:
    """The kind of a name. Absent if it holds nothing."""
    kind = namespace.names(name).get(name)
    if kind is None:
        raise Absent(
            f"namespace {namespace.name!r} has no {name!r}; `ostraka metadatadb ls` shows its names", reason="name"
        )
    return kind


def _key_of(row: dict[str, Any]) -> str:
    return bytes(row["key"] if "key" in row else row["member"]).decode()


def _text(value: Any) -> str:
    """A value as JSON, with nothing in it that a terminal would obey."""
    return printable(bytes(value).decode() if isinstance(value, Raw) else str(value))


# -- set


@metadatadb.command("set")
@url_argument
@namespace_argument
@click.argument("name", metavar="NAME")
@click.argument("words", nargs=-1, metavar="[KEY] [VALUE]")
@click.option("--kind", type=click.Choice([k.value for k in Kind]), help="of NAME, if it is new  [scalar]")
@click.option("--delete", is_flag=True, help="remove KEY, or all of NAME if no KEY is given")
@click.option("--expect", metavar="JSON", help="only if the value is this now; exit status 1 if it is not")
@click.option("--expect-absent", is_flag=True, help="only if there is no value now")
@click.option("--ttl", type=float, metavar="SECONDS", help="it is gone after so long")
@click.option("--text", is_flag=True, help="VALUE is text as it stands, not JSON")
@json_key_option
@prefix_option
def set_(
    url: str,
    namespace: str,
    name: str,
    words: tuple[str, ...],
    kind: str | None,
    delete: bool,
    expect: str | None,
    expect_absent: bool,
    ttl: float | None,
    text: bool,
    json_key: bool,
    prefix: str,
) -> None:
    """Change what NAME holds; it is durable when the command ends.

    VALUE is JSON. A scalar or an int takes VALUE; a map or an int-map KEY and VALUE; a set the member that is added; a
    list the VALUE that is appended. A new name becomes a scalar unless --kind says otherwise. Write -- before what
    begins with a dash.

    \b
    ostraka metadatadb set file:///data/app git owner '{"name": "ann"}'
    ostraka metadatadb set file:///data/app git clones ostraka 5 --kind int-map
    ostraka metadatadb set s3://state/app jobs leader --text host-7 --expect-absent --ttl 60
    ostraka metadatadb set s3://state/app git clones ostraka --delete
    """
    if expect is not None and expect_absent:
        raise Invalid("--expect and --expect-absent say different things: give one", reason="expect")
    expected = UNSET if expect_absent else None if expect is None else spelling.value(expect)

    async def changed(store: AsyncStore) -> None:
        opened = await store.namespace(namespace)
        has = opened.names(name).get(name)
        if has is not None and kind not in (None, has.value):
            raise Invalid(f"{name!r} is of kind {has}: delete it first, or choose another name", reason="kind")
        became = has or Kind(kind or "scalar")
        key: str | None
        value: Raw | UnsetType
        if delete:
            key, value = _deleted(opened, name, words, json_key), UNSET
        else:
            key, value = spelling.taken(name, became, words, as_text=text, json_key=json_key)
        change = spelling.Change(name, became, key, value, opened.until(ttl), expected)
        if not await opened.ask(*change.operations()):
            raise PreconditionFailed(f"{name!r} is not as expected: nothing was changed", reason="changed")

    _run(url, prefix, changed, writes=True)


def _deleted(namespace: AsyncNamespace, name: str, words: tuple[str, ...], json_key: bool) -> str | None:
    """The key that is to go, None: all of the name. Absent if it is not there."""
    kind = _kind(namespace, name)
    if len(words) > 1:
        raise Invalid(f"--delete takes one key, not {words[1]!r}", reason="key")
    return _key_of(_chosen(_rows(namespace, name, kind), name, kind, words[0], json_key)) if words else None


# -- watch


@metadatadb.command("watch")
@url_argument
@namespace_argument
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--interval", type=float, default=5.0, show_default=True, help="seconds between two looks at the store")
@prefix_option
@json_option
def watch(url: str, namespace: str, names: tuple[str, ...], interval: float, prefix: str, as_json: bool) -> None:
    """Print what changes in a namespace, until Ctrl-C: names and keys with what they hold then.

    What changes several times between two looks is printed once. A look costs one request.

    \b
    ostraka metadatadb watch s3://state/app git
    ostraka metadatadb watch s3://state/app jobs leader --interval 1 --json
    """
    show_log("warning")  # a store that is away is told of, and waited for

    async def watched(store: AsyncStore) -> None:
        opened = await store.namespace(namespace)
        async with ended(opened.watch(*names)) as changes:
            async for change in changes:
                for row in _seen(opened, change):
                    _show(row, as_json)

    _run(url, prefix, watched, interval=interval)


def _seen(namespace: AsyncNamespace, change: Change) -> list[dict[str, Any]]:
    """What a change has made of the name, or of each of its keys."""
    kind = namespace.names(change.name).get(change.name)
    about: dict[str, Any] = {"name": change.name, "kind": kind and kind.value}
    if kind is None:
        return [{**about, "absent": True}]
    if kind is Kind.LIST:
        return [{**about, "size": namespace.query(q.ListLen(change.name))}]
    rows = _rows(namespace, change.name, kind)
    if kind not in spelling.KEYED:
        return [{**about, **rows[0]}]
    word = "member" if kind is Kind.SET else "key"
    found = {_key_of(row): row for row in rows}
    keys = sorted(found if change.keys is None else change.keys)
    return [{**about, **found.get(key, {word: Raw(key.encode()), "absent": True})} for key in keys]


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    parts = [human_time(Host().clock.time()), printable(row["name"])]
    parts += [_text(row[word]) for word in ("key", "member", "value") if word in row]
    parts += ["(absent)"] if row.get("absent") else []
    parts += [f"({row['size']} values)"] if "size" in row else []
    click.echo("  ".join(parts))


# -- running


async def _holding(store: AsyncStore, url: str, namespace: str) -> AsyncNamespace:
    """A namespace that holds something; Absent if it does not."""
    opened = await store.namespace(namespace)
    if not opened.names():
        there = await store.namespaces()
        hint = f"there are {', '.join(there[:10])}" if there else "there is none; is --prefix right?"
        raise Absent(f"{url}: namespace {namespace!r} holds nothing; {hint}", reason="namespace")
    return opened


@asynccontextmanager
async def _opened(url: str, prefix: str, interval: float, *, writes: bool) -> AsyncIterator[AsyncStore]:
    """A replica of our own. One that only reads is not closed, but left: closing tidies up, which is writing."""
    place = address(url).place()
    config = {**place.config, "create": writes} if place.config["type"] == "local" else place.config
    async with Address(config, "").open() as backend:
        store = AsyncStore(Journal(backend, prefix=prefix, sync_interval=interval))
        yield store
        if writes:
            await store.close()


def _run(
    url: str,
    prefix: str,
    work: Callable[[AsyncStore], Awaitable[T]],
    *,
    writes: bool = False,
    interval: float = JOURNAL_SYNC_SECONDS,
) -> T:
    async def run() -> T:
        async with _opened(url, prefix, interval, writes=writes) as store:
            return await work(store)

    return run_orderly(run)
