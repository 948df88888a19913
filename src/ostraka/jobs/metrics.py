"""What jobs count and show: written by the one process that runs them."""

from ostraka.jobs.catalogue import NAMES
from ostraka.metrics import Metric

_EACH = {"job": NAMES}

METRICS = (
    Metric(
        "ostraka_job_units_total", "counter", "units of work that jobs have done, as `ostraka job show` has them", _EACH
    ),
    Metric("ostraka_job_bytes_total", "counter", "bytes that jobs have read to verify, rewritten or rebuilt", _EACH),
    Metric("ostraka_job_seconds_total", "counter", "time that jobs were at work", _EACH),
    Metric("ostraka_job_failures_total", "counter", "pieces of work that failed", _EACH),
    Metric("ostraka_job_paused", "gauge", "1 while an operator holds the job", _EACH),
    Metric(
        "ostraka_scrub_damage_total",
        "counter",
        "shards that the scrub has found bad",
        {"kind": ("damaged", "missing")},
    ),
    Metric(
        "ostraka_scrub_verified_timestamp_seconds",
        "gauge",
        "every shard was written or verified since this moment (POSIX seconds)",
    ),
    Metric("ostraka_heal_queue", "gauge", "stripes with a bad shard that wait to be healed, 10,000 at most"),
    Metric("ostraka_heal_queue_oldest_timestamp_seconds", "gauge", "when the oldest of them was found (POSIX seconds)"),
)
