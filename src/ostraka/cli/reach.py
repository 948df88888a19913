"""Where a command is carried out: by the process that serves the store, or here if nobody does.

The server listens on a socket (mode 0600) in every directory of the store. If one answers, the command is sent there;
if nobody holds the store, it is opened here, under the same lock that a server takes.

Objects do not travel through that socket: there the server only says where it listens, as whom its owner may speak to
it, and which certificate it shows; then S3 is spoken, as with any server. So `client` has two outcomes, the store in
this process and a server behind a URL, and commands do not know which one they have.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostraka.cli.grammar import Where
from ostraka.cli.output import Bar
from ostraka.client.types import Client
from ostraka.config import master_key_text, secret_file
from ostraka.errors import InUse, Invalid

if TYPE_CHECKING:
    from ostraka.client.s3 import S3Client


def perform(where: Where, command: str, arguments: Mapping[str, Any], *, name: str, as_json: bool) -> dict[str, Any]:
    """Carry out an operation of store/operations.py, with progress; returns its result. ``name``: the command's own."""
    from ostraka.server.asking import ask

    paths = where.only_directories(name)
    with Bar(as_json=as_json) as bar:
        result = ask(paths, command, arguments, bar.update)
        if result is not None:
            return result
        from ostraka.cli.running import run_orderly
        from ostraka.server.control import perform_here

        try:
            return perform_here(paths, command, arguments, bar.update, run_orderly)
        except InUse:
            result = ask(paths, command, arguments, bar.update)
            if result is None:
                raise
            return result


@contextlib.contextmanager
def client(where: Where) -> Iterator[Client]:
    """A way to the objects of the store."""
    if where.url:
        with server(where.url) as remote:
            yield remote
        return
    from ostraka.server.asking import ask

    with contextlib.ExitStack() as stack:
        served = ask(where.directories, "endpoint", {}, lambda *_: None)
        if served is None:
            try:
                own = stack.enter_context(_here(where.directories))
            except InUse:  # a server, perhaps, that has only just begun to listen
                served = ask(where.directories, "endpoint", {}, lambda *_: None)
                if served is None:
                    raise
            else:
                yield own
                return
        keys = served["access_key"], served["secret_key"]
        yield stack.enter_context(over_s3(served["url"], keys, certificate=served["certificate"]))


@contextlib.contextmanager
def server(url: str) -> Iterator["S3Client"]:
    """A server by its URL, with the environment's credentials."""
    with over_s3(url, _credentials(), ca_file=os.environ.get("AWS_CA_BUNDLE", "")) as remote:
        yield remote


@contextlib.contextmanager
def _here(directories: tuple[Path, ...]) -> Iterator[Client]:
    from ostraka import library
    from ostraka.client.here import HereClient

    text = master_key_text()
    with library.open_store(*directories, existing=True, master_key=text) as store:
        yield HereClient(store)


@contextlib.contextmanager
def over_s3(url: str, keys: tuple[str, ...], *, certificate: str = "", ca_file: str = "") -> Iterator["S3Client"]:
    """A server by its URL, with these keys: access key, secret key, session token."""
    from ostraka.client.s3 import S3Client
    from ostraka.client.wire import Wire, address_of
    from ostraka.host import Host
    from ostraka.sigv4 import Keys

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    address = address_of(url, certificate)
    remote = S3Client(Wire(address, Keys(*keys), region, Host(), ca_file))
    try:
        yield remote
    finally:
        remote.close()


def _credentials() -> tuple[str, ...]:
    """Of the environment: Ostraka's own names win over AWS's."""
    env = os.environ
    access, secret = env.get("OSTRAKA_ROOT_ACCESS_KEY", ""), env.get("OSTRAKA_ROOT_SECRET_KEY", "")
    file = env.get("OSTRAKA_ROOT_SECRET_KEY_FILE", "")
    if access and not secret and file:
        secret = secret_file(file, "OSTRAKA_ROOT_SECRET_KEY_FILE")
    if access and secret:
        return access, secret
    access, secret = env.get("AWS_ACCESS_KEY_ID", ""), env.get("AWS_SECRET_ACCESS_KEY", "")
    if access and secret:
        return access, secret, env.get("AWS_SESSION_TOKEN", "")
    raise Invalid(
        "a server wants credentials: set OSTRAKA_ROOT_ACCESS_KEY and OSTRAKA_ROOT_SECRET_KEY, or AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
        reason="credentials",
    )
