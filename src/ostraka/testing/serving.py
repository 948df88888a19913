"""`serve`: an S3 endpoint for the length of a test, on a store of its own that is thrown away.

    with serve() as s3:
        boto3.client("s3", **s3.boto())         # or any client: s3.url, s3.access_key, s3.secret_key
        subprocess.run([...], env={**os.environ, **s3.environment()})

It is the server that production runs, durable writes and signatures included, so what passes here passes there. The
fixtures of `plugin` are made of it.
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ostraka import machine
from ostraka.testing.processes import ServerProcess

REGION = "us-east-1"


class Endpoint:
    """A running endpoint, and how clients are pointed at it. Made by `serve`."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.url = server.url
        self.access_key = server.access_key
        self.secret_key = server.secret_key
        self.region = REGION

    def environment(self) -> dict[str, str]:
        """Variables that point SDKs and command lines here: AWS_ENDPOINT_URL_S3, keys, region, no configuration."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def boto(self) -> dict[str, str]:
        """The arguments of ``boto3.client("s3", ...)`` and of ``boto3.resource``."""
        return {
            "endpoint_url": self.url,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "region_name": self.region,
        }

    def client(self) -> Any:
        """A boto3 client, as users make it. Needs boto3."""
        import boto3

        return boto3.session.Session().client("s3", **self.boto())

    def new_bucket(self, prefix: str = "test") -> str:
        """Make a bucket that nobody else has; its name. Without boto3: its clients take longer than a bucket."""
        from ostraka.cli.reach import over_s3

        name = f"{prefix}-{secrets.token_hex(8)}"
        with over_s3(self.url, (self.access_key, self.secret_key), ca_file=os.environ.get("AWS_CA_BUNDLE", "")) as s3:
            s3.create_bucket(name)
        return name

    def log_text(self) -> str:
        """What the server has logged so far."""
        return self._server.log_text()


@contextlib.contextmanager
def serve(
    *arguments: str, directories: Sequence[str | os.PathLike[str]] | os.PathLike[str] | str = (), workers: int = 1
) -> Iterator[Endpoint]:
    """``ostraka serve`` on a free port of the loopback interface, ready when the context opens, gone when it closes.

    ``directories``: where the store lies and stays (one, or several disks); without, a temporary one. ``arguments``:
    more flags of ``ostraka serve``. Raises ServerFailed, with the log, if it does not become ready; NotSupported off
    Linux.
    """
    machine.check()
    with contextlib.ExitStack() as stack:
        named = [directories] if isinstance(directories, str | os.PathLike) else directories
        paths = [Path(d) for d in named]
        if not paths:
            paths = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ostraka-"))) / "store"]
        server = ServerProcess(paths, "--workers", str(workers), "--region", REGION, *arguments)
        yield Endpoint(stack.enter_context(server))
