"""A program that embeds the store, writes to it, and says on standard output what it was told is written.

Run by test_power.py as a process of its own, to be killed or to lose its disk at any moment:

    python writer.py SEED ROUNDS DIR...     write; one JSON line before and one after each change
    python writer.py publish DIR            publish small files; one JSON line after each
    python writer.py replace FIRST SECOND NEW   lose the second disk of two, and replace it
    python writer.py verify DIR...          say what is there: one JSON line, name to sha256, and what LIST says

``OSTRAKA_TEST_WITHOUT_SYNC=FILE:LINE`` leaves out the sync that is called there, and ``OSTRAKA_TEST_HITS=N`` ends the
program at the first acknowledgement after that happened N times.
"""

import asyncio
import hashlib
import json
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from ostraka.errors import Exists
from ostraka.host import Host, SystemFile, SystemFiles
from ostraka.limits import KIB, LIMITS, MIB
from ostraka.objects.types import Attributes, Digested
from ostraka.state.snapshot import StagedFile
from ostraka.store.operations import OPERATIONS
from ostraka.store.store import Store, open_here
from ostraka.testing.ledger import Content

SIZES = (0, 900, 4 * KIB, 4 * KIB + 1, 20 * KIB, 128 * KIB, 128 * KIB + 1, 700 * KIB)
SMALL = replace(LIMITS, log_bytes_before_checkpoint=128 * KIB, segment_size_max=4 * MIB, collect_grace_seconds=0.0)
BUCKET = "power"
WITHOUT = os.environ.get("OSTRAKA_TEST_WITHOUT_SYNC", "")
HITS = int(os.environ.get("OSTRAKA_TEST_HITS", "1000000000"))


class Bytes:
    """A body in memory, as objects.types.Source and Digest."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.length = len(body)
        self._at = 0
        self._md5 = hashlib.md5()

    async def read_into(self, view: memoryview) -> int:
        piece = self.body[self._at : self._at + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def read_now(self) -> bytes | None:
        self._at = len(self.body)
        return self.body

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._md5.update(data)

    def finish(self) -> Digested:
        return Digested(self._md5.hexdigest())


class ForgetfulFile(SystemFile):
    """Leaves out the sync that one line of the source asks for."""

    def sync_data(self) -> None:
        if not called_from(WITHOUT):
            super().sync_data()


class ForgetfulFiles(SystemFiles):
    """Hands out forgetful files, and forgets directories as well."""

    def opened(self, fd: int, path: Path) -> SystemFile:
        return ForgetfulFile(fd, path)

    def sync_directory(self, path: Path) -> None:
        if not called_from(WITHOUT):
            super().sync_directory(path)


hits = 0  # how often the sync was left out


def called_from(site: str) -> bool:
    """Whether our caller was called at that FILE:LINE of the package."""
    global hits
    frame = sys._getframe(2)
    found = bool(site) and f"{frame.f_code.co_filename}:{frame.f_lineno}".endswith("/ostraka/" + site)
    hits += found
    return found


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    if "done" in line and hits >= HITS:
        os._exit(9)  # at the first acknowledgement that may rely on the sync that was left out


MASTER = b"m" * 32


async def write(store: Store, seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    collector = store.objects.collector(lambda incarnation: incarnation in store.live_incarnations())
    try:
        await store.objects.create_bucket(BUCKET, "root", "us-east-1")
    except Exists:
        pass
    # every other one keeps what it writes in other ways, two of three encrypt it
    words = {"compression": "lz4", "cut": "cdc:128KiB"} if seed % 2 else {}
    words["encryption"] = "AES256" if seed % 3 else "none"
    await OPERATIONS["bucket-set-storage"](store, lambda *step: None, name=BUCKET, **words)
    say(ready=True)

    async def client(number: int) -> None:
        for _ in range(rounds):
            name = f"c{number}/{rng.randrange(8)}"
            if rng.random() < 0.15:
                say(begin=name, seed=None, size=None)
                await store.objects.delete(BUCKET, name, owner="root")
                say(done=name)
                continue
            content = Content(rng.randrange(30), rng.choice(SIZES))
            body = Bytes(content.bytes())
            say(begin=name, seed=content.seed, size=content.size)
            await store.objects.put(BUCKET, name, body, body, Attributes(), owner="root")
            say(done=name)

    async def care() -> None:
        while True:
            await collector.collect(50)
            if store.state.checkpoint_due:
                await store.state.checkpoint()
            await asyncio.sleep(0)

    cleaner = asyncio.create_task(care())
    await asyncio.gather(*[client(n) for n in range(4)])
    cleaner.cancel()
    say(finished=True)


async def verify(store: Store) -> None:
    found: dict[str, str] = {}
    listed: list[str] = []
    if store.objects.list_buckets(None, "", "", 10)[0]:
        after = ""
        while True:
            page = store.objects.list(BUCKET, "", "", after, 1000)
            listed += [e.key for e in page.entries]
            after = page.next
            if not page.truncated:
                break
    for name in listed:
        reader = store.objects.open(BUCKET, name)
        digest = hashlib.sha256()
        async for piece in reader.read():
            digest.update(piece)
        reader.close()
        found[name] = digest.hexdigest()
    say(found=found)


def publish(directory: Path) -> None:
    """Publish files in both of our ways; what is said to be done has to be there after a power cut."""
    files = ForgetfulFiles()
    directory.mkdir(exist_ok=True)
    SystemFiles().sync_directory(directory.parent)
    for number in range(6):
        files.publish(directory / f"a{number}", b"published " * 100)
        say(done=f"a{number}")
        staged = StagedFile(files, directory, f"b{number}", "token")
        staged.write(b"published " * 100)
        staged.publish()
        say(done=f"b{number}")


async def replace_disk(first: Path, second: Path, new: Path) -> None:
    """A store of two disks loses its second one, and gets a new one in its place."""
    host = Host(files=ForgetfulFiles())
    async with open_here([first, second], limits=SMALL, host=host) as store:
        await store.objects.create_bucket(BUCKET, "root", "us-east-1")
        body = Bytes(Content(7, 300_000).bytes())
        await store.objects.put(BUCKET, "kept", body, body, Attributes(), owner="root")
    shutil.rmtree(second)
    async with open_here([first], existing=True, limits=SMALL, host=host) as store:
        await OPERATIONS["disk-replace"](store, lambda *step: None, old="", new=str(new))
        say(replaced=True)
        os._exit(9)


async def main(words: list[str]) -> None:
    if words[0] == "publish":
        publish(Path(words[1]))
        return
    if words[0] == "replace":
        await replace_disk(Path(words[1]), Path(words[2]), Path(words[3]))
        return
    verifying = words[0] == "verify"
    disks = [Path(w) for w in words[1 if verifying else 2 :]]
    async with open_here(disks, limits=SMALL, host=Host(files=ForgetfulFiles()), masters=[MASTER]) as store:
        if verifying:
            await verify(store)
        else:
            await write(store, int(words[0]), int(words[1]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
