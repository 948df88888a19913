"""The options that commands share, so that each means the same everywhere."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Any], Any]

store_option: Decorator = click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="DIR|URL",
    help="the store: a directory of it (repeat for each disk), or a server's http://HOST:PORT  [OSTRAKA_STORE]",
)
store_words: Decorator = click.argument("words", nargs=-1, metavar="[DIR...|URL]")
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="print JSON, one object a line")
quiet_option: Decorator = click.option("-q", "--quiet", is_flag=True, help="say nothing but errors")
recursive_option: Decorator = click.option("-r", "--recursive", is_flag=True, help="all that is in it")
dry_run_option: Decorator = click.option("-n", "--dry-run", is_flag=True, help="only say what would be done")


def filter_options(function: Any) -> Any:
    """--exclude and --include; client.walk.Filter says how they work together."""
    function = click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="take what matches, even if an --exclude does; alone: nothing else",
    )(function)
    return click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="leave out what matches, such as '*.tmp' or 'cache/*' (* matches slashes as well)",
    )(function)
