"""Bodies far larger than memory: no process of the server grows with them (law 10)."""

import hashlib
import http.client
import os
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostraka.server.asking import ask
from ostraka.testing.processes import ServerProcess

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
BOUND = 200 * MIB  # RssAnon of each process
BUCKET = "large"
PIECE = 1 * MIB


class Body:
    """A body of any size that is never held: blocks of a counter, hashed as they are read or compared."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._seed = seed

    def pieces(self) -> Iterator[bytes]:
        block = bytearray(hashlib.shake_256(self._seed.to_bytes(8, "big")).digest(PIECE))
        for n, at in enumerate(range(0, self.size, PIECE)):
            block[:8] = n.to_bytes(8, "big")
            block[PIECE // 2 : PIECE // 2 + 8] = n.to_bytes(8, "little")
            yield bytes(block[: min(PIECE, self.size - at)])

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


class Readable:
    """A body as a file that boto3 can send in parts: read from the start to the end, once."""

    def __init__(self, body: Body) -> None:
        self._pieces = body.pieces()
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "nobody reads all of it"
        parts, wanted = [], size
        while wanted:
            if not self._left:
                self._left = next(self._pieces, b"")
                if not self._left:
                    break
            part, self._left = self._left[:wanted], self._left[wanted:]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)


def rss_anon(pid: int) -> int:
    """Anonymous memory of a process in bytes; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    return 0


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


class Watch:
    """Samples the memory of all processes of a server until it is left; ``peaks`` by process."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peaks: dict[int, int] = {}

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            for pid in family(self._server.pid):
                self.peaks[pid] = max(self.peaks.get(pid, 0), rss_anon(pid))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        assert len(self.peaks) >= 4, "supervisor, owner, two workers"
        peaks = {pid: round(peak / MIB) for pid, peak in self.peaks.items()}
        print(f"peaks of RssAnon in MiB: {peaks}")
        assert max(self.peaks.values()) <= BOUND, f"more than {BOUND // MIB} MiB: {peaks}"


def put_raw(server: ServerProcess, key: str, body: Body) -> None:
    """One PUT of the whole body over one connection, unsigned payload, as a program without boto3 would."""
    url = server.client().generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": key})
    where = urllib.parse.urlsplit(url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=120)
    try:
        headers = {"content-length": str(body.size)}
        connection.request("PUT", f"{where.path}?{where.query}", body=body.pieces(), headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    finally:
        connection.close()


def digest_of(s3: Any, key: str) -> tuple[int, str]:
    stream = s3.get_object(Bucket=BUCKET, Key=key)["Body"]
    digest, size = hashlib.sha256(), 0
    while piece := stream.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def through(tmp_path: Path, seed: int, size: int, count: int, cut: str = "fixed") -> None:
    from boto3.s3.transfer import TransferConfig

    body, disks = Body(size, seed), [tmp_path / f"disk{i}" for i in range(count)]
    expected = (size, body.sha256())
    with ServerProcess(disks, "--workers", "2") as server:
        s3 = server.client(read_timeout=120)
        s3.create_bucket(Bucket=BUCKET)
        told = ask(disks, "bucket-set-storage", {"name": BUCKET, "cut": cut}, lambda *_: None)
        assert told is not None
        assert told["cut"] == cut
        with Watch(server) as watch:
            put_raw(server, "raw", body)
            assert digest_of(s3, "raw") == expected
            s3.delete_object(Bucket=BUCKET, Key="raw")
            config = TransferConfig(multipart_chunksize=64 * MIB, max_concurrency=4, multipart_threshold=64 * MIB)
            s3.upload_fileobj(Readable(body), BUCKET, "parts", Config=config)
            assert digest_of(s3, "parts") == expected
        watch.check()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_half_a_gibibyte_goes_through_in_bounded_memory(tmp_path: Path, seed: int, count: int) -> None:
    through(tmp_path, seed, 512 * MIB + 12345, count)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cut", ["fixed", "cdc"])
@pytest.mark.parametrize("count", [1, 6], ids=["1+0", "4+2"])
def test_soak_five_gibibytes_go_through_in_bounded_memory(tmp_path: Path, seed: int, count: int, cut: str) -> None:
    free = os.statvfs(tmp_path)
    assert free.f_bavail * free.f_frsize > 30 * GIB, "no room for this test"
    through(tmp_path, seed, 5 * GIB, count, cut)
