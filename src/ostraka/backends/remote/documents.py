"""XML from a store: parsed within bounds, never with a DTD."""

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ostraka.errors import Unavailable

Document = Element


def parsed(data: bytes) -> Document:
    """The root of a document, names without their namespace. Unavailable (reason "service") if it is none: a store, or
    what stands between, that sends something else cannot be spoken with now."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ValueError, AssertionError):
        raise Unavailable("the store's answer is no document that it should send", reason="service") from None


def _refuse(*_: object) -> NoReturn:
    raise ValueError("a DTD")


def text(element: Document, path: str) -> str:
    """The text of what is at path, or "" where there is no such element."""
    return element.findtext(path) or ""
