"""An event loop whose time passes only when nothing else can happen: hours of waiting take no time, and a run with the
same seed is the same run.

    def test_expiry() -> None:
        async def main(loop: VirtualLoop) -> None:
            clock = LoopClock(loop, skew=-300.0)    # a machine whose clock is five minutes slow
            await asyncio.sleep(3600)

        run(main)

For code that waits through asyncio and reads the time from an ostraka.host.Clock. Sockets are waited for without time
passing; what is given to an executor is done at once, on the loop.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BEGIN = 1_800_000_000.0  # seconds since 1970, when a run begins


class _Selector(selectors.DefaultSelector):
    """Jumps to the moment until which the loop would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, on virtual time."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as e:
            future.set_exception(e)
        return future


class LoopClock:
    """The clocks of a machine whose wall clock is ``skew`` seconds ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self.skew = skew

    def time(self) -> float:
        return BEGIN + self._loop.time() + self.skew

    def monotonic(self) -> float:
        return self._loop.time()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run until it has ended; its result. What it left behind is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(main(loop))
