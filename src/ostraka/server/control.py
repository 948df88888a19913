"""The answering side of the control socket: how a command reaches the process that serves a store.

One request a connection: a JSON object and a newline, {"command": ..., "arguments": {...}}. The answer is JSON lines:
any number of {"progress": step, "done": n, "total": n}, then one {"result": {...}} or {"error": kind, "reason": ...,
"message": ...}. The socket lies, mode 0600, in every directory of the store, so that any of them leads to it; who may
read the directory's files as their owner may ask.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ostraka.config import master_keys
from ostraka.errors import Invalid, OstrakaError, of_system
from ostraka.limits import LIMITS, Limits
from ostraka.server.asking import short_path
from ostraka.store.operations import AT_ONCE, OPERATIONS, Progress
from ostraka.store.rescue import open_for_repair
from ostraka.store.store import Store, open_here

log = logging.getLogger("ostraka.server")

UNREAD_BYTES_MAX = 64 << 10  # of progress that whoever asked has not read; over it none is told


class Request(msgspec.Struct, frozen=True):
    """What a client asks."""

    command: str
    arguments: dict[str, Any] = {}


class ControlServer:
    """Answers on the sockets of a store's directories, one operation that changes something at a time."""

    def __init__(self, store: Store, limits: Limits = LIMITS) -> None:
        self._store = store
        self._limits = limits
        self._turn = asyncio.Lock()
        self._servers: list[asyncio.Server] = []
        self._tried: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, disks: Mapping[int, Path]) -> None:
        """Listen on each disk, by its number, where that was not tried yet: a new disk in the place of an old one is
        another directory. One that cannot hold a socket is passed over with a warning."""
        for number, directory in disks.items():
            if number in self._tried:
                continue
            self._tried.add(number)
            try:
                sock = self._bind(directory)
            except OSError as e:
                log.warning("%s: no control socket there: %s", directory, e)
                continue
            self._servers.append(
                await asyncio.start_unix_server(self._serve, sock=sock, limit=self._limits.admin_request_bytes_max)
            )

    @staticmethod
    def _bind(directory: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            with short_path(directory) as address:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address)
                before = os.umask(0o177)
                try:
                    sock.bind(address)
                finally:
                    os.umask(before)
                sock.listen(8)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._answer(reader, writer)
        except asyncio.CancelledError:  # by `close`; who listens to streams takes a cancelled task for an error
            pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has left; what was begun is finished, or resumed when it is asked again
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: Mapping[str, Any]) -> None:
            writer.write(msgspec.json.encode(line) + b"\n")

        def progress(step: str, done: int, total: int | None) -> None:
            if writer.transport.get_write_buffer_size() <= UNREAD_BYTES_MAX:
                say({"progress": step, "done": done, "total": total})

        try:
            request = msgspec.json.decode(await reader.readline(), type=Request)
            operation = OPERATIONS.get(request.command)
            if operation is None:
                raise Invalid(f"unknown command {request.command!r}", reason="command")
            if request.command in AT_ONCE:
                say({"result": await operation(self._store, progress, **request.arguments)})
            else:
                say({"result": await self._in_turn(operation(self._store, progress, **request.arguments), progress)})
        except (ValueError, TypeError, msgspec.MsgspecError) as e:
            say({"error": "Invalid", "reason": "request", "message": str(e)})
        except (OstrakaError, OSError) as e:
            told = of_system(e) if isinstance(e, OSError) else e
            say({"error": type(told).__name__, "reason": told.reason, "message": told.message})
        except Exception as e:  # a mistake of our own: whoever asked is told, and so is the log
            log.exception("a command failed")
            say({"error": "OstrakaError", "reason": "internal", "message": f"the command failed: {e!r}; see the log"})
        await writer.drain()

    async def _in_turn(self, work: Coroutine[Any, Any, dict[str, Any]], progress: Progress) -> dict[str, Any]:
        if self._turn.locked():
            progress("waiting for another command", 0, None)
        try:
            async with self._turn:
                result = await work
                await self.start(self._store.membership.paths)  # a disk that joined leads here as well
                return result
        finally:
            work.close()

    async def close(self) -> None:
        """Stop listening and end what is running."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# -- without a server


def perform_here(
    directories: Sequence[Path],
    command: str,
    arguments: Mapping[str, Any],
    progress: Progress,
    run: Callable[[Callable[[], Coroutine[Any, Any, dict[str, Any]]]], dict[str, Any]],
) -> dict[str, Any]:
    """Carry out a command on a store that nobody serves, under its lock. ``run``: as `asyncio.run`, of a function."""

    async def perform() -> dict[str, Any]:
        if command == "fsck" and arguments.get("repair"):
            async with open_for_repair(directories) as (store, findings):
                result = await OPERATIONS[command](store, progress, **arguments)
                result["findings"][:0] = [msgspec.to_builtins(finding) for finding in findings]
                result["repaired"] += len(findings)
                return result
        async with open_here(directories, existing=True, masters=master_keys()) as store:
            return await OPERATIONS[command](store, progress, **arguments)

    return run(perform)
