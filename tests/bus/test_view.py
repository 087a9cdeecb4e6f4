"""What the view says of messages that never came."""

from headrace.bus import Batch, BusSettings, Change
from headrace.bus.view import View
from headrace.model.events import Message, Position, Publication
from headrace.runtime.clock import ManualClock


def batch(number: int, *topics: str) -> Batch:
    return Batch(number, [Publication.on(topic, "event", b"%d" % number) for topic in topics])


def test_lost_messages_are_reported_before_the_message_after_the_hole() -> None:
    view, heard = View(BusSettings(), ManualClock(), "gen"), list[object]()

    def take(messages: object) -> None:
        assert isinstance(messages, list)
        heard.extend((message.topic, message.offset) for message in messages if isinstance(message, Message))

    view.interest.subscribe(take, None, heard.append)
    view.append("ingest", batch(1, "a", "b"))
    view.deliver()
    view.lost({"a": Position("gen", 4), "new": Position("gen", 2)})
    view.append("ingest", batch(6, "a", "b", "new"))
    view.deliver()
    assert heard == [("a", 1), ("b", 1), Change("incomplete", ["a", "new"]), ("a", 5), ("b", 2), ("new", 3)]


def test_history_across_lost_messages_is_incomplete() -> None:
    view = View(BusSettings(), ManualClock(), "gen")
    for number in range(3):
        view.append("ingest", batch(number, "a"))
    view.lost({"a": Position("gen", 5)})
    assert view.top("a") == Position("gen", 5)
    view.append("ingest", batch(6, "a"))
    assert not view.history("a", Position("gen", 3), 9).complete
    assert [message.offset for message in view.history("a", Position("gen", 5), 9).messages] == [6]


def test_a_loss_on_a_topic_concerns_no_sink_that_does_not_want_the_topic() -> None:
    view, heard = View(BusSettings(), ManualClock(), "gen"), list[Change]()
    view.interest.subscribe(lambda messages: None, ("slots",), heard.append)
    view.lost({"a": Position("gen", 5)})
    assert heard == []
