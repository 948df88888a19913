"""What an operator does: lost disks are replaced, damage is looked for, all has to be well. And, in schedules of stores
that change, disks are added and drained and the geometry is changed while clients are at work."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ostraka.errors import OstrakaError
from ostraka.jobs import state_copies
from ostraka.store.operations import OPERATIONS
from ostraka.store.store import Store
from ostraka.testing.simulation import checks
from ostraka.testing.simulation.adversary import Adversary
from ostraka.testing.simulation.machine import Machine
from ostraka.testing.simulation.service import Service

log = logging.getLogger("ostraka.testing")

CAPACITY = 64 << 20  # of a disk
QUIET_SECONDS = 400.0  # of virtual time, in which jobs have to come to rest
_ATTEMPTS = 30
CHANGES = ("add", "add", "drain", "drain", "cancel", "geometry", "convert")
_DISKS_MAX = 9


class Operator:
    """Mends a served store. All methods are called by the director's strand."""

    def __init__(self, machine: Machine, service: Service, adversary: Adversary) -> None:
        self._machine = machine
        self._service = service
        self._adversary = adversary
        self._adding: list[Path] = []  # disks that are to be added: the command was cut short
        self._numbers = {path.name: number for number, path in enumerate(service.paths)}  # as the store has them

    def mend(self) -> list[str]:
        """Have the store made whole, while it is served; what is not whole then."""
        done = self._adversary.done
        self._patiently(self._finish_adding)
        for name in sorted(done.thrown_away | done.bad):
            self._replace(name)
        if done.needs_fsck:
            self._patiently(partial(OPERATIONS["fsck"], progress=_silent, repair=True))
        self._service.rest(QUIET_SECONDS)
        found: list[str] = self._service.ask(checks.verify_whole)
        self._adversary.mended()
        return found

    def change(self, what: str) -> None:
        """Have the layout changed, if the store takes it now; what was begun goes on by itself."""
        owner = self._service.owner
        if not owner.alive or not owner.ready:
            return
        try:
            self._service.ask(getattr(self, f"_{what}"))
        except (OstrakaError, OSError) as error:
            log.info("no %s now: %s", what, error)

    async def _add(self, store: Store) -> None:
        if len(store.membership.epoch.members) < _DISKS_MAX:
            self._adding.append(self._machine.add_disk(CAPACITY))
            await self._finish_adding(store)

    async def _finish_adding(self, store: Store) -> None:
        while self._adding:
            new = self._adding[-1]
            self._numbers[new.name] = (await OPERATIONS["disk-add"](store, _silent, new=str(new)))["new"]
            self._adding.pop()

    async def _drain(self, store: Store) -> None:
        number = self._machine.rng.choice([d.number for d in store.membership.epoch.members])
        await OPERATIONS["disk-drain"](store, _silent, disk=str(number))

    async def _cancel(self, store: Store) -> None:
        for number in store.membership.draining():
            await OPERATIONS["disk-drain"](store, _silent, disk=str(number), cancel=True)

    async def _geometry(self, store: Store, *, convert: bool = False) -> None:
        disks = len(state_copies.staying(store.membership.epoch))
        m = self._service.ec[1]  # the adversary counts on it
        if disks > m:
            k = self._machine.rng.randint(1, disks - m)
            await OPERATIONS["disk-geometry"](store, _silent, k=k, m=m, convert=convert)

    async def _convert(self, store: Store) -> None:
        await self._geometry(store, convert=True)

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
