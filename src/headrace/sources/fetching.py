"""Fetches whole transactions that a node only named, in batches at a limited rate; a lost transaction becomes a gap.

landed ──▶ waiting ──take──▶ asked ──▶ delivered, once for each feed
             ▲                 │
             └── later ◀── null, refused, no answer
too many waiting, waiting too long, asked too often ──▶ lost: a gap of their feeds
"""

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
from headrace.solana.rpc_json import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources import Outlet
from headrace.sources.connection import LandedNotice
from headrace.sources.coverage import Hole
from headrace.sources.fetch_queue import FetchQueue, Pace, WaitingTransaction
from headrace.sources.gaps import Gaps
from headrace.sources.ledger import NULL_TRIES, Fetched, Ledger
from headrace.sources.metrics import SourceMetrics
from headrace.sources.refill import Recent
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import ChainSubscription, fetched_at

LOOK_S: Final = 0.05
"""Seconds between batches. Transactions that landed in between are requested together."""
PER_ENDPOINT: Final = 2
"""Maximum number of batches under way at one endpoint."""
TIDY_S: Final = 0.5
"""Seconds between searches for transactions that have waited too long."""
LATER_S_MAX: Final = 4.0

RATE: Final = "rate"
NOT_FOUND: Final = "transaction not found"
WITHOUT_EVENTS: Final = "transaction without its events"
REFUSED: Final = "the node refused"
UNUSABLE: Final = "the node's answer was unusable"
NO_ANSWER: Final = "the node did not answer in time"
NO_ENDPOINT: Final = "no HTTP endpoint"

_log = structlog.get_logger("source")


class TransactionFetcher:
    """Fetches transactions of `transactions:` feeds. Delivers each once for each feed, in no particular order.

    At most `transactions_waiting_max` transactions wait, half a kilobyte each. If there are more, the oldest is lost. A
    transaction not fetched within `transactions_wait_s` is lost, too. Losses of a feed within DECLARE_S are declared as
    one gap. The work runs in `tasks`, starting with the first transaction.
    """

    def __init__(
        self,
        name: str,
        rpc: Rpc | None,
        *,
        settings: NodeSourceSettings,
        clock: Clock,
        outlet: Outlet,
        gaps: Gaps,
        recent: Recent,
        metrics: SourceMetrics,
        tasks: Supervisor,
    ) -> None:
        self._name, self._rpc, self._settings, self._clock = name, rpc, settings, clock
        self._outlet, self._gaps, self._recent, self._metrics = outlet, gaps, recent, metrics
        self._tasks, self._started = tasks, False
        self._commitment = fetched_at(settings.commitment)
        self.queue = FetchQueue(settings.transactions_waiting_max, partial(metrics.transaction_lost, name))

    def landed(self, notice: LandedNotice) -> None:
        """Fetch the transaction for the feed, unless it has been fetched or is being fetched."""
        if not self._started:
            self._start()
        signature, slot, subscription = notice.signature, notice.slot, notice.subscription
        if self._recent.has(subscription.feed, signature):
            return
        waiting = self.queue.get(signature)
        if waiting is None:
            waiting = WaitingTransaction(signature, slot, self._clock.monotonic(), RATE, self._pause().next_s)
            waiting.feeds[subscription] = None
            if self._rpc is None:
                self.queue.lose(waiting, NO_ENDPOINT)
                return
            self.queue.add(waiting)
        waiting.feeds[subscription] = None
        waiting.slot = min(waiting.slot, slot)

    def keep(self, subscriptions: Container[ChainSubscription]) -> None:
        """Forget transactions that wait only for other subscriptions."""
        self.queue.keep(subscriptions)

    def oldest(self, feed: str) -> int | None:
        """Return the lowest slot with a transaction of `feed` that is not delivered yet."""
        return self.queue.oldest(feed)

    def _start(self) -> None:
        self._started = True
        start = partial(self._tasks.start, self._name)
        start("transactions-tidy", self._tidy, restart=self._restart())
        for number in range(self._rpc.endpoints if self._rpc is not None else 0):
            pace, size = Pace(self._settings.transactions_per_s), _BatchSize(self._settings.transactions_batch)
            for worker in range(PER_ENDPOINT):
                work = partial(self._work, number, pace, size)
                start(f"transactions-{number}-{worker}", work, restart=self._restart())

    async def _work(self, number: int, pace: Pace, size: "_BatchSize") -> None:
        """Request batches from one endpoint until cancelled."""
        assert self._rpc is not None
        while True:
            rest_s = self._rpc.rests_s(number)
            await self._clock.sleep(max(LOOK_S, rest_s))
            if not rest_s and (batch := self.queue.take(size.now, pace, self._clock.monotonic())):
                await self._ask(self._rpc, number, batch, pace, size)

    async def _ask(
        self, rpc: Rpc, number: int, batch: list[WaitingTransaction], pace: Pace, size: "_BatchSize"
    ) -> None:
        try:
            results = await rpc.get_transactions(number, [each.signature for each in batch], self._commitment)
        except RpcError as error:
            if not isinstance(error, TransientError) and len(batch) > 1:
                size.now = 1  # the endpoint does not accept batches
            self._put_off(batch, error, pace)
            return
        except (TransientError, BadInputError) as error:
            if isinstance(error, BadInputError):
                size.now = max(1, len(batch) // 2)  # the answer was larger than is read at once
            self._put_off(batch, error, pace)
            return
        had = 0
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, RpcError | BadInputError):
                self._put_off([waiting], result, pace)
            elif result is None:
                self.queue.put_off(waiting, NOT_FOUND, self._clock.monotonic())
            else:
                had += 1
                await self._deliver(waiting, result)
        if had:
            pace.answered(had)
            self._metrics.transaction_calls(self._name, "answered", had)

    def _put_off(self, batch: list[WaitingTransaction], error: Exception, pace: Pace) -> None:
        """Queue a batch that failed with `error` for a later try."""
        now = self._clock.monotonic()
        too_fast = (isinstance(error, RpcError) and error.too_fast) or _has_retry_after(error)
        if too_fast:
            pace.refused(now)
        self._metrics.transaction_calls(self._name, "limited" if too_fast else "failed", len(batch))
        _log.debug("transactions_not_had", count=len(batch), error=str(error))
        for waiting in reversed(batch):
            if too_fast:
                self.queue.put_back(waiting, RATE)  # `pace` decides when
            elif isinstance(error, RpcError) and not isinstance(error, TransientError):
                self.queue.put_off(waiting, REFUSED, now)
            else:
                self.queue.put_off(waiting, NO_ANSWER, now)

    async def _deliver(self, waiting: WaitingTransaction, result: Any) -> None:
        """Deliver the transaction for each feed.

        Request it again if the answer can't be read or is of another transaction.
        """
        try:
            update = self._read(waiting.signature, result)
        except BadInputError as error:
            self._metrics.bad(self._name, error.reason)
            reason = WITHOUT_EVENTS if error.reason == "not_stored" else UNUSABLE
            self.queue.put_off(waiting, reason, self._clock.monotonic())
            return
        for subscription in list(waiting.feeds):
            await self._outlet.put(msgspec.structs.replace(update, feed=subscription.feed))
            self._recent.remember(subscription.feed, update.signature, update.slot)
        self._metrics.fetched(self._name)
        self.queue.done(waiting)

    def _read(self, signature: str, result: Any) -> TransactionUpdate:
        if lacks := not_stored(result):
            raise BadInputError("not_stored", ", ".join(lacks))
        update = transaction_from_rpc(
            result, source=self._name, feed="", received_ns=self._clock.wall_ns(), commitment=self._commitment
        )
        if update.signature != signature:
            raise BadInputError("other_signature", update.signature)
        return update

    async def _tidy(self) -> None:
        """Lose transactions that have waited too long, and declare what was lost, until cancelled."""
        while True:
            await self._clock.sleep(TIDY_S)
            now = self._clock.monotonic()
            self.queue.lose_overdue(now - self._settings.transactions_wait_s)
            self._metrics.transactions_waiting(self._name, len(self.queue))
            for subscription, reason, hole in self.queue.holes_due(now):
                await self._gaps.declare_lost(subscription, hole, reason)
                self.queue.declared(subscription, reason, hole)

    def _pause(self) -> Backoff:
        initial_s = self._settings.refill_retry_s
        return Backoff(initial_s, max(initial_s, LATER_S_MAX))

    def _restart(self) -> Backoff:
        return Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s)


class _BatchSize:
    """Number of transactions to request from an endpoint at once."""

    def __init__(self, most: int) -> None:
        self.now = most


def _has_retry_after(error: Exception) -> bool:
    return isinstance(error, TransientError) and error.retry_after_s is not None


class SignatureFetcher:
    """Fetches the transactions of `signature:` subscriptions, each once and whole.

    `take` drops a subscription that has been answered, and returns whether it was still wanted.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger | None,
        *,
        outlet: Outlet,
        gaps: Gaps,
        tasks: Supervisor,
        take: Callable[[ChainSubscription], bool],
    ) -> None:
        self._name, self._ledger = name, ledger
        self._outlet, self._gaps, self._tasks, self._take = outlet, gaps, tasks, take
        self._fetching: set[ChainSubscription] = set()

    def subscribed(self, subscription: ChainSubscription) -> None:
        """Ask the ledger once: the transaction may have landed before the subscription."""
        if subscription not in self._fetching:
            self._tasks.start(self._name, subscription.feed, partial(self._look, subscription))

    def landed(self, subscription: ChainSubscription, slot: int) -> None:
        """Fetch a transaction that reached the commitment at a node. Declare it lost if it isn't found."""
        if subscription not in self._fetching:
            self._fetching.add(subscription)
            self._tasks.start(self._name, subscription.feed, partial(self._fetch, subscription, slot))

    async def _look(self, subscription: ChainSubscription) -> None:
        fetched = await self._read(subscription, tries=1)
        if (fetched.update is not None or not fetched.whole) and self._take(subscription):
            await self._deliver(subscription, fetched, fetched.update.slot if fetched.update is not None else 0)

    async def _fetch(self, subscription: ChainSubscription, slot: int) -> None:
        fetched = await self._read(subscription, tries=NULL_TRIES)
        self._fetching.discard(subscription)
        if self._take(subscription):
            await self._deliver(subscription, fetched, slot)

    async def _read(self, subscription: ChainSubscription, *, tries: int) -> Fetched:
        if self._ledger is None:
            return Fetched()
        deadline = self._ledger.deadline()
        return await self._ledger.transaction(subscription.feed, subscription.key, deadline, tries=tries)

    async def _deliver(self, subscription: ChainSubscription, fetched: Fetched, slot: int) -> None:
        """Deliver the fetched update, and declare the parts that are missing."""
        if fetched.update is not None:
            await self._outlet.put(fetched.update)
        if fetched.update is None or not fetched.whole:
            lack = "transaction not found" if fetched.whole else "transaction without its events"
            await self._gaps.declare_lost(subscription, Hole(slot, slot), lack)
