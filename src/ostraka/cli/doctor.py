"""`ostraka doctor`: what the machine, the disks and the store lack, each with the way out."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from ostraka.cli.grammar import VARIABLE, Where, where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import printable, show_rows, told
from ostraka.cli.reach import perform
from ostraka.errors import OstrakaError
from ostraka.host import Host

if TYPE_CHECKING:
    from ostraka.server.doctor import Check


@click.command()
@store_words
@store_option
@click.option("--quiet", "-q", is_flag=True, help="only what is not good")
@json_option
@click.pass_context
def doctor(ctx: click.Context, words: tuple[str, ...], stores: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Look whether this machine, these directories and the store in them are fit, before that shows under load.

    Directories may be those of a store, served or not, or empty ones that are meant for one; without any, only the
    machine is looked at. What is tried leaves nothing behind. Exit status 0: no problem (warnings are none). 1: a
    problem.

    \b
    ostraka doctor
    ostraka doctor /disk1 /disk2 /disk3
    ostraka doctor /disk1 --quiet
    """
    named = bool(words or stores or os.environ.get(VARIABLE))
    store = where(stores, words) if named else Where()
    if store.url:
        store.only_directories("doctor")
    from ostraka.server.doctor import tally

    checks = list(_checks(store))
    shown = [check for check in checks if not quiet or check.level != "ok"]
    if as_json:
        show_rows([msgspec.to_builtins(check) for check in shown], [], as_json=True)
    else:
        for check in shown:
            click.echo(f"{check.level:<8} {printable(f'{check.about}: {check.what}')}")
            if check.way_out:
                click.echo(f"         {printable(check.way_out)}")
        counts = tally(checks)
        if not quiet:
            click.echo(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems")
    ctx.exit(1 if tally(checks)["problem"] else 0)


def _checks(store: Where) -> Iterator["Check"]:
    from ostraka.server import doctor

    yield from doctor.machine(len(store.directories))
    if not store.directories:
        return
    found = list(doctor.disks(store.directories, Host()))
    yield from found
    if any(check.about == "store" and ("none there yet" in check.what or check.level == "problem") for check in found):
        return
    yield from _of_store(store)


def _of_store(store: Where) -> Iterator["Check"]:
    """What the store says of itself, open: served or here."""
    from ostraka.server.doctor import Check

    try:
        status = perform(store, "status", {}, name="doctor", as_json=False)
    except (OstrakaError, OSError) as e:
        yield Check("store", "problem", told(e))
        return
    for problem in status["problems"]:
        yield Check("store", "problem", problem["what"], problem["way_out"])
    if not status["problems"]:
        served = f"served at {status['url']}" if status["url"] else "it opens"
        yield Check("store", "ok", f"{served}, and nothing is wrong with it")
