"""docs/grafana.json: Grafana's own types read it, and a Prometheus that scrapes a server evaluates all that it asks."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostraka.server.observe import METRICS as SERVER_METRICS
from ostraka.store.store import METRICS as STORE_METRICS
from ostraka.testing.processes import ServerProcess, free_port

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "grafana.json"
PROMETHEUS = shutil.which("prometheus", path=f"{os.environ.get('PATH', '')}:/usr/bin")


def expressions() -> list[str]:
    panels = json.loads(FILE.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_the_file_is_what_its_script_makes() -> None:
    script = importlib.util.spec_from_file_location("dashboard", ROOT / "scripts" / "generate_dashboard.py")
    assert script is not None
    assert script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    assert FILE.read_text() == module.text(), "run scripts/generate_dashboard.py"


def test_grafana_s_types_read_it_and_lose_nothing() -> None:
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    said = json.loads(FILE.read_text())
    read = Dashboard.from_json(said)
    assert read.title == "Ostraka"
    assert len(read.panels or ()) == len(said["panels"])
    shown = [panel for panel in read.panels or () if getattr(panel, "targets", None)]
    assert len(shown) == sum("targets" in panel for panel in said["panels"])


def test_every_metric_of_it_is_one_of_ours_and_none_of_the_store_s_health_is_left_out() -> None:
    declared = {metric.name for metric in (*SERVER_METRICS, *STORE_METRICS)}
    asked = {name.removesuffix("_bucket") for text in expressions() for name in re.findall(r"ostraka_\w+", text)}
    assert asked <= declared
    assert declared - asked <= {
        "ostraka_chunk_bytes_total",
        "ostraka_chunk_stored_bytes_total",
        "ostraka_pack_slots_total",
        "ostraka_pack_bytes_total",
        "ostraka_packs_total",
        "ostraka_pool_reads_total",
        "ostraka_pool_reconstructed_bytes_total",
        "ostraka_pool_hedges_denied_total",
        "ostraka_pool_silent_reads_total",
        "ostraka_job_units_total",
    }


class Scraper:
    """A Prometheus that asks one server every second."""

    def __init__(self, place: Path, target: str) -> None:
        self._port = free_port()
        config = place / "prometheus.yml"
        config.write_text(
            f"""global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: ostraka
    metrics_path: /-/metrics
    static_configs: [{{targets: ["{target}"]}}]
"""
        )
        assert PROMETHEUS is not None
        words = [f"--config.file={config}", f"--storage.tsdb.path={place / 'data'}"]
        self._log = (place / "log").open("w")
        self._process = subprocess.Popen(
            [PROMETHEUS, *words, f"--web.listen-address=127.0.0.1:{self._port}"], stderr=self._log, stdout=self._log
        )

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Raises with what Prometheus says of an expression that it cannot evaluate."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/query?{query}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        found: list[dict[str, Any]] = told["data"]["result"]
        return found

    def until_scraped(self, times: int, seconds: float = 60.0) -> None:
        """Wait until the server was asked so often: the answers are what is waited for, the clock only ends it."""
        ends = time.monotonic() + seconds
        while True:
            try:
                found = self.ask("count_over_time(ostraka_objects[5m])")
                if found and int(found[0]["value"][1]) >= times:
                    return
            except OSError:
                pass
            assert self._process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraper]:
    if PROMETHEUS is None:
        pytest.skip("there is no prometheus here")
    with ServerProcess([tmp_path / f"disk{n}" for n in range(3)], "--workers", "1") as server:
        client = server.client()
        client.create_bucket(Bucket="photos")
        for number in range(20):
            client.put_object(Bucket="photos", Key=str(number), Body=b"amphora" * 10_000 * (number % 4))
            client.get_object(Bucket="photos", Key=str(number))["Body"].read()
        place = tmp_path / "prometheus"
        place.mkdir()
        scraper = Scraper(place, server.url.removeprefix("http://"))
        try:
            scraper.until_scraped(3)
            yield scraper
        finally:
            scraper.close()


def test_prometheus_evaluates_every_expression_of_it(scraped: Scraper) -> None:
    answered = 0
    for expression in expressions():
        asked = expression.replace("$__rate_interval", "5m").replace("$job", ".*")
        answered += bool(scraped.ask(asked))
    assert answered >= 30
    (objects,) = scraped.ask("max(ostraka_objects)")
    assert objects["value"][1] == "20"
