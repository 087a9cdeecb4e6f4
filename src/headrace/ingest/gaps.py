"""Find the topics that a gap concerns, and remember the declared states of each gap. Pure."""

from collections.abc import Callable, Iterable
from typing import Final

from headrace.model.facts import Gap
from headrace.model.updates import GapUpdate

GAPS_MAX: Final = 1_024
TOPICS_MAX: Final = 50_000
UNREAD_MAX: Final = 1_024

_BY_PROGRAM: Final = {
    "logs": ("trades", "events", "tx"),
    "transactions": ("trades", "events", "tx"),
    "program": ("accounts",),
}
_BY_KEY: Final = {
    "logs": ("trades:", "transfers:", "token:", "pool:", "token_updates", "market-data", "candles:"),
    "transactions": (
        "trades:",
        "transfers:",
        "events:",
        "tx:",
        "token:",
        "pool:",
        "token_updates",
        "market-data",
        "candles:",
    ),
    "program": ("account:",),
}


class GapLedger:
    """Declares each state of a gap once: `open`, then `backfilled` or `unrecoverable`, which is final.

    A repeated `open` is declared only if its slots grew. Each declaration states the whole gap. The newest
    GAPS_MAX gaps are remembered. A gap that is first seen when it has ended is declared as ended.
    """

    def __init__(self, gaps_max: int = GAPS_MAX) -> None:
        self._gaps_max = gaps_max
        self._gaps: dict[tuple[str, str], Gap] = {}

    def apply(self, update: GapUpdate) -> Gap | None:
        """Return the gap as it is to be declared now; None if nothing about it is new."""
        key = (update.source, update.gap_id)
        low, high = sorted((update.from_slot, update.to_slot))
        known = self._gaps.get(key)
        if known is not None:
            low, high = min(low, known.from_slot), max(high, known.to_slot)
            grew = (low, high) != (known.from_slot, known.to_slot)
            if known.state != "open" or (update.state == "open" and not grew):
                return None
        elif len(self._gaps) >= self._gaps_max:
            del self._gaps[next(iter(self._gaps))]
        gap = self._gaps[key] = Gap(update.gap_id, low, high, update.state, update.reason)
        return gap


class UnreadSlots:
    """The slots of each feed in which something arrived that could not be read, so that a refill would lack it too.

    The newest `slots_max` of a feed are remembered; slots at or below a forgotten one count as touched, too.
    """

    def __init__(self, slots_max: int = UNREAD_MAX) -> None:
        self._slots_max = slots_max
        self._slots: dict[str, dict[int, None]] = {}
        self._forgotten: dict[str, int] = {}

    def note(self, feed: str, slot: int) -> None:
        """Remember that something in this slot of the feed could not be read."""
        slots = self._slots.setdefault(feed, {})
        slots[slot] = None
        if len(slots) > self._slots_max:
            oldest = next(iter(slots))
            del slots[oldest]
            self._forgotten[feed] = max(oldest, self._forgotten.get(feed, oldest))

    def touched(self, feed: str, from_slot: int, to_slot: int) -> bool:
        """Return whether something between these slots of the feed, both included, could not be read."""
        if from_slot <= self._forgotten.get(feed, -1):
            return True
        return any(from_slot <= slot <= to_slot for slot in self._slots.get(feed, ()))


class FeedTopics:
    """Remembers which topics a feed's messages go to, so that its gaps can be declared there.

    A program's own topics follow from the feed's name. Topics of single mints and accounts do not: any of them may have
    had a message in the gap. Topics that got messages of the feed are remembered (the newest `topics_max`), and
    `audience` returns topics with subscribers, which may not have had a message yet.
    """

    def __init__(
        self,
        name_of: Callable[[str], str],
        audience: Callable[[], Iterable[str]] = tuple,
        topics_max: int = TOPICS_MAX,
    ) -> None:
        self._name_of, self._audience, self._topics_max = name_of, audience, topics_max
        self._fed: dict[tuple[str, str], None] = {}

    def note(self, feed: str, topic: str) -> None:
        """Remember that a message of `feed` went to `topic`."""
        self._fed[feed, topic] = None
        if len(self._fed) > self._topics_max:
            del self._fed[next(iter(self._fed))]

    def of(self, feed: str) -> list[str]:
        """Return every topic that a gap of `feed` concerns, sorted."""
        kind, _, rest = feed.partition(":")
        key = rest.partition("?")[0]  # program:<id>?dataSize=165
        topics = {topic for fed, topic in self._fed if fed == feed}
        topics.update(f"{topic}:{self._name_of(key)}" for topic in _BY_PROGRAM.get(kind, ()))
        topics.update(topic for topic in self._audience() if topic.startswith(_BY_KEY.get(kind, ("\0",))))
        if kind == "account":
            topics.add(f"account:{key}")
        elif kind == "slots":
            topics.add("slots")
        elif kind in ("logs", "transactions"):
            topics.add("token_updates")
        return sorted(topics)

    def of_meaning(self, program: str) -> list[str]:
        """Return every topic on which an event of `program` is a trade or token, sorted; of mints only those in use."""
        topics = {f"trades:{program}", "token_updates"}
        topics.update(topic for topic in self._audience() if topic.startswith(_BY_KEY["logs"]))
        return sorted(topics)
