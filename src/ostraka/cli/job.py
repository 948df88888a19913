"""`ostraka job`: background work, seen and told what to do."""

import getpass
import os
from typing import Any

import click

from ostraka.cli.grammar import Where, where
from ostraka.cli.options import dry_run_option, json_option, store_option, store_words
from ostraka.cli.output import human_size, human_span, human_time, printable, show_json, show_rows
from ostraka.cli.reach import perform


@click.group()
def job() -> None:
    """See what a store does in the background; hold it back, let it go on, have it done now."""


@job.command("ls")
@store_words
@store_option
@json_option
def ls(words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """List the jobs of a store: working, waiting for their time, idle until something changes, failed, or paused.

    \b
    ostraka job ls /disk1 /disk2
    """
    rows = perform(where(stores, words), "job-ls", {}, name="job ls", as_json=as_json)["jobs"]
    show_rows(rows, ["name", "status", "done", "total", "again_in", "purpose", "note"], as_json=as_json)


@job.command("show")
@click.argument("name")
@store_option
@json_option
def show(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """Show all that is known of one job: how far it is, what it did last, its budget, by whom it is paused.

    \b
    ostraka job show scrub --store /disk1 --store /disk2
    """
    told = perform(where(stores), "job-show", {"name": name}, name="job show", as_json=False)
    if as_json:
        show_json(told)
    else:
        _show(told)


@job.command("pause")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="all of them")
@store_option
@json_option
def pause(names: tuple[str, ...], every: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Have jobs begin nothing more until they are resumed, over restarts too; a piece under way is finished.

    \b
    ostraka job pause scrub --store /disk1 --store /disk2
    ostraka job pause --all
    """
    _set("pause", where(stores), names, every, {"by": _who()}, as_json)


@job.command("resume")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="all of them")
@store_option
@json_option
def resume(names: tuple[str, ...], every: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Let paused jobs go on where they were.

    \b
    ostraka job resume scrub --store /disk1 --store /disk2
    ostraka job resume --all
    """
    _set("resume", where(stores), names, every, {}, as_json)


@job.command("cancel")
@click.argument("name")
@store_option
@json_option
def cancel(name: str, stores: tuple[str, ...], as_json: bool) -> None:
    """End for good what an operator began, such as a scrub; what it has done stays done.

    Jobs that nobody begins (collect, checkpoint, heal, compact) cannot be cancelled: pause them.

    \b
    ostraka job cancel scrub --store /disk1 --store /disk2
    """
    told = perform(where(stores), "job-cancel", {"name": name}, name="job cancel", as_json=as_json)
    if as_json:
        show_json(told)
    else:
        click.echo(f"{told['name']}: {told['cancelled']}")


@job.command("run")
@click.argument("name")
@dry_run_option
@store_option
@json_option
@click.pass_context
def run(ctx: click.Context, name: str, dry_run: bool, stores: tuple[str, ...], as_json: bool) -> None:
    """Have a job do now what it can do, due or not, and wait for the end of it. To stop waiting ends nothing.

    Exit status 0: done. 1: its last piece failed.

    \b
    ostraka job run compact --store /disk1 --store /disk2
    ostraka job run collect --dry-run
    """
    ctx.exit(run_job(where(stores), name, command="job run", dry_run=dry_run, as_json=as_json))


def run_job(store: Where, name: str, *, command: str, dry_run: bool = False, as_json: bool) -> int:
    """Carry out a job now, and say what it came to; the exit status."""
    told = perform(store, "job-run", {"name": name, "dry_run": dry_run}, name=command, as_json=as_json)
    if as_json:
        show_json(told)
    elif dry_run:
        for line in told["would"]:
            click.echo(f"(dry run) {printable(line)}")
    else:
        click.echo(f"{name}: {_of_run(told)}")
    return 0 if told.get("outcome", "done") == "done" else 1


def _set(
    verb: str, store: Where, names: tuple[str, ...], every: bool, arguments: dict[str, Any], as_json: bool
) -> None:
    if bool(names) == every:
        raise click.UsageError(f"say which: `ostraka job {verb} NAME...`, or --all")
    told = perform(store, f"job-{verb}", {"names": names, **arguments}, name=f"job {verb}", as_json=as_json)
    show_rows(told["jobs"], ["name", "status", "purpose"], as_json=as_json)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return f"user {os.getuid()}"


def _show(told: dict[str, Any]) -> None:
    done = f"{told['done']} of {told['total']}" if told["total"] is not None else str(told["done"])
    left = "" if told["left"] is None else f", {human_span(told['left'])} left at this pace"
    lines = {"job": f"{told['name']}: {told['purpose']}", "status": told["status"], "done": f"{done}{left}"}
    if told["again_in"] is not None:
        lines["looks"] = f"again in {human_span(told['again_in'])}"
    if told["paused_since"]:
        lines["paused"] = f"by {told['paused_by'] or 'somebody'} since {human_time(told['paused_since'])}"
        if told["paused_means"]:
            lines["so"] = told["paused_means"]
    if told["note"]:
        lines["note"] = told["note"]
    for name, text in lines.items():
        click.echo(f"{name:<9} {printable(text)}")
    for name, value in told["details"].items():
        click.echo(f"{name.removesuffix('_seconds').replace('_', ' ')}: {printable(_known(name, value))}")
    for past in reversed(told["runs"]):
        click.echo(f"run       {human_time(past['began'])}: {printable(_of_run(past))}")


def _known(name: str, value: Any) -> str:
    """A number as a person reads it; its name says what it is."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_known(name, one)}" for key, one in value.items()) or "none"
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith("_seconds"):
        return human_span(value)
    if "verified" in name or name == "asked":
        return human_time(value) if value else "never"
    return human_size(value) if "bytes" in name else str(value)


def _of_run(told: dict[str, Any]) -> str:
    size = f" ({human_size(told['bytes'])})" if told["bytes"] else ""
    errors = f", {told['errors']} pieces failed" if told["errors"] else ""
    note = f": {told['note']}" if told["note"] else ""
    span = human_span(max(0.0, told["ended"] - told["began"]))
    return f"{told['outcome']} in {span}, {told['done']} units{size}{errors}{note}"
