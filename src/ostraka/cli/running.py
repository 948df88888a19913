"""Work in an event loop that signals end in order."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from ostraka.cli.output import Terminated

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_orderly(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run` with `output.orderly` for its whole life: a signal cancels the work, and is raised when that has
    ended. What a handler raises in a loop would be told and forgotten; and asyncio's own for Ctrl-C cancels between any
    two steps of the interpreter, so that a future may be cancelled while it is given its result. Signals wait while the
    loop is made: half made it would complain, and what it was to run would never have been awaited."""
    came: list[int] = []

    async def working() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: int) -> None:
            came.append(number)
            task.cancel()  # nothing, once it is done

        for number in SIGNALS:
            loop.add_signal_handler(number, end, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        return await work()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with asyncio.Runner() as runner:  # whose loop, when it is closed, lets go of the signals
            try:
                return runner.run(working())
            finally:
                signal.set_wakeup_fd(-1)  # the loop closes it before it lets go of the signals
    except asyncio.CancelledError as e:
        if came:
            raise Terminated.by(came[0], e) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
