"""`ostraka fsck`: verify everything that a store holds."""

import click

from ostraka.cli.grammar import where
from ostraka.cli.options import json_option, store_option, store_words
from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform


@click.command()
@store_words
@store_option
@click.option("--repair", is_flag=True, help="mend what can be mended from other copies and shards")
@json_option
@click.pass_context
def fsck(ctx: click.Context, words: tuple[str, ...], stores: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Verify every row, reference and shard of a store, whether it is being served or not.

    Exit status 0: clean, or everything was repaired. 1: damage is left. Shards that crashed writes left behind are
    counted, and are no damage: the compactor takes them away.

    \b
    ostraka fsck /disk1 /disk2 /disk3
    ostraka fsck --repair /disk1 /disk2 /disk3
    """
    result = perform(where(stores, words), "fsck", {"repair": repair}, name="fsck", as_json=as_json)
    findings = result.pop("findings")
    if as_json:
        show_rows([*findings, result], [], as_json=True)
    else:
        if findings:
            show_rows(findings, ["kind", "what", "repaired"], as_json=False)
        click.echo(
            f"{result['rows']} rows, {result['stripes']} stripes and {result['shards']} shards "
            f"({human_size(result['bytes'])}) verified; {len(findings)} findings, {result['repaired']} repaired; "
            f"orphans of crashed writes: {result['orphans']} ({human_size(result['orphan_bytes'])})"
        )
    ctx.exit(0 if result["clean"] else 1)
