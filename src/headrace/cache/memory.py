"""The in-process cache: the state of each topic in memory, and the events that a retract may bring back."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

import msgspec

from headrace.adapters import Context
from headrace.cache import CacheSettings, Snapshot
from headrace.model.errors import FencedError
from headrace.model.events import Label, Message, Position, Promotion, Retraction
from headrace.model.states import has_state
from headrace.runtime.metrics import Metrics

DEPTH: Final = 16
"""Events remembered of one key, so that a retract can bring back what stood before."""

EVENT_BYTES: Final = 800
"""Bytes that a kept event takes besides its body."""

Place: TypeAlias = tuple[str, str]
"""A topic and a key."""


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """One event of a key, and its label."""

    message: Message
    label: Label


class _Chain:
    """The events of a key that stand, oldest first. `cut`: earlier ones are forgotten.

    `confirmed` is the topic's highest confirmed slot when the chain was last looked through.
    """

    __slots__ = ("confirmed", "cut", "kept")

    def __init__(self) -> None:
        self.cut, self.confirmed = False, -1
        self.kept: list[_Kept] = []


class _Topic:
    """One topic: its position in the log and its keys. `places` finds the keys of an event that a retract names."""

    __slots__ = ("chains", "complete", "confirmed", "epoch", "offset", "places", "slot")

    def __init__(self, first: Message) -> None:
        self.epoch = first.epoch
        self.offset = 0
        self.complete = first.offset == 1
        self.slot = self.confirmed = -1
        self.chains: dict[str, _Chain] = {}  # least recently changed first
        self.places: dict[str, tuple[str, ...]] = {}


class MemoryCacheWriter:
    """The `CacheWriter` of a memory cache; nothing waits."""

    def __init__(self, cache: "MemoryCache", token: int) -> None:
        self._cache, self._token = cache, token

    async def apply(self, messages: Sequence[Message]) -> None:
        self._cache.apply(messages, self._token)

    async def forget(self, topics: Collection[str]) -> None:
        self._cache.forget(topics, self._token)


class MemoryCache:
    """The `Cache` of a single process; it knows what was published since the process began.

    Measured with CPython 3.11 on one busy core: 2 to 5 µs for an event, 0.15 µs for a message on a topic that has no
    state; a snapshot of 80,000 items is taken in 21 ms.
    """

    Settings = CacheSettings
    SECTION = "cache"

    def __init__(self, settings: CacheSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._token = 0
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # least recently published first
        self._unchanged: OrderedDict[Place, None] = OrderedDict()  # least recently changed first
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
            if has_state(message.topic):
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
        self._topics.clear()
        self._unchanged.clear()
        self._bytes = 0

    def _check(self, token: int) -> None:
        if token != self._token:
            raise FencedError(f"cache: the writer with token {token} was followed by one with {self._token}")

    async def snapshot(self, topic: str) -> Snapshot | None:
        known = self._topics.get(topic)
        if known is None:
            return None
        for key, chain in known.chains.items():
            if chain.confirmed != known.confirmed:
                self._shorten(known, key, chain)
        items = [kept.message for chain in known.chains.values() for kept in chain.kept]
        as_of_slot = known.slot if known.slot >= 0 else None
        return Snapshot(Position(known.epoch, known.offset), items, known.complete, as_of_slot)

    def _apply(self, message: Message) -> None:
        name = message.topic
        topic = self._topics.get(name)
        if topic is None or topic.epoch != message.epoch:
            if topic is not None:
                self._forget_topic(name)
            elif len(self._topics) >= self._settings.items_max:
                self._forget_topic(next(iter(self._topics), None))
            topic = self._topics[name] = _Topic(message)
        elif message.offset <= topic.offset:
            return  # applied before
        else:
            self._topics.move_to_end(name)
        topic.offset = message.offset
        label = message.label
        if isinstance(label, Label):
            self._put(name, topic, message, label)
        elif isinstance(label, Retraction):
            for event_id in label.event_ids:
                self._take_back(name, topic, event_id)
        elif isinstance(label, Promotion):
            topic.confirmed = max(topic.confirmed, label.slot)
        elif message.kind == "retract":  # any event may be the one that is taken back: an item less is no wrong item
            self._forget_topic(name)
            topic = self._topics[name] = _Topic(message)
            topic.offset, topic.complete = message.offset, False
            self._unlabelled.inc()

    def _put(self, name: str, topic: _Topic, message: Message, label: Label) -> None:
        """Put an event on top of its key's chain."""
        key, event_id, slot = label.key, label.event_id, label.slot
        if slot is not None and slot > topic.slot:
            topic.slot = slot
        chain = topic.chains[key] = topic.chains.pop(key) if key in topic.chains else _Chain()
        place = name, key
        self._unchanged[place] = None
        self._unchanged.move_to_end(place)
        kept = _Kept(message, label)
        keys = topic.places.get(event_id, ())
        if key in keys:
            index = next(n for n, earlier in enumerate(chain.kept) if earlier.label.event_id == event_id)
            self._bytes += len(message.body) - len(chain.kept[index].message.body)
            chain.kept[index] = kept
            return
        chain.kept.append(kept)
        topic.places[event_id] = (*keys, key)
        self._bytes += len(message.body) + EVENT_BYTES
        if label.certain or len(chain.kept) > DEPTH or chain.confirmed != topic.confirmed:
            self._shorten(topic, key, chain)

    def _shorten(self, topic: _Topic, key: str, chain: _Chain) -> None:
        """Forget events that can no longer come back: all before the newest certain event, and all beyond DEPTH."""
        kept, chain.confirmed = chain.kept, topic.confirmed
        surplus = max(0, len(kept) - DEPTH)
        for index in range(len(kept) - 1, surplus, -1):
            label = kept[index].label
            if label.certain or (label.slot is not None and label.slot <= topic.confirmed):
                surplus = index
                break
        if surplus:
            chain.cut = True
            for forgotten in kept[:surplus]:
                self._drop(topic, key, forgotten)
            del kept[:surplus]

    def _take_back(self, name: str, topic: _Topic, event_id: str) -> None:
        """Take an event back: the events before it stand again."""
        for key in topic.places.get(event_id, ()):
            chain = topic.chains[key]
            gone = next(kept for kept in chain.kept if kept.label.event_id == event_id)
            chain.kept.remove(gone)
            self._drop(topic, key, gone)
            if not chain.kept:
                topic.complete &= not chain.cut
                del topic.chains[key]
                del self._unchanged[name, key]

    def _drop(self, topic: _Topic, key: str, kept: _Kept) -> None:
        self._bytes -= len(kept.message.body) + EVENT_BYTES
        event_id = kept.label.event_id
        others = tuple(other for other in topic.places[event_id] if other != key)
        if others:
            topic.places[event_id] = others
        else:
            del topic.places[event_id]

    def _make_room(self) -> None:
        settings = self._settings
        while self._unchanged and (len(self._unchanged) > settings.items_max or self._bytes > settings.bytes_max):
            (name, key), _ = self._unchanged.popitem(last=False)
            topic = self._topics[name]
            for kept in topic.chains.pop(key).kept:
                self._drop(topic, key, kept)
            topic.complete = False
            self._evicted.inc()

    def _forget_topic(self, name: str | None) -> None:
        if name is None:
            return
        topic = self._topics.pop(name)
        for key, chain in topic.chains.items():
            del self._unchanged[name, key]
            for kept in chain.kept:
                self._bytes -= len(kept.message.body) + EVENT_BYTES
