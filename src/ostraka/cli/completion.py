"""`ostraka completion`: what a shell needs to complete our words."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that lets a shell complete commands and options.

    Written once to where the shell looks for such scripts, it completes from the next shell on:

    \b
    ostraka completion bash > ~/.local/share/bash-completion/completions/ostraka
    ostraka completion zsh > "${fpath[1]}/_ostraka"
    ostraka completion fish > ~/.config/fish/completions/ostraka.fish

    For the running shell only: source <(ostraka completion bash)
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "ostraka", "_OSTRAKA_COMPLETE").source())
