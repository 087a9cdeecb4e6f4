"""What `signature:` subscriptions are for: the transaction itself, fetched from the ledger once and delivered whole."""

from collections.abc import Callable
from functools import partial

from headrace.runtime.supervise import Supervisor
from headrace.sources import Outlet
from headrace.sources.rpc_pubsub.coverage import Hole
from headrace.sources.rpc_pubsub.gaps import Gaps
from headrace.sources.rpc_pubsub.ledger import NULL_TRIES, Ledger
from headrace.sources.rpc_pubsub.subscriptions import Subscription


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
        update = await self._ledger.fetch(subscription, tries=1) if self._ledger is not None else None
        if update is not None and self._take(subscription):
            await self._outlet.put(update)

    async def _fetch(self, subscription: Subscription, slot: int) -> None:
        update = await self._ledger.fetch(subscription, tries=NULL_TRIES) if self._ledger is not None else None
        self._fetching.discard(subscription)
        if not self._take(subscription):
            return
        if update is not None:
            await self._outlet.put(update)
        else:
            await self._gaps.declare_lost(subscription, Hole(slot, slot), "transaction not found")
