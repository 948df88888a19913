"""Asynchronous iterators that are left early give back what they hold at once, not when they are collected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def ended(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The items, closed at the end of the block if they are a generator: `async for` alone does not close what it
    leaves, and a generator around another one not the other one."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()
