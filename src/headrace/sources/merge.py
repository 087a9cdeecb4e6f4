"""All connections of a source as one stream: each arrival is checked, and delivered or declared lost in a gap.

arrival ──▶ of a possible slot? ──▶ delivered, or fetched whole first ──▶ outlet
   │                   └── no ──▶ unreadable ──▶ a gap of its feeds
   ├── slot ───▶ head ──▶ covers begin, slots are confirmed
connection ends ──▶ covers end ──▶ slots that no other connection covers ──▶ a gap: refilled, or unrecoverable
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import Outlet
from headrace.sources.connection import (
    Arrival,
    Connection,
    Content,
    LandedNotice,
    SignatureNotice,
    SlotNotice,
    StatusNotice,
    Unreadable,
)
from headrace.sources.crosscheck import CrossCheck
from headrace.sources.fetching import SignatureFetcher, TransactionFetcher
from headrace.sources.gaps import Gaps
from headrace.sources.head import NEAR
from headrace.sources.health import SourceHealth
from headrace.sources.landings import Landings
from headrace.sources.ledger import Ledger
from headrace.sources.losses import Losses
from headrace.sources.metrics import SourceMetrics
from headrace.sources.proofs import Proofs
from headrace.sources.proving import Prover
from headrace.sources.refill import Recent, Refill
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.slots import ChainSlots
from headrace.sources.subscriptions import LISTED, SLOTS, ChainSubscription

_DELIVERED: Final = (LogsUpdate, AccountUpdate, TransactionUpdate, LandedNotice)
_HELD_HEADS_MAX: Final = 4


class MergedStream:
    """Stream of a source that reads several endpoints at once, each with the same subscriptions.

    An update is delivered as soon as the fastest node sends it, and is lost only if all nodes missed it. Later arrivals
    of the same update are delivered too; the pipeline drops repeats. A transport calls `take` for each arrival,
    `acknowledge` for each subscription that its node accepted, and `show_refused` when `connection.refused` has
    changed. `covered` comes from an earlier source. `tasks` runs the work. Without `rpc` no gap is filled and no slot
    confirmed.
    """

    def __init__(
        self,
        name: str,
        wanted: Sequence[ChainSubscription],
        covered: Mapping[str, int],
        *,
        settings: NodeSourceSettings,
        clock: Clock,
        metrics: SourceMetrics,
        health: SourceHealth,
        rpc: Rpc | None,
        outlet: Outlet,
        tasks: Supervisor,
    ) -> None:
        self.name, self.wanted = name, tuple(wanted)
        self.clock, self.metrics = clock, metrics
        self.connections: dict[int, Connection] = {}
        self._settings, self._health, self._outlet, self._tasks, self._rpc = settings, health, outlet, tasks, rpc
        self._recent = Recent()
        self._proofs = Proofs()
        ledger = Ledger(name, rpc, settings=settings, clock=clock, metrics=metrics) if rpc is not None else None
        refill = Refill(ledger, outlet=outlet, recent=self._recent) if ledger is not None else None
        self.gaps = Gaps(name, refill, clock=clock, outlet=outlet, tasks=tasks)
        self._losses = Losses(self.wanted, covered, self.gaps)
        self._signatures = SignatureFetcher(
            name, ledger, outlet=outlet, gaps=self.gaps, tasks=tasks, take=self._take_signature
        )
        self._fetcher = TransactionFetcher(
            name,
            rpc,
            settings=settings,
            clock=clock,
            outlet=outlet,
            gaps=self.gaps,
            recent=self._recent,
            metrics=metrics,
            tasks=tasks,
        )
        self._landings = Landings(name, self._proofs, outlet=outlet, gaps=self.gaps, clock=clock, metrics=metrics)
        self._slots = ChainSlots(
            name, self._proofs, outlet=outlet, settings=settings, clock=clock, metrics=metrics, health=health
        )
        self._prover = Prover(
            rpc,
            self._proofs,
            head=lambda: self._slots.head,
            publish=self._landings.publish,
            settings=settings,
            clock=clock,
        )
        self._check = (
            CrossCheck(
                name,
                rpc,
                self._slots,
                settings=settings,
                clock=clock,
                metrics=metrics,
                recent=self._recent,
                on_slot=self._slot_appeared,
            )
            if rpc is not None
            else None
        )

    @property
    def head(self) -> int:
        """The head of the chain, 0 while it is unknown."""
        return self._slots.head

    def start(self) -> None:
        """Start the tasks that run beside the connections."""
        processed = self._settings.commitment == "processed"
        start = partial(self._tasks.start, self.name)
        if processed:
            start("proofs", self._prover.run, restart=self._backoff())
        start("damage", self._declare_unreadable_often, restart=self._backoff())
        if self._check is not None and self._rpc is not None:
            start("check", partial(self._cross_check, self._check), restart=self._backoff())
            if processed:
                start("confirm", partial(self._slots.confirm, self._rpc), restart=self._backoff())

    def covered(self) -> dict[str, int]:
        """Return feed → the slot up to which all would be delivered or declared as a gap if the source ended now.

        No transaction up to that slot waits to be fetched or to be proven.
        """
        covered = self._losses.reached(self.connections.values(), self._slots.head)
        wanted = {subscription.feed: subscription for subscription in self.wanted}
        for feed in covered:
            subscription = wanted.get(feed, SLOTS)
            lows = (
                self.gaps.oldest(feed),
                self._fetcher.oldest(feed),
                self._losses.oldest_unreadable(subscription),
                self._proofs.oldest() if subscription.kind in LISTED else None,
            )
            covered[feed] = min([covered[feed], *(slot - 1 for slot in lows if slot is not None)])
        return covered

    def close(self) -> dict[str, int]:
        """End all connections at once and close open gaps. Return feed → the slot up to which it is covered."""
        self._declare_unreadable()
        self.gaps.close()
        covered = self._losses.suspend(self.connections.values(), self._slots.head)
        for feed in covered:
            oldest = self._fetcher.oldest(feed)
            covered[feed] = covered[feed] if oldest is None else min(covered[feed], oldest - 1)
        return covered

    def want(self, wanted: Sequence[ChainSubscription]) -> None:
        """Replace the subscriptions. Feeds that are no longer wanted are forgotten."""
        self.wanted = tuple(wanted)
        self._losses.want(self.wanted)
        self._recent.keep({subscription.feed for subscription in self.wanted})
        self._fetcher.keep(self.wanted)
        for connection in self.connections.values():
            connection.want(self.wanted)

    # Called by transports.

    def begin(self, connection: Connection) -> None:
        """Add a connection that is about to be made."""
        self.connections[connection.number] = connection

    def end(self, connection: Connection, reason: str) -> None:
        """Remove a connection.

        Slots after those that it certainly delivered become a gap, unless another connection covers them.
        """
        del self.connections[connection.number]
        self._losses.end(connection, reason)
        self._slots.forget(connection.name)

    async def take(self, connection: Connection, arrival: Arrival, received_ns: int) -> None:
        """Deliver an arrival, or record its loss. While the outlet is full this waits, and nothing more is read."""
        connection.handing_in = True
        if isinstance(arrival, _DELIVERED):
            if self._slots.can_be(arrival.slot, connection.name):
                feed = await self._deliver(arrival)
                connection.progress.brought(feed, arrival.slot)
                if not connection.has_slots:
                    self._slot_appeared(connection, arrival.slot)
            else:
                self._refuse_slot(connection, arrival)
        elif isinstance(arrival, SlotNotice):
            await self._take_slot(connection, arrival, received_ns)
        elif isinstance(arrival, StatusNotice):
            if self._slots.can_be(arrival.slot, connection.name):
                await self._slots.reached(connection.name, arrival, received_ns)
        elif isinstance(arrival, SignatureNotice):
            self._signatures.landed(arrival.subscription, arrival.slot or connection.progress.head)
        else:
            self._lose(connection, arrival)
        connection.handing_in = False

    def acknowledge(
        self,
        connection: Connection,
        subscription: ChainSubscription,
        commitment: Commitment,
        *,
        heads_tell: bool = False,
    ) -> None:
        """Record that the node accepted a subscription, whose updates have `commitment`.

        With `heads_tell`, the feed counts as received up to the node's latest slot, because both come in one stream.
        """
        connection.acknowledged.add(subscription)
        if subscription.kind == "signature":
            self._signatures.subscribed(subscription)
        else:
            listed = subscription.kind in LISTED and not heads_tell
            connection.progress.acknowledged(subscription.feed, commitment, listed=listed)
        self._note_whole(connection)
        if connection.whole:
            self.report()

    def replayed(self, connection: Connection, first_slot: int) -> None:
        """Begin the covers of all acknowledged feeds at `first_slot`, from which on the node sends everything again."""
        self._losses.begin(connection, connection.progress.replayed(first_slot), self._slots.head)
        self._note_whole(connection)

    def show_refused(self, connection: Connection) -> None:
        """Show on the health board which subscriptions the node refuses."""
        self._note_whole(connection)
        self.report()

    def report(self) -> None:
        """Report the current state to the health board."""
        self._health.report(
            self.connections.values(),
            len(self.wanted),
            open_gaps=self.gaps.open,
            http_fault=self._check.fault if self._check is not None else "",
            now=self.clock.monotonic(),
            ahead=self._slots.ahead(),
            proofs=self._prover.state,
        )

    # Content.

    async def _deliver(self, update: Content | LandedNotice) -> str:
        """Deliver an update, or have it fetched. Return its feed."""
        if isinstance(update, LandedNotice):
            if update.subscription in self.wanted:
                self._fetcher.landed(update)
            return update.subscription.feed
        if not isinstance(update, AccountUpdate) and update.unproven:
            admitted = await self._landings.admit(update, self.wanted)
            if admitted is None:
                return update.feed
            update = admitted
        if not self._outlet.put_nowait(update):
            await self._outlet.put(update)
        if not isinstance(update, AccountUpdate):
            self._recent.remember(update.feed, update.signature, update.slot)
        return update.feed

    def _take_signature(self, subscription: ChainSubscription) -> bool:
        """Drop a `signature:` subscription, which is answered only once. Return whether it was still wanted."""
        if subscription not in self.wanted:
            return False
        self.wanted = self._losses.wanted = tuple(kept for kept in self.wanted if kept != subscription)
        for connection in self.connections.values():
            connection.want(self.wanted)
        return True

    # Slots.

    async def _take_slot(self, connection: Connection, notice: SlotNotice, received_ns: int) -> None:
        """Take a head that counts, and the held heads that it confirms. Hold a head that does not count yet."""
        if not self._slots.hear(connection.name, notice.slot):
            if not connection.progress.head:
                connection.progress.promise(notice.slot)
            connection.held_heads.append((notice, received_ns))
            if len(connection.held_heads) > _HELD_HEADS_MAX:
                connection.held_heads.pop(0)
                self.metrics.bad(connection.name, "slot_jump")
            return
        connection.has_slots = True
        held, connection.held_heads = connection.held_heads, []
        for earlier, at_ns in held:
            if 0 < notice.slot - earlier.slot <= NEAR:
                await self._take_head(connection, earlier, at_ns)
            else:
                self.metrics.bad(connection.name, "slot_jump")
        await self._take_head(connection, notice, received_ns)

    async def _take_head(self, connection: Connection, notice: SlotNotice, received_ns: int) -> None:
        self._head_moved(connection, notice.root)
        await self._slots.begun(connection.name, notice, received_ns)

    def _slot_appeared(self, connection: Connection, slot: int) -> None:
        """Take the slot of an update, or of `getSlot`, as the head of a node that sends no slots."""
        counts = self._slots.hear(connection.name, slot)
        self._slots.appeared(slot)
        if counts and self._slots.head_of(connection.name) != connection.progress.head:
            self._head_moved(connection)

    def _head_moved(self, connection: Connection, root: int = 0) -> None:
        """Begin covers at the node's head. The lag of the other connections is measured from that head."""
        now, slot = self.clock.monotonic(), self._slots.head_of(connection.name)
        connection.watch.slot(slot, now)
        begun = connection.progress.slot(slot, root, self._slots.head_of_others(connection.name))
        self._losses.begin(connection, begun, self._slots.head)
        for other in self.connections.values():
            if other is not connection:
                other.watch.witness(self._slots.head_of_others(other.name), now)
        if begun:
            self._note_whole(connection)

    def _note_whole(self, connection: Connection) -> None:
        """Mark a connection that is whole for the first time. Later subscriptions do not change that."""
        if connection.complete and connection.progress.covering and not connection.whole:
            connection.whole = True
            self._health.recovered(connection, self.clock.monotonic())
            self.report()

    # Losses.

    def _refuse_slot(self, connection: Connection, arrival: Content | LandedNotice) -> None:
        self.metrics.bad(connection.name, "slot_jump")
        if isinstance(arrival, LandedNotice):
            subscriptions: tuple[ChainSubscription, ...] = (arrival.subscription,)
        else:
            subscriptions = tuple(wanted for wanted in connection.wanted if wanted.feed == arrival.feed)
        self._lose(connection, Unreadable(subscriptions, "slot_jump"))

    def _lose(self, connection: Connection, lost: Unreadable) -> None:
        """Count a notification that can't be read. Its slots will be declared as a gap."""
        if not lost.subscriptions:
            return  # the feed is no longer wanted
        connection.note_unreadable(lost, self.clock.monotonic())
        for subscription in lost.subscriptions:
            self.metrics.unreadable(connection.name, subscription.kind)
        self._losses.unreadable(connection, lost, self._slots.head)

    async def _declare_unreadable_often(self) -> None:
        while True:
            await self.clock.sleep(self._settings.confirm_s)
            self._declare_unreadable()

    def _declare_unreadable(self) -> None:
        if self._losses.declare_unreadable():
            self.report()

    # Requests over HTTP.

    async def _cross_check(self, check: CrossCheck) -> None:
        while True:
            await self.clock.sleep(self._settings.check_s)
            await check.once(self.connections.values(), self.wanted)
            self.report()

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s)
