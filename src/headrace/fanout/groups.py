"""Who gets which messages: clients, their subscriptions, and the groups that share every byte."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from headrace.fanout.framing import Framing, a_line_each, one_each
from headrace.fanout.snapshots import Pages
from headrace.model.events import Message, Position
from headrace.protocol.codes import CloseCode
from headrace.protocol.frames import FrameId, Framer, OnSlow
from headrace.protocol.predicates import View

if TYPE_CHECKING:
    from headrace.fanout.feeds import Feed
    from headrace.fanout.windows import Window
    from headrace.protocol.selection import Sieve

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

    `position` is where the client is while it is not live, once all that is `behind` is through; `seen` is how many
    messages its group had let through by then. `held` are live messages that came while the past is read, or a snapshot
    is sent; `replay` is what was read and not yet sent. `snapshot`: it wants the topic's state where it recovers
    nothing; `pages` is what is left to send of that, before the replay.
    """

    __slots__ = (
        "acknowledged", "client", "group", "held", "on_slow", "pages", "position", "replay", "request_id", "seen",
        "snapshot", "task",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        group: "Group",
        request_id: FrameId,
        on_slow: OnSlow = "disconnect",
        *,
        snapshot: bool = False,
    ) -> None:
        self.client, self.group, self.request_id = client, group, request_id
        self.on_slow, self.snapshot = on_slow, snapshot
        self.acknowledged = False
        self.pages: Pages | None = None
        self.position: Position | None = None
        self.seen = 0
        self.held: list[Message] = []
        self.replay: deque[Message] | tuple[()] = ()  # an empty deque would be the largest part of an idle subscription
        self.task: asyncio.Task[object] | None = None

    @property
    def behind(self) -> bool:
        """Whether something that was read is not yet sent."""
        return self.pages is not None or bool(self.replay) or (self.task is None and bool(self.held))

    def is_at(self, position: Position) -> None:
        """That is the present: nothing newer has come yet."""
        self.position, self.seen = position, self.group.passed

    def next_frames(self, framer: Framer) -> bytes:
        """About CUT_BYTES of what is behind, framed."""
        payloads: list[bytes] = []
        room = CUT_BYTES
        while self.pages is not None and room > 0:
            payloads.append(self.pages.next_page(framer))
            room -= len(payloads[-1])
            if not self.pages.left:
                self.pages = None
        if self.pages is None and not self.replay:
            self.follow_up(self.group.sieve.thinned(self.held))
            self.held = []
        while self.replay and room > 0:
            payloads.append(framer(self.replay.popleft()))
            room -= len(payloads[-1])
        if not self.replay:
            self.replay = ()
        return self.client.framing(payloads)

    def follow_up(self, messages: Iterable[Message]) -> None:
        """Send these after what is behind."""
        if self.replay:
            self.replay.extend(messages)
        else:
            self.replay = deque(messages) or ()


class Item(msgspec.Struct, gc=False):
    """A live message on its way: framed once and decoded once, for whichever groups of its topic get it."""

    message: Message
    _payload: bytes | None = None
    _view: View | None = None

    @property
    def view(self) -> View:
        """What filters see of it."""
        view = self._view
        if view is None:
            view = self._view = View(self.message.body)
        return view

    def payload(self, framer: Framer) -> bytes:
        """The JSON text of its frame."""
        payload = self._payload
        if payload is None:
            payload = self._payload = framer(self.message)
        return payload


class Sent(NamedTuple):
    """Frames and bytes that went to clients."""

    frames: int
    bytes: int


class Group:
    """All subscriptions that get the same frames: those of one topic that asked for the same filter and conflation."""

    __slots__ = (
        "feed", "joining", "members", "passed", "pending", "sieve", "subscriptions", "window",
    )  # fmt: skip

    def __init__(self, feed: "Feed", sieve: "Sieve", window: "Window | None" = None) -> None:
        self.feed, self.sieve, self.window = feed, sieve, window
        self.passed = 0
        """Messages that came here since the group began."""
        self.pending: list[Item] = []
        """What is to be sent, in order."""
        self.subscriptions = 0
        self.members: dict[Framing, dict[Client, Subscription]] = {}
        """Those who are live, by how they are written to."""
        self.joining: dict[Subscription, int] = {}
        """Newcomers, with the index in `pending` from which on they get what the others get."""

    @property
    def topic(self) -> str:
        return self.feed.topic

    @property
    def top(self) -> Position | None:
        """The newest position of the topic that was seen here."""
        return self.feed.top

    @property
    def delivered(self) -> tuple[Position | None, int]:
        """Up to where everyone who is live has everything, and how many messages came here until then."""
        window = self.window
        if self.pending:
            first = self.pending[0].message
            number = window.numbers[0] if window is not None else self.passed - len(self.pending) + 1
        elif window is not None and window.waiting:
            number, item = window.waiting.oldest()
            first = item.message
        else:
            return self.feed.top, self.passed
        return Position(first.epoch, first.offset - 1), number - 1

    def put(self, item: Item) -> bool:
        """Take a message that passes; returns whether there is now something to send where there was nothing."""
        self.passed += 1
        if self.window is not None:
            return self.window.put(self, item)
        self.pending.append(item)
        return len(self.pending) == 1

    def join(self, subscription: Subscription, at: Position) -> None:
        """It is at `at`, the newest position; from the next message on it gets what the others get."""
        subscription.is_at(at)
        self.feed.is_at(at)
        if self.window is not None and self.window.waiting:
            self.window.joining[subscription] = self.passed
        elif self.pending:
            self.joining[subscription] = len(self.pending)
        else:
            self.rejoin(subscription)

    def rejoin(self, subscription: Subscription) -> None:
        """It is where everyone is who is live, and gets all that they get."""
        client = subscription.client
        self.members.setdefault(client.framing, {})[client] = subscription

    def leave(self, subscription: Subscription) -> None:
        """It gets nothing from here any more; its `position` says up to where it got everything."""
        framing = subscription.client.framing
        members = self.members.get(framing, {})
        if members.pop(subscription.client, None):
            subscription.position, subscription.seen = self.delivered
            if not members:
                del self.members[framing]
        self.joining.pop(subscription, None)
        if self.window is not None:
            self.window.joining.pop(subscription, None)

    def present(self, subscription: Subscription) -> Position | None:
        """The newest position, if nothing that passes came since the subscription's own; else None."""
        at, top = subscription.position, self.top
        if at is None or top is None or at.epoch != top.epoch:
            return None
        if self.sieve.filter is None:
            return top if at == top else None
        return top if subscription.seen == self.passed else None

    def is_live(self, subscription: Subscription) -> bool:
        return subscription.client in self.members.get(subscription.client.framing, ())

    def end_window(self) -> bool:
        """What waited for its end is to be sent; returns whether there was nothing to send before."""
        assert self.window is not None
        before = len(self.pending)
        kept = self.window.take()
        numbers = [number for number, _ in kept]
        for subscription, since in self.window.joining.items():
            self.joining[subscription] = before + bisect_right(numbers, since)
        self.window.joining.clear()
        self.window.numbers += numbers
        self.pending += [item for _, item in kept]
        return not before

    def cut(self, framer: Framer, touched: list[Client]) -> Sent:
        """Frame the next messages once and hand them to everyone; `touched` gets those who had nothing to write yet."""
        items = self._next_items()
        if not (self.members or self.joining):
            return Sent(0, 0)
        payloads = [item.payload(framer) for item in items]
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

    def _next_items(self) -> list[Item]:
        pending, count = self.pending, len(self.pending)
        if count <= PENDING_MAX:
            room = CUT_BYTES
            for index, item in enumerate(pending):
                room -= len(item.message.body)
                if room < 0 and index:
                    count = index
                    break
        if self.window is not None:
            del self.window.numbers[:count]
        if count == len(pending):
            self.pending = []
            return pending
        self.pending = pending[count:]
        return pending[:count]

    def _let_in(self, payloads: list[bytes], touched: list[Client]) -> None:
        joining, self.joining = self.joining, {}
        for subscription, start in joining.items():
            if start > len(payloads):
                self.joining[subscription] = start - len(payloads)
                continue
            client = subscription.client
            self.rejoin(subscription)
            if start < len(payloads):
                if not client.out:
                    touched.append(client)
                client.out.append(client.framing(payloads[start:]))
