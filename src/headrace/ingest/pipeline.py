"""The update flow: source → dedupe → decode → enrich → market → publish."""

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import structlog

from headrace.bus import Bus
from headrace.decoders.registry import Programs
from headrace.ingest.bodies import gap_body
from headrace.ingest.dedupe import AccountDedupe, TransactionDedupe
from headrace.ingest.enrich import Pools
from headrace.ingest.forks import Forks
from headrace.ingest.gaps import FeedTopics, GapLedger
from headrace.ingest.market_feed import Market, MarketFeed, NoMarket
from headrace.ingest.measures import Measures
from headrace.ingest.mints import Mints
from headrace.ingest.telling import Outbox, Teller, view_of
from headrace.model.errors import BadInputError, TransientError
from headrace.model.events import Publication
from headrace.model.updates import (
    AccountUpdate,
    AnyUpdate,
    Commitment,
    GapUpdate,
    LogsUpdate,
    RewindUpdate,
    SlotUpdate,
    TransactionUpdate,
)
from headrace.runtime.backoff import Backoff
from headrace.runtime.channel import ChannelClosed
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.sources import Outlet

BATCH_MAX: Final = 64
"""Updates per turn of the loop: some 2 ms of work, so that connections are served in between."""

Observed: TypeAlias = LogsUpdate | TransactionUpdate | AccountUpdate

_UNUSABLE: Final = (BadInputError, LookupError, TypeError, ValueError, OverflowError)
"""How bytes that fit no expectation show themselves: one such update is counted and skipped."""

_log = structlog.get_logger("ingest")


class Pipeline:
    """Turns updates into messages. `apply` is all of its thinking; `run` feeds it and publishes what comes out.

    `audience` names the topics that somebody listens to, so that a gap is told there even before the first message.
    `market` counts the trades.
    """

    def __init__(
        self,
        programs: Programs,
        clock: Clock,
        metrics: Metrics,
        *,
        audience: Callable[[], Iterable[str]] = tuple,
        market: Market | None = None,
    ) -> None:
        self.programs = programs
        self.measures = Measures(programs, clock, metrics)
        self.received_at: float | None = None
        """When the last batch of updates came, by the monotonic clock."""
        self._clock, self._audience = clock, audience
        self._market = NoMarket() if market is None else market
        self._reset()

    def _reset(self) -> None:
        """Forget all that was seen: what comes next is a new telling."""
        self._transactions, self._accounts = TransactionDedupe(), AccountDedupe()
        mints = Mints()
        self._teller = Teller(self.programs, Pools(), mints)
        self._forks = Forks()
        self._gaps, self._feeds = GapLedger(), FeedTopics(self.programs.name_of, self._audience)
        self._market_feed = MarketFeed(self._market, mints, self._forks, self._feeds)

    @property
    def head(self) -> dict[str, int | None]:
        """The highest slot known as processed and as confirmed; None where no slot was told."""
        known = self._forks.slots.head
        return {"processed": known.get("processed"), "confirmed": known.get("confirmed")}

    async def run(self, outlet: Outlet, bus: Bus) -> None:
        """Publish what the outlet brings, in order, until it is closed. While the bus is away, the outlet fills up."""
        while True:
            try:
                batch = await outlet.get_batch(BATCH_MAX)
            except ChannelClosed:
                return
            self.received_at = self._clock.monotonic()
            publications: list[Publication] = []
            for update in batch:
                if isinstance(update, RewindUpdate):
                    await self._publish(bus, publications)
                    publications = []
                    await bus.renew()
                publications += self.apply(update)
            await self._publish(bus, publications)
            await self._clock.sleep(0)

    async def _publish(self, bus: Bus, publications: list[Publication]) -> None:
        backoff = Backoff(initial_s=0.05, max_s=5.0)
        while publications:
            try:
                await bus.publish(publications)
                self.measures.published.update([publication.kind for publication in publications])
                return
            except TransientError as error:
                if not backoff.tries:
                    _log.warning("bus_away", error=str(error))
                await self._clock.sleep(backoff.next_s())

    def apply(self, update: AnyUpdate) -> list[Publication]:
        """The messages that follow from one update. Never raises on bad input."""
        self.measures.begin()
        self.measures.received[type(update).__name__] += 1
        try:
            match update:
                case LogsUpdate() | TransactionUpdate():
                    publications = self._transaction(update)
                case AccountUpdate():
                    publications = self._account(update)
                case SlotUpdate():
                    publications = self._slot(update)
                case GapUpdate():
                    publications = self._gap(update)
                case RewindUpdate():
                    self._reset()
                    publications = []
        except _UNUSABLE as error:
            self.measures.bad[error.reason if isinstance(error, BadInputError) else type(error).__name__] += 1
            return []
        return publications

    def _transaction(self, update: LogsUpdate | TransactionUpdate) -> list[Publication]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return self._leave_out(update, "dead_slot")
        view = view_of(update)
        seen = self._transactions.admit(update.slot, update.signature, view)
        if seen is None:
            return self._leave_out(update)
        self.measures.passed("dedupe")
        events, fields = self._teller.decode(update)
        fresh = seen.unpublished([(e.program_id, e.name, text) for e, text in zip(events, fields, strict=True)])
        self.measures.passed("decode")
        outbox = self._teller.tell(update, view, events, fields, fresh, commitment)
        self.measures.passed("enrich")
        publications = self._noted(update, outbox, commitment)
        if outbox.trades:
            publications += self._market_feed.trades(update, outbox.trades, commitment)
            self.measures.passed("market")
        return publications

    def _account(self, update: AccountUpdate) -> list[Publication]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return self._leave_out(update, "dead_slot")
        content = hash((update.data, update.lamports, update.owner))
        version = self._accounts.admit(update.slot, update.pubkey, (update.source, update.feed), content)
        if version is None:
            return self._leave_out(update)
        self.measures.passed("dedupe")
        outbox = self._teller.tell_account(update, version, commitment)
        self.measures.passed("enrich")
        return self._noted(update, outbox, commitment)

    def _slot(self, update: SlotUpdate) -> list[Publication]:
        settled = self._forks.apply(update)
        for slot in settled.void:
            self._transactions.forget(slot)
            self._accounts.forget(slot)
        return settled.messages + self._market_feed.slot(update.slot, settled)

    def _gap(self, update: GapUpdate) -> list[Publication]:
        gap = self._gaps.apply(update)
        if gap is None:
            return self._leave_out(update)
        body = gap_body(gap)
        return [Publication(topic, "gap", body) for topic in self._feeds.of(update.feed)]

    def _leave_out(self, update: AnyUpdate, reason: str = "duplicate") -> list[Publication]:
        self.measures.skipped[type(update).__name__, reason] += 1
        return []

    def _noted(self, update: Observed, outbox: Outbox, commitment: Commitment) -> list[Publication]:
        """Note what a later fork or gap must know of these messages."""
        if commitment == "processed":
            self._forks.provisional.add(update.slot, outbox.sent)
        for topic in outbox.singles:
            self._feeds.note(update.feed, topic)
        return outbox.publications
