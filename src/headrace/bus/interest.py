"""Keep the interest of sinks in topics: subscriptions, the messages that wait for each sink, and their delivery."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Final

from headrace.bus import Change, ChangeSink, Sink
from headrace.model.events import Message

ALL: Final = None
"""In place of a topic: the wanting sinks may have changed for any topic."""


class ViewSubscription:
    """The `Subscription` of one sink. `pending` collects the messages of the batch that is being appended."""

    def __init__(
        self, interest: "Interest", sink: Sink, kinds: Collection[str] | None, changed: ChangeSink | None
    ) -> None:
        self.sink, self.changed = sink, changed
        self.pending: list[Message] = []
        self._interest, self._topics = interest, set[str]()
        self._kinds = None if kinds is None else frozenset(kinds)

    def wants(self, topic: str) -> bool:
        """Return whether the sink gets messages of this topic."""
        return topic in self._topics or self.wants_kind(topic.partition(":")[0])

    def wants_kind(self, kind: str) -> bool:
        """Return whether the sink gets messages of all topics of this kind."""
        return self._kinds is None or kind in self._kinds

    def add(self, topic: str) -> None:
        if topic not in self._topics:
            self._topics.add(topic)
            self._interest.count(topic, 1)

    def remove(self, topic: str) -> None:
        if topic in self._topics:
            self._topics.remove(topic)
            self._interest.count(topic, -1)

    def close(self) -> None:
        for topic in list(self._topics):
            self.remove(topic)
        self._interest.remove(self)


class Interest:
    """All subscriptions of one view. `changed` is called with the topic whose wanting sinks changed, or with ALL."""

    def __init__(self, changed: Callable[[str | None], None]) -> None:
        self._changed = changed
        self._subscriptions: tuple[ViewSubscription, ...] = ()
        self._added: Counter[str] = Counter()  # topics that subscriptions added by name
        self._of_kind: dict[str, tuple[list[Message], ...]] = {}

    def subscribe(self, sink: Sink, kinds: Collection[str] | None, changed: ChangeSink | None) -> ViewSubscription:
        """Deliver to a sink what it wants, from now on."""
        subscription = ViewSubscription(self, sink, kinds, changed)
        self._set((*self._subscriptions, subscription))
        return subscription

    def remove(self, subscription: ViewSubscription) -> None:
        """Deliver nothing more to this sink."""
        self._set(tuple(other for other in self._subscriptions if other is not subscription))

    def clear(self) -> None:
        """Deliver nothing more."""
        self._set(())

    def count(self, topic: str, added: int) -> None:
        """Count that a subscription added (1) or removed (-1) the topic."""
        self._added[topic] += added
        if not self._added[topic]:
            del self._added[topic]
        self._changed(topic)

    def wanted(self, topic: str) -> tuple[list[Message], ...]:
        """Return the lists that collect the topic's messages, in the order of subscription."""
        if topic in self._added:
            return tuple([each.pending for each in self._subscriptions if each.wants(topic)])
        kind = topic.partition(":")[0]
        wanted = self._of_kind.get(kind)
        if wanted is None:
            wanted = tuple([each.pending for each in self._subscriptions if each.wants_kind(kind)])
            self._of_kind[kind] = wanted
        return wanted

    def deliver(self) -> None:
        """Give every sink its messages, in the order of subscription."""
        with ExitStack() as stack:
            for subscription in reversed(self._subscriptions):
                if subscription.pending:
                    stack.callback(_hand_over, subscription.sink, subscription.pending)

    def report(self, change: Change) -> None:
        """Give a change to the sinks that want its topics."""
        with ExitStack() as stack:
            for subscription in reversed(self._subscriptions):
                if subscription.changed is not None:
                    wanted = [topic for topic in change.topics if subscription.wants(topic)]
                    if wanted:
                        stack.callback(subscription.changed, change._replace(topics=wanted))

    def _set(self, subscriptions: tuple[ViewSubscription, ...]) -> None:
        self._subscriptions = subscriptions
        self._of_kind.clear()
        self._changed(ALL)


def _hand_over(sink: Callable[[Sequence[Message]], None], pending: list[Message]) -> None:
    try:
        sink(pending)
    finally:
        pending.clear()
