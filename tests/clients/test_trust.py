"""No client that verifies certificates talks to a server whose authority it was not told of."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from client_endpoint import Endpoint
from client_tools import AIOBOTOCORE, DELTALAKE, DUCKDB, MINIO, OBSTORE, POLARS, PYARROW, S3FS

pytestmark = pytest.mark.timeout(300)
BUCKET = "not-to-be-asked-for"
FIRST_STEPS = [
    (AIOBOTOCORE, "race", {"count": 1}),
    (S3FS, "publish", {}),
    (MINIO, "bucket", {}),
    (OBSTORE, "conditions", {}),
    (DUCKDB, "update", {"rows": 1}),
    (PYARROW, "directories", {}),
    (POLARS, "files", {"rows": 8}),
    (DELTALAKE, "conflict", {}),
]


def test_without_the_authority_no_client_sends_anything(endpoint: Endpoint) -> None:
    if endpoint.scheme == "http":
        return  # nothing to verify

    def refuses(number: int) -> None:
        client, step, arguments = FIRST_STEPS[number]
        with pytest.raises(AssertionError, match="status 1"):
            client.do(endpoint, step, trusting=False, bucket=BUCKET, **arguments)

    with ThreadPoolExecutor(len(FIRST_STEPS)) as threads:  # they wait between attempts
        list(threads.map(refuses, range(len(FIRST_STEPS))))
    assert endpoint.requests(BUCKET, at_least=0) == []
