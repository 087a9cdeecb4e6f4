"""Pages of the past on request, for each client one after another: the next is read once the last was taken."""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from headrace.bus import Bus
from headrace.fanout.client import Client
from headrace.model.errors import RequestError, TransientError
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, UNAVAILABLE, ErrorCode
from headrace.protocol.frames import Framer
from headrace.protocol.session import History
from headrace.runtime.supervise import Supervisor

if TYPE_CHECKING:
    import asyncio

PAGE_BYTES: Final = 524_288
"""Bytes of the frames in one answer; a longer page gets fewer messages."""

UNRECOVERABLE: Final = RequestError(ErrorCode.UNRECOVERABLE, "unrecoverable position")


class HistoryPages:
    """Answers `history` commands, for each client in the order of the commands.

    A few bytes ask for half a megabyte. So a client that asks for much and takes nothing is owed one page at a time;
    how many commands may wait is bounded by the rate at which a client may send commands.
    """

    def __init__(self, bus: Bus, supervisor: Supervisor, framer: Framer) -> None:
        self._bus, self._supervisor, self._framer = bus, supervisor, framer
        self._asked: dict[Client, deque[History]] = {}
        self._reading: set[Client] = set()

    @property
    def reading(self) -> bool:
        """Return whether a page is being read."""
        return bool(self._reading)

    def ask(self, client: Client, wanted: History) -> None:
        """Answer the command as soon as the earlier pages are taken and the bus has the page."""
        self._asked.setdefault(client, deque()).append(wanted)
        self.go_on(client)

    def go_on(self, client: Client) -> None:
        """Read the client's next page, if the client takes data and no page is being read for it."""
        if client not in self._asked or client in self._reading or client.paused or not client.open:
            return
        waiting = self._asked[client]
        wanted = waiting.popleft()
        if not waiting:
            del self._asked[client]
        self._reading.add(client)
        failed = partial(client.send, frames.error(INTERNAL, wanted.request_id))
        work = partial(self._answer, client, wanted)
        task = self._supervisor.start("gateway", "history", work, on_failure=failed)
        task.add_done_callback(partial(self._done, client))

    def forget(self, client: Client) -> None:
        """Drop the commands of a client that left."""
        self._asked.pop(client, None)

    def _done(self, client: Client, task: "asyncio.Task[object]") -> None:
        self._reading.discard(client)
        if not task.cancelled():
            self.go_on(client)

    async def _answer(self, client: Client, wanted: History) -> None:
        try:
            page = await self._bus.history(wanted.topic, wanted.since, wanted.limit, reverse=wanted.reverse)
        except TransientError:
            client.send(frames.error(UNAVAILABLE, wanted.request_id))
            return
        if not page.complete:
            client.send(frames.error(UNRECOVERABLE, wanted.request_id))
            return
        items = frames.items_within(page.messages, self._framer, PAGE_BYTES)
        client.send(frames.history(wanted.topic, wanted.request_id, page.top, items))
