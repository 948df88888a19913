"""Partitions by hour: under which paths the rows of a measurement lie, and the globs that find those of a span of time.

    DATABASE/MEASUREMENT/YYYY/MM/DD/HH/NAME        in UTC

A query engine such as DuckDB is given globs, and reads nothing else. A span is covered exactly, with as few globs as
can be: a year's where all of it is wanted, else months', days', hours'. What is not named is any (None); 0 is midnight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final, Protocol, runtime_checkable

from ostraka.backends.backend import Backend
from ostraka.backends.iterators import ended
from ostraka.backends.paths import check_name
from ostraka.backends.wrapper import innermost
from ostraka.errors import Invalid, NotSupported

FILES: Final = "*.parquet"
HOUR: Final = timedelta(hours=1)
END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)
_WIDTHS: Final = (4, 2, 2, 2)  # digits of year, month, day, hour
_SPECIAL: Final = "*?["


@runtime_checkable
class SeenOutside(Protocol):
    """A backend whose paths other programs can read by themselves."""

    def outside(self, path: str = "") -> str:
        """What other programs call the path: a file's name, s3://BUCKET/KEY, az://CONTAINER/BLOB; without a path, what
        each of them begins with."""
        ...


@dataclass(frozen=True, slots=True)
class Measurement:
    """A table of a database, whose files lie in partitions. Invalid (reason "path") if the names are none."""

    database: str
    name: str

    def __post_init__(self) -> None:
        for name in (self.database, self.name):
            if any(c in check_name(name) for c in _SPECIAL):
                raise Invalid(f"{name!r}: a name without {' '.join(_SPECIAL)}, as it stands in globs", reason="path")

    def path(self, moment: datetime, name: str) -> str:
        """Of a file with rows of that moment's hour. Invalid (reason "time") if the moment has no time zone."""
        at = _utc(moment)
        return self._joined(at.year, at.month, at.day, at.hour, check_name(name))

    def glob(
        self,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        *,
        files: str = FILES,
    ) -> str:
        """All files of a year, of a month in it, of a day or of an hour; without any, all. Invalid (reason "time") for
        what no calendar has, or if something is named within what is not."""
        parts = (year, month, day, hour)
        named = [part for part in parts if part is not None]
        if named != list(parts[: len(named)]):
            raise Invalid("name an hour with its day, a day with its month, a month with its year", reason="time")
        try:
            datetime(*named, *(2000, 1, 1)[len(named) :], tzinfo=UTC)  # type: ignore[misc,arg-type]  # refuses what is none
        except (ValueError, TypeError) as error:
            raise Invalid(f"{'/'.join(map(str, named))}: {error}", reason="time") from None
        return self._joined(*parts, files)

    def globs(self, begin: datetime, end: datetime, *, files: str = FILES) -> list[str]:
        """The files of every hour that the span from begin up to, and without, end touches. Invalid (reason "time") if
        it ends before it begins, or a moment has no time zone."""
        if _utc(end) < _utc(begin):
            raise Invalid(f"a span that ends at {end}, before it begins at {begin}", reason="time")
        return [self.glob(*parts, files=files) for parts in _cover(_utc(begin), _utc(end))]

    def _joined(self, *parts: int | str | None) -> str:
        *moments, name = parts
        written = ["*" if m is None else f"{m:0{width}d}" for m, width in zip(moments, _WIDTHS, strict=True)]
        return "/".join([self.database, self.name, *written, str(name)])


async def present(backend: Backend, globs: Sequence[str]) -> list[str]:
    """Those of the globs that any path matches: some engines (DuckDB) take one that finds nothing for an error. A
    request for each."""
    return [glob for glob in globs if await _matches_any(backend, glob)]


async def _matches_any(backend: Backend, glob: str) -> bool:
    prefix = glob.partition("*")[0]
    async with ended(backend.list(prefix)) as paths:
        async for path in paths:
            names, wanted = path.split("/"), glob.split("/")
            if len(names) == len(wanted) and all(map(fnmatchcase, names, wanted)):
                return True
    return False


def for_engine(backend: Backend, glob: str) -> str:
    """The glob as an engine takes it that reads the store by itself. NotSupported (reason "outside") if none can."""
    inner = innermost(backend)
    if not isinstance(inner, SeenOutside):
        raise NotSupported(f"what a backend of type {inner.type} holds, no other program sees", reason="outside")
    return "".join(f"[{c}]" if c in _SPECIAL else c for c in inner.outside()) + glob


def _cover(begin: datetime, end: datetime) -> Iterator[tuple[int, ...]]:
    """The fewest years, months, days and hours that make up the span."""
    at, end = _floor(begin, 4), _ceiling(end)
    while at < end:
        named = next(n for n in (1, 2, 3, 4) if _floor(at, n) == at and _after(at, n) <= end)
        yield (at.year, at.month, at.day, at.hour)[:named]
        at = _after(at, named)


def _floor(at: datetime, named: int) -> datetime:
    """When the year (1 is named), month (2), day (3) or hour (4) of the moment began."""
    parts = (at.year, at.month, at.day, at.hour)[:named]
    return datetime(*parts, *(1, 1, 0)[named - 1 :], tzinfo=UTC)  # type: ignore[misc,arg-type]  # four numbers


def _after(begin: datetime, named: int) -> datetime:
    """When the next year, month, day or hour begins; the end of time behind the last that there is."""
    try:
        if named == 1:
            return begin.replace(year=begin.year + 1)
        if named == 2:
            return (begin + timedelta(days=31)).replace(day=1)
        return begin + (HOUR if named == 4 else timedelta(days=1))
    except (ValueError, OverflowError):
        return END_OF_TIME


def _ceiling(end: datetime) -> datetime:
    """The end of the hour that the span ends in."""
    hour = _floor(end, 4)
    return hour if hour == end else _after(hour, 4)


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise Invalid(f"{moment}: a moment without a time zone; UTC is datetime.UTC", reason="time")
    return moment.astimezone(UTC)
