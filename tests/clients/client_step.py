"""Runs one function of a client's script, in the Python of that client's environment: one job on standard input, its
result out.

The job's ``step`` is a function of the script, plain or async, that takes the endpoint's URL and the ``arguments``. The
script is imported, so that processes that it starts find its functions.
"""

import asyncio
import importlib
import inspect
import json
import os
import sys
import traceback
from pathlib import Path


def work():
    job = json.load(sys.stdin)
    script = Path(job["script"])
    sys.path.insert(0, str(script.parent))
    result = getattr(importlib.import_module(script.stem), job["step"])(job["url"], **job["arguments"])
    if inspect.isawaitable(result):
        result = asyncio.run(result)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    status = 0
    try:
        work()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)  # threads that a client leaves behind (obstore, pyarrow) may abort an interpreter that is ending
