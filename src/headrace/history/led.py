"""The history of servers that publish in turn: open while this server has the lane `ingest`, and closed otherwise."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.history import History, Kept, Written
from headrace.history.queries import Queries
from headrace.model.errors import ElsewhereError, TransientError

T = TypeVar("T")


class LedHistory(Queries):
    """`History` on files that one server at a time has open, from `take` to `release`.

    Without the files every query and write raises ElsewhereError, and `check` returns. `open_files` opens the files.
    """

    def __init__(self, open_files: Callable[[], Awaitable[History]]) -> None:
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._open_files = open_files
        self._opened: History | None = None

    async def take(self) -> None:
        """Open the files. Raises the errors of `open_files`."""
        opened = await self._open_files()
        opened.on_trouble = lambda error: self.on_trouble(error)
        self._opened = opened

    async def release(self) -> None:
        """Close the files, so that another server can open them."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def write(self, facts: Sequence[Kept]) -> Written:
        return await self._files.write(facts)

    async def clear(self) -> None:
        await self._files.clear()

    async def check(self, *, thorough: bool) -> None:
        if self._opened is not None:
            await self._opened.check(thorough=thorough)

    async def close(self) -> None:
        await self.release()

    async def _read(self, work: Callable[[History], Awaitable[T]]) -> T:
        return await work(self._files)

    @property
    def _files(self) -> History:
        if self._opened is None:
            raise ElsewhereError(
                "this server keeps no history: the server that has the lane ingest does; /api/servers names that server"
            )
        return self._opened
