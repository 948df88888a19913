"""A server that clients are tried against, what they need to know of it, and its access log."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from client_tls import Authority

from ostraka.testing.processes import ServerProcess, s3_client

LOG_SECONDS_MAX = 30.0  # a line is written a moment after its answer was sent


class Endpoint:
    """`ostraka serve` with two workers and an access log; over HTTPS, as these names, if an authority is given."""

    def __init__(
        self,
        directory: Path,
        authority: Authority | None,
        *arguments: str,
        names: Sequence[str] = ("localhost",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.scheme = "https" if authority else "http"
        self.bundle = str(authority.bundle) if authority else ""
        self.home = directory / "home"
        self.home.mkdir()
        self._log = directory / "access.log"
        flags = ["--workers", "2", "--access-log", str(self._log), *arguments]
        if authority:
            certificate, key = authority.server(names)
            flags += ["--tls-cert", str(certificate), "--tls-key", str(key)]
        self.server = ServerProcess([directory / "store"], *flags, environment=environment)

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        return self.server.url

    def environment(self) -> dict[str, str]:
        """For a client's process: credentials and trust, and nothing of whoever runs the tests."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "OSTRAKA_", "RCLONE_", "PYTEST_"))}
        env |= {
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }
        if self.bundle:
            env |= {"AWS_CA_BUNDLE": self.bundle, "SSL_CERT_FILE": self.bundle}
        return env

    def boto(self, **config: Any) -> Any:
        """A client in our own process, to look at what the others left."""
        return s3_client(self.url, self.server.access_key, self.server.secret_key, verify=self.bundle or True, **config)

    def keys(self, bucket: str) -> list[str]:
        """What the bucket lists."""
        pages = self.boto().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def bodies(self, bucket: str) -> Iterator[tuple[str, bytes]]:
        """Every object in the bucket, key and content, as an independent reader finds them."""
        boto = self.boto()
        for key in self.keys(bucket):
            yield key, boto.get_object(Bucket=bucket, Key=key)["Body"].read()

    def held(self, bucket: str) -> dict[str, str]:
        """SHA-256 of every object in the bucket by its key."""
        return {key: hashlib.sha256(body).hexdigest() for key, body in self.bodies(bucket)}

    def requests(self, bucket: str, operation: str = "", *, at_least: int = 1) -> list[dict[str, Any]]:
        """The access log's lines of that bucket, once there are that many."""
        deadline = time.monotonic() + LOG_SECONDS_MAX
        while True:
            whole, _, _ = self._log.read_bytes().rpartition(b"\n")  # what follows is being written
            lines = [json.loads(line) for line in whole.splitlines()]
            found = [r for r in lines if r["bucket"] == bucket and operation in ("", r["operation"])]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {at_least} {operation} requests are in the log"
            time.sleep(0.02)

    def sent(self, bucket: str) -> list[dict[str, Any]]:
        """The access log's lines of requests that brought content of objects into the bucket."""
        return [r for r in self.requests(bucket) if r["operation"] in ("PutObject", "UploadPart") and r["received"]]

    def framings(self, bucket: str, operation: str) -> set[str]:
        """How the bodies of that operation came."""
        return {r["framing"] for r in self.requests(bucket, operation)}
