"""What a case is, and what cases are made of: checks with their own words, and sources that break."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ostraka.backends import Backend, Capability, Stat, require
from ostraka.backends.backend import PROTOCOLS
from ostraka.errors import NotSupported, OstrakaError
from ostraka.host import Buffer

Factory = Callable[[], AbstractAsyncContextManager[Backend]]
Run = Callable[[Backend], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One thing that a backend must do. ``capability``: what it proves, if the backend claims it."""

    name: str
    run: Run
    capability: Capability | None = None
    rivals: bool = False

    async def __call__(self, factory: Factory) -> None:
        async with factory() as backend:
            if self.capability is None or self.capability in backend.capabilities:
                await self.run(backend)
            else:
                await shown_missing(backend, self.capability)

    def __str__(self) -> str:
        return self.name


def collector(cases: list[Case]) -> Callable[..., Callable[[Run], Run]]:
    """A decorator that makes the function below it one of the cases, under its own name."""

    def case(capability: Capability | None = None, *, rivals: bool = False) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            cases.append(Case(getattr(run, "__name__", repr(run)), run, capability, rivals))
            return run

        return add

    return case


# -- checks


def same(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {_short(found)}, and should be {_short(wanted)}")


def holds(truth: object, what: str) -> None:
    if not truth:
        raise AssertionError(what)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:200]}... ({len(text)} characters)"


@contextmanager
def refused(kind: type[BaseException], reason: str | None = None, *, what: str = "the call") -> Iterator[None]:
    """The block must raise exactly this kind of error, for this reason."""
    try:
        yield
    except OstrakaError as error:
        if type(error) is not kind or reason not in (None, error.reason):
            wanted = f"{kind.__name__}({reason!r})" if reason else kind.__name__
            raise AssertionError(f"{what} raised {error!r} ({error.reason!r}), and should raise {wanted}") from error
        return
    except kind:
        return
    raise AssertionError(f"{what} went through, and should raise {kind.__name__}")


async def listed(backend: Backend, prefix: str = "", *, start_after: str = "") -> list[str]:
    return [path async for path in backend.list(prefix, start_after=start_after)]


async def stat_of(backend: Backend, path: str) -> Stat:
    stat = await backend.stat(path)
    if stat is None:
        raise AssertionError(f"nothing is at {path}")
    return stat


async def together(calls: list[Callable[[], Awaitable[Any]]], at_once: int = 32) -> None:
    """All of the calls, so many at a time."""
    turns = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[Any]]) -> None:
        async with turns:
            await call()

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))


# -- content and sources


def content(size: int, salt: int = 0) -> bytes:
    """Bytes that tell where they are from."""
    block = b"".join(hashlib.sha256(b"%d/%d" % (salt, n)).digest() for n in range(min(2048, size // 32 + 1)))
    return (block * (size // len(block) + 1))[:size]


async def pieces(*parts: Buffer) -> AsyncIterator[Buffer]:
    for part in parts:
        yield part


class Broken(Exception):
    """What a source or a sink of these cases raises when it breaks."""


async def breaking(*parts: Buffer) -> AsyncIterator[Buffer]:
    for part in parts:
        yield part
    raise Broken


# -- what is not claimed

CALLS: dict[Capability, dict[str, Callable[[Any], Any]]] = {
    Capability.RESUME: {
        "partial": lambda b: b.partial("a", "token"),
        "append": lambda b: b.append("a", "token", 0, pieces(b"x")),
        "promote": lambda b: b.promote("a", "token", size=1, sha256=hashlib.sha256(b"x").hexdigest()),
        "abandon": lambda b: b.abandon("a", "token"),
        "sweep": lambda b: b.sweep(0.0),
    },
    Capability.BATCH_DELETE: {"delete_batch": lambda b: b.delete_batch(["a"])},
    Capability.DIRECTORIES: {"list_directories": lambda b: b.list_directories()},
    Capability.REMOVE_DIRECTORY: {"remove_directory": lambda b: b.remove_directory("a")},
    Capability.CONDITIONAL: {"write_if": lambda b: b.write_if("a", b"x", match=None)},
    Capability.CONDITIONAL_DELETE: {"delete_if": lambda b: b.delete_if("a", match="e")},
    Capability.COPY: {"copy": lambda b: b.copy("a", "b")},
    Capability.PRESIGN: {"presign": lambda b: b.presign("a")},
}


async def shown_missing(backend: Backend, capability: Capability) -> None:
    """What is not claimed raises NotSupported: when it is asked for and, where there are such calls, when called."""
    if capability in (Capability.NEW_ETAGS, Capability.PLAIN_NAMES):
        return  # of the first nothing follows: a store may give new ones now and then; of the second, other cases tell
    if capability is Capability.PATH_CONFLICT:
        await backend.write("a", b"1")
        await backend.write("a/b", b"2")
        same((await backend.read("a"), await backend.read("a/b")), (b"1", b"2"), "a path, and one below it")
        return
    with refused(NotSupported, "capability", what=f"require(..., {PROTOCOLS[capability].__name__})"):
        require(backend, PROTOCOLS[capability])
    for name, call in CALLS[capability].items():
        if hasattr(backend, name):
            with refused(NotSupported, what=name):
                answer = call(backend)
                if hasattr(answer, "__aiter__"):
                    answer = anext(aiter(answer))
                await answer
