"""Makes messages from facts: what each topic gets, and the records that later promote or retract it. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from headrace.cores.bodies import TransactionFrame, transaction_body
from headrace.decoders.registry import Programs
from headrace.ingest.bodies import (
    created_data,
    derived_body,
    gap_body,
    promote_body,
    retract_body,
    slot_body,
    trade_opening,
    transfer_body,
)
from headrace.ingest.gaps import FeedTopics
from headrace.ingest.slots import SLOTS_KEPT, Forks
from headrace.model.events import Label, Promotion, Publication, Retraction, TopicHandle
from headrace.model.facts import (
    DECISIONS,
    AccountChanged,
    Dead,
    Decision,
    EventSeen,
    GapDeclared,
    News,
    Origin,
    SlotChanged,
    TokenCreated,
    Traded,
    TransactionSeen,
    Transferred,
)
from headrace.model.trades import Derived
from headrace.model.undecided import Undecided

CREATED_TOPIC: Final = "token_updates"
MARKET_TOPIC: Final = "market-data"
SLOTS_TOPIC: Final = "slots"
PROGRAMS_MAX: Final = 4_096

# Tuples, made once: a union of classes would be built each time its expression runs.
_OF_TRANSACTION: Final = (EventSeen, Traded, TokenCreated, TransactionSeen, Transferred)
_WITH_ORIGIN: Final = (EventSeen, TransactionSeen, Transferred)

Sent: TypeAlias = tuple[tuple[TopicHandle, ...], str]
"""Topics and the id of the event that was published on them."""

SINGLES_MAX: Final = 50_000


class ProgramTopics(NamedTuple):
    """The topics of a program."""

    trades: TopicHandle
    events: TopicHandle
    tx: TopicHandle
    accounts: TopicHandle


class MessageBuilder:
    """Makes the messages of facts, in their order; an event's frame is made once for all topics that get it.

    Each topic that had events of a slot gets one `promote` when the slot is confirmed, or one `retract` when it dies.
    The promote waits while a signature with events on the topic is unproven. Events of a signature that is not in the
    block are retracted individually. If no node can prove or disprove a signature, the topic gets no promote for this
    slot.
    """

    def __init__(self, programs: Programs, forks: Forks, feeds: FeedTopics) -> None:
        self.programs, self._forks, self._feeds = programs, forks, feeds
        self._topics: dict[str, ProgramTopics] = {}
        self._singles: dict[str, TopicHandle] = {}
        self._shared = {topic: TopicHandle(topic) for topic in (CREATED_TOPIC, MARKET_TOPIC)}
        self._sent = Undecided[Sent]()
        self._owed: dict[int, dict[str, None]] = {}  # slot → topics whose promote waits for a proof

    def is_unproven(self, slot: int, signature: str) -> bool:
        """Return whether events of the signature wait for proof."""
        return self._sent.is_unproven(slot, signature)

    def of(self, news: Iterable[News]) -> list[Publication]:
        """Return the messages for the facts of one update."""
        transaction: _TransactionMessages | None = None
        publications: list[Publication] = []
        for each in news:
            if type(each) is AccountChanged:
                publications.append(self._account(each))
            elif isinstance(each, _OF_TRANSACTION):
                if transaction is None:
                    origin = each.origin if isinstance(each, _WITH_ORIGIN) else each.seen.origin
                    transaction = _TransactionMessages(self, origin, publications)
                transaction.add(each)
            elif isinstance(each, SlotChanged):
                body = slot_body(each.slot, each.status, each.parent, each.source)
                publications.append(Publication.on(SLOTS_TOPIC, "event", body))
            elif isinstance(each, GapDeclared):
                feeds, body = self._feeds, gap_body(each.gap)
                topics = feeds.of(each.feed) if each.program is None else feeds.of_meaning(each.program)
                publications += [Publication.on(topic, "gap", body) for topic in topics]
            elif isinstance(each, DECISIONS):
                publications += self._settle(each)
        if transaction is not None:
            self._note(transaction.origin, transaction.sent, transaction.singles)
        return publications

    def derived(self, derived: Iterable[Derived]) -> list[Publication]:
        """Return the messages that follow from many trades: events of the newest trade's slot, retracted if it dies."""
        publications: list[Publication] = []
        for each in derived:
            place = each.place
            commitment = self._forks.commitment(place.slot, "processed") or "processed"
            if each.final and commitment == "processed":
                commitment = "confirmed"
            event_id = f"{place.slot}:{each.name}"
            body = derived_body(each, event_id, commitment)
            label = Label(each.key, event_id, place.slot, commitment != "processed")
            topics = (self.shared(each.topic), self.single(each.single))
            publications.append(Publication(topics, "event", body, label))
            if commitment == "processed":
                unproven = place.signature if self._sent.is_unproven(place.slot, place.signature) else ""
                self._sent.add(place.slot, ((topics, event_id),), unproven)
            for topic in topics:
                self._feeds.note(place.feed, topic.name)
        return publications

    def _account(self, fact: AccountChanged) -> Publication:
        origin, pubkey, event_id = fact.origin, fact.update.pubkey, fact.event_id
        label = Label(pubkey, event_id, origin.slot, origin.certain)
        topics = (self.topics_of(fact.program).accounts, self.single("account:" + pubkey))
        self._note(origin, ((topics, event_id),), topics[1:])
        return Publication(topics, "event", fact.body, label)

    def _note(self, origin: Origin, sent: Sequence[Sent], singles: Iterable[TopicHandle]) -> None:
        """Remember these messages for later decisions and gaps."""
        if origin.commitment == "processed":
            self._sent.add(origin.slot, sent, origin.signature or "" if origin.unproven else "")
        for topic in singles:
            self._feeds.note(origin.feed, topic.name)

    def single(self, name: str) -> TopicHandle:
        """Return the topic of one mint or account.

        If there are too many, the one used first is dropped and made again later.
        """
        topic = self._singles.get(name)
        if topic is None:
            if len(self._singles) >= SINGLES_MAX:
                del self._singles[next(iter(self._singles))]
            topic = self._singles[name] = TopicHandle(name)
        return topic

    def shared(self, name: str) -> TopicHandle:
        """Return a topic of all mints."""
        return self._shared[name]

    def _settle(self, decision: Decision) -> list[Publication]:
        """Return the records that a decision requires; a topic's records are in the order of its first message."""
        slot = decision.slot
        if slot not in self._sent:
            self._owed.pop(slot, None)
        outcome = self._sent.decide(decision)
        records: list[Publication] = []
        for sent in outcome.retracted:
            topics: dict[str, list[str]] = {}
            for on, event_id in sent:
                for topic in on:
                    topics.setdefault(topic.name, []).append(event_id)
            records += [
                Publication.on(topic, "retract", retract_body(ids, outcome.reason), Retraction(tuple(ids)))
                for topic, ids in topics.items()
            ]
        owed = self._owed.pop(slot, {})
        owed.update(dict.fromkeys(topic.name for topics, _ in outcome.confirmed for topic in topics))
        if owed and not isinstance(decision, Dead):
            records += self._promote(slot, owed, {topic.name for topics, _ in outcome.unsure for topic in topics})
        return records

    def _promote(self, slot: int, owed: dict[str, None], waiting: set[str]) -> list[Publication]:
        """Return the promotes of topics on which no event waits for proof; keep other topics while a proof may come."""
        body, label = promote_body(slot, "confirmed"), Promotion(slot)
        promoted = [Publication.on(topic, "promote", body, label) for topic in owed if topic not in waiting]
        left = {topic: None for topic in owed if topic in waiting}
        if left and slot in self._sent:
            if len(self._owed) >= SLOTS_KEPT:
                del self._owed[next(iter(self._owed))]
            self._owed[slot] = left
        return promoted

    def name_of(self, program_id: str) -> tuple[str, bool]:
        """Return a program's name, or its id, and whether it has an IDL."""
        program = self.programs.by_id.get(program_id)
        return (program_id, False) if program is None else (program.name, True)

    def topics_of(self, program: str) -> ProgramTopics:
        """Return the topics of a program, by name or id; made once."""
        topics = self._topics.get(program)
        if topics is None:
            if len(self._topics) >= PROGRAMS_MAX:
                self._topics.clear()
            topics = self._topics[program] = ProgramTopics(
                *(TopicHandle(f"{kind}:{program}") for kind in ProgramTopics._fields)
            )
        return topics


class _TransactionMessages:
    """The messages of one transaction. `sent` has the event of each message; `singles` are topics of single mints."""

    __slots__ = ("_builder", "_publications", "origin", "sent", "singles")

    def __init__(self, builder: MessageBuilder, origin: Origin, publications: list[Publication]) -> None:
        self._builder, self._publications, self.origin = builder, publications, origin
        self.sent: list[Sent] = []
        self.singles: list[TopicHandle] = []

    def add(self, fact: EventSeen | Traded | TokenCreated | TransactionSeen | Transferred) -> None:
        """Add the messages of one fact."""
        if isinstance(fact, EventSeen):
            self._publish((self._builder.topics_of(fact.event.program).events,), fact.event_id, fact.body.text)
        elif isinstance(fact, Traded):
            self._traded(fact)
        elif isinstance(fact, TokenCreated):
            seen = fact.seen
            body = seen.body.with_all(created_data(fact))
            label = Label(f"TokenCreated {fact.mint} ", seen.event_id, self.origin.slot, self.origin.certain)
            single = self._builder.single(f"token:{fact.mint}")
            self.singles.append(single)
            self._publish((self._builder.shared(CREATED_TOPIC), single), seen.event_id, body, label)
        elif isinstance(fact, Transferred):
            self._transferred(fact)
        else:
            self._transaction(fact)

    def _transferred(self, fact: Transferred) -> None:
        """Publish a transfer for its mint and for both owners."""
        transfer = fact.transfer
        keys = dict.fromkeys((transfer.mint, transfer.source_owner, transfer.destination_owner))
        topics = tuple([self._builder.single(f"transfers:{key}") for key in keys if key is not None])
        if topics:
            self.singles += topics
            self._publish(topics, fact.event_id, transfer_body(fact, self.origin))

    def _traded(self, fact: Traded) -> None:
        seen, trade = fact.seen, fact.trade
        body = seen.body.with_data(trade_opening(seen.event, trade))
        topics = () if fact.again else (self._builder.topics_of(seen.event.program).trades,)
        if trade.mint is not None:
            single = self._builder.single("trades:" + trade.mint)
            self.singles.append(single)
            topics = (*topics, single)
        if topics:
            self._publish(topics, seen.event_id, body)

    def _transaction(self, fact: TransactionSeen) -> None:
        builder = self._builder
        for program_id in fact.program_ids:
            name, has_idl = builder.name_of(program_id)
            body = fact.body if has_idl else self._raw_body(fact, program_id)
            self._publish((builder.topics_of(name).tx,), fact.event_id, body)

    def _raw_body(self, fact: TransactionSeen, program_id: str) -> bytes:
        """Return the body for a program without an IDL."""
        return transaction_body(
            fact.update,
            TransactionFrame(self.origin),
            fact.events,
            fact.instructions,
            truncated=fact.truncated,
            raw=(program_id, self._builder.programs),
        )

    def _publish(self, topics: tuple[TopicHandle, ...], event_id: str, body: bytes, label: Label | None = None) -> None:
        self._publications.append(Publication(topics, "event", body, label))
        self.sent.append((topics, event_id))
