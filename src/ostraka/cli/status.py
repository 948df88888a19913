"""`ostraka status`: how a store is, at a glance."""

from typing import Any

import click

from ostraka.cli import reach
from ostraka.cli.grammar import Where, where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_size, printable, show_json, show_rows


@click.command()
@store_words
@store_option
@json_option
@click.pass_context
def status(ctx: click.Context, words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """Show how a store is: disks, room, what it holds, the state's copies, jobs; what is wrong, and the way out.

    Exit status 0: nothing is wrong. 1: something is, and is named. Of a server's URL only that it answers and is
    ready can be told (4: it is not).

    \b
    ostraka status /disk1 /disk2 /disk3
    ostraka status http://127.0.0.1:9000
    ostraka status --json | jq .problems
    """
    store = where(stores, words)
    if store.url:
        ctx.exit(_of_server(store, as_json))
    told = reach.perform(store, "status", {}, name="status", as_json=False)
    if as_json:
        show_json(told)
    else:
        _show(told)
    ctx.exit(1 if told["problems"] else 0)


def _of_server(store: Where, as_json: bool) -> int:
    with reach.server(store.url) as server:
        why = server.readiness()
        buckets = None if why else len(server.buckets())
    if as_json:
        show_json({"url": store.url, "ready": not why, "why": why or None, "buckets": buckets})
    else:
        click.echo(f"{store.url} is not ready: {why}" if why else f"{store.url} is ready, with {buckets} buckets")
    return 4 if why else 0


def _show(told: dict[str, Any]) -> None:
    state, room, holds = told["state"], told["room"], told["holds"]
    lost = sum(disk["status"] not in ("up", "healing", "draining", "read-only") for disk in told["disks"])
    older = f" (older stripes: {', '.join(told['old_geometries'])})" if told["old_geometries"] else ""
    served = f"served at {told['url']} by process {told['pid']}" if told["url"] else "not served"
    log, snapshot = human_size(state["log_bytes"]), human_size(state["snapshot_bytes"])
    lines = {
        "store": f"{told['store_id']}, {served}; Ostraka {told['version']}",
        "geometry": f"{told['k']}+{told['m']}{older}, epoch {told['epoch']}: {_safety(told['bears'], lost)}",
        "room": f"{human_size(room['free'])} left of {human_size(room['total'])}",
        "holds": _holds(holds),
        "state": f"{state['copies']} of {state['wanted']} copies, on disks {', '.join(map(str, state['disks']))}; "
        f"commit {state['commit']}, log {log}, snapshot {snapshot}",
    }
    for name, text in lines.items():
        click.echo(f"{name:<9} {text}")
    click.echo()
    disks = [
        {**disk, "holds": _size(disk["holds"]), "free": _size(disk["free"]), "size": _size(disk["total"])}
        for disk in told["disks"]
    ]
    show_rows(disks, ["number", "status", "state", "holds", "free", "size", "path"], as_json=False)
    click.echo()
    show_rows(told["jobs"], ["name", "status", "done", "total", "purpose", "note"], as_json=False)
    for warning in told["warnings"]:
        click.echo(f"\nwarning: {printable(warning)}")
    for problem in told["problems"]:
        click.echo(f"\nwrong: {printable(problem['what'])}\n       {printable(problem['way_out'])}")


def _holds(holds: dict[str, Any]) -> str:
    buckets = f"in {holds['buckets']} buckets"
    if not holds["counted"]:
        return f"objects {buckets}, not counted yet: serve the store once"
    stored = [holds[kind]["stored_bytes"] for kind in ("chunks", "packs")]
    disks = sum(holds[kind]["disk_bytes"] for kind in ("chunks", "packs"))
    return (
        f"{holds['objects']} objects, {human_size(holds['bytes'])}, {buckets}; {human_size(sum(stored))} stored in "
        f"{holds['chunks']['count']} chunks and {holds['packs']['count']} packs, {human_size(disks)} on disks"
    )


def _size(size: int | None) -> str | None:
    return None if size is None else human_size(size)


def _safety(m: int, lost: int) -> str:
    if not m:
        return "one copy, a lost disk is lost data"
    if not lost:
        return "any one disk may be lost" if m == 1 else f"any {m} disks may be lost"
    return f"{lost} lost, {max(m - lost, 0)} more may be"
