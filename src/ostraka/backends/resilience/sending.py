"""A source on its way to a store: whether it was touched, whether it moves, and whose error it was."""

from collections.abc import AsyncIterator, Callable

from ostraka.backends.backend import Source
from ostraka.backends.iterators import ended
from ostraka.host import Buffer


class SourceFailed(Exception):
    """The source raised ``error``. No store is to blame, and nothing is asked again."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Sending:
    """A source, for as many attempts as it allows."""

    def __init__(self, source: Source) -> None:
        self._begin: Callable[[], AsyncIterator[Buffer]]
        if callable(source):
            function = source
            self._begin = lambda: aiter(function())
        else:
            only = aiter(source)
            self._begin = lambda: only
        self._is_function = callable(source)
        self._touched = False
        self._passed = 0
        self._waiting = False

    async def pieces(self) -> AsyncIterator[Buffer]:
        self._touched = True
        async with ended(self._begin()) as pieces:
            while True:
                self._waiting = True
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    raise SourceFailed(error) from error
                finally:
                    self._waiting = False
                    self._passed += 1
                yield piece

    def may_be_replayed(self) -> bool:
        return self._is_function or not self._touched

    def is_untouched(self) -> bool:
        return not self._touched

    def moves(self) -> object:
        """Another value each time as long as the store takes pieces, or waits for the source."""
        return object() if self._waiting else self._passed
