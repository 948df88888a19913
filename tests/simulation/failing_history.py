"""A history of the object interface beside a dictionary, on a simulated machine whose power, processes and disks fail.

The steps are those of `objects_history`. What changes is how a request is made (`FailingHistory.do`): by a worker of a
served store. If it is not answered because something failed, the store is started anew; then it either was done, as is
found out by looking, or is done again. So the dictionary is exact after every step, whatever went wrong in it.

    python tests/simulation/failing_history.py [--geometry K+M/DISKS] [--seeds FIRST-LAST] [--steps N]

runs long ones; a seed reproduces a run to the last call.
"""

import argparse
import copy
import inspect
import random
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "objects"))

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from objects_history import KEYS, History, random_step
from objects_rig import Body, Md5, get_range, parts

from ostraka.errors import Absent, Exists, Full, OstrakaError, Unavailable
from ostraka.objects.types import Attributes
from ostraka.store.store import Store
from ostraka.testing.simulation import checks
from ostraka.testing.simulation.adversary import Adversary, Menu
from ostraka.testing.simulation.linking import linked
from ostraka.testing.simulation.machine import Machine, seeded
from ostraka.testing.simulation.operator import CAPACITY, Operator
from ostraka.testing.simulation.running import parse_geometry, parse_seeds, quiet, with_fixed_hashes
from ostraka.testing.simulation.schedule import SMALL, Geometry, only_serves, versioned
from ostraka.testing.simulation.scheduler import Scheduler
from ostraka.testing.simulation.service import PowerCut, Service

ATTEMPTS = 8
AT_ONCE = frozenset({"bucket", "lookup", "open", "list", "list_versions", "upload", "list_parts", "list_uploads"})
DONE_ALREADY = {"delete_bucket": Absent, "create_bucket": Exists, "abort_upload": Absent}  # when it is done again
TROUBLES = ("kill", "blackout", "errors", "fails_once", "slow", "hangs", "full")
DAMAGE = ("vanish", "lies", "flips_at_rest", "flips_on_read")  # what takes redundancy to bear

Act = Callable[[Store], Any]


class Asked(NamedTuple):
    """A request, made when `FailingHistory.do` gets it, and perhaps once more."""

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    act: Act | None = None  # what to do, if it is no method of the object store

    async def run(self, store: Store) -> Any:
        if self.act is not None:
            return await self.act(store)
        fresh = [Md5() if isinstance(a, Md5) else copy.copy(a) for a in self.arguments]  # a body is read only once
        answer = getattr(store.objects, self.name)(*fresh, **self.named)
        return await answer if inspect.isawaitable(answer) else answer


class Objects:
    """The object store as the history calls it: what takes time becomes a request, what does not is done."""

    def __init__(self, do: Callable[[Asked], Any]) -> None:
        self._do = do

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            asked = Asked(name, arguments, named)
            return self._do(asked) if name in AT_ONCE else asked

        return call


class SimulatedRig:
    """In the place of `objects_rig.Rig`."""

    limits = SMALL
    chunks = None

    def __init__(self, do: Callable[[Asked], Any]) -> None:
        self.objects: Any = Objects(do)

    def put(self, bucket: str, key: str, body: bytes, *, known: bool, here: bool, conditions: Any) -> Asked:
        source = Body(body, known=known, here=here, piece=700)
        named = {"owner": "alice", "conditions": conditions}
        return Asked("put", (bucket, key, source, Md5(), Attributes()), named)

    def get(self, bucket: str, key: str, version: str | None = None) -> Asked:
        async def whole(store: Store) -> bytes:
            size = store.objects.lookup(bucket, key, version).size
            return (await get_range(store.objects, bucket, key, version, 0, size))[0]

        return Asked("get", (), {}, whole)

    def get_range(self, bucket: str, key: str, version: str | None, offset: int, length: int) -> Asked:
        return Asked("get", (), {}, lambda store: get_range(store.objects, bucket, key, version, offset, length))

    def parts(self, bucket: str, key: str, count: int) -> Asked:
        return Asked("get", (), {}, lambda store: parts(store.objects, bucket, key, count))

    def set_versioning(self, bucket: str, status: Any) -> Asked:
        return Asked("update_bucket", (bucket, partial(versioned, status)), {})

    def verify(self) -> None:
        """Nothing is at rest between two steps: `FailingHistory.teardown` verifies."""


class FailingHistory(History):
    """One worker, one owner with its jobs; ``geometry`` and ``seed`` decide the rest."""

    geometry = Geometry(2, 1, 3)
    seed = 0
    body_sizes = (0, 1, 64, 65, 400, 401, 1024, 1025, 2048, 3073, 5000, 9000)  # of SMALL

    def __init__(self) -> None:
        self.scheduler = Scheduler(seeded(self.seed))
        self.machine = Machine(self.scheduler)
        self._linked = linked(self.machine)
        self._linked.__enter__()
        shape = self.geometry
        paths = [self.machine.add_disk(CAPACITY) for _ in range(shape.disks)]
        self.service = Service(self.machine, paths, SMALL, 1, (shape.k, shape.m), only_serves)
        self.adversary = Adversary(self.machine, self.service, Menu(), shape.m)
        self.operator = Operator(self.machine, self.service, self.adversary)
        self.troubled = False  # something was done that may keep a request from being answered
        self.cuts: list[int] = []  # calls after which the power goes again, while the store is started anew
        self.play(self.service.start)
        super().__init__()

    async def make_rig(self) -> Any:
        for bucket in ("one", "two"):
            self.do(Asked("create_bucket", (bucket, "alice", "us-east-1"), {}))
        return SimulatedRig(self.do)

    # -- how requests are made

    def play(self, act: Callable[[], Any]) -> Any:
        """Have the director's strand do something; the machine stands still but for that."""
        return self.scheduler.run(self.scheduler.spawn(None, "director", act))

    def do(self, work: Any) -> Any:
        if not isinstance(work, Asked):
            return super().do(work)
        for attempt in range(ATTEMPTS):
            try:
                return self.play(lambda: self.service.ask(work.run, self.service.workers[0]))
            except (PowerCut, Unavailable, Full) as error:
                assert self.troubled, f"{work.name} failed, and nothing was wrong: {error!r}"
                self.start_anew()
            except OstrakaError as error:
                if attempt and isinstance(error, DONE_ALREADY.get(work.name, ())):
                    return None
                raise
            answer = self.found_done(work)
            if answer is not None:
                return answer
        raise AssertionError(f"{work.name} is never answered")

    def start_anew(self) -> None:
        """All is over that was wrong for a while, and the store is started, until it comes up."""

        def start() -> None:
            self.service.kill()
            self.adversary.end()
            self.machine.events.clear()
            if self.cuts:
                self.machine.power_goes_at = self.machine.calls + self.cuts.pop()
            self.service.start()

        self.readers.clear()
        while True:
            try:
                self.play(start)
                self.troubled = self.machine.power_goes_at > 0
                return
            except PowerCut:
                pass

    def attend(self, seconds: float) -> None:
        """Time passes, and jobs do their work."""
        try:
            self.play(lambda: self.service.rest(seconds))
        except (PowerCut, OstrakaError) as error:
            assert self.troubled, f"the service gave up, and nothing was wrong: {error!r}"
            self.start_anew()

    # -- what became of a request that was not answered

    def found_done(self, asked: Asked) -> Any:
        """What it would have been answered, or None: it was not done, or may be done again without harm."""
        if asked.name in ("put", "copy"):
            bucket, key = asked.arguments[:2] if asked.name == "put" else asked.arguments[1:3]
            changed = self.versions_of(bucket, key) != self.model_of(bucket, key)
            return self.do(Asked("lookup", (bucket, key), {})) if changed else None
        if asked.name == "delete":
            found = self.found_deleted if len(asked.arguments) == 2 else self.found_version_deleted
            return found(*asked.arguments)
        if asked.name == "delete_many":
            return self.found_some_deleted(*asked.arguments, **asked.named)
        if asked.name == "create_upload":
            bucket, key = asked.arguments[:2]
            page = self.do(Asked("list_uploads", (bucket, key, "", "", "", 100), {}))
            known = {upload[2] for upload in self.uploads}
            return next((u for u in page.entries if u.key == key and u.upload_id not in known), None)
        return None

    def found_deleted(self, bucket: str, key: str) -> Any:
        """Without a version's name, which may leave a marker."""
        now = self.versions_of(bucket, key)
        if now == self.model_of(bucket, key):
            return None
        return SimpleNamespace(version_id=now[0][0] if now else "", delete_marker=bool(now and now[0][2]))

    def found_version_deleted(self, bucket: str, key: str, version_id: str) -> Any:
        """Who deletes a marker that has gone by now is not told that it was one."""
        markers = {version: marker for version, _, marker in self.model_of(bucket, key)}
        if version_id not in markers or version_id in {version for version, *_ in self.versions_of(bucket, key)}:
            return None
        return SimpleNamespace(version_id=version_id, delete_marker=markers[version_id])

    def found_some_deleted(self, bucket: str, wanted: list[tuple[str, str | None]], owner: str) -> list[Any]:
        """Each of them by itself; what was not done is asked for again."""
        found = {key: self.found_deleted(bucket, key) if version is None else None for key, version in wanted}
        again = [(key, version) for key, version in wanted if found[key] is None]
        if again:
            answers = self.do(Asked("delete_many", (bucket, again), {"owner": owner}))
            found.update(zip([key for key, _ in again], answers, strict=True))
        return [found[key] for key, _ in wanted]

    def versions_of(self, bucket: str, key: str) -> list[tuple[str, str, bool]]:
        page = self.do(Asked("list_versions", (bucket, key, "", "", "", 1000), {}))
        return [(v.version_id, v.etag, v.delete_marker) for v in page.entries if v.key == key]

    def model_of(self, bucket: str, key: str) -> list[tuple[str, str, bool]]:
        return [(v.version_id, v.etag, v.marker) for v in self.buckets[bucket].keys.get(key, [])]

    # -- what goes wrong

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.machine.rng.seed(seed)

    @rule(calls=st.integers(1, 120), more=st.lists(st.integers(1, 200), max_size=2))
    def the_power_will_go(self, calls: int, more: list[int]) -> None:
        self.troubled = True
        self.machine.power_goes_at = self.machine.calls + calls
        self.cuts = more

    @rule(kind=st.sampled_from(TROUBLES))
    def trouble(self, kind: str) -> None:
        self.troubled = True
        self.adversary.make(kind)

    @precondition(lambda self: self.geometry.m)
    @rule(kind=st.sampled_from(DAMAGE))
    def damage(self, kind: str) -> None:
        self.troubled = True
        self.adversary.make(kind)

    @rule()
    def mend(self) -> None:
        self.cuts = []
        self.start_anew()
        assert self.play(self.operator.mend) == []

    # -- steps that are others here

    @rule(limit=st.integers(1, 50))
    def collect(self, limit: int) -> None:
        self.attend(float(limit))

    @rule()
    def crash(self) -> None:
        self.start_anew()

    @precondition(lambda self: self.readers)
    @rule()
    def what_was_opened_stays_readable(self) -> None:
        """While its process lives."""
        reader, body = self.readers.pop(0)

        async def whole(store: Store) -> bytes:
            return b"".join([bytes(piece) async for piece in reader.read()])

        try:
            assert self.play(lambda: self.service.ask(whole, self.service.workers[0])) == body
        except (PowerCut, Unavailable) as error:
            assert self.troubled, f"a reader failed, and nothing was wrong: {error!r}"
            self.start_anew()

    # -- the end

    def teardown(self) -> None:
        """When all is mended, the store holds what the dictionary holds, and nothing more."""
        try:
            self.mend()
            self.attend(60.0)
            assert self.play(lambda: self.service.ask(self._verify)) == []
            for bucket in self.buckets:
                self.list(bucket, "", "", "", 5)
                for key in KEYS:
                    assert self.versions_of(bucket, key) == self.model_of(bucket, key)
            for bucket, key, version in self.all_versions():
                if not version.marker:
                    assert self.do(self.rig.get(bucket, key, version.version_id)) == version.body
            self.play(self.service.stop)
            assert self.machine.failures == []
        finally:
            self.close()

    def close(self) -> None:
        self.machine.shut_down()
        self.scheduler.close()
        self._linked.__exit__(None, None, None)
        self.loop.close()

    async def _verify(self, store: Store) -> list[str]:
        return [*checks.verify_references(store), *await checks.verify_shards(store)]


def failing_step(history: FailingHistory, rnd: random.Random) -> None:
    """A step, or something that goes wrong in those that follow."""
    pick = rnd.random()
    if pick < 0.05:
        history.the_power_will_go(rnd.randint(1, 120), [rnd.randint(1, 200) for _ in range(rnd.choice((0, 0, 1, 2)))])
    elif pick < 0.12:
        history.trouble(rnd.choice(TROUBLES))
    elif pick < 0.15 and history.geometry.m:
        history.damage(rnd.choice(DAMAGE))
    elif pick < 0.16:
        history.mend()
    else:
        random_step(history, rnd)


def begun(shape: Geometry, number: int) -> FailingHistory:
    """A history with a seed of its own."""

    class Seeded(FailingHistory):
        geometry = shape
        seed = number

    return Seeded()


def run_long(geometry: Geometry, seed: int, steps: int) -> tuple[int, int, float]:
    """A history from a seed: (calls, recoveries, where its randomness ended). Raises whatever is wrong."""
    rnd = random.Random(seed)
    history = begun(geometry, seed)
    try:
        for _ in range(steps):
            failing_step(history, rnd)
    except BaseException:
        history.close()
        raise
    history.teardown()
    return history.machine.calls, history.service.recoveries, history.machine.rng.random()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run histories beside a dictionary, on failing disks.")
    parser.add_argument("--geometry", type=parse_geometry, default=parse_geometry("2+1/3"), help="K+M/DISKS")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0-100"), help="FIRST-LAST, or one")
    parser.add_argument("--steps", type=int, default=60, help="of each history (60)")
    arguments = parser.parse_args()
    quiet()
    bad = 0
    for seed in arguments.seeds:
        try:
            run_long(arguments.geometry, seed, arguments.steps)
        except Exception:
            bad += 1
            print(f"-- {arguments.geometry} seed {seed} failed: {traceback.format_exc(limit=-8)}", flush=True)
    print(f"{len(arguments.seeds)} histories of {arguments.steps} steps on {arguments.geometry}: {bad} failed")
    return bool(bad)


if __name__ == "__main__":
    with_fixed_hashes([__file__])
    sys.exit(main())
