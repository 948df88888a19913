"""What a replica counts, in Prometheus' terms; one board for each replica, all of its namespaces together."""

from typing import Final

from ostraka.metrics import LATENCY_BUCKETS, Board, Metric

METRICS: Final = (
    Metric("ostraka_metadatadb_operations_total", "counter", "Operations that took effect here first."),
    Metric("ostraka_metadatadb_groups_total", "counter", "Groups of operations that were made durable at once."),
    Metric("ostraka_metadatadb_conflicts_total", "counter", "Heads that another replica had changed first."),
    Metric(
        "ostraka_metadatadb_refused_total",
        "counter",
        "Durable transactions without effect: another replica had used a name as another kind.",
    ),
    Metric("ostraka_metadatadb_lock_waits_total", "counter", "Waits for the lock object."),
    Metric("ostraka_metadatadb_lock_wait_seconds_total", "counter", "Seconds waited for the lock object."),
    Metric(
        "ostraka_metadatadb_compactions_total", "counter", "Times that entries of the journal were put into the head."
    ),
    Metric("ostraka_metadatadb_snapshots_total", "counter", "Snapshots written."),
    Metric("ostraka_metadatadb_sync_failures_total", "counter", "Syncs that failed."),
    Metric("ostraka_metadatadb_pending_operations", "gauge", "Operations that are not durable yet."),
    Metric("ostraka_metadatadb_staleness_seconds", "gauge", "Age of the oldest namespace's last sync."),
    Metric("ostraka_metadatadb_sync_seconds", "histogram", "How long a sync took.", buckets=LATENCY_BUCKETS),
    Metric(
        "ostraka_metadatadb_commit_seconds",
        "histogram",
        "How long it took until a group was durable.",
        buckets=LATENCY_BUCKETS,
    ),
)


class Counters:
    """A board, and counting on it by the short name of a metric."""

    def __init__(self) -> None:
        self.board = Board(METRICS, 1)
        self._cells = {
            m.name.removeprefix("ostraka_metadatadb_").removesuffix("_total"): self.board.cell(m.name) for m in METRICS
        }

    def count(self, name: str, amount: float = 1.0) -> None:
        self.board.add(self._cells[name], amount)

    def show(self, name: str, value: float) -> None:
        self.board.set(self._cells[name], value)

    def observe(self, name: str, seconds: float) -> None:
        self.board.observe(f"ostraka_metadatadb_{name}_seconds", seconds)

    def total(self, name: str) -> float:
        """What a counter or gauge stands at."""
        return self.board.total(next(m.name for m in METRICS if f"_{name}" in m.name))
