"""A tree of files as people have them: awkward names, all sizes; changed as people change it."""

import hashlib
import os
import random
import time
from collections.abc import Collection, Mapping
from pathlib import Path

COUNT = 2000
SIZES = [0, 1, 2047, 2048, 2049, 65_535, 131_071, 131_072, 131_073, 1 << 20, 4 << 20, (4 << 20) + 1, 9_000_001]
AWKWARD = [
    " leading space",
    "trailing space ",
    "two  spaces",
    "plus+plus",
    "percent%20 100%",
    "%2F%2e%2E%00",
    "hash#tag",
    "question?mark=1&b=2",
    "amp&amp;<xml/>]]>",
    "quote'single\"double",
    "semi;colon:comma,",
    "at@sign",
    "equals=sign",
    "star*[brackets]{braces}",
    "back\\slash",
    "pipe|caret^tilde~back`tick",
    "dollar$HOME",
    "-dash",
    "--delete",
    ".hidden",
    "..two dots",
    "...",
    "ends.",
    "ümläut composed",
    "u\u0308mla\u0308ut decomposed",
    "漢字かな交じり",
    "العربية",
    "emoji 🏺🧩",
    "\u00a0non-breaking\u2028line",
    "zero\u200bwidth",
    "CASE",
    "case",
    "tab\there",
]
DIRECTORIES = ["plain", "with space", "+", "%25", ".dot", "漢字", "a&b/#c", "deep/er/and/deeper", "CASE dir", "x/ /y"]
DEEP = "/".join(["d" * 60] * 15)  # with a name of 60: 975 of the 1,024 bytes that a key has


class Tree:
    """A directory of COUNT files or as many as asked for, with no name of AWKWARD that is in ``without``."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        name_bytes_max: int = 255,
        count: int = COUNT,
        without: Collection[str] = (),
    ) -> None:
        self.root = root
        self._awkward = [name for name in AWKWARD if name not in without]
        self._random = random.Random(seed)
        self._serial = 0
        awkward = [*self._awkward, "A" * name_bytes_max, "ö" * (name_bytes_max // 2)]
        nested = [f"{DIRECTORIES[i % len(DIRECTORIES)]}/{name}" for i, name in enumerate(awkward)]
        self.names = [*awkward, *nested, f"{DEEP}/{'n' * 60}"]
        while len(self.names) < count:
            self.names.append(self._new_name())
        sizes = [*SIZES, *(self._size() for _ in range(count - len(SIZES)))]
        self._random.shuffle(sizes)
        for name, size in zip(self.names, sizes, strict=True):
            self._write(name, size)

    def change(self) -> tuple[set[str], set[str]]:
        """A tenth of it: files rewritten (longer, or as long as before), made and removed.

        Returns the names that are new or different, and those that are gone.
        """
        chosen = self._random.sample(self.names, len(self.names) // 15)
        third = len(chosen) // 3
        gone, longer, other = set(chosen[:third]), chosen[third : 2 * third], chosen[2 * third :]
        for name in gone:
            (self.root / name).unlink()
        self.names = [n for n in self.names if n not in gone]
        for name in longer:
            self._write(name, (self.root / name).stat().st_size + 1)
        for name in other:
            size = (self.root / name).stat().st_size
            self._write(name, size or 1)
            later = time.time() + 10  # a change that size does not show must show in the time, whose unit is 1 s
            os.utime(self.root / name, (later, later))
        new = [self._new_name() for _ in range(third)]
        for name in new:
            self._write(name, self._size())
        self.names += new
        return {*longer, *other, *new}, gone

    def _new_name(self) -> str:
        self._serial += 1
        return f"{self._random.choice(DIRECTORIES)}/{self._serial:05d} {self._random.choice(self._awkward)[:60]}"

    def _size(self) -> int:
        bound = self._random.choices([3000, 40_000, 300_000], [90, 8, 2])[0]
        return self._random.randrange(bound)

    def _write(self, name: str, size: int) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._random.randbytes(size))
        before = time.time() - 5  # LastModified counts whole seconds: a file of the same one would be sent again
        os.utime(path, (before, before))


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file by its name from the root."""
    files = [p for p in root.rglob("*") if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def assert_same(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """With a message that names what differs, not 2,000 digests."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    different = [n for n in wanted.keys() & found.keys() if wanted[n] != found[n]]
    if missing or extra or different:
        raise AssertionError(
            f"{len(missing)} missing {sorted(missing)[:5]}, {len(extra)} too many {sorted(extra)[:5]}, "
            f"{len(different)} different {sorted(different)[:5]}"
        )
