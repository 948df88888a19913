"""`ostraka scrub`: verify every stored byte now, and have what is damaged healed."""

import click

from ostraka.cli.grammar import where
from ostraka.cli.job import run_job
from ostraka.cli.options import json_option, store_option, store_words


@click.command()
@store_words
@store_option
@json_option
@click.pass_context
def scrub(ctx: click.Context, words: tuple[str, ...], stores: tuple[str, ...], as_json: bool) -> None:
    """Read and verify now all that a store holds: the copies of its state, and every shard of every disk.

    It is `ostraka job run scrub`. What is damaged or missing is journaled and healed by the server, if there is one;
    clients are served meanwhile. One that was cut short goes on where it was when it is given again, or when the store
    is served. `ostraka fsck` verifies references as well, and tells each finding.

    \b
    ostraka scrub /disk1 /disk2 /disk3
    ostraka job cancel scrub
    """
    ctx.exit(run_job(where(stores, words), "scrub", command="scrub", as_json=as_json))
