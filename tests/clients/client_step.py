"""Runs one function of a client's script, in the Python of that client's environment: one job on standard input, its
result out.

The job's ``step`` is a function of the script, plain or async, that takes the endpoint's URL and the ``arguments``. The
script is imported, so that processes that it starts find its functions.
"""

import asyncio
import importlib
import inspect
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    job = json.load(sys.stdin)
    script = Path(job["script"])
    sys.path.insert(0, str(script.parent))
    result = getattr(importlib.import_module(script.stem), job["step"])(job["url"], **job["arguments"])
    if inspect.isawaitable(result):
        result = asyncio.run(result)
    json.dump(result, sys.stdout)
