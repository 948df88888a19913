"""What an operator does when things went wrong: lost disks are replaced, damage is looked for, all has to be well."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ostraka.errors import OstrakaError
from ostraka.store.operations import OPERATIONS
from ostraka.store.store import Store
from ostraka.testing.simulation import checks
from ostraka.testing.simulation.adversary import Adversary
from ostraka.testing.simulation.machine import Machine
from ostraka.testing.simulation.service import Service

CAPACITY = 64 << 20  # of a disk
QUIET_SECONDS = 400.0  # of virtual time, in which jobs have to come to rest
_ATTEMPTS = 30


class Operator:
    """Mends a served store. All methods are called by the director's strand."""

    def __init__(self, machine: Machine, service: Service, adversary: Adversary) -> None:
        self._machine = machine
        self._service = service
        self._adversary = adversary
        self._numbers = {path.name: number for number, path in enumerate(service.paths)}  # as the store has them

    def mend(self) -> list[str]:
        """Have the store made whole, while it is served; what is not whole then."""
        done = self._adversary.done
        for name in sorted(done.thrown_away | done.bad):
            self._replace(name)
        if done.needs_fsck:
            self._patiently(partial(OPERATIONS["fsck"], progress=_silent, repair=True))
        self._service.rest(QUIET_SECONDS)
        found: list[str] = self._service.ask(checks.verify_whole)
        self._adversary.mended()
        return found

    def _replace(self, name: str) -> None:
        """An empty disk in the place of one that is gone for good, or that says nothing of itself any more."""
        lost = next((path for path in self._service.paths if path.name == name), None)
        if lost is None:
            return
        number = self._numbers[name]

        async def is_down(store: Store) -> bool:
            member = store.membership.epoch.member(number)
            return member is not None and not member.up

        if self._service.ask(is_down):
            new = self._machine.add_disk(CAPACITY)
            command = partial(OPERATIONS["disk-replace"], progress=_silent, old=str(number), new=str(new))
            self._numbers[new.name] = self._patiently(command)["new"]
            self._service.paths[self._service.paths.index(lost)] = new

    def _patiently(self, operation: Callable[..., Any]) -> Any:
        """As one who gives the command again when it asks for that."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._service.ask(operation)
            except OstrakaError as error:
                if not error.retry or attempt + 1 == _ATTEMPTS:
                    raise
                self._service.rest(30.0)
        return None


def _silent(step: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""
