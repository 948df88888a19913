"""What tables hold, found without the client that wrote them: boto3 fetches the files, and they are read here."""

from pathlib import Path

from client_endpoint import Endpoint
from client_tools import PYARROW


def parquet_rows(endpoint: Endpoint, bucket: str, directory: Path) -> dict[str, int]:
    """The number of rows of every Parquet file in the bucket, by its key; each is read whole."""
    for key, body in endpoint.bodies(bucket):
        if key.endswith(".parquet"):
            path = directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    rows: dict[str, int] = PYARROW.do(endpoint, "local_rows", directory=str(directory))
    return rows
