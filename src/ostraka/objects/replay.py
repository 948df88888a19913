"""The answer to a write is kept with the write, so that a retry whose first answer was lost gets it (ENGINE 21).

A row's key says in which epoch of limits.replay_seconds it was written, so that a look reads two keys and the
collector drops old epochs from the front. A process records no more than limits.replay_rows_max an epoch: past that,
retries are judged as plain requests, which is correct, only less kind.
"""

import hashlib
from collections.abc import Sequence

from ostraka.objects import rows
from ostraka.objects.core import Core
from ostraka.objects.rows import ReplayRecord, VersionRecord
from ostraka.objects.types import Replay
from ostraka.state import Absent as NoRow
from ostraka.state import Operation, Precondition, Put, value_sequence

REPLAY_TAG = "replay"


def invocation_hash(replay: Replay, bucket: str, key: str) -> bytes:
    """What a retry has in common with the first attempt, the body excepted."""
    return _hash("invocation", replay.account, replay.operation, bucket, key, replay.invocation)


def upload_hash(upload: bytes) -> bytes:
    return _hash("upload", upload.hex())


def _hash(*words: str) -> bytes:
    hashed = hashlib.blake2b(digest_size=20)
    for word in words:
        data = word.encode()
        hashed.update(len(data).to_bytes(4, "big") + data)
    return hashed.digest()


class Replays:
    """Looks answers up, and adds their rows to commits."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._epoch = 0
        self._count = 0  # rows that this process wrote in the epoch

    def epoch(self) -> int:
        return int(self._core.host.clock.time() / self._core.limits.replay_seconds)

    def find(self, name: bytes, body: str) -> tuple[VersionRecord, int] | None:
        """(version, its sequence) that an earlier attempt with the same body made."""
        for value in self._core.state.get_many(self._keys(name)):
            if value is not None:
                found = rows.replay_of(value)
                if found.body == body:
                    return found.record, value_sequence(value)
        return None

    def record(
        self, name: bytes, body: str, version: VersionRecord, must: bool = False
    ) -> tuple[Sequence[Precondition], Sequence[Operation]]:
        """What a commit adds to keep its answer: that nobody keeps one yet, and the row. Nothing if there is one."""
        keys = self._keys(name)
        if any(value is not None for value in self._core.state.get_many(keys)):
            return (), ()  # of another body: this write is judged by itself
        epoch = self.epoch()
        if epoch != self._epoch:
            self._epoch, self._count = epoch, 0
        if self._count >= self._core.limits.replay_rows_max and not must:
            return (), ()
        self._count += 1
        bare = VersionRecord(
            version.flags,
            version.nonce,
            version.size,
            version.etag,
            version.modified,
            version.owner,
            version.storage_class,
            None,
            checksums=version.checksums,
            checksum_type=version.checksum_type,
            part_count=version.part_count,
            encryption=version.encryption,
        )
        value = rows.encode(ReplayRecord(body, bare))
        return [NoRow(key, REPLAY_TAG) for key in keys], [Put(keys[0], value, stamp_value=True)]

    def _keys(self, name: bytes) -> list[bytes]:
        epoch = self.epoch()
        return [rows.REPLAY + max(e, 0).to_bytes(4, "big") + name for e in (epoch, epoch - 1)]
