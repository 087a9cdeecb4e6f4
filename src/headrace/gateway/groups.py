"""Who gets which messages: clients, their subscriptions, and the groups that share every byte."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from headrace.gateway.framings import Framing, a_line_each, one_each
from headrace.gateway.snapshots import Pages
from headrace.model.events import Message, Position
from headrace.protocol.codes import CloseCode
from headrace.protocol.frames import FrameId, Framer

CUT_BYTES: Final = 65_536
"""What one group sends at a time. A burst goes out in such pieces, a tick apart, so that clients can keep up."""

PENDING_MAX: Final = 65_536
"""Messages that may wait in a group for their tick; beyond it the next piece is as large as it must be."""


class Wire(Protocol):
    """What a client needs of its transport."""

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class Client:
    """One connection as the hub sees it; the shell around a connection implements the last two methods.

    `framing` is how frames are written to it: with `batch` one may hold several objects (NDJSON).
    """

    __slots__ = ("framing", "open", "out", "paused", "subscriptions", "wire")

    def __init__(self, wire: Wire, *, batch: bool = False, framing: Framing | None = None) -> None:
        self.wire = wire
        self.framing = framing or (a_line_each if batch else one_each)
        self.open = True
        self.paused = False
        self.out: list[bytes] = []
        self.subscriptions: dict[str, Subscription] = {}

    def flush(self) -> None:
        """Write what this tick has for it, as one."""
        out = self.out
        if out and self.open:
            self.wire.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def send(self, payload: bytes) -> None:
        """Write one frame now, after what this tick has."""
        if self.open:
            self.flush()
            self.wire.write(self.framing((payload,)))

    def cut_off(self, code: CloseCode) -> None:
        """Close the connection."""
        raise NotImplementedError

    def not_subscribed(self, topic: str) -> None:
        """A subscription that was asked for could not be made; the client was told."""
        raise NotImplementedError


class Subscription:
    """One topic of one client: *catching up* (its past is read and replayed), or *live* (it gets what its group gets).

    `position` is where the client is while it is not live. `held` are live messages that came while the past is read,
    `replay` is what was read and not yet sent. `snapshot`: it wants the topic's state where it recovers nothing;
    `pages` is what is left to send of that, before the replay.
    """

    __slots__ = (
        "acknowledged",
        "client",
        "group",
        "held",
        "pages",
        "position",
        "replay",
        "request_id",
        "snapshot",
        "task",
    )

    def __init__(self, client: Client, group: "Group", request_id: FrameId, *, snapshot: bool = False) -> None:
        self.client, self.group, self.request_id, self.snapshot = client, group, request_id, snapshot
        self.acknowledged = False
        self.pages: Pages | None = None
        self.position: Position | None = None
        self.held: list[Message] = []
        self.replay: deque[Message] | tuple[()] = ()  # an empty deque would be the largest part of an idle subscription
        self.task: asyncio.Task[object] | None = None

    @property
    def behind(self) -> bool:
        """Whether something that was read is not yet sent."""
        return self.pages is not None or bool(self.replay)

    def next_frames(self, framer: Framer) -> bytes:
        """About CUT_BYTES of what is behind, framed; moves `position` on."""
        payloads: list[bytes] = []
        room = CUT_BYTES
        while self.pages is not None and room > 0:
            payloads.append(self.pages.next_page(framer))
            room -= len(payloads[-1])
            if not self.pages.left:
                self.pages = None
        while self.replay and room > 0:
            message = self.replay.popleft()
            payloads.append(framer(message))
            room -= len(payloads[-1])
            self.position = Position(message.epoch, message.offset)
        if not self.replay:
            self.replay = ()
        return self.client.framing(payloads)

    def follow_up(self, messages: Iterable[Message]) -> None:
        """Send these after what is behind."""
        if self.replay:
            self.replay.extend(messages)
        else:
            self.replay = deque(messages) or ()


class Sent(NamedTuple):
    """Frames and bytes that went to clients."""

    frames: int
    bytes: int


class Group:
    """All subscriptions that get the same frames: those of one topic (and, one day, of one filter)."""

    __slots__ = ("holding", "joining", "members", "pending", "position", "subscriptions", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.position: Position | None = None
        """Where everyone who is live is; None before the first message."""
        self.pending: list[Message] = []
        """What came since, in order."""
        self.subscriptions = 0
        self.members: dict[Framing, dict[Client, Subscription]] = {}
        """Those who are live, by how they are written to."""
        self.holding: dict[Subscription, None] = {}
        self.joining: dict[Subscription, int] = {}
        """Newcomers, with the index in `pending` from which on they get what the others get."""

    @property
    def top(self) -> Position | None:
        """The newest position seen here."""
        if self.pending:
            newest = self.pending[-1]
            return Position(newest.epoch, newest.offset)
        return self.position

    def join(self, subscription: Subscription, at: Position) -> None:
        """It is at `at`, the newest position; from the next message on it gets what the others get."""
        subscription.position = at
        if self.pending:
            self.joining[subscription] = len(self.pending)
        else:
            self.position = at
            self._let_join(subscription)

    def leave(self, subscription: Subscription) -> None:
        """It gets nothing from here any more; its `position` says up to where it got everything."""
        client = subscription.client
        members = self.members.get(client.framing, {})
        if members.pop(client, None):
            subscription.position = self.position
            if not members:
                del self.members[client.framing]
        self.holding.pop(subscription, None)
        self.joining.pop(subscription, None)

    def cut(self, framer: Framer, touched: list[Client]) -> Sent:
        """Frame the next messages once and hand them to everyone; `touched` gets those who had nothing to write yet."""
        messages = self._next_messages()
        payloads = [framer(message) for message in messages]
        self.position = Position(messages[-1].epoch, messages[-1].offset)
        sent_frames = sent_bytes = 0
        for framing, members in self.members.items():
            data = framing(payloads)
            sent_frames += len(payloads) * len(members)
            sent_bytes += len(data) * len(members)
            for client in members:
                out = client.out
                if not out:
                    touched.append(client)
                out.append(data)
        if self.joining:
            self._let_in(payloads, touched)
        return Sent(sent_frames, sent_bytes)

    def _next_messages(self) -> list[Message]:
        pending = self.pending
        if len(pending) <= PENDING_MAX:
            room = CUT_BYTES
            for index, message in enumerate(pending):
                room -= len(message.body)
                if room < 0 and index:
                    self.pending = pending[index:]
                    return pending[:index]
        self.pending = []
        return pending

    def _let_in(self, payloads: list[bytes], touched: list[Client]) -> None:
        joining, self.joining = self.joining, {}
        for subscription, start in joining.items():
            if start > len(payloads):
                self.joining[subscription] = start - len(payloads)
                continue
            client = subscription.client
            self._let_join(subscription)
            if start < len(payloads):
                if not client.out:
                    touched.append(client)
                client.out.append(client.framing(payloads[start:]))

    def _let_join(self, subscription: Subscription) -> None:
        client = subscription.client
        self.members.setdefault(client.framing, {})[client] = subscription
