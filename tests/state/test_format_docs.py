"""The examples in docs/format are what the code reads and writes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from xxhash import xxh3_64_digest

from ostraka.host import Buffer
from ostraka.state import log, meta, rows, snapshot, totals
from ostraka.state.index_files import CleanStop

DOCS = Path(__file__).parents[2] / "docs" / "format"
DISK = b"\xd1" * 16


class Bytes:
    """A file in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def preadv(self, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
        done = 0
        for buffer in buffers:
            part = self.data[offset + done : offset + done + len(buffer)]
            buffer[: len(part)] = part
            done += len(part)
        return done

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        raise AssertionError

    def sync_data(self) -> None:
        raise AssertionError

    def size(self) -> int:
        return len(self.data)

    def close(self) -> None:
        pass


def block(page: str, kind: str = "hex") -> bytes:
    """The bytes of the hex block of a page: offset, bytes, text; `*` stands for lines of zeros."""
    text = (DOCS / page).read_text()
    match = re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    assert match, f"{page} has no block of {kind}"
    data = bytearray()
    for line in match[1].splitlines():
        if line == "*":
            continue
        offset, body = line.split("  ", 1)
        data += bytes(int(offset, 16) - len(data))
        data += bytes.fromhex(body.split("  |")[0])
    return bytes(data)


def stated(page: str) -> dict[str, object]:
    match = re.search(r"```json\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert match
    found: dict[str, object] = json.loads(match[1])
    return found


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def test_the_log_page_shows_a_file_that_is_read_and_written_so() -> None:
    data, page = block("state-log.md"), stated("state-log.md")
    reader = log.LogReader(Bytes(data))
    header = reader.header()
    found, end = list(reader.records())
    assert isinstance(found, log.Found)
    assert isinstance(end, log.ScanEnd)
    assert end.end is log.End.CLEAN
    record = found.record
    assert {
        "store": header.store.hex(),
        "epoch": record.epoch,
        "first_commit": header.first_commit,
        "commit": record.commit,
        "first_sequence": record.first_sequence,
        "mutations": record.mutations,
        "digest": f"{record.digest:032x}",
        "rows": [[text(k), text(v)] for k, v in record.rows()],
        "ids": [[n, text(i)] for n, i in record.ids()],
    } == page
    assert record.digest == sum(rows.row_hash(k, v) for k, v in record.rows() if v is not None)
    assert log.encode_header(header) + log.encode_record(record, log.seed_of(header.incarnation)) == data


def test_the_snapshot_page_shows_a_file_that_is_read_and_written_so() -> None:
    data, page = block("state-snapshot.md"), stated("state-snapshot.md")
    reader = snapshot.SnapshotReader(Bytes(data))
    header = reader.header
    held = [row for rows_ in reader.blocks() for row in rows_]
    assert {
        "store": header.store.hex(),
        "epoch": header.epoch,
        "commit": header.commit,
        "sequence": header.sequence,
        "digest": f"{header.digest:032x}",
        "rows": [[text(k), text(v)] for k, v in held],
    } == page
    parts: list[bytes] = []
    writer = snapshot.SnapshotWriter(header, parts.append)
    for key, value in held:
        writer.add(key, value)
    writer.finish()
    assert b"".join(parts) == data


def test_the_index_page_shows_rows_that_are_read_and_written_so() -> None:
    key, value = b"kitchen/pot", b"whole"
    assert block("state-index.md", "hex row") == rows.seal(key, value)
    assert rows.unseal(key, block("state-index.md", "hex row")) == value
    anchor, head_id = b"k" * 480 + b"\0", (1).to_bytes(8, "big")
    assert block("state-index.md", "hex anchor") == head_id + xxh3_64_digest(anchor + head_id)


def test_the_index_page_shows_the_meta_row_and_the_mark_of_a_clean_stop() -> None:
    digest = bytes.fromhex(str(stated("state-log.md")["digest"]))
    raw = block("state-index.md", "hex meta")
    assert raw[-8:] == xxh3_64_digest(raw[:-8])
    found = msgspec.msgpack.decode(raw[:-8], type=meta.Meta)
    position = meta.Position(DISK, "/d1/state", "log-0000000000000007-0000.ost", 672, 1049248)
    assert found == meta.Meta(bytes(range(16)), 3, 7, 13, digest, (position,), 57, 1, 0, 656)
    raw = block("state-index.md", "hex clean")
    assert raw[-8:] == xxh3_64_digest(raw[:-8])
    stop = msgspec.msgpack.decode(raw[:-8], type=CleanStop)
    assert stop == CleanStop(bytes(range(16)), 7, digest, 49152, 0x0123456789ABCDEF)


@pytest.mark.parametrize("page", ["state-log.md", "state-snapshot.md"])
def test_every_flipped_bit_of_the_example_is_seen(page: str) -> None:
    data = block(page)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((log.Corrupt, log.Refused)):
            if page == "state-log.md":
                reader = log.LogReader(Bytes(bytes(flipped)))
                reader.header()
                end = list(reader.records())[-1]
                assert isinstance(end, log.ScanEnd)
                if end.end is log.End.DAMAGED:
                    raise log.Corrupt("damaged")
            else:
                snapshot.SnapshotReader(Bytes(bytes(flipped))).verify()


def test_the_totals_page_shows_a_total_that_is_read_so() -> None:
    assert block("totals.md", "hex key") == totals.TOTALS + b"c"
    assert totals.amounts(block("totals.md", "hex value"), 4) == (2, 300_000, 120_000, 6 * (20_480 + 4_096))
