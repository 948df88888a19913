"""wrk with signed requests: what a round of small requests came to."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("requests.lua")
THREADS = 1  # of wrk: one sends more than 100,000 requests a second


class WrongAnswers(Exception):
    """The server answered otherwise than it must: the figure would mean nothing."""


@dataclass(frozen=True)
class Load:
    """One round. Latencies are seconds."""

    requests: int
    seconds: float
    received: int  # bytes
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def replay(
    url: str,
    heads: Path,
    connections: int,
    seconds: float,
    *,
    body: Path | None = None,
    again: bool = False,
    status: int = 200,
    answer: Path | None = None,
    etag: str = "",
) -> Load:
    """Send the requests until time or heads end. With ``answer``, every body and ETag is compared.

    Raises WrongAnswers for a single answer that is not ``status``, or differs, or a broken connection.
    """
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), url, "--", str(heads), str(body or "-"), "repeat" if again else "once"]
    command += [str(THREADS), str(status)]
    if answer is not None:
        command += [str(answer), etag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    found = next((line.split() for line in lines if line.startswith("RESULT ")), None)
    if found is None:
        raise WrongAnswers(f"wrk failed: {done.stdout}{done.stderr}")
    requests, micros, received, wrong, broken, p50, p99, _ = map(int, found[1:])
    if wrong or broken or not requests:
        seen = next((line for line in lines if line.startswith("WRONG ")), "")
        raise WrongAnswers(f"{wrong} wrong answers and {broken} broken connections in {requests} requests {seen}")
    return Load(requests, micros / 1e6, received, p50 / 1e6, p99 / 1e6)
