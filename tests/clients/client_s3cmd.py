"""s3cmd, configured by ~/.s3cfg as its users do."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from client_endpoint import Endpoint
from client_tools import SIGNED, needs, run


class S3cmd:
    """s3cmd of Debian."""

    name = "s3cmd"
    name_bytes_max = 240
    file_count = 150
    cannot_name = frozenset({"tab\there"})  # it writes control characters as ^I
    framing = SIGNED

    def do(self, endpoint: Endpoint, *words: str, text: str | None = None) -> str:
        """Run it; its output."""
        host = urlsplit(endpoint.url).netloc
        lines = [
            "[default]",
            f"access_key = {endpoint.server.access_key}",
            f"secret_key = {endpoint.server.secret_key}",
            f"host_base = {host}",
            f"host_bucket = {host}",
            f"use_https = {endpoint.scheme == 'https'}",
            f"signurl_use_https = {endpoint.scheme == 'https'}",
        ]
        if endpoint.bundle:
            lines.append(f"ca_certs_file = {endpoint.bundle}")
        (endpoint.home / ".s3cfg").write_text("\n".join(lines) + "\n")
        command = [needs(shutil.which("s3cmd") or "/usr/bin/s3cmd"), "--no-progress", *words]
        return run(command, endpoint.environment(), text=text)

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        self.do(endpoint, "sync", "--delete-removed", f"{root}/", f"s3://{bucket}/")

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        self.do(endpoint, "sync", "--delete-removed", f"s3://{bucket}/", f"{root}/")

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        self.do(endpoint, "rb", "--recursive", "--force", f"s3://{bucket}")


S3CMD = S3cmd()
