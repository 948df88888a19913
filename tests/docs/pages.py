"""What a page asks its reader to do, step by step, as it stands there.

A block of ``sh`` is typed into a terminal; one that begins with ``ostraka serve`` into a terminal of its own, where it
stays. Other blocks are shown, not run. Comments tell the test what the text tells the reader:

    <!-- test: Ctrl-C -->           in the server's terminal
    <!-- test: the server was killed -->
    <!-- test: $ COMMAND -->        something that happens to the reader, or a look at what came of it
    <!-- test: file PATH -->        the next block is that file
    <!-- test: append PATH -->      the next block is added to it
    <!-- test: unit PATH -->        the same, and it is a systemd unit: it is verified, and served as it says
    <!-- test: certificate PATH --> PATH.pem and PATH.key are made, with an authority that clients trust
    <!-- test: run SCRIPT -->       a program of this directory, in the terminal
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["tutorial.md", *(f"how-to/{path.name}" for path in sorted((DOCS / "how-to").glob("*.md")))]
_PIECE = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- test: (.*?) -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """``what``: type, serve, show, or a comment's first word. ``text``: the block, or the comment's other words."""

    what: str
    text: str


def steps_of(page: str) -> Iterator[Step]:
    for language, block, comment in _PIECE.findall((DOCS / page).read_text()):
        if comment:
            word, _, rest = comment.partition(" ")
            yield Step("type", rest) if word == "$" else Step(word, rest)
        elif language == "sh":
            yield Step("serve" if block.startswith("ostraka serve") else "type", block)
        else:
            yield Step("show", block)
