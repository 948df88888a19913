"""How things are addressed: one grammar for every command.

**The store** is named by ``--store``, by the variable OSTRAKA_STORE, or, where a command takes no other words, by its
words::

    --store DIR                      the store in this directory
    --store DIR --store DIR ...      a store of several disks: one --store for each, in any order
    --store http://HOST:PORT         a running server, for what S3 can do (https:// as well)
    OSTRAKA_STORE=DIR:DIR:DIR        the same in the environment, separated by colons; or a server's URL

Directories are opened by the command itself, or, if a server runs on them, are left to the server: which of the two
makes no difference to who asks. A server's URL needs credentials: OSTRAKA_ROOT_ACCESS_KEY and OSTRAKA_ROOT_SECRET_KEY,
or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; directories need none but the right to read them.

**An object** is written ``s3://BUCKET/KEY``, in every command and without exception; it is in the store that was named.
What comes after the bucket's slash is the key, byte for byte, nothing in it is special. ``s3://BUCKET/PREFIX`` is what
begins so, where a command works on many; ``s3://BUCKET`` is all of it. What does not begin with s3:// is a file, and
``-`` is standard input or output. So `ostraka cp` and `ostraka sync` tell the two sides apart, as `aws s3` does, and no
word can be taken for the other thing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostraka.errors import Invalid
from ostraka.limits import LIMITS

SCHEME = "s3://"
VARIABLE = "OSTRAKA_STORE"


@dataclass(frozen=True, slots=True)
class Where:
    """The store that a command is about: directories, or a server's URL."""

    directories: tuple[Path, ...] = ()
    url: str = ""

    def only_directories(self, command: str) -> tuple[Path, ...]:
        """The directories. Raises Invalid for a URL: what S3 cannot do, only the store's own machine can."""
        if self.url:
            raise Invalid(
                f"`ostraka {command}` works on the store's own machine: name its directories instead of {self.url}",
                reason="store",
            )
        return self.directories

    def __str__(self) -> str:
        return self.url or ", ".join(map(str, self.directories))


def where(options: Sequence[str], words: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Where:
    """The store that --store, a command's words, or OSTRAKA_STORE name. Raises Invalid."""
    env = os.environ if environment is None else environment
    if options and words:
        raise Invalid(f"the store is named twice, by --store and by {words[0]}: name it once", reason="store")
    named = [*options, *words] or _from_variable(env.get(VARIABLE, ""))
    if not named:
        raise Invalid(
            f"no store was named: give --store DIR (one for each disk) or --store http://HOST:PORT, or set {VARIABLE}",
            reason="store",
        )
    urls = [word for word in named if _is_url(word)]
    if urls and len(named) > 1:
        raise Invalid(f"{urls[0]} stands for the whole store: name it alone", reason="store")
    if urls:
        return Where(url=urls[0])
    for word in named:
        if not word or word.startswith(SCHEME):
            why = ": a bucket is not a store" if word else ""
            raise Invalid(f"{word!r} is no directory of a store{why}", reason="store")
    return Where(tuple(Path(word).absolute() for word in named))


def _is_url(word: str) -> bool:
    return word.startswith(("http://", "https://"))


def _from_variable(value: str) -> list[str]:
    if _is_url(value):
        return [value]
    return [word for word in value.split(os.pathsep) if word]


@dataclass(frozen=True, slots=True)
class Location:
    """s3://bucket/key. ``key`` may be "": the bucket, or all that is in it."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"

    @property
    def folder(self) -> str:
        """The prefix of what lies "in" it: the key, and a slash unless it has one; "" of a bucket."""
        return self.key if not self.key or self.key.endswith("/") else self.key + "/"


def is_location(word: str) -> bool:
    return word.startswith(SCHEME)


def location(word: str, *, key: bool | None = None) -> Location:
    """``word`` as a location; ``key``: whether it must (True) or must not (False) have one. Raises Invalid."""
    if not is_location(word):
        meant = f": did you mean {SCHEME}{word}?" if word.strip("/.") and not word.startswith((".", "/")) else ""
        raise Invalid(f"{word}: what is in the store is written s3://BUCKET/KEY{meant}", reason="location")
    bucket, _, rest = word[len(SCHEME) :].partition("/")
    if not bucket:
        raise Invalid(f"{word} names no bucket: write s3://BUCKET/KEY", reason="location")
    try:
        size = len(rest.encode())
    except UnicodeEncodeError:
        raise Invalid("an object's key must be text in UTF-8: this one is not", reason="key") from None
    if size > LIMITS.key_bytes_max:
        raise Invalid(f"a key of {size} bytes: it has at most {LIMITS.key_bytes_max}", reason="key")
    if key is True and not rest:
        raise Invalid(f"{word} is a bucket: name an object in it, s3://{bucket}/KEY", reason="location")
    if key is False and rest:
        raise Invalid(f"{word} is an object: name a bucket, s3://{bucket}", reason="location")
    return Location(bucket, rest)


def bucket_name(word: str) -> str:
    """A bucket's name, given plainly or as s3://name. Raises Invalid."""
    return location(word, key=False).bucket if is_location(word) else word.rstrip("/")
