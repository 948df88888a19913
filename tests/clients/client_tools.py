"""The clients: how each synchronises a tree, in the words of its own command line."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from client_endpoint import Endpoint

REPOSITORY = Path(__file__).parents[2]
STEP = Path(__file__).with_name("client_step.py")
SECONDS_MAX = 300


def run(command: list[str], env: Mapping[str, str], *, text: str | None = None) -> str:
    """Run a client; its output. Fails the test with what it said if it fails."""
    done = subprocess.run(
        command, env=dict(env), input=text, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    said = f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert done.returncode == 0, f"{' '.join(command)}\nstatus {done.returncode}\n{said}"
    return done.stdout


def needs(path: Path | str | None) -> str:
    """The path of an installed client, or skip."""
    if path is None or not Path(path).exists():
        pytest.skip(f"{path} is not installed: run scripts/install (as root, on Debian)")
    return str(path)


class Tool(Protocol):
    """A client that can synchronise."""

    name: str
    name_bytes_max: int  # of a file: what it appends to the names of files that it is still receiving must fit too
    file_count: int  # of the tree: what it does in a fair time
    cannot_name: frozenset[str]  # names that the client itself spoils before it sends them
    framing: dict[str, str]  # how it frames the bodies of objects, by scheme

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        """Make the bucket hold what the directory holds, and nothing else."""
        ...

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        """Make the directory hold what the bucket holds, and nothing else."""
        ...

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        """Empty the bucket and delete it."""
        ...


class Script:
    """A program of a Python client's users: functions of a script, run in the environment where that client is."""

    def __init__(self, environment: str, script: str, framing: dict[str, str]) -> None:
        self.framing = framing
        self._python = REPOSITORY / environment / "bin" / "python"
        self._script = Path(__file__).with_name(script)

    def do(self, endpoint: Endpoint, step: str, *, trusting: bool = True, **arguments: Any) -> Any:
        """Run a function of the script, which fails by an exception; returns its result.

        If not trusting, nobody tells the client of the authority that signed the server's certificate.
        """
        job = {"script": str(self._script), "url": endpoint.url, "step": step, "arguments": arguments}
        env = endpoint.environment()
        if not trusting:
            env = {k: v for k, v in env.items() if k not in ("AWS_CA_BUNDLE", "SSL_CERT_FILE")}
            env["AWS_MAX_ATTEMPTS"] = "1"
        return json.loads(run([needs(self._python), "-P", str(STEP)], env, text=json.dumps(job)))


class Boto(Script):
    """boto3 of a certain age."""

    name_bytes_max = 255
    file_count = 2000
    cannot_name: frozenset[str] = frozenset()

    def __init__(self, name: str, environment: str, framing: dict[str, str]) -> None:
        super().__init__(environment, "boto_script.py", framing)
        self.name = name

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        self.do(endpoint, "up", root=str(root), bucket=bucket)

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        self.do(endpoint, "down", root=str(root), bucket=bucket)

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        self.do(endpoint, "remove", bucket=bucket)


class AwsCli:
    """The AWS command line, `aws s3` and `aws s3api`."""

    name_bytes_max = 246
    file_count = 2000
    cannot_name: frozenset[str] = frozenset()

    def __init__(self, name: str, path: Path, framing: dict[str, str]) -> None:
        self.name = name
        self.framing = framing
        self.path = path

    def do(self, endpoint: Endpoint, *words: str) -> str:
        """Run it; its output."""
        env = endpoint.environment() | {"AWS_DEFAULT_REGION": "us-east-1"}
        return run([needs(self.path), "--endpoint-url", endpoint.url, *words], env)

    def api(self, endpoint: Endpoint, *words: str) -> Any:
        """Run `aws s3api`; its output decoded."""
        return json.loads(self.do(endpoint, "s3api", *words, "--output", "json") or "null")

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        self.do(endpoint, "s3", "sync", "--delete", "--only-show-errors", str(root), f"s3://{bucket}")

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        self.do(endpoint, "s3", "sync", "--delete", "--only-show-errors", f"s3://{bucket}", str(root))

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        self.do(endpoint, "s3", "rb", "--force", f"s3://{bucket}")


class Rclone:
    """rclone, configured by its environment as "any other" S3."""

    name = "rclone"
    framing: ClassVar = {"http": "UNSIGNED-PAYLOAD", "https": "UNSIGNED-PAYLOAD"}  # it presigns its own PUTs
    name_bytes_max = 255
    file_count = 2000
    cannot_name: frozenset[str] = frozenset()

    def do(self, endpoint: Endpoint, *words: str, text: str | None = None) -> str:
        """Run it; its output."""
        env = endpoint.environment() | {
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "Other",
            "RCLONE_CONFIG_S_ENV_AUTH": "true",
            "RCLONE_CONFIG_S_ENDPOINT": endpoint.url,
        }
        if endpoint.bundle:
            env["RCLONE_CA_CERT"] = endpoint.bundle
            del env["AWS_CA_BUNDLE"]  # its AWS library cannot set that on a transport that is not its own
        return run([needs(shutil.which("rclone")), "--retries", "1", *words], env, text=text)

    def up(self, endpoint: Endpoint, root: Path, bucket: str) -> None:
        self.do(endpoint, "sync", "--fast-list", str(root), f"s:{bucket}")

    def down(self, endpoint: Endpoint, bucket: str, root: Path) -> None:
        self.do(endpoint, "sync", f"s:{bucket}", str(root))

    def remove(self, endpoint: Endpoint, bucket: str) -> None:
        self.do(endpoint, "purge", f"s:{bucket}")


OLD = {"http": "SHA256", "https": "UNSIGNED-PAYLOAD"}
NEW = {"http": "SHA256", "https": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}  # since checksums are sent by default
SIGNED = {"http": "SHA256", "https": "SHA256"}  # the body's hash under the signature, always
UNSIGNED = {"http": "UNSIGNED-PAYLOAD", "https": "UNSIGNED-PAYLOAD"}
TRAILER = {"http": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "https": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
BOTO_NEWEST = Boto("boto3", ".venv", NEW)
BOTO_134 = Boto("boto3-1.34", ".venv-boto134", OLD)
AWS_PYPI = AwsCli("awscli", REPOSITORY / ".venv-awscli" / "bin" / "aws", NEW)
AWS_DEBIAN = AwsCli("awscli-debian", Path("/usr/bin/aws"), OLD)
RCLONE = Rclone()
BOTOS = [BOTO_NEWEST, BOTO_134]
AWS_CLIS = [AWS_PYPI, AWS_DEBIAN]
AIOBOTOCORE = Script(".venv-data", "aiobotocore_script.py", NEW)
S3FS = Script(".venv-data", "s3fs_script.py", NEW)
MINIO = Script(".venv-data", "minio_script.py", OLD)
OBSTORE = Script(".venv-data", "obstore_script.py", SIGNED)
DUCKDB = Script(".venv-data", "duckdb_script.py", SIGNED)
PYARROW = Script(".venv-data", "pyarrow_script.py", TRAILER)
POLARS = Script(".venv-data", "polars_script.py", UNSIGNED)
DELTALAKE = Script(".venv-data", "deltalake_script.py", SIGNED)
PYICEBERG = Script(".venv-data", "pyiceberg_script.py", TRAILER)  # with pyarrow; with s3fs it is as s3fs
TOOLS: list[Tool] = [*BOTOS, *AWS_CLIS, RCLONE]
