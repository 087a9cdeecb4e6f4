"""The clients that get messages to all: who is sent what in a tick, and what is counted for those who can't."""

from typing import Any

import msgspec

from headrace.fanout.client import Client
from headrace.fanout.everyone import Everyone
from headrace.fanout.groups import CUT_BYTES
from headrace.model.events import Message, TopicEpoch
from headrace.protocol.frames import event_frame

ALL, OWN = "all", "server:a"


class Written:
    """A wire that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 0


def lines(payloads: Any) -> bytes:
    return b"".join(payload + b"\n" for payload in payloads)


class Clients:
    """Everyone of server `a`, with clients that are sent one line a frame."""

    def __init__(self) -> None:
        self.subscribed: dict[Client, dict[str, object]] = {}
        self.everyone = Everyone((ALL, OWN), self.subscribed)

    def enter(self) -> Client:
        client = Client(Written(), framing=lines)
        self.subscribed[client] = {}
        self.everyone.enter(client)
        return client

    def put(self, *offsets: int, topic: str = ALL, size: int = 0, epoch: str = "e") -> None:
        for offset in offsets:
            body = b'"data":"%b"' % (b"x" * size)
            self.everyone.put(Message(TopicEpoch(topic, epoch), "event", offset, body))

    def tick(self) -> list[Client]:
        touched: list[Client] = []
        self.everyone.cut(event_frame, touched)
        for client in touched:
            client.flush()
        return touched


def got(client: Client) -> list[tuple[str, str, int]]:
    """Return the type, the topic and the offset (of a lag: the number of messages) of each frame."""
    wire = client.wire
    assert isinstance(wire, Written)
    frames = [msgspec.json.decode(line) for line in wire.data.splitlines()]
    return [(each["type"], each["topic"], int(each.get("offset") or each["data"]["dropped"])) for each in frames]


def test_messages_of_other_topics_are_left_out() -> None:
    clients = Clients()
    client = clients.enter()
    clients.put(1, topic="server:b")
    clients.put(1, topic="slots")
    assert not clients.everyone.pending
    clients.put(1, topic=OWN)
    clients.put(1)
    clients.tick()
    assert got(client) == [("event", OWN, 1), ("event", ALL, 1)]


def test_a_client_that_left_is_sent_nothing() -> None:
    clients = Clients()
    client, other = clients.enter(), clients.enter()
    clients.everyone.leave(client)
    clients.everyone.leave(client)
    clients.put(1)
    assert clients.tick() == [other]
    clients.everyone.resume(client)
    clients.put(2)
    assert clients.tick() == [other]


def test_a_client_that_left_while_paused_is_sent_nothing() -> None:
    clients = Clients()
    client = clients.enter()
    clients.everyone.pause(client)
    clients.everyone.leave(client)
    clients.put(1)
    assert clients.tick() == []
    assert clients.everyone.resume(client) == 0


def test_what_waits_is_handed_over_before_a_subscription_begins() -> None:
    clients = Clients()
    client = clients.enter()
    clients.put(1, 2)
    clients.put(1, topic=OWN)
    clients.everyone.hand_over(client, event_frame)
    clients.subscribed[client][ALL] = None
    assert got(client) == [("event", ALL, 1), ("event", ALL, 2)]
    clients.tick()
    clients.put(3)
    clients.tick()
    assert got(client)[2:] == [("event", OWN, 1)]


def test_a_paused_client_is_sent_what_it_missed_as_lag() -> None:
    clients = Clients()
    client, other = clients.enter(), clients.enter()
    clients.put(1)
    clients.everyone.pause(client)
    clients.tick()
    clients.put(2, 3)
    clients.put(7, topic=OWN)
    clients.tick()
    assert (got(client), len(got(other))) == ([], 4)
    assert clients.everyone.resume(client) == 4
    clients.put(4)
    clients.tick()
    assert got(client) == [("lag", ALL, 3), ("lag", OWN, 1), ("event", ALL, 4)]


def test_the_lag_of_a_paused_client_begins_anew_in_another_epoch() -> None:
    clients = Clients()
    client = clients.enter()
    clients.everyone.pause(client)
    clients.put(5, 6)
    clients.put(1, 2, 3, epoch="f")
    clients.tick()
    assert clients.everyone.resume(client) == 3
    assert got(client) == [("lag", ALL, 3)]


def test_a_paused_client_that_subscribed_to_all_misses_nothing_here() -> None:
    clients = Clients()
    client = clients.enter()
    clients.subscribed[client][ALL] = None
    clients.everyone.pause(client)
    clients.put(1)
    clients.tick()
    assert clients.everyone.resume(client) == 0


def test_a_long_burst_takes_several_ticks() -> None:
    clients = Clients()
    client = clients.enter()
    clients.put(1, 2, 3, 4, size=CUT_BYTES // 2 + 1)
    for count in (1, 2, 3, 4):
        clients.tick()
        assert len(got(client)) == count
    assert not clients.everyone.pending
