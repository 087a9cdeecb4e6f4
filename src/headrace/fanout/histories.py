"""Pages of the past, for each client one after another: the next is read when it has taken the last."""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from headrace.bus import Bus
from headrace.fanout.groups import Client
from headrace.fanout.replays import INTERNAL, UNAVAILABLE
from headrace.model.errors import RequestError, TransientError
from headrace.protocol import frames
from headrace.protocol.codes import ErrorCode
from headrace.protocol.frames import Framer
from headrace.protocol.session import History
from headrace.runtime.once import start_once
from headrace.runtime.supervise import Supervisor

if TYPE_CHECKING:
    import asyncio

PAGE_BYTES: Final = 524_288
"""Frames in one answer; a page that would be longer has fewer messages."""

UNRECOVERABLE: Final = RequestError(ErrorCode.UNRECOVERABLE, "unrecoverable position")


class Histories:
    """Answers `history`, in the order asked. A few bytes ask for half a megabyte: a client that takes nothing, though
    it asked for much, is owed one page at a time. How many may wait is bounded by the rate of its commands.
    """

    def __init__(self, bus: Bus, supervisor: Supervisor, framer: Framer) -> None:
        self._bus, self._supervisor, self._framer = bus, supervisor, framer
        self._asked: dict[Client, deque[History]] = {}
        self._reading: set[Client] = set()

    @property
    def reading(self) -> bool:
        """Whether a page is being read."""
        return bool(self._reading)

    def ask(self, client: Client, wanted: History) -> None:
        """Answer it as soon as those before it are taken and the bus has it."""
        self._asked.setdefault(client, deque()).append(wanted)
        self.go_on(client)

    def go_on(self, client: Client) -> None:
        """Read the next page for the client, if it takes data and none is being read for it."""
        if client not in self._asked or client in self._reading or client.paused or not client.open:
            return
        waiting = self._asked[client]
        wanted = waiting.popleft()
        if not waiting:
            del self._asked[client]
        self._reading.add(client)
        failed = partial(client.send, frames.error(INTERNAL, wanted.request_id))
        work = partial(self._answer, client, wanted)
        task = start_once(self._supervisor, "gateway", "history", work, failed)
        task.add_done_callback(partial(self._done, client))

    def forget(self, client: Client) -> None:
        """It is gone."""
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
