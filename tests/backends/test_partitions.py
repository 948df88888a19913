"""Partitions by hour: their paths, the globs of a span of time, and what they mean to who reads the files by them."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ostraka.backends import LocalBackend, Measurement, MemoryBackend, ResilientBackend, for_engine, present
from ostraka.errors import Invalid, NotSupported

CPU = Measurement("db", "cpu")
HOUR = timedelta(hours=1)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_a_path_says_the_hour_in_utc() -> None:
    assert CPU.path(at(2026, 1, 2, 0, 59), "a.parquet") == "db/cpu/2026/01/02/00/a.parquet"
    east = datetime(2026, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert CPU.path(east, "a.parquet") == "db/cpu/2026/01/01/23/a.parquet"


@pytest.mark.parametrize(
    ("named", "glob"),
    [
        ((), "db/cpu/*/*/*/*/*.parquet"),
        ((2025,), "db/cpu/2025/*/*/*/*.parquet"),
        ((2025, 11), "db/cpu/2025/11/*/*/*.parquet"),
        ((2025, 11, 25), "db/cpu/2025/11/25/*/*.parquet"),
        ((2025, 11, 25, 16), "db/cpu/2025/11/25/16/*.parquet"),
        ((2025, 11, 25, 0), "db/cpu/2025/11/25/00/*.parquet"),
        ((2024, 2, 29), "db/cpu/2024/02/29/*/*.parquet"),
    ],
)
def test_what_is_not_named_is_any_and_midnight_is_an_hour(named: tuple[int, ...], glob: str) -> None:
    assert CPU.glob(*named) == glob


@pytest.mark.parametrize(
    "named", [(0,), (2025, 0), (2025, 13), (2025, 2, 29), (2025, 1, 1, 24), (2025, None, 3), (None, 1)]
)
def test_what_no_calendar_has_is_refused(named: tuple[Any, ...]) -> None:
    with pytest.raises(Invalid) as refused:
        CPU.glob(*named)
    assert refused.value.reason == "time"


def test_a_span_is_covered_by_as_few_globs_as_can_be() -> None:
    def globs(begin: datetime, end: datetime) -> list[str]:
        return [glob.removeprefix("db/cpu/").removesuffix("/*.parquet") for glob in CPU.globs(begin, end)]

    assert globs(at(2025, 11, 25), at(2025, 11, 25)) == []
    assert globs(at(2025, 11, 25, 0, 5), at(2025, 11, 25, 0, 10)) == ["2025/11/25/00"]
    assert globs(at(2025, 11, 25, 23, 59), at(2025, 11, 26, 0, 0, 1)) == ["2025/11/25/23", "2025/11/26/00"]
    assert globs(at(2025, 11, 25), at(2025, 11, 26)) == ["2025/11/25/*"]
    assert globs(at(2025, 11, 30, 23), at(2026, 1, 1)) == ["2025/11/30/23", "2025/12/*/*"]
    assert globs(at(2024, 12, 31, 23), at(2027, 2, 1, 1)) == [
        "2024/12/31/23",
        "2025/*/*/*",
        "2026/*/*/*",
        "2027/01/*/*",
        "2027/02/01/00",
    ]
    assert globs(at(9999, 12, 31, 22), datetime.max.replace(tzinfo=UTC)) == ["9999/12/31/22", "9999/12/31/23"]


def test_a_span_finds_each_of_its_hours_once_and_no_other(seed: int) -> None:
    chance = Random(seed)
    for _ in range(60):
        begin = at(2023, 11, 1) + timedelta(minutes=chance.randrange(120 * 1440))
        end = begin + timedelta(minutes=chance.choice([1, 90, 3000, 60_000, 600_000]))
        globs = CPU.globs(begin, end)
        for hour in [begin, end, *(begin + HOUR * chance.randint(-900, 12_000) for _ in range(30))]:
            start = hour.replace(minute=0, second=0)
            path = CPU.path(hour, "x.parquet")
            inside = start < end and start + HOUR > begin
            assert sum(fnmatchcase(path, glob) for glob in globs) == inside, (begin, end, hour, globs)


def test_bad_spans_and_names_are_refused() -> None:
    with pytest.raises(Invalid, match="before it begins"):
        CPU.globs(at(2025, 1, 2), at(2025, 1, 1))
    with pytest.raises(Invalid, match="without a time zone"):
        CPU.path(datetime(2025, 1, 1), "a")
    for name in ("", "a/b", "..", "a*", "a?", "[a]", "a\x00"):
        with pytest.raises(Invalid):
            Measurement("db", name)


def test_globs_that_find_nothing_can_be_left_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with MemoryBackend() as memory, ResilientBackend(LocalBackend(tmp_path / "a[b]")) as local:
            for backend in (memory, local):
                for path in ("2025/01/01/00/a.parquet", "2025/01/03/07/a.txt", "2025/01/04/07/deep/a.parquet"):
                    await backend.write(f"db/cpu/{path}", b"")
                globs = CPU.globs(at(2025, 1, 1), at(2025, 1, 6))
                assert await present(backend, globs) == ["db/cpu/2025/01/01/*/*.parquet"]
            assert for_engine(local, CPU.glob(2025)) == f"{tmp_path}/a[[]b]/db/cpu/2025/*/*/*/*.parquet"
            with pytest.raises(NotSupported):
                for_engine(memory, CPU.glob())

    asyncio.run(main())
