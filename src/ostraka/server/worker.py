"""What a worker process does, and the owner: open the store, serve, drain, close.

A worker answers requests. The owner recovers the store, then runs its jobs and answers on the control socket; it closes
last. Both run an event loop of their own and end on SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

from ostraka.config import AccountSetting, ServeConfig
from ostraka.errors import Exists, Invalid, OstrakaError, Unavailable, of_system
from ostraka.host import Host
from ostraka.http import Server
from ostraka.jobs.scheduler import Scheduler
from ostraka.limits import Limits
from ostraka.s3.app import S3App
from ostraka.s3.ops.call import Config, valid_bucket_name
from ostraka.server.control import ControlServer
from ostraka.server.observe import Observer
from ostraka.server.supervisor import INDEX_LOST, REOPEN
from ostraka.shared import Shared
from ostraka.store.accounts import ROOT_NAME
from ostraka.store.recovery import Recovered
from ostraka.store.store import TEND_SECONDS, Serving, Store, open_owner, open_worker

log = logging.getLogger("ostraka.server")


def worker_main(
    config: ServeConfig,
    recovered: Recovered,
    shared: Shared,
    row: int,
    limits: Limits,
    sock: socket.socket,
    tls: ssl.SSLContext | None,
    ready: int,
) -> None:
    """Serve requests on that socket until SIGTERM."""

    async def serve() -> None:
        host = Host()
        store = open_worker(recovered, shared, row, host, limits, masters=config.master_key)
        store.state.on_index_lost = _abandon
        observer = Observer(config, store)
        try:
            app = S3App(
                store.objects,
                store.accounts,
                limits,
                host,
                Config(region=config.region, domains=config.domain, sse_c_over_http=config.sse_c_over_http),
                on_answer=observer.on_answer,
            )
            server = Server(observer.front(app), limits, on_complete=observer.on_complete, on_error=observer.on_error)
            await server.start([sock], tls)
            FirstWord(ready).say(b"+")
            await _until_asked_to_stop(store)
            observer.stopping = True
            if not await server.drain(limits.shutdown_seconds_max):
                log.warning("some requests did not finish within %g s and were cut", limits.shutdown_seconds_max)
        finally:
            await store.close()
            observer.close()

    shared.board.take_row(row)
    _run(serve)


def owner_main(
    config: ServeConfig,
    paths: list[Path],
    recovered: Recovered | None,
    shared: Shared,
    row: int,
    limits: Limits,
    serving: Serving,
    ready: int,
) -> None:
    """Recover the store (unless ``recovered`` says that it is), run jobs and the control socket until SIGTERM."""

    first_word = FirstWord(ready)

    async def own() -> None:
        host = Host()
        try:
            store = (
                open_worker(recovered, shared, row, host, limits, masters=config.master_key)
                if recovered
                else open_owner(
                    paths,
                    shared,
                    row,
                    ec=config.ec,
                    existing=config.existing,
                    root=_root(config),
                    host=host,
                    limits=limits,
                    masters=config.master_key,
                )
            )
            try:
                await _work(store)
            finally:
                await store.close()
        except (OstrakaError, OSError) as e:
            if first_word.said or recovered:
                raise
            first_word.say(b"-" + msgspec.msgpack.encode(_told(e)))
            raise SystemExit(1) from None  # the supervisor says why

    async def _work(store: Store) -> None:
        store.state.on_index_lost = _abandon
        store.serving = serving
        store.reopen = lambda: os.kill(serving.pid, REOPEN)
        shared.root_changes.bump()  # an owner before us may have died between a change and its telling
        with contextlib.suppress(Unavailable):  # the store is read-only, and says so
            store.membership.settle()  # and so of the epoch
        store.held.take_others(store.membership.paths.values(), paths)  # an owner before us had locked them
        await store.prepare_keys()
        await apply_settings(config, store)
        control = ControlServer(store, limits)
        await control.start(store.membership.paths)
        scheduler = store.jobs = Scheduler(store)
        await scheduler.start()
        try:
            first_word.say(b"+" + msgspec.msgpack.encode(store.recovered))
            await _until_asked_to_stop(store)
        finally:
            await control.close()
            await scheduler.stop()

    shared.board.take_row(row)
    _run(own)


def _root(config: ServeConfig) -> tuple[str, str] | None:
    return (config.root_access_key, config.root_secret_key) if config.root_access_key else None


async def apply_settings(config: ServeConfig, store: Store) -> None:
    """Create and update the accounts and make the buckets that the settings name. Raises Invalid."""
    if not config.accounts and not config.buckets:
        return
    for bucket in config.buckets:
        if not valid_bucket_name(bucket.name):
            raise Invalid(
                f"bucket {bucket.name!r}: a name is 3 to 63 lower case letters, digits, dots and hyphens",
                reason="buckets",
            )
    if store.membership.read_only:
        log.warning("accounts and buckets of the settings are left as they are: %s", store.membership.read_only)
        return
    for account in config.accounts:
        await _put_account(account, store)
    names = {name for name, _ in store.accounts.names()}
    for bucket in config.buckets:
        if bucket.account and bucket.account not in names:
            raise Invalid(f"bucket {bucket.name}: there is no account {bucket.account!r}", reason="buckets")
        wanted = bucket.account or ROOT_NAME
        try:
            await store.objects.create_bucket(bucket.name, wanted, config.region)
        except Exists:
            owner = store.objects.bucket(bucket.name).owner
            if owner != wanted:
                log.warning("bucket %s is owned by %s already, and stays so: not by %s", bucket.name, owner, wanted)


async def _put_account(account: AccountSetting, store: Store) -> None:
    if account.access_key == store.accounts.root()[0].access_key:
        raise Invalid(f"account {account.name} has the access key of root: choose another", reason="accounts")
    await store.accounts.put(account.name, account.access_key, account.secret_key)


def _abandon(why: str) -> None:
    """The index cannot be used any more: end at once, as by SIGBUS, so that the supervisor has the store recovered.

    Nothing that was not acknowledged is answered; clients try again and are served after the recovery.
    """
    log.error("the index of the state is lost: %s", why)
    os._exit(INDEX_LOST)


def _run(main: Callable[[], Awaitable[None]]) -> None:
    async def begin() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(begin())


class FirstWord:
    """The one message that a child sends to the supervisor: that it is ready, or why it cannot be.

    The descriptor is closed with it and its number may soon be a file's: nothing is ever written to it again.
    """

    def __init__(self, ready: int) -> None:
        self._ready = ready
        self.said = False

    def say(self, message: bytes) -> None:
        """Send it. Once only."""
        assert not self.said, "there is one first word"
        self.said = True
        view = memoryview(message)
        while view:
            view = view[os.write(self._ready, view) :]
        os.close(self._ready)


def _told(error: OstrakaError | OSError) -> tuple[str, str, str]:
    """Kind, message and reason of what went wrong, to be raised anew in the supervisor."""
    told = of_system(error) if isinstance(error, OSError) else error
    return type(told).__name__, told.message, told.reason


async def _until_asked_to_stop(store: Store) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    while not asked.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), TEND_SECONDS)
            return
        try:
            await store.tend()
        except OstrakaError as e:
            log.warning("%s", e)
