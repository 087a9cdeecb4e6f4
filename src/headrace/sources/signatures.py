"""What `signature:` subscriptions are for: the transaction itself, fetched from the ledger once and delivered whole."""

from collections.abc import Callable
from functools import partial

from headrace.runtime.supervise import Supervisor
from headrace.sources import Outlet
from headrace.sources.coverage import Hole
from headrace.sources.gaps import Gaps
from headrace.sources.ledger import NULL_TRIES, Fetched, Ledger
from headrace.sources.subscriptions import Subscription


class Signatures:
    """`take` says that a subscription has had its answer, and whether it was still wanted: it is answered once."""

    def __init__(
        self,
        name: str,
        ledger: Ledger | None,
        *,
        outlet: Outlet,
        gaps: Gaps,
        tasks: Supervisor,
        take: Callable[[Subscription], bool],
    ) -> None:
        self._name, self._ledger = name, ledger
        self._outlet, self._gaps, self._tasks, self._take = outlet, gaps, tasks, take
        self._fetching: set[Subscription] = set()

    def subscribed(self, subscription: Subscription) -> None:
        """It may have landed before it was subscribed to, so the ledger is asked once."""
        if subscription not in self._fetching:
            self._tasks.start(self._name, subscription.feed, partial(self._look, subscription))

    def landed(self, subscription: Subscription, slot: int) -> None:
        """A node told that it reached the commitment: it must be there, or else it is declared lost."""
        if subscription not in self._fetching:
            self._fetching.add(subscription)
            self._tasks.start(self._name, subscription.feed, partial(self._fetch, subscription, slot))

    async def _look(self, subscription: Subscription) -> None:
        fetched = await self._ledger.fetch(subscription, tries=1) if self._ledger is not None else Fetched()
        if (fetched.update is not None or not fetched.whole) and self._take(subscription):
            await self._deliver(subscription, fetched, fetched.update.slot if fetched.update is not None else 0)

    async def _fetch(self, subscription: Subscription, slot: int) -> None:
        fetched = await self._ledger.fetch(subscription, tries=NULL_TRIES) if self._ledger is not None else Fetched()
        self._fetching.discard(subscription)
        if self._take(subscription):
            await self._deliver(subscription, fetched, slot)

    async def _deliver(self, subscription: Subscription, fetched: Fetched, slot: int) -> None:
        """Hand in what was fetched, and declare what is lacking of it."""
        if fetched.update is not None:
            await self._outlet.put(fetched.update)
        if fetched.update is None or not fetched.whole:
            lack = "transaction not found" if fetched.whole else "transaction without its events"
            await self._gaps.declare_lost(subscription, Hole(slot, slot), lack)
