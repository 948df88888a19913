"""What all jobs stand on."""

import threading

import pytest

from ostraka.jobs.ground import within


async def test_a_call_that_hangs_is_not_waited_for_and_one_that_answers_is() -> None:
    assert await within(10.0, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await within(10.0, lambda: 1 // 0)
    go, ended = threading.Event(), threading.Event()

    def hang() -> None:
        go.wait()
        ended.set()

    with pytest.raises(TimeoutError):
        await within(0.05, hang)
    go.set()
    assert ended.wait(10)
