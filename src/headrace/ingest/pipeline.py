"""The update flow: source → dedupe → decode → enrich → market → publish."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import msgspec
import structlog

from headrace.bus import Writer
from headrace.bus.lanes import publish_until_answered
from headrace.decoders.registry import Programs
from headrace.ingest.awaited import Ask, AwaitedPools
from headrace.ingest.bodies import gap_body
from headrace.ingest.dedupe import INSTRUCTIONS, AccountDedupe, SeenTransaction, Standing, TransactionDedupe
from headrace.ingest.enrich import Pools
from headrace.ingest.forks import Forks
from headrace.ingest.gaps import FeedTopics, GapLedger, UnreadSlots
from headrace.ingest.market_feed import Market, MarketFeed, NoMarket
from headrace.ingest.measures import Measures
from headrace.ingest.mints import Mints
from headrace.ingest.telling import UNREADABLE, Outbox, Teller, Unread, view_of
from headrace.model.errors import BadInputError
from headrace.model.events import Publication
from headrace.model.updates import (
    AccountUpdate,
    AnyUpdate,
    Commitment,
    GapUpdate,
    LandingUpdate,
    LogsUpdate,
    PoolUpdate,
    RewindUpdate,
    SlotUpdate,
    TransactionUpdate,
)
from headrace.programs.meanings import Pair
from headrace.runtime.channel import ChannelClosed
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.sources import Outlet

BATCH_MAX: Final = 64
"""Updates per turn of the loop: some 2 ms of work, so that connections are served in between."""

Observed: TypeAlias = LogsUpdate | TransactionUpdate | AccountUpdate

COMPLAINTS_MAX: Final = 1_024
COMPLAINT_S: Final = 60.0
"""Of what can't be read for the same reason, one line in the log in so many seconds; all of it is counted."""

UNREAD: Final = "unread"
"""The reason of a gap in which something arrived but could not be read."""

_log = structlog.get_logger("ingest")


class Pipeline:
    """Turns updates into messages. `apply` is all of its thinking; `run` feeds it and publishes what comes out.

    `audience` names the topics that somebody listens to, so that a gap is told there even before the first message.
    `market` counts the trades. `ask_pool` asks for the mints of a pool of which only log lines came; its answer comes
    through the outlet as a PoolUpdate.
    """

    def __init__(
        self,
        programs: Programs,
        clock: Clock,
        metrics: Metrics,
        *,
        audience: Callable[[], Iterable[str]] = tuple,
        market: Market | None = None,
        ask_pool: Ask | None = None,
    ) -> None:
        self.programs, self.ask_pool = programs, ask_pool
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
        self._pools, self._awaited = Pools(), AwaitedPools(self.ask_pool)
        self._teller = Teller(self.programs, self._pools, mints, self._awaited)
        self._forks = Forks()
        self._unread_slots = UnreadSlots()
        self._complained: dict[tuple[str, ...], float] = {}
        self._gaps, self._feeds = GapLedger(), FeedTopics(self.programs.name_of, self._audience)
        self._market_feed = MarketFeed(self._market, mints, self._forks, self._feeds)

    @property
    def head(self) -> dict[str, int | None]:
        """The highest slot known as processed and as confirmed; None where no slot was told."""
        known = self._forks.slots.head
        return {"processed": known.get("processed"), "confirmed": known.get("confirmed")}

    async def run(self, outlet: Outlet, writer: Writer) -> None:
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
                    await self._publish(writer, publications)
                    publications = []
                    await publish_until_answered(writer, (), self._clock, new_epoch=True)
                publications += self.apply(update)
            await self._publish(writer, publications)
            await self._clock.sleep(0)

    async def _publish(self, writer: Writer, publications: list[Publication]) -> None:
        if publications:
            await publish_until_answered(writer, publications, self._clock)
            self.measures.published.update([publication.kind for publication in publications])

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
                case LandingUpdate():
                    publications = self._landing(update)
                case GapUpdate():
                    publications = self._gap(update)
                case PoolUpdate():
                    publications = self._pool(update)
                case RewindUpdate():
                    self._reset()
                    publications = []
        except UNREADABLE as error:
            return self._unusable(update, error)
        return publications

    def _transaction(self, update: LogsUpdate | TransactionUpdate) -> list[Publication]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return self._leave_out(update, "dead_slot")
        if update.unproven:
            commitment = "processed"  # the slot may be certain, whether the transaction is in it is not
        view = view_of(update)
        seen = self._transactions.admit(update.slot, update.signature, view)
        if seen is None:
            return self._on_another_feed(update, view, commitment)
        seen.is_new_to(update.feed)
        self.measures.passed("dedupe")
        return self._new_of(update, view, seen, commitment)

    def _new_of(
        self,
        update: LogsUpdate | TransactionUpdate,
        view: int,
        seen: SeenTransaction,
        commitment: Commitment,
        answered: str | None = None,
    ) -> list[Publication]:
        """The messages of what a view shows and no view before it did."""
        events, fields, unread = self._teller.decode(update)
        identities = [(e.program_id, e.name, text) for e, text in zip(events, fields, strict=True)]
        standings = seen.standings_of(identities, [(e.path, e.ordinal) for e in events])
        self.measures.passed("decode")
        outbox = self._teller.tell(update, view, events, fields, standings, commitment, answered)
        seen.note(identities, [Standing(s.place, extent) for s, extent in zip(standings, outbox.extents, strict=True)])
        self.measures.passed("enrich")
        publications = self._noted(update, outbox, commitment)
        if outbox.awaited and isinstance(update, LogsUpdate):
            for pool, program_id in outbox.awaited:
                self._awaited.hold(pool, program_id, update)
        if answered is not None:
            unread = []  # declared when the view came
        if unread or outbox.unread:
            publications += self._unread(update, unread + outbox.unread)
        if outbox.trades:
            publications += self._reckoned(update, outbox, commitment)
            self.measures.passed("market")
        return publications

    def _pool(self, update: PoolUpdate) -> list[Publication]:
        """The trades that waited for the pool: with its mints, or without them if nobody knows."""
        if update.mints is not None:
            self._pools.learn(update.pool, Pair(*update.mints))
        publications: list[Publication] = []
        for held in self._awaited.answered(update.pool, update.state):
            try:
                publications += self._held(held, update.pool)
            except UNREADABLE as error:
                publications += self._unusable(held, error)
        return publications

    def _held(self, update: LogsUpdate, pool: str) -> list[Publication]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return []  # the slot died, and its events were retracted
        seen = self._transactions.find(update.slot, update.signature)
        if seen is None:
            raise BadInputError("forgotten", "more came while its pool was asked for than is remembered")
        if seen.views & INSTRUCTIONS:
            return []  # the whole transaction came, and its trades are published
        if self._forks.provisional.is_unproven(update.slot, update.signature):
            commitment = "processed"
        else:
            update = msgspec.structs.replace(update, unproven=False)
        return self._new_of(update, view_of(update), seen, commitment, pool)

    def _on_another_feed(
        self, update: LogsUpdate | TransactionUpdate, view: int, commitment: Commitment
    ) -> list[Publication]:
        """What was published already goes to the topic of another feed's key too, if it was not there."""
        seen = self._transactions.find(update.slot, update.signature)
        publications = self._leave_out(update)
        if seen is not None and seen.is_new_to(update.feed):
            outbox = self._teller.tell_feed(update, view, commitment)
            publications = self._noted(update, outbox, commitment)
        return publications

    def _reckoned(
        self, update: LogsUpdate | TransactionUpdate, outbox: Outbox, commitment: Commitment
    ) -> list[Publication]:
        """The market's messages; trades that it can't count are published all the same."""
        try:
            return self._market_feed.trades(update, outbox.trades, commitment)
        except UNREADABLE as error:
            return self._unusable(update, error)

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
        publications = self._noted(update, outbox, commitment)
        return publications + self._unread(update, outbox.unread) if outbox.unread else publications

    def _slot(self, update: SlotUpdate) -> list[Publication]:
        settled = self._forks.apply(update)
        for slot in settled.void:
            self._transactions.forget(slot)
            self._accounts.forget(slot)
        return settled.messages + self._market_feed.slot(update.slot, settled)

    def _landing(self, update: LandingUpdate) -> list[Publication]:
        """Promote what waited for proof; take back what is in no block. Should that come again, it is new."""
        settled = self._forks.prove(update)
        for signature in update.absent:
            self._transactions.forget_one(update.slot, signature)
        return settled.messages + self._market_feed.landing(update, settled)

    def _gap(self, update: GapUpdate) -> list[Publication]:
        """A refill that brought something unreadable did not bring everything."""
        low, high = sorted((update.from_slot, update.to_slot))
        if update.state == "backfilled" and self._unread_slots.touched(update.feed, low, high):
            update = msgspec.structs.replace(update, state="unrecoverable", reason=UNREAD)
        gap = self._gaps.apply(update)
        if gap is None:
            return self._leave_out(update)
        self.measures.gaps[update.source, gap.state] += 1
        body = gap_body(gap)
        return [Publication(topic, "gap", body) for topic in self._feeds.of(update.feed)]

    def _unread(self, update: Observed, unread: Sequence[Unread]) -> list[Publication]:
        """Count and log events that were published without their meaning, and declare the gap where it is missing."""
        publications: list[Publication] = []
        for each in unread:
            self.measures.unread[each.program, each.event, each.reason] += 1
            self._complain(
                "event_unread",
                (each.program, each.event, each.reason),
                signature=update.signature,
                slot=update.slot,
                detail=each.detail,
            )
        self._unread_slots.note(update.feed, update.slot)
        for program in dict.fromkeys(each.program for each in unread):
            publications += self._declare_unread(update, program, self._feeds.of_meaning(program))
        return publications

    def _declare_unread(self, update: Observed, what: str, topics: Iterable[str]) -> list[Publication]:
        """The gap in which something of `what` arrived but could not be read: one for each slot."""
        declared = GapUpdate(
            source=update.source,
            feed=update.feed,
            received_ns=update.received_ns,
            slot=update.slot,
            gap_id=f"{UNREAD}:{what}:{update.slot}",
            from_slot=update.slot,
            to_slot=update.slot,
            state="unrecoverable",
            reason=UNREAD,
        )
        gap = self._gaps.apply(declared)
        if gap is None:
            return []
        body = gap_body(gap)
        return [Publication(topic, "gap", body) for topic in topics]

    def _unusable(self, update: AnyUpdate, error: Exception) -> list[Publication]:
        """Count and log an update of which nothing could be published."""
        reason = error.reason if isinstance(error, BadInputError) else type(error).__name__
        self.measures.bad[reason] += 1
        signature = update.signature if isinstance(update, LogsUpdate | TransactionUpdate) else None
        self._complain("update_unusable", (reason,), signature=signature, slot=update.slot, detail=str(error)[:200])
        if isinstance(update, LogsUpdate | TransactionUpdate | AccountUpdate):
            self._unread_slots.note(update.feed, update.slot)
            return self._declare_unread(update, update.feed, self._feeds.of(update.feed))
        return []

    def _complain(self, event: str, about: tuple[str, ...], **fields: object) -> None:
        """Log what could not be read, the same no more than once in COMPLAINT_S."""
        now, key = self._clock.monotonic(), (event, *about)
        if now - self._complained.get(key, -COMPLAINT_S) >= COMPLAINT_S:
            if len(self._complained) >= COMPLAINTS_MAX:
                self._complained.clear()
            self._complained[key] = now
            _log.error(event, about=" ".join(about), **fields)

    def _leave_out(self, update: AnyUpdate, reason: str = "duplicate") -> list[Publication]:
        self.measures.skipped[type(update).__name__, reason] += 1
        return []

    def _noted(self, update: Observed, outbox: Outbox, commitment: Commitment) -> list[Publication]:
        """Note what a later fork or gap must know of these messages."""
        if commitment == "processed":
            unproven = update.signature if not isinstance(update, AccountUpdate) and update.unproven else ""
            self._forks.note(update.slot, outbox.sent, unproven)
        for topic in outbox.singles:
            self._feeds.note(update.feed, topic)
        return outbox.publications
