"""Figures of many rounds: the median of each, beside a limit of the machine, in words and in JSON."""

import json
import statistics
from dataclasses import asdict, dataclass, field


@dataclass
class Figure:
    """One thing that was measured, in each of its rounds."""

    target: str
    name: str
    unit: str  # "op/s", "MB/s", "keys/s", "MiB", "% of a core"
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)  # seconds
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds of the server's CPU for each request, or MB
    foreign: list[float] = field(default_factory=list)  # of one core
    limit: str = ""  # the name of what it is compared with
    limit_rate: float = 0.0

    def add(self, rate: float, cpu: float, foreign: float, p50: float = 0.0, p99: float = 0.0) -> None:
        self.rates.append(rate)
        self.cpu.append(cpu)
        self.foreign.append(foreign)
        if p99:
            self.p50.append(p50)
            self.p99.append(p99)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float:
        return self.rate / self.limit_rate if self.limit_rate else 0.0


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all is not above; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


HEAD = (
    f"{'target':22} {'what':34} {'median':>10} {'(range)':>19} {'unit':11} {'p50 ms':>7} {'p99 ms':>7} "
    f"{'us CPU':>8} {'foreign':>7}  beside"
)


def line(figure: Figure) -> str:
    """One row of the table that is printed."""
    spread = f"({min(figure.rates):,.0f}-{max(figure.rates):,.0f})" if len(figure.rates) > 1 else ""
    times = f"{median(figure.p50) * 1e3:7.2f} {median(figure.p99) * 1e3:7.2f}" if figure.p99 else " " * 15
    cpu = f"{median(figure.cpu):8.1f}" if any(figure.cpu) else " " * 8
    beside = f"{figure.ratio:6.1%} of {figure.limit} {figure.limit_rate:,.0f}" if figure.limit_rate else ""
    return (
        f"{figure.target:22} {figure.name:34} {figure.rate:>10,.0f} {spread:>19} {figure.unit:11} {times} "
        f"{cpu} {median(figure.foreign):7.2f}  {beside}"
    )


def as_json(machine: dict[str, object], limits: dict[str, float], figures: list[Figure]) -> str:
    """Everything, for a program to read."""
    rows = [{**asdict(f), "rate": f.rate, "ratio": f.ratio} for f in figures]
    return json.dumps({"machine": machine, "limits": limits, "figures": rows}, indent=1)
