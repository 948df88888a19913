"""restic, told by its environment of the repository and its password."""

import shutil
from pathlib import Path
from typing import ClassVar

from client_endpoint import Endpoint
from client_tools import needs, run

PREFIX = "backups/of a&b"


class Restic:
    """restic of Debian, its repository in a bucket."""

    framing: ClassVar = {"http": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "https": "UNSIGNED-PAYLOAD"}

    def __init__(self, endpoint: Endpoint, bucket: str, cache: Path) -> None:
        self.env = endpoint.environment() | {
            "RESTIC_REPOSITORY": f"s3:{endpoint.url}/{bucket}/{PREFIX}",
            "RESTIC_PASSWORD": "owl to Athens",
            "RESTIC_CACHE_DIR": str(cache),
        }
        self.env.pop("SSL_CERT_FILE", None)  # the flag is to be enough
        self._trust = ["--cacert", endpoint.bundle] if endpoint.bundle else []

    def do(self, *words: str) -> str:
        """Run it; its output."""
        return run([needs(shutil.which("restic") or "/usr/bin/restic"), *self._trust, *words], self.env)
