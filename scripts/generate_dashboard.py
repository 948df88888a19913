"""Write docs/grafana.json: a dashboard for what `GET /-/metrics` tells, to be imported into Grafana.

Written by `scripts/generate_dashboard.py`; a test compares the file with what this makes, has Grafana's own types read
it, and has a Prometheus that scrapes a server evaluate every expression.
"""

import itertools
import json
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).resolve().parent.parent / "docs" / "grafana.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHT = 8

Target = tuple[str, str]  # an expression, and its legend
SERVER = '{job=~"$job"}'


def rate(name: str, by: str = "") -> str:
    summed = f"sum by ({by}) " if by else "sum"
    return f"{summed}(rate({name}{SERVER}[$__rate_interval]))"


def total(name: str, by: str = "") -> str:
    """Of a gauge of the store: every server tells the same of it."""
    return f"max by ({by}) ({name}{SERVER})" if by else f"max({name}{SERVER})"


def quantile(share: float, name: str, by: str = "") -> str:
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket{SERVER}[$__rate_interval])))"


def age(name: str) -> str:
    """Seconds since a moment; nothing while there is none."""
    return f"time() - (max({name}{SERVER}) > 0)"


ERRORS = 'sum by (operation, status) (rate(ostraka_requests_total{job=~"$job", status=~"4xx|5xx"}[$__rate_interval]))'
COMPRESSION = " / ".join(rate(f"ostraka_compressed_{way}_bytes_total", "codec") for way in ("in", "out"))

ROWS: list[tuple[str, list[tuple[str, str, list[Target]]]]] = [
    (
        "Requests",
        [
            ("Requests", "reqps", [(rate("ostraka_requests_total", "operation"), "{{operation}}")]),
            (
                "Answers that are errors",
                "reqps",
                [
                    (
                        ERRORS,
                        "{{status}} {{operation}}",
                    ),
                    (rate("ostraka_handler_failures_total"), "failures of our own"),
                ],
            ),
            (
                "Time from head to last byte",
                "s",
                [
                    (quantile(q, "ostraka_request_seconds"), name)
                    for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
                ],
            ),
            (
                "Bodies",
                "Bps",
                [(rate("ostraka_received_bytes_total"), "received"), (rate("ostraka_sent_bytes_total"), "sent")],
            ),
        ],
    ),
    (
        "What is kept",
        [
            ("Objects", "short", [(total("ostraka_objects"), "current objects")]),
            (
                "Bytes",
                "bytes",
                [
                    (total("ostraka_object_bytes"), "of objects"),
                    (f"{total('ostraka_chunks_held_bytes')} + {total('ostraka_packs_held_bytes')}", "kept once"),
                    (total("ostraka_stored_bytes"), "stored, compressed"),
                    (total("ostraka_disk_bytes"), "on disks, parity included"),
                ],
            ),
            (
                "Chunks and packs",
                "short",
                [(total("ostraka_chunks_held"), "chunks"), (total("ostraka_packs_held"), "packs")],
            ),
            (
                "Ratio: bytes of objects to bytes stored",
                "none",
                [(f"{total('ostraka_object_bytes')} / ({total('ostraka_stored_bytes')} > 0)", "objects / stored")],
            ),
        ],
    ),
    (
        "Deduplication, compression, encryption",
        [
            (
                "Chunks that were there already",
                "ops",
                [(rate("ostraka_dedup_hits_total"), "hits"), (rate("ostraka_chunks_total"), "written")],
            ),
            (
                "Bytes saved by deduplication",
                "Bps",
                [(rate("ostraka_dedup_saved_bytes_total"), "saved"), (rate("ostraka_placed_bytes_total"), "came")],
            ),
            (
                "Compression: plain to stored",
                "none",
                [
                    (
                        COMPRESSION,
                        "{{codec}}",
                    )
                ],
            ),
            ("Bytes encrypted", "Bps", [(rate("ostraka_sealed_bytes_total"), "sealed")]),
        ],
    ),
    (
        "Disks",
        [
            (
                "Calls to a disk: p99",
                "s",
                [(quantile(0.99, "ostraka_disk_seconds", "disk, operation"), "disk {{disk}} {{operation}}")],
            ),
            (
                "Reads around a slow or lost shard",
                "ops",
                [
                    (rate("ostraka_pool_degraded_reads_total"), "degraded"),
                    (rate("ostraka_pool_hedged_reads_total"), "hedged"),
                    (rate("ostraka_pool_hedges_won_total"), "hedges won"),
                ],
            ),
            (
                "Bad shards that were met",
                "ops",
                [
                    (rate("ostraka_pool_corrupt_shards_total"), "damaged"),
                    (rate("ostraka_pool_absent_shards_total"), "missing"),
                    (rate("ostraka_pool_read_errors_total"), "read errors"),
                    (rate("ostraka_pool_write_errors_total"), "write errors"),
                    (rate("ostraka_chunk_damage_total"), "beyond repair"),
                ],
            ),
            (
                "Shards written for safety",
                "ops",
                [
                    (rate("ostraka_pool_repaired_shards_total"), "repaired"),
                    (rate("ostraka_pool_moved_shards_total"), "moved"),
                    (rate("ostraka_pool_replaced_shards_total"), "put elsewhere"),
                    (rate("ostraka_pool_narrowed_stripes_total"), "narrow stripes"),
                ],
            ),
        ],
    ),
    (
        "Background work",
        [
            ("Share of the time", "percentunit", [(rate("ostraka_job_seconds_total", "job"), "{{job}}")]),
            ("Bytes", "Bps", [(rate("ostraka_job_bytes_total", "job"), "{{job}}")]),
            (
                "Waiting to be healed",
                "short",
                [
                    (total("ostraka_heal_queue"), "stripes"),
                    (age("ostraka_heal_queue_oldest_timestamp_seconds"), "oldest, seconds"),
                ],
            ),
            ("Oldest byte that was verified", "s", [(age("ostraka_scrub_verified_timestamp_seconds"), "scrub age")]),
            (
                "Damage that the scrub found",
                "short",
                [(f"sum by (kind) (ostraka_scrub_damage_total{SERVER})", "{{kind}}")],
            ),
            (
                "Collected and compacted",
                "ops",
                [
                    (rate("ostraka_chunks_collected_total"), "chunks"),
                    (rate("ostraka_packs_collected_total"), "packs"),
                    (rate("ostraka_packs_compacted_total"), "packs compacted"),
                ],
            ),
            ("Jobs that fail", "ops", [(rate("ostraka_job_failures_total", "job"), "{{job}}")]),
            ("Jobs that are paused", "short", [(total("ostraka_job_paused", "job"), "{{job}}")]),
        ],
    ),
]


def panel(number: int, title: str, unit: str, targets: list[Target], at: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH // 4, "x": at[0], "y": at[1]},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(targets)
        ],
    }


def dashboard() -> dict[str, Any]:
    numbers = itertools.count(1)
    panels: list[dict[str, Any]] = []
    y = 0
    for title, graphs in ROWS:
        row = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append(
            {"id": next(numbers), "type": "row", "title": title, "collapsed": False, "gridPos": row, "panels": []}
        )
        y += 1
        for start in range(0, len(graphs), 4):
            for column, (name, unit, targets) in enumerate(graphs[start : start + 4]):
                panels.append(panel(next(numbers), name, unit, targets, (column * WIDTH // 4, y)))
            y += HEIGHT
    return {
        "title": "Ostraka",
        "uid": "ostraka",
        "description": "What an Ostraka server tells at /-/metrics.",
        "tags": ["ostraka", "s3"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0},
                {
                    "name": "job",
                    "type": "query",
                    "label": "Server",
                    "datasource": SOURCE,
                    "query": "label_values(ostraka_requests_total, job)",
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "hide": 0,
                },
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text())
