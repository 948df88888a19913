"""Where a command is carried out: by the process that serves the store, or here if nobody does.

The server listens on a socket (mode 0600) in every directory of the store. If one answers, the command is sent there;
if nobody holds the store, it is opened here, under the same lock that a server takes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ostraka.cli.output import Bar
from ostraka.errors import InUse


def perform(directories: Sequence[str], command: str, arguments: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Carry out an operation of store/operations.py, with progress; returns its result."""
    from ostraka.server.control import ask, perform_here

    paths = [Path(d).absolute() for d in directories]
    with Bar(as_json=as_json) as bar:
        result = ask(paths, command, arguments, bar.update)
        if result is not None:
            return result
        try:
            return perform_here(paths, command, arguments, bar.update)
        except InUse:
            result = ask(paths, command, arguments, bar.update)
            if result is None:
                raise
            return result
