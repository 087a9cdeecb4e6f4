"""The in-process cache: the state of each topic in memory, and the events that a retract may bring back."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, cast

from headrace.adapters import Context
from headrace.cache import CacheSettings, Snapshot
from headrace.model.errors import FencedError
from headrace.model.events import Label, Message, Position, Promotion, Retraction
from headrace.model.states import has_state
from headrace.runtime.metrics import Metrics

DEPTH: Final = 16
"""Maximum number of events remembered of one key, so that a retract can bring back an earlier event."""

EVENT_BYTES: Final = 800
"""Bytes that a kept event takes besides its body."""


class _Chain:
    """The events of a key on one topic that are not retracted, oldest first. `cut`: earlier ones are forgotten.

    `confirmed` is the topic's highest confirmed slot at the last check of the chain.
    """

    __slots__ = ("confirmed", "cut", "events", "key", "topic")

    def __init__(self, topic: "_Topic", key: str) -> None:
        self.topic, self.key = topic, key
        self.cut, self.confirmed = False, -1
        self.events: list[Message] = []


class _Topic:
    """One topic: its position in the log and its keys.

    `places` maps an event's id, as a retract names it, to its key; to a tuple of keys where there are several.
    """

    __slots__ = ("chains", "complete", "confirmed", "offset", "places", "slot", "within")

    def __init__(self, first: Message) -> None:
        self.within = first.within
        self.offset = 0
        self.complete = first.offset == 1
        self.slot = self.confirmed = -1
        self.chains: dict[str, _Chain] = {}  # least recently changed first
        self.places: dict[str, str | tuple[str, ...]] = {}


class MemoryCacheWriter:
    """The `CacheWriter` of a memory cache; its methods never wait."""

    def __init__(self, cache: "MemoryCache", token: int) -> None:
        self._cache, self._token = cache, token

    async def apply(self, messages: Sequence[Message]) -> None:
        self._cache.apply(messages, self._token)

    async def forget(self, topics: Collection[str]) -> None:
        self._cache.forget(topics, self._token)


class MemoryCache:
    """The `Cache` of a single process; it knows what was published since the process began.

    Measured with CPython 3.11 on one busy core: 2 to 5 µs for an event, 0.15 µs for a message on a topic that has no
    state; a snapshot of 80,000 items takes 21 ms.
    """

    Settings = CacheSettings
    SECTION = "cache"

    def __init__(self, settings: CacheSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._token = 0
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # least recently published first
        self._unchanged: OrderedDict[_Chain, None] = OrderedDict()  # least recently changed first
        self._bytes = 0
        self._evicted = metrics.counter("cache_evicted", "Items forgotten because there were too many")
        self._unlabelled = metrics.counter("cache_unread", "Retracts without a label: what they take back is not known")
        metrics.gauge("cache_items", "Items kept for snapshots").set_function(lambda: len(self._unchanged))
        metrics.gauge("cache_bytes", "Bytes of all items kept for snapshots").set_function(lambda: self._bytes)

    @classmethod
    async def open(cls, settings: CacheSettings, context: Context) -> "MemoryCache":
        return cls(settings, context.metrics)

    async def claim(self, token: int | None = None) -> "MemoryCacheWriter":
        if token is None:
            token = self._token + 1
        elif token <= self._token:
            raise FencedError(f"cache: token {token} was given, expected one above {self._token}")
        self._token = token
        return MemoryCacheWriter(self, token)

    def apply(self, messages: Sequence[Message], token: int) -> None:
        """Add messages to the state; see `CacheWriter.apply`."""
        self._check(token)
        for message in messages:
            self._apply(message)
        if len(self._unchanged) > self._settings.items_max or self._bytes > self._settings.bytes_max:
            self._make_room()

    def forget(self, topics: Collection[str], token: int) -> None:
        """Forget topics; see `CacheWriter.forget`."""
        self._check(token)
        for topic in topics:
            if topic in self._topics:
                self._forget_topic(topic)

    async def close(self) -> None:
        for name in list(self._topics):
            self._forget_topic(name)

    def _check(self, token: int) -> None:
        if token != self._token:
            raise FencedError(f"cache: the writer with token {token} was followed by one with {self._token}")

    async def snapshot(self, topic: str) -> Snapshot | None:
        known = self._topics.get(topic)
        if known is None:
            return None
        for chain in known.chains.values():
            if chain.confirmed != known.confirmed:
                self._shorten(chain)
        items = [message for chain in known.chains.values() for message in chain.events]
        as_of_slot = known.slot if known.slot >= 0 else None
        return Snapshot(Position(known.within.epoch, known.offset), items, known.complete, as_of_slot)

    def _apply(self, message: Message) -> None:
        within, offset, label = message.within, message.offset, message.label
        topic = self._topics.get(within.topic)
        if topic is None or (topic.within is not within and topic.within.epoch != within.epoch):
            if not has_state(within.topic):
                return
            topic = self._begin(message)
        elif offset <= topic.offset:
            return  # already applied
        else:
            self._topics.move_to_end(within.topic)
        topic.offset = offset
        if isinstance(label, Label):
            self._put(topic, message, label)
        elif isinstance(label, Retraction):
            for event_id in label.event_ids:
                self._take_back(topic, event_id)
        elif isinstance(label, Promotion):
            topic.confirmed = max(topic.confirmed, label.slot)
        elif message.kind == "retract":  # any event may be the retracted one: a missing item is better than a wrong one
            topic = self._begin(message)
            topic.offset, topic.complete = offset, False
            self._unlabelled.inc()

    def _begin(self, message: Message) -> _Topic:
        """Begin an empty state for the message's topic, in place of an earlier state."""
        name = message.topic
        if name in self._topics:
            self._forget_topic(name)
        elif len(self._topics) >= self._settings.items_max and self._topics:
            self._forget_topic(next(iter(self._topics)))
        topic = self._topics[name] = _Topic(message)
        return topic

    def _put(self, topic: _Topic, message: Message, label: Label) -> None:
        """Append an event to its key's chain."""
        key, event_id, slot = label.key, label.event_id, label.slot
        if slot is not None and slot > topic.slot:
            topic.slot = slot
        chain = topic.chains.pop(key, None)
        if chain is None:
            chain = _Chain(topic, key)
            self._unchanged[chain] = None
        else:
            self._unchanged.move_to_end(chain)
        topic.chains[key] = chain
        events, known = chain.events, topic.places.get(event_id)
        if known is None:
            topic.places[event_id] = key
        elif key not in (keys := _keys(known)):
            topic.places[event_id] = (*keys, key)
        else:
            index = _index(events, event_id)
            self._bytes += len(message.body) - len(events[index].body)
            events[index] = message
            return
        events.append(message)
        self._bytes += len(message.body) + EVENT_BYTES
        if len(events) > 1 and (label.certain or len(events) > DEPTH or chain.confirmed != topic.confirmed):
            self._shorten(chain)

    def _shorten(self, chain: _Chain) -> None:
        """Forget events that can't come back: all before the newest certain event, and all beyond DEPTH."""
        events, confirmed = chain.events, chain.topic.confirmed
        chain.confirmed = confirmed
        surplus = max(0, len(events) - DEPTH)
        for index in range(len(events) - 1, surplus, -1):
            label = _label(events[index])
            if label.certain or (label.slot is not None and label.slot <= confirmed):
                surplus = index
                break
        if surplus:
            chain.cut = True
            for message in events[:surplus]:
                self._drop(chain, message)
            del events[:surplus]

    def _take_back(self, topic: _Topic, event_id: str) -> None:
        """Take an event back: the events before it count again."""
        for key in _keys(topic.places.get(event_id, ())):
            chain = topic.chains[key]
            self._drop(chain, chain.events.pop(_index(chain.events, event_id)))
            if not chain.events:
                topic.complete &= not chain.cut
                del topic.chains[key]
                del self._unchanged[chain]

    def _drop(self, chain: _Chain, message: Message) -> None:
        self._bytes -= len(message.body) + EVENT_BYTES
        places, event_id = chain.topic.places, _label(message).event_id
        known = places[event_id]
        if isinstance(known, str) or known == (chain.key,):
            del places[event_id]
        else:
            places[event_id] = tuple([other for other in known if other != chain.key])

    def _make_room(self) -> None:
        settings = self._settings
        while self._unchanged and (len(self._unchanged) > settings.items_max or self._bytes > settings.bytes_max):
            chain, _ = self._unchanged.popitem(last=False)
            topic = chain.topic
            del topic.chains[chain.key]
            for message in chain.events:
                self._drop(chain, message)
            topic.complete = False
            self._evicted.inc()

    def _forget_topic(self, name: str) -> None:
        topic = self._topics.pop(name)
        for chain in topic.chains.values():
            del self._unchanged[chain]
            self._bytes -= sum([len(message.body) + EVENT_BYTES for message in chain.events])
        topic.chains.clear()  # the chains refer to the topic


def _label(message: Message) -> Label:
    """Return the label of an event in a chain: only events with one are put there."""
    return cast(Label, message.label)


def _index(events: Sequence[Message], event_id: str) -> int:
    return next(n for n, message in enumerate(events) if _label(message).event_id == event_id)


def _keys(known: str | tuple[str, ...]) -> tuple[str, ...]:
    return (known,) if isinstance(known, str) else known
