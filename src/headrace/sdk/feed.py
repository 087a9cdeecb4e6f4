"""One topic as its reader sees it: the position, the waiting values, and whether any are missing. Pure."""

from collections import deque
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from headrace.model.events import Position
from headrace.protocol import frames
from headrace.sdk import incoming
from headrace.sdk.incoming import Frame, SubscribedData
from headrace.sdk.values import Lag, NotRecovered, Refused, Snapshot, Value

USER_TOPICS: Final = "user:"
"""Prefix of topics whose messages come without a `subscribe`."""


class Wanted(NamedTuple):
    """The options of a subscription, under the protocol's names. None: not given."""

    topic: str
    filter: dict[str, Any] | None = None
    snapshot: bool = False
    conflate: dict[str, Any] | None = None
    on_slow: str | None = None

    @property
    def implicit(self) -> bool:
        """Whether the topic's messages come without a `subscribe`."""
        return self.topic.startswith(USER_TOPICS)

    @property
    def whole(self) -> bool:
        """Return whether the server sends every offset, so that a skipped offset means a loss."""
        return not (self.filter or self.conflate or self.implicit)


class Standing(Enum):
    """State of a feed's subscription on this connection."""

    AWAY = auto()
    """The topic is not subscribed, or there is no connection."""
    ASKED = auto()
    """`subscribe` was sent. Messages before the answer are ignored, because `recover` brings them again."""
    LIVE = auto()


class Item(NamedTuple):
    """A value that waits for the reader. `value` is None if only the position changes."""

    value: Value | None
    position: Position | None


class Feed:
    """Values of one topic, in order, none twice. At most `capacity` values wait.

    If there are more, the feed is `behind`.
    A feed that is behind accepts no more values and unsubscribes. Once the reader has read all values, the topic is
    subscribed again with `recover`, which brings the missed values, or NotRecovered.
    """

    def __init__(self, wanted: Wanted, capacity: int, recover: Position | None = None) -> None:
        self.wanted, self.capacity = wanted, capacity
        self.standing = Standing.AWAY
        self.items: deque[Item] = deque()
        self.failure: Refused | None = None
        """Reason why no values follow after `items`; None while more may follow."""
        self.began = False
        """Whether the server has ever accepted the subscription."""
        self.behind = False
        self.overflows = False
        """True while the feed is full of a user's messages and drops new ones.

        In that case, the connection need not wait for the reader.
        """
        self.closed = False
        self.last = recover
        """The position up to which all values are in `items` or were read. None: not known yet."""
        self.missed_to: Position | None = None
        """The newest position at the last recovery. Messages up to it had been missed when they were published."""
        self._jumped_from: Position | None = None
        self._paging = False

    @property
    def full(self) -> bool:
        return len(self.items) >= self.capacity

    def command(self) -> dict[str, Any]:
        """Return the data of `subscribe`, which continues after `last`."""
        wanted = self.wanted
        data: dict[str, Any] = {"topic": wanted.topic}
        if wanted.filter:
            data["filter"] = wanted.filter
        if wanted.snapshot:
            data["snapshot"] = True
        if wanted.conflate:
            data["conflate"] = wanted.conflate
        if wanted.on_slow:
            data["on_slow"] = wanted.on_slow
        if self.last:
            data["recover"] = {"epoch": self.last.epoch, "offset": str(self.last.offset)}
        return data

    def subscribed(self, data: SubscribedData) -> None:
        """Handle a `subscribed` frame."""
        self.standing, self.began, self._paging = Standing.LIVE, True, False
        self.missed_to = data.position if data.was_recovering and data.recovered else None
        if self.missed_to:
            return
        now = None if self.wanted.snapshot else data.position
        if data.was_recovering and self.last:
            self._put(NotRecovered(topic=self.wanted.topic, before=self.last, now=now), now)
        else:
            self._put(None, now)
        self.last = now

    def record(self, frame: Frame, text: str) -> bool:
        """Handle an `event`, `promote`, `retract` or `gap` frame.

        Returns False if earlier messages are missing, so that a new `subscribe` is needed.
        """
        here, last = frame.position, self.last
        if last and here.epoch == last.epoch:
            if here.offset <= last.offset:
                return True
            if self.wanted.whole and here.offset != last.offset + 1:
                if self._jumped_from != last:
                    self._jumped_from = last
                    return False
                self._lost(last, here.offset - 1)
        if self.full:
            self.overflows = self.wanted.implicit
            if self.overflows:
                self._overflow(here)
            else:
                self.behind = True
            return True
        self.overflows = False
        value = incoming.RECORDS[frame.type](frame, text)
        if last and here.epoch != last.epoch and not self.wanted.implicit:
            now = Position(here.epoch, here.offset - 1)
            self._put(NotRecovered(topic=frame.topic, before=last, now=now), now)
        self._put(value, here)
        self.last = here
        return True

    def lag(self, frame: Frame, text: str) -> None:
        """Handle a `lag` frame: the server dropped messages, and the next message follows the dropped ones."""
        data = incoming.lag_data.decode(frame.data)
        epoch = data.epoch or (self.last.epoch if self.last else "")
        if self.last and epoch == self.last.epoch and data.to_offset <= self.last.offset:
            return  # on a new connection the server may report messages that this client has read
        position = Position(epoch, data.to_offset)
        if self.wanted.on_slow == "conflate" and self.last:
            position = self.last  # the messages that were not dropped follow
        elif self.last and epoch != self.last.epoch and not self.wanted.implicit:
            now = Position(epoch, data.from_offset - 1)
            self._put(NotRecovered(topic=frame.topic, before=self.last, now=now), now)
        value = Lag(
            topic=frame.topic,
            position=position,
            from_offset=data.from_offset,
            to_offset=data.to_offset,
            dropped=data.dropped,
            frame=text,
        )
        self._put(value, position)
        self.last = position

    def snapshot(self, frame: Frame, text: str) -> None:
        """Handle a page of the state. After the last page, the topic continues from the snapshot's position."""
        data = incoming.snapshot_data.decode(frame.data)
        position, last = frame.position, data.next is None
        value = Snapshot(
            topic=frame.topic,
            position=position,
            as_of_slot=data.as_of_slot,
            items=incoming.events_of(data.items),
            complete=data.complete,
            first=not self._paging,
            last=last,
            frame=text,
        )
        self._paging = not last
        self._put(value, position if last else self.last)
        if last:
            self.last = position

    def reached(self, top: int) -> None:
        """Handle a heartbeat: the server has sent every message up to `top` that passes the filter."""
        if self.wanted.whole or not self.last or self.full or top <= self.last.offset:
            return
        self.last = Position(self.last.epoch, top)
        self._put(None, self.last)

    def fail(self, failure: Refused) -> None:
        """End the feed: no more values follow."""
        self.standing = Standing.AWAY
        self.failure = self.failure or failure

    def _lost(self, last: Position, to_offset: int) -> None:
        """Report messages as lost that the server has left out twice."""
        self._drop(last.offset + 1, Position(last.epoch, to_offset))

    def _overflow(self, here: Position) -> None:
        """Report a user's message as dropped, because the client can't request it again on this connection."""
        first = here.offset
        if self.items and isinstance(lag := self.items[-1].value, Lag):
            self.items.pop()
            first = lag.from_offset
        self._drop(first, here)

    def _drop(self, first: int, to: Position) -> None:
        """Report a loss that only the client noticed, with a `lag` as the server would send it."""
        topic, dropped = self.wanted.topic, to.offset - first + 1
        frame = frames.lag(topic, to.epoch, first, to.offset, dropped).decode()
        lag = Lag(topic=topic, position=to, from_offset=first, to_offset=to.offset, dropped=dropped, frame=frame)
        self._put(lag, to)
        self.last = to

    def _put(self, value: Value | None, position: Position | None) -> None:
        self.items.append(Item(value, position))
