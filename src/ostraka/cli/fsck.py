"""`ostraka fsck`: verify everything that a store holds."""

import click

from ostraka.cli.output import human_size, show_rows
from ostraka.cli.reach import perform


@click.command()
@click.argument("directories", nargs=-1, required=True, metavar="DIR [DIR...]", envvar="OSTRAKA_STORE")
@click.option("--repair", is_flag=True, help="mend what can be mended from other copies and shards")
@click.option("--json", "as_json", is_flag=True, help="print JSON, one object a line")
@click.pass_context
def fsck(ctx: click.Context, directories: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Verify every row, reference and shard of the store in these directories.

    Exit status 0: clean, or everything was repaired. 1: damage is left. Shards that crashed writes left behind are
    counted, and are no damage: the compactor takes them away.
    """
    result = perform(directories, "fsck", {"repair": repair}, as_json=as_json)
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
