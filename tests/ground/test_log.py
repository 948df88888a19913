"""The access log: a line a request, whatever befalls the disk that it is on."""

import asyncio
import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostraka.log import AccessLog


@contextmanager
def file_size_max(size: int) -> Iterator[None]:
    """No file of this process can grow beyond: a write that would is cut short, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_a_full_disk_tore_swallowed_the_next_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "access.log"

    async def requests() -> None:
        log = AccessLog(str(path))
        with file_size_max(20):
            for number in (1, 2, 3):
                log.write({"request": number})  # 14 bytes with its end
                log.flush()
        log.write({"request": 4})
        log.close()

    asyncio.run(requests())
    whole = [line for line in path.read_bytes().split(b"\n") if line.endswith(b"}")]
    assert [json.loads(line) for line in whole] == [{"request": 1}, {"request": 4}]
    assert [record.name for record in caplog.records] == ["ostraka.log"] * 2, "what is lost is said"
