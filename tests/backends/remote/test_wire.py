"""The way to a store: what only the HTTP client's own conduct shows."""

import subprocess
import sys

from stub import Say, stub

LATE = """
import asyncio, sys, threading, time
from asyncio.selector_events import BaseSelectorEventLoop
from ostraka.backends.s3 import Anonymous, S3Backend, S3Config

wake = BaseSelectorEventLoop._write_to_self

def wake_and_be_late(self):
    wake(self)
    if threading.get_ident() != main:  # the loop goes on meanwhile, and the program to its end
        for _ in range(500):
            time.sleep(0)

async def work():
    config = S3Config(bucket="b", endpoint=sys.argv[1], credentials=Anonymous())
    async with S3Backend(config) as backend:
        await backend.delete("a")

main = threading.get_ident()
kept = [[] for _ in range(1_000_000)]  # what takes its time to end
BaseSelectorEventLoop._write_to_self = wake_and_be_late
asyncio.run(work())
"""


def test_a_program_ends_in_peace_while_the_clients_thread_is_still_waking_its_loop() -> None:
    """The interpreter aborted the process, in four of ten runs on a busy machine."""
    with stub(lambda _: Say(204)) as served:
        for _ in range(2):  # the abort is likely, not certain
            done = subprocess.run([sys.executable, "-c", LATE, served.url], capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "")
