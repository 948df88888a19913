"""Overwriting the same objects for an hour: what the store takes on disk stays within a multiple of what is live.

The multiple is stated in jobs/compact.py: three times the live bytes, and the segments that are open. The soak lasts
``OSTRAKA_TEST_SOAK_SECONDS`` (an hour); that little of it runs in CI is in tests/jobs/test_compact.py.
"""

import os
import random
import time
from pathlib import Path

import pytest

from ostraka.limits import LIMITS
from ostraka.testing.ledger import KIB
from ostraka.testing.processes import ServerProcess

SECONDS = float(os.environ.get("OSTRAKA_TEST_SOAK_SECONDS", "3600"))
PACE_SECONDS = 0.05  # between two writes: an even load, not a race
SIZES = (1 * KIB, 20 * KIB, 100 * KIB, 600 * KIB, 2000 * KIB)
OBJECTS = 400
WORKERS = 2
OPEN_SEGMENTS = 4  # of each process: buffered and direct, written and moved


def taken(disk: Path) -> int:
    """Bytes that the segments of a disk take."""
    return sum(f.stat().st_blocks * 512 for f in (disk / "segments").iterdir() if f.is_file())


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 600)
def test_soak_an_hour_of_overwriting_stays_within_three_times_the_live_size(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    disk = tmp_path / "disk"
    live: dict[str, int] = {}
    written = worst = 0
    with ServerProcess([disk], "--workers", str(WORKERS)) as server:
        client = server.client()
        client.create_bucket(Bucket="soak")
        end = time.monotonic() + SECONDS
        looked = time.monotonic()
        while time.monotonic() < end:
            name = f"k{rng.randrange(OBJECTS)}"
            body = rng.randbytes(rng.choice(SIZES))
            client.put_object(Bucket="soak", Key=name, Body=body)
            live[name] = len(body)
            written += len(body)
            time.sleep(PACE_SECONDS)
            if time.monotonic() - looked >= 10 and len(live) > OBJECTS * 9 // 10:
                looked = time.monotonic()
                size, bound = taken(disk), sum(live.values())
                slack = (WORKERS + 1) * OPEN_SEGMENTS * LIMITS.segment_size_max
                worst = max(worst, size)
                assert size <= 3 * bound + slack, f"{size} bytes on disk, {bound} live, {written} written"
                print(f"{written >> 20} MiB written, {size >> 20} MiB on disk, {bound >> 20} MiB live", flush=True)
    print(f"worst: {worst >> 20} MiB")
