"""The update flow: source → dedupe → decode → enrich → facts → messages and market → publish → consumers."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from headrace.bus import Writer
from headrace.bus.lanes import publish_until_answered
from headrace.cores import UNREADABLE, Core, Unread
from headrace.cores.bodies import path_text
from headrace.cores.python import PythonCore
from headrace.decoders.registry import Programs
from headrace.ingest.awaited import Ask, AwaitedPools
from headrace.ingest.dedupe import INSTRUCTIONS, AccountDedupe, SeenTransaction, Standing, TransactionDedupe
from headrace.ingest.gaps import FeedTopics
from headrace.ingest.known import Mints, Pools
from headrace.ingest.market_feed import Market, MarketFeed, NoMarket
from headrace.ingest.measures import Measures
from headrace.ingest.messages import MessageBuilder
from headrace.ingest.slots import Forks
from headrace.ingest.transactions import TransactionReader, origin_of, visible_parts
from headrace.ingest.troubles import Troubles
from headrace.model.errors import BadInputError, TransientError
from headrace.model.events import Publication, Retraction, event_id_of
from headrace.model.facts import AccountChanged, Dead, News, Origin, Proof, Restarted, Transferred
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
from headrace.runtime.sinks import Sinks
from headrace.solana.token_transfers import token_transfers
from headrace.sources import Outlet

BATCH_MAX: Final = 64
"""Maximum number of updates per iteration of the loop: about 2 ms of work, so that connections are served in
between."""

U = TypeVar("U", bound=AnyUpdate)

_OF_TRANSACTIONS: Final = (LogsUpdate, TransactionUpdate)

STUCK_S: Final = 10.0
"""Seconds after which a batch that is not published means that the pipeline is stuck."""

_log = structlog.get_logger("ingest")


class Pipeline:
    """Turns updates into facts, and facts into messages. `apply` decides; `run` feeds it and publishes.

    `audience` returns the topics with subscribers, so that a gap is declared there even before the first message.
    `market` counts the trades. `ask_pool` requests the mints of a pool that is known only from log lines; the answer
    comes through the outlet as a PoolUpdate. `core` decodes the bytes; the default is the one in Python. With
    `transfers`, the transfers of tokens in whole transactions are facts, too.
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
        core: Core | None = None,
        transfers: bool = False,
    ) -> None:
        self._transfers = transfers
        self.programs, self.ask_pool = programs, ask_pool
        self._core = PythonCore(programs) if core is None else core
        self.measures = Measures(programs, self._core.name, clock, metrics)
        self.received_at: float | None = None
        """When the last batch of updates came, by the monotonic clock."""
        self.taken = self.published = 0
        """Numbers of updates that were taken from the outlet, and of those that are published."""
        self.known: set[str] = set()
        """Ids of events that another process published: until they are retracted, they are not published again."""
        self._busy_since: float | None = None
        self._bus_fault: TransientError | None = None
        self._clock, self._audience = clock, audience
        self._market = NoMarket() if market is None else market
        self.consumers = Sinks[News]()
        """Sinks of facts, by the rules of `FactConsumer`: attach its `hear`."""
        self._news: list[Sequence[News]] = []
        self._reset()

    def _reset(self) -> None:
        """Forget all that was seen: the same updates may come again, and are new."""
        self._transactions, self._accounts = TransactionDedupe(), AccountDedupe()
        self._pools, self._mints, self._awaited = Pools(), Mints(), AwaitedPools(self.ask_pool)
        self._reader = TransactionReader(self.programs, self._core, self._pools, self._mints, self._awaited)
        self._forks, self._troubles = Forks(), Troubles(self._clock, self.measures)
        self._messages = MessageBuilder(self.programs, self._forks, FeedTopics(self.programs.name_of, self._audience))
        self._market_feed = MarketFeed(self._market)

    @property
    def head(self) -> dict[str, int | None]:
        """The highest slots known as processed and as confirmed; None if no slot is known."""
        known = self._forks.slots.head
        return {"processed": known.get("processed"), "confirmed": known.get("confirmed")}

    async def run(self, outlet: Outlet, writer: Writer) -> None:
        """Publish the outlet's updates, in order, until it is closed.

        While the bus is unavailable, the outlet fills up.
        """
        while True:
            try:
                batch = await outlet.get_batch(BATCH_MAX)
            except ChannelClosed:
                return
            self.received_at = self._busy_since = self._clock.monotonic()
            self.taken += len(batch)
            publications: list[Publication] = []
            for update in batch:
                if isinstance(update, RewindUpdate):
                    await self._publish(writer, publications)
                    publications = []
                    await self._publish(writer, (), new_epoch=True)
                publications += self.apply(update)
            await self._publish(writer, publications)
            self.published = self.taken
            self._busy_since = None
            await self._clock.sleep(0)

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while the bus takes no messages, or a batch of updates is not published."""
        if self._bus_fault is not None:
            raise TransientError(f"updates can't be published: {self._bus_fault}")
        stood_s = 0.0 if self._busy_since is None else self._clock.monotonic() - self._busy_since
        if stood_s > STUCK_S:
            raise TransientError(f"a batch of updates has not been published for {stood_s:.0f} s")

    async def _publish(self, writer: Writer, publications: Sequence[Publication], *, new_epoch: bool = False) -> None:
        """Publish, however long it takes; then pass the facts behind the messages to the consumers."""
        if self.known:
            publications = self._not_known(publications)
        if publications or new_epoch:
            await publish_until_answered(
                writer, publications, self._clock, new_epoch=new_epoch, on_trouble=self._note_bus_fault
            )
            self._bus_fault = None
            for publication in publications:
                self.measures.published[publication.kind] += len(publication.topics)
        heard, self._news = self._news, []
        for news in heard:
            self.consumers.deliver(news)

    def _not_known(self, publications: Sequence[Publication]) -> list[Publication]:
        """Return the publications without the events that another process published."""
        found = []
        for publication in publications:
            if isinstance(publication.label, Retraction):
                self.known.difference_update(publication.label.event_ids)
            if publication.kind != "event" or event_id_of(publication.body) not in self.known:
                found.append(publication)
        return found

    def _note_bus_fault(self, error: TransientError) -> None:
        self._bus_fault = error

    def apply(self, update: AnyUpdate) -> list[Publication]:
        """Return the messages that follow from one update. Never raises on bad input."""
        self.measures.begin()
        self.measures.received[type(update).__name__] += 1
        if isinstance(update, PoolUpdate):
            return self._pool(update)
        return self._published(update, self._news_of)

    def _published(self, update: U, read: Callable[[U], Sequence[News]]) -> list[Publication]:
        """Return the messages of the facts that `read` returns for the update."""
        try:
            news = read(update)
            publications = self._messages.of(news)
        except UNREADABLE as error:
            news = self._troubles.unusable(update, error)
            publications = self._messages.of(news)
        self.measures.passed("enrich")
        if news and type(update) is not AccountUpdate:
            try:
                publications += self._messages.derived(self._market_feed.hear(news))
            except UNREADABLE as error:  # a trade that can't be counted is still published
                more = self._troubles.unusable(update, error)
                publications += self._messages.of(more)
                news = [*news, *more]
            self.measures.passed("market")
        if news and self.consumers:
            self._news.append(news)
        return publications

    def _news_of(self, update: AnyUpdate) -> Sequence[News]:
        if isinstance(update, AccountUpdate):
            return self._account(update)
        if isinstance(update, _OF_TRANSACTIONS):
            return self._transaction(update)
        match update:
            case SlotUpdate():
                return self._slot(update)
            case LandingUpdate():
                return self._landing(update)
            case GapUpdate():
                return self._troubles.gap(update) or self._leave_out(update)
            case PoolUpdate():
                return ()  # its trades are in other updates: see _pool
            case RewindUpdate():
                self._reset()
                return (Restarted(),)

    def _transaction(self, update: LogsUpdate | TransactionUpdate) -> Sequence[News]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return self._leave_out(update, "dead_slot")
        if update.unproven:
            commitment = "processed"  # the slot may be certain, but not that the transaction is in it
        parts = visible_parts(update)
        known = self._transactions.find(update.slot, update.signature) if self._transfers else None
        with_transfers = self._transfers and (known is None or not known.views & INSTRUCTIONS)
        seen = self._transactions.admit(update.slot, update.signature, parts)
        if seen is None:
            return self._on_another_feed(update, parts, commitment)
        seen.is_new_to(update.feed)
        self.measures.passed("dedupe")
        news = self._new_in(update, parts, seen, commitment)
        if with_transfers and isinstance(update, TransactionUpdate):
            news += _transfers_of(update, origin_of(update, commitment))
        return news

    def _new_in(
        self,
        update: LogsUpdate | TransactionUpdate,
        parts: int,
        seen: SeenTransaction,
        commitment: Commitment,
        answered: str | None = None,
    ) -> list[News]:
        """Return what an update shows of a transaction that no earlier update showed."""
        origin = origin_of(update, commitment)
        text = self._reader.read(update, parts, origin)
        identities = [(each.event.program_id, each.event.name, each.body.fields_json) for each in text.events]
        standings = seen.standings_of(identities, [(each.event.path, each.event.ordinal) for each in text.events])
        self.measures.passed("decode")
        found = self._reader.facts(update, parts, origin, text, standings, answered)
        seen.note(identities, [Standing(s.place, extent) for s, extent in zip(standings, found.extents, strict=True)])
        news = found.facts
        if found.awaited and isinstance(update, LogsUpdate):
            for pool, program_id in found.awaited:
                self._awaited.hold(pool, program_id, update)
        if text.unread or found.unread:
            unread = [*text.unread, *found.unread] if answered is None else found.unread  # otherwise declared before
            news += self._troubles.unread(update, unread)
        return news

    def _pool(self, update: PoolUpdate) -> list[Publication]:
        """Return the trades that waited for the pool: with its mints, or without them if they stay unknown."""
        if update.mints is not None:
            self._pools.learn(update.pool, Pair(*update.mints))
        read = partial(self._held, update.pool)
        return [
            publication
            for held in self._awaited.answered(update.pool, update.state)
            for publication in self._published(held, read)
        ]

    def _held(self, pool: str, update: LogsUpdate) -> list[News]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return []  # the slot died, and its events were retracted
        seen = self._transactions.find(update.slot, update.signature)
        if seen is None:
            raise BadInputError("forgotten", "more came while its pool was asked for than is remembered")
        if seen.views & INSTRUCTIONS:
            return []  # the whole transaction came, and its trades are published
        if self._messages.is_unproven(update.slot, update.signature):
            commitment = "processed"
        else:
            update = msgspec.structs.replace(update, unproven=False)
        return self._new_in(update, visible_parts(update), seen, commitment, pool)

    def _on_another_feed(
        self, update: LogsUpdate | TransactionUpdate, parts: int, commitment: Commitment
    ) -> Sequence[News]:
        """Return a known transaction for the key of another feed, if it is new there."""
        seen = self._transactions.find(update.slot, update.signature)
        self._leave_out(update)
        if seen is None or not seen.is_new_to(update.feed):
            return ()
        fact = self._reader.for_feed(update, parts, commitment)
        return () if fact is None else (fact,)

    def _account(self, update: AccountUpdate) -> Sequence[News]:
        commitment = self._forks.commitment(update.slot, update.commitment)
        if commitment is None:
            return self._leave_out(update, "dead_slot")
        content = hash((update.data, update.lamports, update.owner))
        version = self._accounts.admit(update.slot, update.pubkey, (update.source, update.feed), content)
        if version is None:
            return self._leave_out(update)
        self.measures.passed("dedupe")
        origin = Origin(update.slot, update.signature, update.source, update.feed, commitment)
        event_id = f"{update.slot}:{update.pubkey}:account:{version}"
        text, program = self._core.account(update, event_id, origin), self.programs.name_of(update.owner)
        fact = AccountChanged(event_id, origin, update, program, text.name, text.body, text.values)
        if text.name is None or not text.values:
            return (fact,)
        try:
            self._pools.learn_account(update.pubkey, program, text.name, text.values)
            self._mints.learn_account(update.pubkey, program, text.name, text.values)
        except UNREADABLE as error:
            return [fact, *self._troubles.unread(update, [Unread.of(program, text.name, error)])]
        return (fact,)

    def _slot(self, update: SlotUpdate) -> Sequence[News]:
        news = self._forks.apply(update)
        for each in news:
            if isinstance(each, Dead):  # if the slot comes again, all of it is new
                self._transactions.forget(each.slot)
                self._accounts.forget(each.slot)
        return news

    def _landing(self, update: LandingUpdate) -> Sequence[News]:
        """Return the proof. A transaction that is absent counts as new if it comes again."""
        for signature in update.absent:
            self._transactions.forget_one(update.slot, signature)
        return (Proof(update.slot, update.landed, update.absent, update.unknown),)

    def _leave_out(self, update: AnyUpdate, reason: str = "duplicate") -> Sequence[News]:
        self.measures.skipped[type(update).__name__, reason] += 1
        return ()


def _transfers_of(update: TransactionUpdate, origin: Origin) -> list[Transferred]:
    prefix = f"{update.slot}:{update.signature}:"
    return [
        Transferred(f"{prefix}{path_text(each.path)[0]}:transfer.{each.ordinal}", origin, each)
        for each in token_transfers(update)
    ]
