"""Tests of this room share `objects_rig`; coroutine tests run in a loop of their own."""

import asyncio
import inspect
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    asyncio.run(function(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}))
    return True
