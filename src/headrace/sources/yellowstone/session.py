"""One subscription at one node, from the connection to the reason for its end."""

import re
from collections import Counter as Count
from collections.abc import Sequence
from typing import Final

import structlog

from headrace.model.updates import AccountUpdate
from headrace.runtime.supervise import Supervisor
from headrace.sources.connection import Connection, Parting, Unreadable
from headrace.sources.merge import MergedStream
from headrace.sources.progress import Watch
from headrace.sources.subscriptions import ChainSubscription
from headrace.sources.yellowstone.endings import WireEnd, parting_of
from headrace.sources.yellowstone.filters import Filters
from headrace.sources.yellowstone.race import Race
from headrace.sources.yellowstone.replay import Resume
from headrace.sources.yellowstone.requests import PING, Requests
from headrace.sources.yellowstone.settings import YellowstoneSettings
from headrace.sources.yellowstone.updates import BlockMeta, Heard, InForce, Ping, Reader, Unused
from headrace.sources.yellowstone.wire import OpenWire, Wire

_TURN: Final = 64
"""Maximum number of messages that are processed in a row before other tasks run."""
_PATIENCE: Final = 64
"""Maximum number of slot updates for which a session waits for the first block of a replay."""
_NOT_REPLAYED: Final = frozenset({"OUT_OF_RANGE", "INTERNAL", "INVALID_ARGUMENT", "UNIMPLEMENTED"})
"""gRPC statuses with which nodes refuse a `from_slot`."""
_OLDEST: Final = re.compile(r"(?:last available|oldest|first available|available)\D{0,24}([0-9]{1,19})", re.IGNORECASE)

_log = structlog.get_logger("source")


class YellowstoneSession:
    """Session on one connection: subscribes, and hands the arrivals in to `stream`. Call `run` once.

    `resume` remembers the endpoint's slots from earlier connections.
    """

    def __init__(
        self,
        connection: Connection,
        stream: MergedStream,
        url: str,
        resume: Resume,
        race: Race,
        *,
        open_wire: OpenWire,
        filters: Filters,
        settings: YellowstoneSettings,
    ) -> None:
        self.connection, self._stream, self._url, self._resume = connection, stream, url, resume
        self._race = race
        self._open_wire, self.filters, self._settings = open_wire, filters, settings
        self._clock = stream.clock
        self._requests = Requests(settings.commitment)
        self._reader = Reader(self._requests, connection.name, settings.commitment)
        self._sent_at = 0.0
        self._in_force = self._messages = self._bytes = 0
        self._is_due = self._began_replay = False
        self._asked: int | None = None
        self._patience = _PATIENCE
        self._bad: Count[str] = Count()
        self._tasks: Supervisor | None = None
        connection.on_wanted = self._follow_wanted
        connection.on_part = self._cancel
        connection.has_slots = True

    async def run(self) -> Parting:
        """Connect, subscribe, and read until the end; return why the connection ended.

        Failures of the network and the node are returned, too, not raised.
        """
        connection, settings = self.connection, self._settings
        self._asked = self._resume.begin(replay=settings.replay)
        try:
            wire = await self._open_wire(self._url, settings, self._clock)
        except WireEnd as end:
            return parting_of(end, began=False)
        except OSError as error:
            return parting_of(WireEnd("UNAVAILABLE", str(error)), began=False)
        connection.connected = True
        connection.watch = Watch(self._clock.monotonic(), stall_s=settings.stall_s, stall_slots=settings.stall_slots)
        try:
            async with Supervisor(self._clock) as self._tasks:
                self._tasks.start(connection.name, "wire", wire.run)
                await self._request(wire, self._asked)
                self._tasks.start(connection.name, "read", lambda: self._read(wire))
                self._tasks.start(connection.name, "tend", lambda: self._tend(wire))
        finally:
            connection.connected = False
            self._export()
            await wire.close()
            self._race.leave(connection.name)
            self._note_end()
        return connection.parting or Parting("closed")

    def want_filters(self, filters: Filters) -> None:
        """Replace the filters from TOML. The next tick sends the new request."""
        self.filters, self._is_due = filters, True

    # Requests.

    async def _request(self, wire: Wire, from_slot: int | None = None) -> None:
        self._is_due = False
        self._sent_at = self._clock.monotonic()
        await wire.send(self._requests.make(self.connection.wanted, self.filters, from_slot))

    def _follow_wanted(self) -> None:
        self._is_due = True

    def _acknowledge(self, number: int) -> None:
        """Acknowledge the subscriptions of the newest request, once an update shows that the request is in force."""
        if number != self._requests.number or number == self._in_force:
            return
        if self._asked is not None and self._resume.first is None and self._patience > 0:
            self._patience -= 1  # an acknowledgement would now begin covers at the chain's head
            return
        self._in_force = number
        for subscription in self._requests.wanted:
            if subscription in self.connection.wanted and subscription not in self.connection.acknowledged:
                self._stream.acknowledge(self.connection, subscription, self._settings.commitment, heads_tell=True)

    # Reading.

    async def _read(self, wire: Wire) -> None:
        clock, watch, reader = self._clock, self.connection.watch, self._reader
        try:
            while True:
                batch = await wire.receive()
                received_ns = clock.wall_ns()
                watch.message(clock.monotonic())
                self._messages += len(batch)
                for number, message in enumerate(batch):
                    self._bytes += len(message)
                    for heard in reader.read(message, received_ns):
                        if type(heard) is AccountUpdate and not self._resume.replaying:
                            self._resume.note(heard)
                            await self._stream.take(self.connection, heard, received_ns)
                        else:
                            await self._take(wire, heard, received_ns)
                    if number % _TURN == _TURN - 1:
                        await clock.sleep(0)
                await clock.sleep(0)
        except WireEnd as end:
            self._part(end)

    async def _take(self, wire: Wire, heard: Heard, received_ns: int) -> None:
        if isinstance(heard, InForce):
            self._acknowledge(heard.number)
        elif isinstance(heard, Ping):
            await wire.send(PING)
        elif isinstance(heard, Unused):
            self._bad[heard.kind] += 1
        else:
            if isinstance(heard, Unreadable):
                self._bad[heard.reason] += 1
            for arrival in self._resume.take(heard, self.connection.wanted):
                await self._stream.take(self.connection, arrival, received_ns)
            if isinstance(heard, BlockMeta):
                self._finish_block(heard)

    def _finish_block(self, block: BlockMeta) -> None:
        """Enter a finished block into the comparison of endpoints. In a replay, look for its first slot instead."""
        name = self.connection.name
        if not self._began_replay:
            self._begin_replay()
        if self._resume.replaying:
            return
        self._race.enter(name)
        place = self._race.finished(name, block.slot, self._clock.monotonic())
        if place is not None:
            self._stream.metrics.placed(name, place.behind_s)
            for missing in place.missed:
                self._stream.metrics.missed(missing)

    def _begin_replay(self) -> None:
        """Begin the covers at the first slot that the replay delivers completely, once that slot is known."""
        first = self._resume.first
        if first is not None and self._requests.number == 1:  # a later request has no known first slot
            self._began_replay = True
            self._acknowledge(self._requests.number)
            self._stream.replayed(self.connection, first)

    def _part(self, end: WireEnd) -> None:
        """End the connection for the node's reason. If the node refused a replay, the next connection asks for less."""
        parting = parting_of(end, began=self._messages > 0 or self._in_force > 0)
        refused = self._resume.replaying and not self._in_force and parting.reason != "lagged"
        if refused and end.status in _NOT_REPLAYED:
            found = _OLDEST.search(end.detail)
            self._resume.refused(int(found[1]) if found else None)
            self._bad["replay_refused"] += 1
            _log.info("replay_refused", source=self.connection.name, reason=end.detail[:200])
            self.connection.part("refused", f"no replay: {end}")
            return
        self.connection.part(parting.reason, parting.detail, parting.rest_s)

    # Tending.

    async def _tend(self, wire: Wire) -> None:
        """On every tick, send a request that is due, and end a connection that is silent or stalled."""
        connection = self.connection
        while True:
            now = self._clock.monotonic()
            if self._is_due:
                await self._request(wire)
            if connection.handing_in:  # the outlet is full, so silence is not the node's fault
                connection.watch.excuse(now)
                self._sent_at = max(self._sent_at, now - self._settings.ack_timeout_s)
            verdict = connection.watch.verdict(now)
            if verdict is not None:
                connection.part(verdict, f"at slot {connection.watch.head}")
                return
            unanswered = self._in_force != self._requests.number and not connection.handing_in
            if unanswered and now - self._sent_at > self._settings.ack_timeout_s:
                connection.part("no_ack", "no update of slots after a request")
                return
            self._export()
            await self._clock.sleep(self._settings.tick_s)

    def _cancel(self) -> None:
        if self._tasks is not None:
            self._tasks.cancel()

    def _note_end(self) -> None:
        """Note for the endpoint's next connection up to which slot this connection delivered everything."""
        parting = self.connection.parting
        reached = self.connection.surely(parting.reason if parting else "")
        feeds = [subscription.feed for subscription in self.connection.acknowledged]
        if self._in_force:  # before a request is in force, no delivery is certain
            self._resume.ended(min(reached.values(), default=None), feeds)

    def _export(self) -> None:
        self._stream.metrics.traffic(self.connection.name, self._messages, self._bytes, 0, self._bad)
        self._messages = self._bytes = 0
        self._bad.clear()


def filter_subscriptions(filters: Filters) -> Sequence[ChainSubscription]:
    """Return a subscription of kind `filter` for each filter from TOML."""
    return [ChainSubscription("filter", ".".join(name)) for name in filters.named]
