"""The channel for other programs: broadcasts go out on it, and messages of other programs become broadcasts."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from typing import Final, assert_never

import msgspec
import structlog

from headrace.cluster import Cluster
from headrace.gateway.broadcasts import Broadcast, Broadcasts
from headrace.gateway.problems import Refused
from headrace.model.errors import HeadraceError, TransientError
from headrace.protocol.channel import (
    OWN,
    ChannelMessage,
    MalformedMessage,
    Target,
    ToAll,
    ToServer,
    ToTopic,
    ToUser,
    read_message,
    write_message,
)
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor

WAITING_BYTES: Final = 4_194_304
"""Maximum size of the messages that wait to be published. A message that does not fit is dropped and counted."""

KNOWN_MAX: Final = 10_000
"""Maximum number of messages that are remembered, so that a repeated message is sent once."""

COMPLAINT_S: Final = 10.0
"""Seconds between two log lines about messages with the same outcome."""

_log = structlog.get_logger("gateway")


class Channel:
    """Reads and writes the channel. `leads` returns whether this server turns messages of others into broadcasts.

    Every server publishes its own broadcasts, and reads the channel so that it can take over at once. A message is
    delivered at most once: what is published while nobody reads, or what can't be sent at the moment, is lost, counted
    and logged.
    """

    def __init__(
        self,
        cluster: Cluster,
        broadcasts: Broadcasts,
        server_id: str,
        leads: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._cluster, self._broadcasts, self._leads, self._clock = cluster, broadcasts, leads, clock
        self._sender = OWN + server_id
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._complained: dict[str, float] = {}
        self._counted = metrics.counter("channel_messages", "Messages on the channel for other programs", ("outcome",))

    def start(self, tasks: Supervisor) -> None:
        """Read and write the channel until the tasks are cancelled."""
        for name, work in (("read", self._read), ("publish", self._publish)):
            tasks.start("cluster", f"channel {name}", work, restart=Backoff(0.1, 5.0))

    def announce(self, event_id: str, asked: Broadcast, data: bytes) -> None:
        """Publish a broadcast that was sent, once for each of its targets. Never waits."""
        for target in targets_of(asked):
            text = write_message(ChannelMessage(event_id, self._sender, target, data))
            if self._waiting_bytes + len(text) > WAITING_BYTES:
                self._count("dropped", "too many messages wait to be published")
                continue
            self._waiting.append(text)
            self._waiting_bytes += len(text)
            self._wake.set()

    async def _publish(self) -> None:
        """Publish what waits. A message whose publishing failed is published again, so it may come twice."""
        backoff = Backoff(0.1, 5.0)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await self._cluster.publish(self._waiting[0])
                except TransientError as error:
                    self._complain("away", str(error))
                    await self._clock.sleep(backoff.next_s())
                    continue
                backoff.reset()
                self._waiting_bytes -= len(self._waiting.popleft())
                self._count("published")

    async def _read(self) -> None:
        """Take messages until cancelled. While the channel can't be read, try again."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                async with aclosing(self._cluster.messages()) as messages:
                    async for text in messages:
                        backoff.reset()
                        if self._leads():
                            await self.take(text)
            except TransientError as error:
                self._complain("away", str(error))
            await self._clock.sleep(backoff.next_s())

    async def take(self, text: bytes) -> None:
        """Send the message that another program published, after the checks of `POST /api/ws/broadcast`."""
        try:
            message = read_message(text)
        except MalformedMessage as error:
            self._count("malformed", str(error))
            return
        if message.own:
            self._count("own")
            return
        if message.event_id in self._known:
            self._count("repeated")
            return
        try:
            await self._broadcasts.relay(_broadcast(message), message.event_id)
        except Refused as refused:
            away = refused.status == HTTPStatus.SERVICE_UNAVAILABLE
            self._count("failed" if away else "refused", _faults(refused))
        except HeadraceError as error:
            self._count("failed", type(error).__name__)
        else:
            self._count("sent")
            self._known[message.event_id] = None
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def _count(self, outcome: str, fault: str = "") -> None:
        self._counted.labels(outcome).inc()
        if fault:
            self._complain(outcome, fault)

    def _complain(self, outcome: str, fault: str) -> None:
        """Log a fault, at most once in COMPLAINT_S for each outcome."""
        now_s = self._clock.monotonic()
        if now_s - self._complained.get(outcome, -COMPLAINT_S) >= COMPLAINT_S:
            self._complained[outcome] = now_s
            _log.warning("channel_trouble", outcome=outcome, fault=fault[:200])


def targets_of(asked: Broadcast) -> Sequence[Target]:
    """Return the targets of a broadcast, in order and each once."""
    if asked.all:
        return [ToServer(server_id) for server_id in dict.fromkeys(asked.server_ids)] or [ToAll(True)]
    users = [ToUser(user_id) for user_id in dict.fromkeys(asked.user_ids)]
    return users if asked.topic is None else [ToTopic(asked.topic), *users]


def _faults(refused: Refused) -> str:
    """Return the reason, and the members that are wrong."""
    errors = refused.more.get("errors", ())
    named = [f"{each['name']}: {each['message']}" for each in errors] if isinstance(errors, list) else []
    return "; ".join([refused.detail, *named])


def _broadcast(message: ChannelMessage) -> Broadcast:
    make = partial(Broadcast, data=msgspec.Raw(message.data))
    match message.target:
        case ToAll():
            return make(all=True)
        case ToTopic(topic):
            return make(topic=topic)
        case ToUser(user):
            return make(user_ids=[user])
        case ToServer(server):
            return make(all=True, server_ids=[server])
        case _:
            assert_never(message.target)
