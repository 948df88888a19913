"""File descriptors run out: clients are turned away for a while, and no disk is blamed for it."""

import contextlib
import os
import resource
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from server_processes import Served, raw, until

from ostraka.host import SystemFiles
from ostraka.nodes import superblock


def descriptors_max(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def test_a_server_takes_as_many_descriptors_as_it_is_allowed_to(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with Served(tmp_path) as server:
            assert [descriptors_max(pid) for pid in server.children()] == [(hard, hard)] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_crowd_of_clients_takes_no_disk_out_of_service(tmp_path: Path) -> None:
    with Served(tmp_path) as server, contextlib.ExitStack() as crowd:
        client = server.client(retries={"total_max_attempts": 1}, read_timeout=20, max_pool_connections=1)
        client.create_bucket(Bucket="crowded")
        client.put_object(Bucket="crowded", Key="before", Body=b"inline")  # a connection, and no segment yet
        for pid in server.workers:
            used = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, descriptors_max(pid)[1]))
        for _ in range(20):
            with contextlib.suppress(OSError):
                crowd.enter_context(raw(server.address))
        for number in range(3):
            with pytest.raises(ClientError) as refused:
                client.put_object(Bucket="crowded", Key=f"during-{number}", Body=bytes(300_000 + number))
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        for pid in server.workers:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, descriptors_max(pid)[1:] * 2)
        crowd.close()

        def served() -> bool:
            with contextlib.suppress(ClientError, BotoCoreError, OSError):
                client.put_object(Bucket="crowded", Key="after", Body=bytes(300_000))
                return True
            return False

        until(served, "a write after the crowd had left")
        block = superblock.read(SystemFiles(), server.store)
        assert block is not None
        assert block.epoch.number == 1, "nobody was taken out"
