"""What every consumer of facts may rely on: order, delivery, and one rule by which facts settle."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from headrace.bus import BusSettings
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.events import Message
from headrace.model.facts import (
    AccountChanged,
    Confirmed,
    Dead,
    EventSeen,
    Finalized,
    GapDeclared,
    News,
    Origin,
    Proof,
    Restarted,
    SlotChanged,
    TokenCreated,
    Traded,
    TransactionSeen,
)
from headrace.model.undecided import Undecided
from headrace.model.updates import AnyUpdate, RewindUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.metrics import Metrics
from tests.data.make_demo import lap
from tests.ingest.test_golden import history
from tests.local_bus import LocalBus

PROGRAMS = Programs.load()
HISTORY, LAP = [*history()], lap()


class Kept:
    """A consumer that keeps the ids of events, by the rule of the port, and all that it heard."""

    def __init__(self) -> None:
        self.heard: list[Sequence[News]] = []
        self.undecided = Undecided[str]()
        self.waiting: set[str] = set()
        self.stands: set[str] = set()
        self.retracted: list[str] = []

    def hear(self, news: Sequence[News]) -> None:
        self.heard.append(news)
        for each in news:
            if isinstance(each, EventSeen | AccountChanged | TransactionSeen):
                origin = each.origin
                if origin.certain:
                    self.stands.add(each.event_id)
                elif each.event_id not in self.waiting:
                    self.waiting.add(each.event_id)
                    unproven = origin.signature or "" if origin.unproven else ""
                    self.undecided.add(origin.slot, [each.event_id], unproven)
            elif isinstance(each, Confirmed | Finalized | Dead | Proof):
                outcome = self.undecided.decide(each)
                gone = [event_id for group in outcome.retracted for event_id in group]
                assert {*gone, *outcome.final} <= self.waiting, "each id is decided once"
                self.retracted += gone
                self.waiting -= {*gone, *outcome.final}
                self.stands |= {*outcome.final}


async def played(updates: Iterable[AnyUpdate]) -> tuple[Kept, list[Message]]:
    """Run updates through a pipeline; return a consumer, and the messages, which the bus had before each fact."""
    kept, messages = Kept(), list[Message]()
    bus, outlet = LocalBus(BusSettings(), SystemClock(), "gen"), Channel[AnyUpdate](100_000)
    bus.attach(messages.extend)
    flow = Pipeline(PROGRAMS, SystemClock(), Metrics(), market=Stats(MarketSettings()))

    def hear(news: Sequence[News]) -> None:
        published = {text(message)["event_id"] for message in messages[-2_000:] if message.kind == "event"}
        assert {each.event_id for each in news if isinstance(each, EventSeen)} <= published
        kept.hear(news)

    flow.consumers.attach(hear)
    for update in updates:
        await outlet.put(update)
    outlet.close()
    await flow.run(outlet, bus.writers["ingest"])
    return kept, messages


@cache
def history_played() -> tuple[Kept, list[Message]]:
    return asyncio.run(played(HISTORY))


def text(message: Message) -> Any:
    return msgspec.json.decode(b"{%b}" % message.body)


def test_facts_are_retracted_as_the_messages_of_clients_are() -> None:
    kept, messages = history_played()
    gone = {each for message in messages if message.kind == "retract" for each in text(message)["data"]["event_ids"]}
    assert kept.retracted
    assert {*kept.retracted} == {event_id for event_id in gone if event_id.split(":")[2] not in ("market", "price")}


def test_every_event_of_a_client_is_a_fact_with_its_id_slot_and_certainty() -> None:
    kept, messages = history_played()
    facts = {each.event_id: each.origin for news in kept.heard for each in news if isinstance(each, ID_OF_ITS_OWN)}
    shown = [text(message) for message in messages if message.kind == "event"]
    seen = [each for each in shown if each["event_id"] in facts]
    assert len({each["event_id"] for each in seen}) == len(facts)
    others = {each["data"]["type"] for each in shown if each["event_id"] not in facts}
    assert others == {"Slot", "MarketData", "TokenPriceUpdate"}
    for each in seen:
        assert str(facts[each["event_id"]].slot) == each["chain"]["slot"]


def test_a_call_is_of_one_update_and_a_decision_comes_after_its_facts() -> None:
    kept, _ = history_played()
    kinds = Counter(type(each) for news in kept.heard for each in news)
    assert set(kinds) == {
        EventSeen, Traded, TokenCreated, TransactionSeen, AccountChanged, SlotChanged, GapDeclared,
        Confirmed, Finalized, Dead, Proof,
    }  # fmt: skip
    for news in kept.heard:
        assert len({origin_of(each) for each in news} - {None}) <= 1
    decided: dict[int, type[News]] = {}
    for each in (each for news in kept.heard for each in news):
        if isinstance(each, Dead | Finalized):
            decided[each.slot] = type(each)
        elif isinstance(each, EventSeen) and not each.origin.certain and not each.origin.unproven:
            assert decided.get(each.origin.slot) is not Finalized, "what can't be taken back is certain"


async def test_a_recording_that_starts_over_brings_the_same_facts_again() -> None:
    rewind = RewindUpdate(source="demo", feed="demo", received_ns=0, slot=0, lap=1)
    kept, _ = await played([*LAP, rewind, *LAP])
    middle = next(n for n, news in enumerate(kept.heard) if isinstance(news[0], Restarted))
    assert ids_of(kept.heard[:middle]) == ids_of(kept.heard[middle:])


def test_a_flow_without_consumers_keeps_no_facts() -> None:
    flow = Pipeline(PROGRAMS, SystemClock(), Metrics())
    for update in LAP:
        flow.apply(update)
    assert not flow._news


ID_OF_ITS_OWN = EventSeen | TransactionSeen | AccountChanged


def origin_of(news: News) -> Origin | None:
    if isinstance(news, ID_OF_ITS_OWN):
        return news.origin
    return news.seen.origin if isinstance(news, Traded | TokenCreated) else None


def ids_of(heard: Iterable[Sequence[News]]) -> list[str]:
    return [each.event_id for news in heard for each in news if isinstance(each, ID_OF_ITS_OWN)]
