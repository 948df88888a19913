"""A ledger of what an S3 endpoint acknowledged, and a load that keeps it: the checker of crash tests.

Clients write, overwrite, copy, delete and upload in parts, with sizes on both sides of every threshold, until the
endpoint is killed under them. Each knows for each of its keys what was acknowledged last, and what was in flight when
the answer stayed away. Afterwards `Ledger.verify` reads everything back: an acknowledged write must be there byte for
byte, an acknowledged delete gone; of a write in flight either outcome is right, and a mix never is.

It works on any boto3 S3 client without retries (a retry would blur which attempt was acknowledged).
"""

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

KIB = 1 << 10
MIB = 1 << 20
# on both sides of: inline, packed, chunked, several chunks, slices embedded in the version, a manifest of its own
SIZES = (
    *(0, 1, 4 * KIB - 1, 4 * KIB, 4 * KIB + 1, 9 * KIB, 100 * KIB),
    *(128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 300 * KIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 9 * MIB),
)
LARGE_SIZES = (16 * MIB + 1, 21 * MIB)
PART_SIZE = 5 * MIB


class Mismatch(AssertionError):
    """What was read is neither what was acknowledged nor what was in flight."""


@dataclass(frozen=True, slots=True)
class Content:
    """A body that can be made again: ``seed`` decides its bytes."""

    seed: int
    size: int

    def bytes(self) -> bytes:
        """Every third body is compressible; bodies of one seed share their beginning, so that chunks are shared."""
        rng = random.Random(self.seed)
        if self.seed % 3 == 0:
            line = rng.randbytes(97).hex().encode() + b"\n"
            return (line * (self.size // len(line) + 1))[: self.size]
        return rng.randbytes(self.size)

    def sha256(self) -> str:
        return hashlib.sha256(self.bytes()).hexdigest()


Outcome = Content | None  # None: absent


@dataclass(slots=True)
class Key:
    """What one key may hold now."""

    acknowledged: Outcome = None
    in_flight: list[Outcome] = field(default_factory=list)

    @property
    def possible(self) -> list[Outcome]:
        return [self.acknowledged, *self.in_flight]


class Ledger:
    """Keys of one bucket, each written by one client thread only."""

    def __init__(self, bucket: str, seed: int) -> None:
        self.bucket = bucket
        self.seed = seed
        self.keys: dict[str, Key] = {}
        self.acknowledged = 0
        self._lock = threading.Lock()

    def attempt(self, name: str, outcome: Outcome, action: Callable[[], object]) -> bool:
        """Do it; record what is certain afterwards. Returns False when the answer stayed away."""
        key = self.keys.setdefault(name, Key())
        key.in_flight.append(outcome)
        try:
            action()
        except Exception as e:
            if not _lost(e):
                raise
            return False
        with self._lock:
            self.acknowledged += 1
        key.acknowledged, key.in_flight = outcome, []
        return True

    def verify(self, client: Any) -> int:
        """Read everything back; returns how many keys were checked. Raises Mismatch. Settles what was in flight."""
        listed: set[str] = set()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            listed.update(o["Key"] for o in page.get("Contents", []))
        for name, key in sorted(self.keys.items()):
            body = _read(client, self.bucket, name)
            if (body is None) == (name in listed):
                raise Mismatch(f"{name}: LIST and GET disagree: {'listed' if name in listed else 'not listed'}")
            for outcome in key.possible:
                if body is None if outcome is None else body == outcome.bytes():
                    key.acknowledged, key.in_flight = outcome, []
                    break
            else:
                got = "absent" if body is None else f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()[:12]}"
                raise Mismatch(f"{name}: is {got}; possible are {key.possible} (seed {self.seed})")
        strangers = listed - self.keys.keys()
        if strangers:
            raise Mismatch(f"listed, and never written: {sorted(strangers)[:5]}")
        return len(self.keys)


def _lost(error: Exception) -> bool:
    """Whether the error leaves the outcome open (the connection went, or the server said 5xx)."""
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__module__.startswith(("botocore", "urllib3")) or isinstance(error, OSError)
    return int(response["ResponseMetadata"]["HTTPStatusCode"]) >= 500


def _read(client: Any, bucket: str, name: str) -> bytes | None:
    try:
        body: bytes = client.get_object(Bucket=bucket, Key=name)["Body"].read()
        return body
    except client.exceptions.NoSuchKey:
        return None


class Load:
    """Client threads that write to a ledger until they are told to stop or the endpoint goes away."""

    def __init__(
        self, ledger: Ledger, make_client: Callable[[], Any], *, threads: int = 4, sizes: Sequence[int] = SIZES
    ) -> None:
        self._ledger = ledger
        self._make_client = make_client
        self._sizes = sizes
        self._stop = threading.Event()
        self._round = 0
        self.errors: list[BaseException] = []
        self._count = threads
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin a round."""
        self._stop.clear()
        self._round += 1
        self._threads = [
            threading.Thread(target=self._run, args=(n, self._round), name=f"load-{n}") for n in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether any client still writes."""
        return any(t.is_alive() for t in self._threads)

    def stop(self) -> None:
        """End the round; raises the first error that was no lost answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _run(self, number: int, turn: int) -> None:
        rng = random.Random(f"{self._ledger.seed}/{number}/{turn}")
        client = self._make_client()
        lost = 0
        try:
            while not self._stop.is_set() and lost < 3:
                lost = 0 if self._step(client, rng, f"t{number}/k{rng.randrange(12):02}") else lost + 1
        except BaseException as e:
            self.errors.append(e)

    def _step(self, client: Any, rng: random.Random, name: str) -> bool:
        ledger, bucket = self._ledger, self._ledger.bucket
        choice = rng.random()
        content = Content(rng.randrange(40), rng.choice(self._sizes))
        if choice < 0.15:
            return ledger.attempt(name, None, lambda: client.delete_object(Bucket=bucket, Key=name))
        if choice < 0.25:
            return self._copy(client, rng, name)
        if choice < 0.32:
            return self._multipart(client, rng, name)
        body = content.bytes()
        return ledger.attempt(name, content, lambda: client.put_object(Bucket=bucket, Key=name, Body=body))

    def _copy(self, client: Any, rng: random.Random, name: str) -> bool:
        own = [n for n, k in self._ledger.keys.items() if n.startswith(name.split("/")[0] + "/")]
        certain = [n for n in own if not self._ledger.keys[n].in_flight and self._ledger.keys[n].acknowledged]
        if not certain or (source := rng.choice(certain)) == name:
            return True
        origin = {"Bucket": self._ledger.bucket, "Key": source}
        return self._ledger.attempt(
            name,
            self._ledger.keys[source].acknowledged,
            lambda: client.copy_object(Bucket=self._ledger.bucket, Key=name, CopySource=origin),
        )

    def _multipart(self, client: Any, rng: random.Random, name: str) -> bool:
        content = Content(rng.randrange(40), rng.choice(LARGE_SIZES))
        body = content.bytes()
        bucket = self._ledger.bucket

        def upload() -> None:
            upload_id = client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
            parts = []
            for n, at in enumerate(range(0, len(body), PART_SIZE), 1):
                part = client.upload_part(
                    Bucket=bucket, Key=name, UploadId=upload_id, PartNumber=n, Body=body[at : at + PART_SIZE]
                )
                parts.append({"PartNumber": n, "ETag": part["ETag"]})
            client.complete_multipart_upload(
                Bucket=bucket, Key=name, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )

        return self._ledger.attempt(name, content, upload)
