"""`ostraka version`."""

import platform

import click
import msgspec

from ostraka import __version__


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def version(as_json: bool) -> None:
    """Print the version of Ostraka and of Python."""
    if as_json:
        click.echo(msgspec.json.encode({"ostraka": __version__, "python": platform.python_version()}))
    else:
        click.echo(f"ostraka {__version__} (Python {platform.python_version()})")
