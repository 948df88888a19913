"""Metrics: counters, gauges and histograms in memory that all processes of a store share.

Every metric, with every value of its labels, is declared before the workers are forked, so that it has a fixed cell in
each process's row; a process writes its own row, and whoever answers ``/-/metrics`` adds the rows up: the same sums
whichever worker answers, and a worker that died keeps its counts. An increment is one addition to a double.
"""

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared name. ``labels``: label name to all of its values."""

    name: str
    kind: str  # "counter", "gauge", "histogram"
    help: str
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    buckets: Sequence[float] = ()

    @property
    def cells(self) -> int:
        """Cells of one combination of label values."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


class Board:
    """All declared metrics of a store."""

    def __init__(self, metrics: Iterable[Metric], rows: int) -> None:
        self._offsets: dict[tuple[str, tuple[str, ...]], int] = {}
        self._metrics = list(metrics)
        self._columns = 0
        for metric in self._metrics:
            for values in product(*metric.labels.values()):
                self._offsets[metric.name, values] = self._columns
                self._columns += metric.cells
        self._rows = rows
        self._memory = mmap.mmap(-1, max(1, rows * self._columns) * 8)
        self._cells = memoryview(self._memory).cast("d")
        self._row = 0
        self._by_name = {m.name: m for m in self._metrics}
        self.before_render: list[Callable[[], None]] = []

    def take_row(self, row: int) -> None:
        """This process writes to that row from now on."""
        self._row = row

    def cell(self, name: str, *values: str) -> int:
        """The index that `add` and `set` take, for this process. KeyError if it was not declared."""
        return self._row * self._columns + self._offsets[name, values]

    def add(self, cell: int, amount: float = 1.0) -> None:
        self._cells[cell] += amount

    def set(self, cell: int, value: float) -> None:
        self._cells[cell] = value

    def show(self, name: str, value: float) -> None:
        """A gauge of the store, not of a process: one cell, whoever writes it."""
        self._cells[self._offsets[name, ()]] = value

    def observe(self, name: str, value: float, *values: str) -> None:
        """Add an observation to a histogram."""
        cells, cell = self._cells, self.cell(name, *values)
        buckets = self._by_name[name].buckets
        cells[cell + bisect_left(buckets, value)] += 1
        end = cell + len(buckets)
        cells[end + 1] += value
        cells[end + 2] += 1

    def total(self, name: str, *values: str, at: int = 0) -> float:
        """The sum over all processes."""
        offset = self._offsets[name, values] + at
        return sum(self._cells[row * self._columns + offset] for row in range(self._rows))

    def count(self, name: str) -> int:
        """How many observations a histogram without labels has; 0 if it was not declared."""
        metric = self._by_name.get(name)
        return 0 if metric is None else int(self.total(name, at=len(metric.buckets) + 2))

    def render(self) -> bytes:
        """All of it in Prometheus' text format; combinations that never counted are left out."""
        for refresh in self.before_render:
            refresh()
        out: list[str] = []
        for metric in self._metrics:
            out.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n")
            for values in product(*metric.labels.values()):
                labels = ",".join(f'{n}="{v}"' for n, v in zip(metric.labels, values, strict=True))
                if metric.kind == "histogram":
                    self._render_histogram(out, metric, values, labels)
                    continue
                total = self.total(metric.name, *values)
                if total or not labels:
                    out.append(f"{metric.name}{{{labels}}} {total!r}\n" if labels else f"{metric.name} {total!r}\n")
        return "".join(out).encode()

    def _render_histogram(self, out: list[str], metric: Metric, values: tuple[str, ...], labels: str) -> None:
        size = len(metric.buckets)
        count = self.total(metric.name, *values, at=size + 2)
        if not count:
            return
        head = labels + "," if labels else ""
        running = 0.0
        for i, bound in enumerate(metric.buckets):
            running += self.total(metric.name, *values, at=i)
            out.append(f'{metric.name}_bucket{{{head}le="{bound:g}"}} {running!r}\n')
        out.append(f'{metric.name}_bucket{{{head}le="+Inf"}} {count!r}\n')
        tail = f"{{{labels}}}" if labels else ""
        out.append(f"{metric.name}_sum{tail} {self.total(metric.name, *values, at=size + 1)!r}\n")
        out.append(f"{metric.name}_count{tail} {count!r}\n")
