"""Transactions that wait to be fetched, and the rate at which a node may be asked for them. Pure and bounded."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Container
from typing import Final

from headrace.sources.coverage import Hole
from headrace.sources.subscriptions import ChainSubscription

TRIES_MAX: Final = 6
"""Maximum number of tries to fetch a transaction. After that the transaction is lost."""
STALE_MAX: Final = 1_024
"""Maximum number of entries of lost transactions that may stay in the queue."""
DECLARE_S: Final = 5.0
"""Minimum time in seconds between gaps of one feed for one reason. A gap goes to many topics, so losses share it."""
START_PER_S: Final = 10.0
LEAST_PER_S: Final = 0.5


class WaitingTransaction:
    """A transaction to fetch for one or several feeds. `next_s` returns the pause before its next try."""

    __slots__ = ("feeds", "next_s", "reason", "signature", "since", "slot", "tries")

    def __init__(self, signature: str, slot: int, since: float, reason: str, next_s: Callable[[], float]) -> None:
        self.signature, self.slot, self.since, self.next_s = signature, slot, since, next_s
        self.feeds: dict[ChainSubscription, None] = {}
        self.tries = 0
        self.reason = reason
        """The reason to report if the transaction is lost before the next try."""


class FetchQueue:
    """Waiting transactions, oldest first, and the holes left by lost ones until the holes are declared.

    At most `waiting_max` transactions wait. If there are more, the oldest is lost. `on_lost` gets the reason of each
    loss.
    """

    def __init__(self, waiting_max: int, on_lost: Callable[[str], None]) -> None:
        self._waiting_max, self._on_lost = waiting_max, on_lost
        self._waiting: dict[str, WaitingTransaction] = {}
        self._ready: deque[WaitingTransaction] = deque()
        self._later: list[tuple[float, int, WaitingTransaction]] = []
        self._order = itertools.count()
        self._lost: dict[tuple[ChainSubscription, str], Hole] = {}
        self._declared: dict[tuple[ChainSubscription, str], float] = {}

    def __len__(self) -> int:
        """Return how many transactions are neither delivered nor lost."""
        return len(self._waiting)

    def get(self, signature: str) -> WaitingTransaction | None:
        """Return the transaction if it waits."""
        return self._waiting.get(signature)

    def add(self, waiting: WaitingTransaction) -> None:
        """Append a transaction. If there are too many, lose the oldest."""
        if len(self._waiting) >= self._waiting_max:
            oldest = next(iter(self._waiting.values()))
            self.lose(oldest, waiting.reason)
        self._waiting[waiting.signature] = waiting
        self._ready.append(waiting)

    def take(self, most: int, pace: "Pace", now: float) -> list[WaitingTransaction]:
        """Return the oldest transactions that may be asked for now, at most `most` and as many as `pace` allows."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready and not self._waits(self._ready[0]):
            self._ready.popleft()
        batch = [self._ready.popleft() for _ in range(pace.take(min(most, len(self._ready)), now))]
        return [each for each in batch if self._waits(each)]

    def put_back(self, waiting: WaitingTransaction, reason: str) -> None:
        """Make a transaction the first to be taken again, because the node was asked too fast."""
        waiting.reason = reason
        self._ready.appendleft(waiting)

    def put_off(self, waiting: WaitingTransaction, reason: str, now: float) -> None:
        """Let a transaction be taken again after a pause. Lose it after TRIES_MAX tries."""
        waiting.tries, waiting.reason = waiting.tries + 1, reason
        if waiting.tries >= TRIES_MAX:
            self.lose(waiting, reason)
        else:
            heapq.heappush(self._later, (now + waiting.next_s(), next(self._order), waiting))

    def done(self, waiting: WaitingTransaction) -> None:
        """Remove a transaction that was delivered."""
        if self._waits(waiting):
            del self._waiting[waiting.signature]

    def lose(self, waiting: WaitingTransaction, reason: str) -> None:
        """Remove a transaction that can't be fetched: its slot becomes a hole of its feeds."""
        self.done(waiting)
        self._on_lost(reason)
        for subscription in waiting.feeds:
            low, high = self._lost.get((subscription, reason), (waiting.slot, waiting.slot))
            self._lost[subscription, reason] = Hole(min(low, waiting.slot), max(high, waiting.slot))

    def lose_overdue(self, since: float) -> None:
        """Lose the transactions that have waited since before `since`."""
        overdue = itertools.takewhile(lambda waiting: waiting.since < since, self._waiting.values())
        for waiting in list(overdue):
            self.lose(waiting, waiting.reason)
        # entries of lost transactions, which are not taken while endpoints pause
        if len(self._ready) > len(self._waiting) + STALE_MAX:
            self._ready = deque(each for each in self._ready if self._waits(each))

    def keep(self, subscriptions: Container[ChainSubscription]) -> None:
        """Forget transactions that wait only for other subscriptions."""
        for waiting in list(self._waiting.values()):
            for subscription in [each for each in waiting.feeds if each not in subscriptions]:
                del waiting.feeds[subscription]
            if not waiting.feeds:
                del self._waiting[waiting.signature]

    def oldest(self, feed: str) -> int | None:
        """Return the lowest slot with a transaction of `feed` that is neither delivered nor declared lost."""
        slots = [waiting.slot for waiting in self._waiting.values() if any(each.feed == feed for each in waiting.feeds)]
        slots += [hole.from_slot for (subscription, _), hole in self._lost.items() if subscription.feed == feed]
        return min(slots, default=None)

    def holes_due(self, now: float) -> list[tuple[ChainSubscription, str, Hole]]:
        """Return the holes to declare now, with their reasons. Call `declared` for each afterwards."""
        due = [key for key in self._lost if now - self._declared.get(key, -DECLARE_S) >= DECLARE_S]
        self._declared.update(dict.fromkeys(due, now))
        return [(*key, self._lost[key]) for key in due]

    def declared(self, subscription: ChainSubscription, reason: str, hole: Hole) -> None:
        """Forget a hole that was declared, unless it has grown meanwhile."""
        if self._lost.get((subscription, reason)) == hole:
            del self._lost[subscription, reason]

    def _waits(self, waiting: WaitingTransaction) -> bool:
        return self._waiting.get(waiting.signature) is waiting


class Pace:
    """Rate of calls to one node, at most `most_per_s`.

    At first the rate doubles within about a second of full use. After the first refusal it grows by about one call per
    second each second. A refusal halves the rate.
    """

    def __init__(self, most_per_s: float) -> None:
        self._most_per_s = most_per_s
        self.per_s = min(START_PER_S, most_per_s)
        self._refused = False
        self._credit, self._since = 1.0, 0.0
        self._halved_at = float("-inf")

    def take(self, wanted: int, now: float) -> int:
        """Return how many of the `wanted` calls may be made now, and count them as made."""
        self._credit = min(max(1.0, self.per_s / 2), self._credit + self.per_s * max(0.0, now - self._since))
        self._since = max(self._since, now)
        taken = min(wanted, int(self._credit))
        self._credit -= taken
        return taken

    def answered(self, calls: int) -> None:
        """Raise the rate, because the node answered this many calls."""
        step = calls / self.per_s if self._refused else calls
        self.per_s = min(self._most_per_s, self.per_s + step)

    def refused(self, now: float) -> None:
        """Halve the rate, at most once a second, because calls that were sent before may still be refused."""
        self._refused = True
        self._credit = 0.0
        if now - self._halved_at >= 1.0:
            self._halved_at = now
            self.per_s = max(LEAST_PER_S, self.per_s / 2)
