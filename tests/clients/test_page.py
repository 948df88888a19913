"""docs/clients.md says what the tests do: its snippets are theirs, and its table is what they assert."""

import re

from client_restic import Restic
from client_s3cmd import S3CMD
from client_s5cmd import S5CMD
from client_tools import (
    AIOBOTOCORE,
    AWS_DEBIAN,
    AWS_PYPI,
    BOTO_134,
    BOTO_NEWEST,
    DELTALAKE,
    DUCKDB,
    MINIO,
    NEW,
    OBSTORE,
    POLARS,
    PYARROW,
    RCLONE,
    REPOSITORY,
    S3FS,
)

PAGE = (REPOSITORY / "docs" / "clients.md").read_text()
WORDS = {
    "SHA256": "hash in the signature",
    "UNSIGNED-PAYLOAD": "unsigned",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": "unsigned, checksum in a trailer",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": "signed piece by piece",
}
NAMES = {
    "boto3 1.34": BOTO_134,
    "Debian's AWS CLI": AWS_DEBIAN,
    "boto3": BOTO_NEWEST,
    "AWS CLI": AWS_PYPI,
    "aiobotocore": AIOBOTOCORE,
    "s3fs": S3FS,
    "minio-py": MINIO,
    "obstore": OBSTORE,
    "DuckDB": DUCKDB,
    "pyarrow": PYARROW,
    "polars": POLARS,
    "deltalake": DELTALAKE,
    "rclone": RCLONE,
    "s3cmd": S3CMD,
    "s5cmd": S5CMD,
    "restic": Restic,
}
SHA256 = {"http": "SHA256", "https": "SHA256"}
TRAILER = dict.fromkeys(SHA256, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
OTHERS = {  # as their tests assert; of the SDK for JavaScript by body, in two rows
    "bodies of known length": SHA256,
    "streams": TRAILER,
    "s3fs-fuse": SHA256,
    "container registry": SHA256,
    "Terraform": NEW,
}


def test_every_snippet_is_what_a_test_runs() -> None:
    snippets = re.findall(r"```python\n# (tests/clients/\w+\.py)\n(.*?)```", PAGE, re.S)
    assert len(snippets) == PAGE.count("```python")
    for path, text in snippets:
        assert text in (REPOSITORY / path).read_text(), f"{path} does not do this:\n{text}"


def test_the_table_says_the_framing_that_the_tests_assert() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]
    said = {name: (row[2], row[3]) for row in rows for name in row[0].split(", ")}
    framings = {name: client.framing for name, client in NAMES.items()} | OTHERS
    for name, framing in framings.items():
        assert said[name] == (WORDS[framing["http"]], WORDS[framing["https"]]), name
    assert set(said) - set(framings) == {"client", "---", "AWS SDK for JavaScript", "pyiceberg"}
