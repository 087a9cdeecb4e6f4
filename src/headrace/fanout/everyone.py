"""Messages to all clients of a server: every welcomed connection gets them, without a subscription."""

from collections.abc import Iterable, Mapping

import msgspec

from headrace.fanout.client import Client
from headrace.fanout.framing import Framing
from headrace.fanout.groups import Item, Sent, count_of_cut
from headrace.model.events import Message
from headrace.model.topics import ALL
from headrace.protocol import frames
from headrace.protocol.frames import Framer


class Missed(msgspec.Struct, gc=False):
    """Messages of one topic that a client did not get: the first and last offset, and their number."""

    epoch: str
    first: int
    last: int
    count: int


class Everyone:
    """The clients that were welcomed, and the messages to send to each of them.

    `topics` are the topics whose messages go to all: `all`, and the server's own topic. A client that subscribed to
    `all` gets that topic by its subscription instead. A paused client gets no message; once it accepts data again,
    `lag` names what it missed. `subscribed` has the topics of each client.
    """

    def __init__(self, topics: Iterable[str], subscribed: Mapping[Client, Mapping[str, object]]) -> None:
        self._topics, self._subscribed = frozenset(topics), subscribed
        self.pending: list[Item] = []
        self._members: dict[Framing, dict[Client, None]] = {}
        self._paused: dict[Client, dict[str, Missed]] = {}

    def put(self, message: Message) -> None:
        """Add a message, if it is for all clients of this server."""
        if message.topic in self._topics:
            self.pending.append(Item(message))

    def enter(self, client: Client) -> None:
        """Send to the client from now on."""
        if client.paused:
            self._paused[client] = {}
        else:
            self._members.setdefault(client.framing, {})[client] = None

    def leave(self, client: Client) -> None:
        """Send nothing more to the client. Idempotent."""
        self._paused.pop(client, None)
        members = self._members.get(client.framing, {})
        if client in members:
            del members[client]
            if not members:
                del self._members[client.framing]

    def pause(self, client: Client) -> None:
        """Count what the client misses, until `resume`."""
        if client in self._members.get(client.framing, ()):
            self.leave(client)
            self._paused[client] = {}

    def resume(self, client: Client) -> int:
        """Send to the client again, after a `lag` for each topic of which it missed messages; return their number."""
        missed = self._paused.pop(client, None)
        if missed is None:
            return 0
        self.enter(client)
        for topic, what in missed.items():
            client.send(frames.lag(topic, what.epoch, what.first, what.last, what.count))
        return sum(what.count for what in missed.values())

    def hand_over(self, client: Client, framer: Framer) -> None:
        """Send the client what waits for the next tick on `all`, before its subscription to `all` begins."""
        payloads = [item.payload(framer) for item in self.pending if item.message.topic == ALL]
        if payloads and client in self._members.get(client.framing, ()):
            client.flush()
            client.wire.write(client.framing(payloads))

    def cut(self, framer: Framer, touched: list[Client]) -> Sent:
        """Frame the next messages once and hand them to every client.

        Clients that now have something to write, and had nothing before, are appended to `touched`.
        """
        count = count_of_cut(self.pending)
        items, self.pending = self.pending[:count], self.pending[count:]
        payloads = [item.payload(framer) for item in items]
        others = [item.payload(framer) for item in items if item.message.topic != ALL]
        sent_frames = sent_bytes = 0
        for framing, members in self._members.items():
            to_all, to_subscribed = framing(payloads), framing(others) if others else b""
            for client in members:
                by_subscription = ALL in self._subscribed.get(client, ())
                data = to_subscribed if by_subscription else to_all
                if not data:
                    continue
                sent_frames += len(others) if by_subscription else len(payloads)
                sent_bytes += len(data)
                if client.out:
                    client.queue(data)
                else:
                    client.out = data
                    touched.append(client)
        for client, missed in self._paused.items():
            self._count(client, missed, items)
        return Sent(sent_frames, sent_bytes)

    def _count(self, client: Client, missed: dict[str, Missed], items: Iterable[Item]) -> None:
        by_subscription = ALL in self._subscribed.get(client, ())
        for message in (item.message for item in items):
            if by_subscription and message.topic == ALL:
                continue
            known = missed.get(message.topic)
            if known is None or known.epoch != message.epoch:
                missed[message.topic] = Missed(message.epoch, message.offset, message.offset, 1)
            else:
                known.last, known.count = message.offset, known.count + 1
