"""Rounds of small requests on one server: fresh keys for every PUT, keys that were verified for every GET."""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from load import bounds
from load.machine import Meter, Processes
from load.report import Figure
from load.signing import Signer, write_heads
from load.target import BUCKET, Target
from load.wrk import Load, WrongAnswers, replay

CONNECTIONS_MAX = 128
SAMPLES = 20  # objects of a round of PUTs that are read back
FIRST_GUESS = 4000  # requests a second, before anything was measured
HEADROOM = 1.6  # more requests are signed than will be sent


class Rig:
    """Signed requests, bodies and fresh names for one server."""

    def __init__(self, target: Target, scratch: Path, meter: Meter) -> None:
        self._target = target
        self._scratch = scratch
        self._meter = meter
        self._bodies: dict[int, Path] = {}
        self._fresh = 0
        self._guess: dict[tuple[str, int], float] = {}

    def body(self, size: int) -> Path:
        """A file of random bytes: the body of every object of that size."""
        path = self._bodies.get(size)
        if path is None:
            path = self._bodies[size] = self._scratch / f"body-{size}"
            path.write_bytes(os.urandom(size))
        return path

    def prepare(self, size: int, keys: int) -> None:
        """Objects that will be read, and every one of them read once and compared."""
        content = self.body(size).read_bytes()
        etag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        paths = [f"/{BUCKET}/kept-{size}/k{n:08d}" for n in range(keys)]
        for path in self._all("PUT", paths, size):
            self._put_one(path, content)
        for path in self._all("GET", paths, 0, answer=self.body(size), etag=etag):
            if self._target.ask("GET", path) != (200, content):
                raise WrongAnswers(f"GET of {path} is not what was stored")
        write_heads(self._scratch / f"get-{size}", self._target.signer.heads("GET", paths))

    def _all(self, method: str, paths: list[str], size: int, answer: Path | None = None, etag: str = "") -> list[str]:
        """Send every one, whatever time it takes, but for the last few, which are returned: wrk ends when its time
        is over or the requests are, with some of them under way."""
        while len(paths) > CONNECTIONS_MAX:
            done = self._send(method, paths, 32, 2.0, size, answer=answer, etag=etag)
            paths = paths[max(0, done.requests - 32) :]
            if len(paths) <= CONNECTIONS_MAX:
                break
        return paths

    def put(self, size: int, connections: int, seconds: float, figure: Figure) -> None:
        """Store under fresh keys, then read some of them back."""
        paths = self._fresh_paths("PUT", size, seconds)
        load = self._timed("PUT", paths, connections, seconds, size, figure)
        content = self.body(size).read_bytes()
        for number in range(SAMPLES):
            path = paths[(load.requests - connections - 1) * number // SAMPLES] if load.requests > 200 else paths[0]
            status, got = self._target.ask("GET", path)
            if status != 200 or got != content:
                raise WrongAnswers(f"GET of {path}, just stored: {status}, {len(got)} bytes")

    def get(self, size: int, connections: int, seconds: float, figure: Figure) -> None:
        """Read what `prepare` stored, over and over. The bytes received are counted."""
        self._meter.wait_for_quiet()
        with self._meter.measure() as spent:
            load = replay(self._target.url, self._scratch / f"get-{size}", connections, seconds, again=True)
        if load.received < load.requests * size:
            raise WrongAnswers(f"{load.received} bytes in {load.requests} answers of {size}")
        _note(figure, load, spent.server, spent.foreign)

    def delete(self, keys: int, connections: int, seconds: float, figure: Figure) -> None:
        """Delete objects of 4 KiB that exist, each once."""
        paths = self._fresh_paths("DELETE", 4096, seconds)
        stored = self._send("PUT", paths, connections, seconds * 2, 4096).requests - connections
        load = self._timed("DELETE", paths[: max(1, stored)], connections, seconds, 0, figure, status=204)
        status, _ = self._target.ask("GET", paths[0])
        if status != 404:
            raise WrongAnswers(f"GET of {paths[0]}, just deleted: {status}")
        if load.requests > stored + connections:
            raise WrongAnswers("more was deleted than there was")

    # -- inside

    def _fresh_paths(self, method: str, size: int, seconds: float) -> list[str]:
        self._fresh += 1
        guess = self._guess.get((method, size), FIRST_GUESS * 4 / max(1, math.log2(size / 1024)))
        count = max(300, int(guess * HEADROOM * seconds))
        return [f"/{BUCKET}/{method.lower()}-{size}-{self._fresh}/k{n:08d}" for n in range(count)]

    def _timed(
        self,
        method: str,
        paths: list[str],
        connections: int,
        seconds: float,
        size: int,
        figure: Figure,
        status: int = 200,
    ) -> Load:
        self._meter.wait_for_quiet()
        with self._meter.measure() as spent:
            load = self._send(method, paths, connections, seconds, size, status)
        # signing and reading the heads happened inside, but cost the server nothing and are outside of wrk's clock
        self._guess[method, size or 4096] = load.rate
        _note(figure, load, spent.server, spent.foreign)
        return load

    def _send(
        self,
        method: str,
        paths: list[str],
        connections: int,
        seconds: float,
        size: int,
        status: int = 200,
        answer: Path | None = None,
        etag: str = "",
    ) -> Load:
        body = self.body(size) if size else None
        digest = hashlib.sha256(body.read_bytes() if body else b"").hexdigest()
        heads = self._target.signer.heads(method, paths, length=size if body else None, digest=digest)
        file = write_heads(self._scratch / "heads", heads)
        return replay(self._target.url, file, connections, seconds, body=body, status=status, answer=answer, etag=etag)

    def _put_one(self, path: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        status, text = self._target.ask("PUT", path, body=content, digest=digest)
        if status != 200:
            raise WrongAnswers(f"PUT of {path}: {status} {text!r}")


def _note(figure: Figure, load: Load, server: float, foreign: float) -> None:
    figure.add(load.rate, server / load.requests * 1e6, foreign, load.p50, load.p99)


def bare_http(scratch: Path, size: int, seconds: float) -> Iterator[tuple[str, float, float]]:
    """(name, requests a second, CPU microseconds each) of the HTTP layer alone."""
    body = scratch / f"bare-{size}"
    body.write_bytes(os.urandom(size))
    with bounds.bare_http(size) as (url, pid):
        host, _, port = url.removeprefix("http://").rpartition(":")
        meter, signer = Meter(Processes(pid)), Signer(host, int(port))
        for method in ("GET", "PUT"):
            paths = [f"/{BUCKET}/k{n:08d}" for n in range(1000)]
            heads = write_heads(scratch / "bare", signer.heads(method, paths, length=size if method == "PUT" else None))
            with meter.measure() as spent:
                load = replay(url, heads, 32, seconds, again=True, body=body if method == "PUT" else None)
            yield f"bare HTTP {method} {size >> 10} KiB, op/s", load.rate, spent.server / load.requests * 1e6
