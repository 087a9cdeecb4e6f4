"""Groups. All subscriptions of a topic with the same filter and conflation form one group, and get the same bytes."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from headrace.fanout.client import Client
from headrace.fanout.framing import Framing
from headrace.fanout.pages import Pages
from headrace.fanout.windows import Window, Windows
from headrace.model.events import Message, Position
from headrace.protocol.frames import FrameId, Framer, OnSlow
from headrace.protocol.predicates import View
from headrace.protocol.selection import Selection

CUT_BYTES: Final = 65_536
"""Maximum number of bytes that a group sends in a tick.

A longer burst takes several ticks, so that clients can keep up.
"""

PENDING_MAX: Final = 65_536
"""Maximum number of messages that wait in a group for their tick.

Above it, the next tick sends as many as necessary.
"""


class Topic:
    """A topic at this server: its newest position, and the subscriptions that hold back live messages.

    A subscription holds back live messages while its past is read or its snapshot is sent.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.holding: dict[ClientSubscription, None] = {}
        self.newest: Message | None = None
        self._began: Position | None = None

    @property
    def top(self) -> Position | None:
        """Return the newest position known to this server; None before the first."""
        newest = self.newest
        return self._began if newest is None else Position(newest.epoch, newest.offset)

    def is_at(self, top: Position) -> None:
        """Set `top` as the newest position."""
        self.newest, self._began = None, top


class ClientSubscription:
    """One topic of one client. *Catching up*: its past is read and sent. *Live*: it is a member of its group.

    While the subscription is not live, these attributes describe it:
    - `position`: where the client will be once everything that is `behind` is sent.
    - `seen`: how many messages had passed the group at that position.
    - `held`: live messages that arrived while the past was read or a snapshot was sent.
    - `replay`: messages that were read but not sent yet.
    - `pages`: the pages of a snapshot, which are sent before `replay`.
    - `snapshot`: whether the client wants the topic's state if nothing can be recovered.
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
        """Return whether something that was read has not been sent yet."""
        return self.pages is not None or bool(self.replay) or (self.task is None and bool(self.held))

    def is_at(self, position: Position) -> None:
        """Set `position` as the newest position: no newer message has arrived yet."""
        self.position, self.seen = position, self.group.passed

    def next_frames(self, framer: Framer) -> bytes:
        """Return about CUT_BYTES of what is behind, framed, and remove it."""
        payloads: list[bytes] = []
        room = CUT_BYTES
        while self.pages is not None and room > 0:
            payloads.append(self.pages.next_page(framer))
            room -= len(payloads[-1])
            if not self.pages.left:
                self.pages = None
        if self.pages is None and not self.replay:
            self.follow_up(self.group.selection.conflated(self.held))
            self.held = []
        while self.replay and room > 0:
            payloads.append(framer(self.replay.popleft()))
            room -= len(payloads[-1])
        if not self.replay:
            self.replay = ()
        return self.client.framing(payloads)

    def follow_up(self, messages: Iterable[Message]) -> None:
        """Send these messages after everything that is behind."""
        if self.replay:
            self.replay.extend(messages)
        else:
            self.replay = deque(messages) or ()


class Item(msgspec.Struct, gc=False):
    """A live message, decoded once and framed once for all groups of its topic that accept it."""

    message: Message
    _payload: bytes | None = None
    _view: View | None = None

    @property
    def view(self) -> View:
        """Return the message in the form that filters read."""
        view = self._view
        if view is None:
            view = self._view = View(self.message.body)
        return view

    def payload(self, framer: Framer) -> bytes:
        """Return the JSON text of the message's frame."""
        payload = self._payload
        if payload is None:
            payload = self._payload = framer(self.message)
        return payload


class Sent(NamedTuple):
    """Numbers of frames and bytes that were written to clients."""

    frames: int
    bytes: int


def count_of_cut(pending: Sequence[Item]) -> int:
    """Return how many of these messages a tick sends: about CUT_BYTES, but all if there are more than PENDING_MAX."""
    if len(pending) <= PENDING_MAX:
        room = CUT_BYTES
        for index, item in enumerate(pending):
            room -= len(item.message.body)
            if room < 0 and index:
                return index
    return len(pending)


class Group:
    """All subscriptions of one topic with the same filter and conflation, and the messages to send to them.

    - `passed`: the number of messages that passed the filter since the group began.
    - `pending`: the messages to send, in order.
    - `members`: the live subscriptions, by framing.
    - `joining`: new subscriptions, each with the index in `pending` from which on it gets the members' messages.
    - `waiting`: new subscriptions since the window opened, each with the number of the last message that is not for it.
    """

    __slots__ = (
        "_windows", "joining", "members", "passed", "pending", "selection", "subscriptions", "topic", "waiting",
        "window",
    )  # fmt: skip

    def __init__(self, topic: Topic, selection: Selection, windows: "Windows[Group]") -> None:
        self.topic, self.selection, self._windows = topic, selection, windows
        conflate = selection.conflate
        self.window: Window[Item] | None = None if conflate is None else Window(conflate, windows)
        self.passed = 0
        self.pending: list[Item] = []
        self.subscriptions = 0
        self.members: dict[Framing, dict[Client, ClientSubscription]] = {}
        self.joining: dict[ClientSubscription, int] = {}
        self.waiting: dict[ClientSubscription, int] = {}

    @property
    def delivered(self) -> tuple[Position | None, int]:
        """Return the position up to which every member has everything, and how many messages had passed by then."""
        window = self.window
        if self.pending:
            first = self.pending[0].message
            number = window.numbers[0] if window is not None else self.passed - len(self.pending) + 1
        elif window is not None and window.waiting:
            number, item = window.waiting.oldest()
            first = item.message
        else:
            return self.topic.top, self.passed
        return Position(first.epoch, first.offset - 1), number - 1

    @property
    def oldest_s(self) -> float:
        """Return the monotonic time at which the oldest unsent message arrived."""
        return self.pending[0].message.at_s

    def put(self, item: Item) -> bool:
        """Add a message that passes. Return whether the group has something to send now and had nothing before."""
        self.passed += 1
        window = self.window
        if window is None:
            self.pending.append(item)
            return len(self.pending) == 1
        if window.put(self.selection.key(item.message, item.view), self.passed, item):
            self._windows.close(window)
            return self.end_window()
        if window.tick is None:
            self._windows.open(window, self)
        return False

    def join(self, subscription: ClientSubscription, at: Position) -> None:
        """Add a subscription at the newest position, `at`. It gets every message from the next one on."""
        subscription.is_at(at)
        self.topic.is_at(at)
        if self.window is not None and self.window.waiting:
            self.waiting[subscription] = self.passed
        elif self.pending:
            self.joining[subscription] = len(self.pending)
        else:
            self.rejoin(subscription)

    def rejoin(self, subscription: ClientSubscription) -> None:
        """Make a subscription a member that has received exactly what the members have received."""
        client = subscription.client
        self.members.setdefault(client.framing, {})[client] = subscription

    def leave(self, subscription: ClientSubscription) -> None:
        """Stop sending to the subscription.

        Its `position` is then that of the last message up to which it got everything.
        """
        framing = subscription.client.framing
        members = self.members.get(framing, {})
        if members.pop(subscription.client, None):
            subscription.position, subscription.seen = self.delivered
            if not members:
                del self.members[framing]
        self.joining.pop(subscription, None)
        self.waiting.pop(subscription, None)

    def present(self, subscription: ClientSubscription) -> Position | None:
        """Return the newest position if no passing message followed the subscription's position; otherwise None."""
        at, top = subscription.position, self.topic.top
        if at is None or top is None or at.epoch != top.epoch:
            return None
        if self.selection.filter is None:
            return top if at == top else None
        return top if subscription.seen == self.passed else None

    def is_live(self, subscription: ClientSubscription) -> bool:
        """Return whether the subscription is a member."""
        return subscription.client in self.members.get(subscription.client.framing, ())

    def end_window(self) -> bool:
        """Move the window's messages to `pending`. Return whether `pending` was empty before."""
        assert self.window is not None
        before = len(self.pending)
        kept = self.window.take()
        numbers = [number for number, _ in kept]
        for subscription, since in self.waiting.items():
            self.joining[subscription] = before + bisect_right(numbers, since)
        self.waiting.clear()
        self.window.numbers += numbers
        self.pending += [item for _, item in kept]
        return not before

    def dissolve(self) -> None:
        """Drop the window's messages, because no subscription is left."""
        if self.window is not None:
            self._windows.close(self.window)
            self.window.take()

    def cut(self, framer: Framer, touched: list[Client]) -> Sent:
        """Frame the next messages once and hand them to every member.

        Clients that now have something to write, and had nothing before, are appended to `touched`.
        """
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
                if client.out:
                    client.queue(data)
                else:
                    client.out = data
                    touched.append(client)
        if self.joining:
            self._admit(payloads, touched)
        return Sent(sent_frames, sent_bytes)

    def _next_items(self) -> list[Item]:
        pending = self.pending
        count = count_of_cut(pending)
        if self.window is not None:
            del self.window.numbers[:count]
        if count == len(pending):
            self.pending = []
            return pending
        self.pending = pending[count:]
        return pending[:count]

    def _admit(self, payloads: list[bytes], touched: list[Client]) -> None:
        """Make those joining subscriptions members whose index is reached, and give each its part of `payloads`."""
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
                client.queue(client.framing(payloads[start:]))
