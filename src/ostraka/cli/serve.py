"""`ostraka serve`: the flags, which follow from the table of settings, and the words at the start."""

import gc
from typing import Any

import click
from click.core import ParameterSource

from ostraka.config import SERVE, Setting, resolve

FLAGS = {"existing", "json", "sse-c-over-http"}
MANY = {"domain"}
HIDDEN_SECRETS = {
    "root-access-key",
    "root-secret-key",
    "master-key",
    "accounts",
}  # environment or file only: flags show in `ps`


def _options(function: Any) -> Any:
    for setting in reversed(SERVE):
        if setting.name in HIDDEN_SECRETS:
            continue
        function = click.option(f"--{setting.name}", **_shape(setting))(function)
    return function


def _shape(setting: Setting) -> dict[str, Any]:
    text = f"{setting.help}  [{setting.variable}]"
    if setting.name in FLAGS:
        return {"is_flag": True, "help": text}
    return {"multiple": setting.name in MANY, "metavar": setting.name.split("-")[-1].upper(), "help": text}


@click.command()
@click.argument("directories", nargs=-1, metavar="DIR [DIR...]")
@click.option(
    "--config", metavar="FILE", help="a TOML file with a [serve] table and [[account]] tables  [OSTRAKA_CONFIG]"
)
@_options
@click.pass_context
def serve(ctx: click.Context, /, directories: tuple[str, ...], config: str | None, **flags: Any) -> None:
    """Serve the directories as an S3 endpoint.

    One directory keeps everything once. Several are disks: data is erasure coded over them, so that any M of them may
    be lost (2-3 disks: M = 1, 4-8: M = 2, 9 and more: M = 4; --ec says otherwise). A new store is made when all of
    them are empty; an existing one opens from its directories in any order. Without a DIR, OSTRAKA_STORE names them.

    \b
    ostraka serve ./data
    ostraka serve /disk1 /disk2 /disk3 /disk4 /disk5 /disk6 --listen 0.0.0.0:9000
    OSTRAKA_ROOT_ACCESS_KEY=me OSTRAKA_ROOT_SECRET_KEY=... OSTRAKA_BUCKETS=photos ostraka serve ./data
    """
    given = {
        name.replace("_", "-"): value
        for name, value in flags.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    chosen = resolve({**given, "directories": directories}, config=config)
    gc.disable()  # looking for garbage among modules, which are there to stay, would be a tenth of the start
    from ostraka.server.run import run

    gc.freeze()
    gc.enable()
    ctx.exit(run(chosen))
