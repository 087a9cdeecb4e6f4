"""Pages of long answers: the state of a topic for a new subscription, and pages of a topic's history."""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from headrace.bus import Bus
from headrace.cache import Snapshot
from headrace.fanout.client import Client
from headrace.model.errors import RequestError, TransientError
from headrace.protocol import frames
from headrace.protocol.codes import INTERNAL, UNAVAILABLE, ErrorCode
from headrace.protocol.frames import Framer
from headrace.protocol.session import History
from headrace.runtime.supervise import Supervisor

SNAPSHOT_PAGE_BYTES: Final = 65_536
"""Maximum number of bytes of the frames in one page. A single longer item is sent all the same."""


class Pages:
    """The unsent part of a snapshot. It has at least one page, so that a client also learns of an empty state."""

    def __init__(self, topic: str, snapshot: Snapshot) -> None:
        self._topic, self._snapshot = topic, snapshot
        self._items = deque(snapshot.items)
        self._number = 1
        self.left = True

    def next_page(self, framer: Framer) -> bytes:
        """Return the frame of the next page and remove the page. After the last page, `left` is False."""
        items: list[bytes] = []
        room = SNAPSHOT_PAGE_BYTES
        while self._items:
            item = framer(self._items[0])
            room -= len(item)
            if items and room < 0:
                break
            items.append(item)
            self._items.popleft()
        self.left = bool(self._items)
        self._number += 1
        at, slot, complete = self._snapshot.at, self._snapshot.as_of_slot, self._snapshot.complete
        following = self._number if self.left else None
        return frames.snapshot(self._topic, at, slot, items, following, complete=complete)


if TYPE_CHECKING:
    import asyncio

HISTORY_PAGE_BYTES: Final = 524_288
"""Maximum number of bytes of the frames in one answer. A longer page gets fewer messages."""

UNRECOVERABLE: Final = RequestError(ErrorCode.UNRECOVERABLE, "unrecoverable position")


class HistoryPages:
    """Answers `history` commands, for each client in the order of the commands.

    A command of a few bytes asks for half a megabyte. So pages are read one at a time, and only while the client
    accepts data. The rate of commands limits how many of them may wait.
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
        """Answer the command once the earlier pages are sent and the bus has returned the page."""
        self._asked.setdefault(client, deque()).append(wanted)
        self.go_on(client)

    def go_on(self, client: Client) -> None:
        """Read the client's next page, if the client accepts data and no page is being read for it."""
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
        items = frames.items_within(page.messages, self._framer, HISTORY_PAGE_BYTES)
        client.send(frames.history(wanted.topic, wanted.request_id, page.top, items))
