"""Fetches whole transactions of which a node told only that they landed: batched, paced, bounded; or declares a gap.

landed ──▶ waiting ──take──▶ asked ──▶ delivered, once for each feed
             ▲                 │
             └── later ◀── null, refused, no answer
too many waiting, waiting too long, asked too often ──▶ lost: a gap on their feeds
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Container
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from headrace.model.errors import BadInputError, TransientError
from headrace.model.updates import TransactionUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc, RpcError
from headrace.solana.stored import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.gaps import Gaps
from headrace.sources.ledger import NULL_TRIES, Recent
from headrace.sources.metrics import Tally
from headrace.sources.pace import Pace
from headrace.sources.rpc_pubsub.frames import LandedNotice
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings
from headrace.sources.subscriptions import Subscription, fetched_at

LOOK_S: Final = 0.05
"""Between looks for transactions to ask for; those that landed meanwhile make one batch."""
PER_ENDPOINT: Final = 2
"""Batches under way at one endpoint."""
TIDY_S: Final = 0.5
"""Between looks for transactions that have waited too long."""
DECLARE_S: Final = 5.0
"""Between gaps of one feed for one reason: losses meanwhile are declared as one, since a gap goes to many topics."""
LATER_S_MAX: Final = 4.0
STALE_MAX: Final = 1_024

RATE: Final = "rate"
NOT_FOUND: Final = "transaction not found"
WITHOUT_EVENTS: Final = "transaction without its events"
REFUSED: Final = "the node refused"
UNUSABLE: Final = "the node's answer was unusable"
NO_ANSWER: Final = "the node did not answer in time"
NO_ENDPOINT: Final = "no HTTP endpoint"

_log = structlog.get_logger("source")


class _Wanted:
    """A transaction to fetch, and the feeds that are to have it."""

    __slots__ = ("feeds", "later", "reason", "signature", "since", "slot", "tries")

    def __init__(self, signature: str, slot: int, since: float, later: Backoff) -> None:
        self.signature, self.slot, self.since, self.later = signature, slot, since, later
        self.feeds: dict[Subscription, None] = {}
        self.tries = 0
        self.reason = RATE
        """Why it is lost, should it be lost now."""


class Fetcher:
    """Hand in what landed by `landed`; the work is done in `tasks`. Delivery: once for each feed, in no order.

    At most `transactions_waiting_max` transactions wait, half a kilobyte each; beyond that the oldest is lost, and so
    is one that was not had within `transactions_wait_s`. Losses of a feed within DECLARE_S are declared as one gap.
    """

    def __init__(
        self,
        name: str,
        rpc: Rpc | None,
        *,
        settings: RpcPubSubSettings,
        clock: Clock,
        outlet: Outlet,
        gaps: Gaps,
        recent: Recent,
        tally: Tally,
        tasks: Supervisor,
        restart: Callable[[], Backoff],
    ) -> None:
        self._tasks, self._restart, self._started = tasks, restart, False
        self._name, self._rpc, self._settings, self._clock = name, rpc, settings, clock
        self._outlet, self._gaps, self._recent, self._tally = outlet, gaps, recent, tally
        self._commitment = fetched_at(settings.commitment)
        self._wanted: dict[str, _Wanted] = {}
        self._ready: deque[_Wanted] = deque()
        self._later: list[tuple[float, int, _Wanted]] = []
        self._order = itertools.count()
        self._lost: dict[tuple[Subscription, str], Hole] = {}
        self._declared: dict[tuple[Subscription, str], float] = {}

    @property
    def waiting(self) -> int:
        """How many transactions are not delivered yet."""
        return len(self._wanted)

    def oldest(self, feed: str) -> int | None:
        """Return the lowest slot of which a transaction of `feed` is not delivered yet."""
        slots = [wanted.slot for wanted in self._wanted.values() if any(each.feed == feed for each in wanted.feeds)]
        slots += [hole.from_slot for (subscription, _), hole in self._lost.items() if subscription.feed == feed]
        return min(slots, default=None)

    def _start(self) -> None:
        self._started, tasks, backoff = True, self._tasks, self._restart
        tasks.start(self._name, "transactions-tidy", self._tidy, restart=backoff())
        for number in range(self._rpc.endpoints if self._rpc is not None else 0):
            pace, size = Pace(self._settings.transactions_per_s), _BatchSize(self._settings.transactions_batch)
            for worker in range(PER_ENDPOINT):
                tasks.start(
                    self._name,
                    f"transactions-{number}-{worker}",
                    partial(self._work, number, pace, size),
                    restart=backoff(),
                )

    def landed(self, notice: LandedNotice) -> None:
        """Fetch the transaction for the feed, unless that is done or under way."""
        if not self._started:
            self._start()
        signature, slot, subscription = notice.signature, notice.slot, notice.subscription
        if self._recent.has(subscription.feed, signature):
            return
        wanted = self._wanted.get(signature)
        if wanted is None:
            wanted = _Wanted(signature, slot, self._clock.monotonic(), self._backoff())
            wanted.feeds[subscription] = None
            if self._rpc is None:
                self._lose(wanted, NO_ENDPOINT)
                return
            if len(self._wanted) >= self._settings.transactions_waiting_max:
                self._lose(next(iter(self._wanted.values())), RATE)
            self._wanted[signature] = wanted
            self._ready.append(wanted)
        wanted.feeds[subscription] = None
        wanted.slot = min(wanted.slot, slot)

    def keep(self, subscriptions: Container[Subscription]) -> None:
        """Forget what is waited for by other subscriptions only."""
        for wanted in list(self._wanted.values()):
            for subscription in [each for each in wanted.feeds if each not in subscriptions]:
                del wanted.feeds[subscription]
            if not wanted.feeds:
                del self._wanted[wanted.signature]

    async def _work(self, number: int, pace: Pace, size: "_BatchSize") -> None:
        """Ask one endpoint, for ever."""
        assert self._rpc is not None
        while True:
            rest_s = self._rpc.rests_s(number)
            await self._clock.sleep(max(LOOK_S, rest_s))
            if not rest_s and (batch := self._take(pace, size.now)):
                await self._ask(self._rpc, number, batch, pace, size)

    def _take(self, pace: Pace, most: int) -> list[_Wanted]:
        """The oldest of those that may be asked for now."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready and self._wanted.get(self._ready[0].signature) is not self._ready[0]:
            self._ready.popleft()
        batch = [self._ready.popleft() for _ in range(pace.take(min(most, len(self._ready)), now))]
        return [each for each in batch if self._wanted.get(each.signature) is each]

    async def _ask(self, rpc: Rpc, number: int, batch: list[_Wanted], pace: Pace, size: "_BatchSize") -> None:
        try:
            results = await rpc.get_transactions(number, [each.signature for each in batch], self._commitment)
        except RpcError as error:
            if not isinstance(error, TransientError) and len(batch) > 1:
                size.now = 1  # it takes no batches
            self._not_had(batch, error, pace)
            return
        except (TransientError, BadInputError) as error:
            if isinstance(error, BadInputError):
                size.now = max(1, len(batch) // 2)  # more than may be read at once
            self._not_had(batch, error, pace)
            return
        had = 0
        for wanted, result in zip(batch, results, strict=True):
            if isinstance(result, RpcError | BadInputError):
                self._not_had([wanted], result, pace)
            elif result is None:
                self._put_off(wanted, NOT_FOUND)
            else:
                had += 1
                await self._deliver(wanted, result)
        if had:
            pace.answered(had)
            self._tally.transaction_calls(self._name, "answered", had)

    def _not_had(self, batch: list[_Wanted], error: Exception, pace: Pace) -> None:
        too_fast = (isinstance(error, RpcError) and error.too_fast) or _has_retry_after(error)
        if too_fast:
            pace.refused(self._clock.monotonic())
        self._tally.transaction_calls(self._name, "limited" if too_fast else "failed", len(batch))
        _log.debug("transactions_not_had", count=len(batch), error=str(error))
        for wanted in reversed(batch):
            if too_fast:
                wanted.reason = RATE
                self._ready.appendleft(wanted)  # the pace says when
            elif isinstance(error, RpcError) and not isinstance(error, TransientError):
                self._put_off(wanted, REFUSED)
            else:
                self._put_off(wanted, NO_ANSWER)

    async def _deliver(self, wanted: _Wanted, result: Any) -> None:
        """Put the transaction on the outlet for each feed; ask again for one that can't be read, or is another's."""
        try:
            update = self._read(wanted.signature, result)
        except BadInputError as error:
            self._tally.bad(self._name, error.reason)
            self._put_off(wanted, WITHOUT_EVENTS if error.reason == "not_stored" else UNUSABLE)
            return
        for subscription in list(wanted.feeds):
            await self._outlet.put(_for_feed(update, subscription))
            self._recent.remember(subscription.feed, update.signature, update.slot)
        self._tally.fetched(self._name)
        if self._wanted.get(wanted.signature) is wanted:
            del self._wanted[wanted.signature]

    def _read(self, signature: str, result: Any) -> TransactionUpdate:
        if lacks := not_stored(result):
            raise BadInputError("not_stored", ", ".join(lacks))
        update = transaction_from_rpc(
            result, source=self._name, feed="", received_ns=self._clock.wall_ns(), commitment=self._commitment
        )
        if update.signature != signature:
            raise BadInputError("other_signature", update.signature)
        return update

    def _put_off(self, wanted: _Wanted, reason: str) -> None:
        """Ask again later, whichever endpoint is free then; lose it if that was the last time."""
        wanted.tries, wanted.reason = wanted.tries + 1, reason
        if wanted.tries >= NULL_TRIES:
            self._lose(wanted, reason)
        else:
            heapq.heappush(self._later, (self._clock.monotonic() + wanted.later.next_s(), next(self._order), wanted))

    def _lose(self, wanted: _Wanted, reason: str) -> None:
        if self._wanted.get(wanted.signature) is wanted:
            del self._wanted[wanted.signature]
        self._tally.transaction_lost(self._name, reason)
        for subscription in wanted.feeds:
            low, high = self._lost.get((subscription, reason), (wanted.slot, wanted.slot))
            self._lost[subscription, reason] = Hole(min(low, wanted.slot), max(high, wanted.slot))

    async def _tidy(self) -> None:
        """Lose what waits too long, and declare what was lost, for ever."""
        while True:
            await self._clock.sleep(TIDY_S)
            now = self._clock.monotonic()
            oldest = now - self._settings.transactions_wait_s
            late = itertools.takewhile(partial(_landed_before, oldest), self._wanted.values())
            for wanted in list(late):
                self._lose(wanted, wanted.reason)
            if len(self._ready) > len(self._wanted) + STALE_MAX:  # lost ones, which nobody takes while endpoints rest
                self._ready = deque(each for each in self._ready if self._wanted.get(each.signature) is each)
            self._tally.transactions_waiting(self._name, len(self._wanted))
            for key in [key for key in self._lost if now - self._declared.get(key, -DECLARE_S) >= DECLARE_S]:
                self._declared[key], hole = now, self._lost[key]
                await self._gaps.declare_lost(key[0], hole, key[1])
                if self._lost[key] == hole:
                    del self._lost[key]

    def _backoff(self) -> Backoff:
        initial_s = self._settings.refill_retry_s
        return Backoff(initial_s, max(initial_s, LATER_S_MAX))


class _BatchSize:
    """How many transactions an endpoint is asked for at once."""

    def __init__(self, most: int) -> None:
        self.now = most


def _landed_before(time: float, wanted: _Wanted) -> bool:
    return wanted.since < time


def _has_retry_after(error: Exception) -> bool:
    return isinstance(error, TransientError) and error.retry_after_s is not None


def _for_feed(update: TransactionUpdate, subscription: Subscription) -> TransactionUpdate:
    return msgspec.structs.replace(update, feed=subscription.feed)
