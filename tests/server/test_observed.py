"""What is seen from outside: health, metrics, the access log, memory and processor time."""

import http.client
import json
import re
import time
from pathlib import Path

import pytest
from server_processes import Served, until

IDLE_SECONDS = 4.0
IDLE_CPU_PERCENT_MAX = 1.0  # of one core, all processes together
IDLE_ANON_MIB_MAX = 60.0  # of one worker


def samples(text: bytes) -> dict[str, float]:
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_health_needs_no_credentials_and_unknown_pages_are_not_there(served: Served) -> None:
    assert served.get("/-/health/live") == (200, b"alive\n")
    assert served.get("/-/health/ready") == (200, b"ready\n")
    assert served.get("/-/absent")[0] == 404
    assert served.get("/")[0] == 403


def test_metrics_are_the_same_sums_whichever_worker_answers(served: Served) -> None:
    client = served.client()
    client.create_bucket(Bucket="metrics")
    for i in range(30):
        client.put_object(Bucket="metrics", Key=f"{i}", Body=b"x" * 1000)
    put = 'ostraka_requests_total{operation="PutObject",status="2xx"}'

    def counted() -> bool:
        return samples(served.get("/-/metrics")[1]).get(put) == 30

    until(counted, "30 puts are counted")
    answers = {served.get("/-/metrics")[1] for _ in range(30)}  # each on a connection of its own
    assert len(answers) == 1
    found = samples(answers.pop())
    assert found["ostraka_received_bytes_total"] >= 30_000
    assert found["ostraka_request_seconds_count"] == found['ostraka_request_seconds_bucket{le="+Inf"}'] >= 31


def test_a_count_beyond_six_digits_is_told_to_the_last(served: Served) -> None:
    client = served.client()
    client.create_bucket(Bucket="digits")
    client.put_object(Bucket="digits", Key="k", Body=bytes(1_234_567))
    before = samples(served.get("/-/metrics")[1])["ostraka_received_bytes_total"]
    assert before >= 1_234_567
    client.put_object(Bucket="digits", Key="k", Body=b"1")
    until(lambda: samples(served.get("/-/metrics")[1])["ostraka_received_bytes_total"] == before + 1, "one byte more")


def test_metrics_are_in_the_text_format(served: Served) -> None:
    status, text = served.get("/-/metrics")
    assert status == 200
    line = re.compile(r'# (HELP|TYPE) ostraka_\w+ .+|ostraka_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.e+-]+', re.ASCII)
    assert [x for x in text.decode().splitlines() if not line.fullmatch(x)] == []
    assert b"test" not in text, "names of users' things"


def test_the_access_log_has_one_line_for_each_request_with_what_was_done(served: Served) -> None:
    client = served.client(user_agent="an-agent/1")
    client.create_bucket(Bucket="logged")
    client.put_object(Bucket="logged", Key="ü k", Body=b"12345")
    client.get_object(Bucket="logged", Key="ü k")["Body"].read()
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket="logged", Key="absent")

    def lines() -> list[dict[str, object]]:
        found = map(json.loads, served.access_log.read_bytes().splitlines())
        return [r for r in found if r["bucket"] == "logged"]

    until(lambda: len(lines()) >= 4, "four lines")
    told = [(r["operation"], r["key"], r["status"], r["code"], r["received"]) for r in lines()]
    assert sorted(told) == [
        ("CreateBucket", "", 200, "", 0),
        ("GetObject", "absent", 404, "NoSuchKey", 0),
        ("GetObject", "ü k", 200, "", 0),
        ("PutObject", "ü k", 200, "", 5),
    ]
    assert {str(r["agent"]).split()[0] for r in lines()} == {"an-agent/1"}
    assert {r["account"] for r in lines()} == {"root"}
    assert len({r["request"] for r in lines()}) == 4


def processor_seconds(pids: list[int]) -> float:
    return (
        sum(
            int(Path(f"/proc/{p}/task/{t.name}/schedstat").read_text().split()[0])
            for p in pids
            for t in Path(f"/proc/{p}/task").iterdir()
        )
        / 1e9
    )


def anonymous_mib(pid: int) -> float:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def test_an_idle_server_is_idle_and_its_workers_are_small(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        server.client().create_bucket(Bucket="idle")
        server.client().put_object(Bucket="idle", Key="k", Body=bytes(5 << 20))
        held = http.client.HTTPConnection(*server.address)  # a client that keeps its connection costs nothing
        held.request("GET", "/-/health/live")
        held.getresponse().read()
        time.sleep(1.0)  # what the requests left to do
        everyone = [server.pid, *server.children()]
        before, began = processor_seconds(everyone), time.monotonic()
        time.sleep(IDLE_SECONDS)
        percent = 100 * (processor_seconds(everyone) - before) / (time.monotonic() - began)
        memory = {pid: anonymous_mib(pid) for pid in everyone}
        held.close()
        print(f"idle: {percent:.2f} % of a core; RssAnon in MiB: {[f'{m:.1f}' for m in memory.values()]}")
        assert percent < IDLE_CPU_PERCENT_MAX
        assert all(memory[w] < IDLE_ANON_MIB_MAX for w in server.workers), memory
