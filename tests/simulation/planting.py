"""Planting defects, one at a time, by putting a wrong function in the place of a right one, and counting schedules."""

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from ostraka.testing.simulation.running import parse_geometry, quiet
from ostraka.testing.simulation.schedule import run

Plant = Callable[[Callable[..., None]], None]
PLANTS: dict[str, tuple[str, Plant]] = {}


def plant(geometry: str) -> Callable[[Plant], Plant]:
    """Register a defect; ``geometry`` is where it is looked for."""

    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = (geometry, function)
        return function

    return register


class Without:
    """An object whose named methods do nothing, or something else; the others are those of the real one."""

    def __init__(self, inner: Any, *names: str, **others: Callable[[], None]) -> None:
        self._inner = inner
        for name in names:
            setattr(self, name, lambda *arguments: None)
        for name, other in others.items():
            setattr(self, name, other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Production code has that defect."""
    changes: list[tuple[Any, str, Any]] = []
    PLANTS[name][1](lambda owner, attribute, value: changes.append((owner, attribute, value)))
    with contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(mock.patch.object(*change))  # AttributeError: there is no such place any more
        yield


def until_caught(name: str, schedules: int, seconds: float, first: int = 0) -> dict[str, Any]:
    """How many schedules it takes until one fails ("caught"; 0: none did), of how many, and why it failed."""
    geometry = parse_geometry(PLANTS[name][0])
    began = time.process_time()
    number = 0
    with planted(name):
        while number < schedules and time.process_time() - began < seconds:
            number += 1
            verdict = run(first + number - 1, geometry)
            if verdict.failures:
                return {"name": name, "caught": number, "of": number, "why": verdict.failures[0]}
    return {"name": name, "caught": 0, "of": number, "why": ""}


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant defects, and count the schedules until each is found.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of defects; all of them, if none is named")
    parser.add_argument("--schedules", type=int, default=1000, help="give up after so many (1000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="give up after so many of a core, for each")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in PLANTS]:
        parser.error(f"no such defect: {unknown[0]}; there are: {', '.join(PLANTS)}")
    quiet()
    missed = 0
    for name in arguments.names or PLANTS:
        found = until_caught(name, arguments.schedules, arguments.seconds, arguments.first)
        missed += not found["caught"]
        if arguments.json:
            print(json.dumps(found), flush=True)
        else:
            told = f"schedule {found['caught']}" if found["caught"] else f"not in {found['of']}"
            print(f"{PLANTS[name][0]}  {told:14} {name}: {found['why'].splitlines()[:1]}", flush=True)
    return bool(missed)
