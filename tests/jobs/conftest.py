"""Tests of jobs share `store_rig`; coroutine tests run in a loop of their own."""

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    asyncio.run(function(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}))
    return True
