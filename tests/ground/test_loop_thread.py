"""A loop in a thread: waits end, with a result or a word, whatever becomes of the loop."""

import asyncio
import threading

import pytest

from ostraka.errors import Unavailable
from ostraka.loop_thread import LoopThread


def test_a_wait_ends_when_the_loop_is_closed_under_it() -> None:
    loop, waits = LoopThread(), threading.Event()
    told: list[BaseException] = []

    async def forever() -> None:
        waits.set()
        await asyncio.Event().wait()

    def wait() -> None:
        try:
            loop.run(forever())
        except BaseException as e:
            told.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    loop.close()
    thread.join()
    assert isinstance(told[0], Unavailable)
    assert told[0].reason == "closed"


def test_a_closed_loop_says_so_and_may_be_closed_again() -> None:
    loop = LoopThread()
    assert loop.run(asyncio.sleep(0, "done")) == "done"
    loop.close()
    loop.close()
    with pytest.raises(Unavailable):
        loop.run(asyncio.sleep(0))


def test_it_does_not_wait_for_itself() -> None:
    loop = LoopThread()

    async def inside() -> None:
        with pytest.raises(RuntimeError):
            loop.run(asyncio.sleep(0))

    loop.run(inside())
    loop.close()


def test_items_are_taken_as_they_are_asked_for() -> None:
    loop, taken = LoopThread(), []

    async def numbers():  # type: ignore[no-untyped-def]
        for number in range(10):
            taken.append(number)
            yield number

    items = loop.iterate(numbers())
    assert next(items) == 0
    assert taken == [0]
    assert list(items) == list(range(1, 10))
    assert list(loop.iterate(numbers(), at_once=4)) == list(range(10))
    loop.close()
