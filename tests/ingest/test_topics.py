"""Every topic gets what the reference promises, of every mainnet transaction and account here, and nothing else."""

from collections import defaultdict
from typing import Any

import msgspec

from headrace.decoders.events import events_of
from headrace.decoders.registry import Programs
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.topics import parse
from headrace.model.updates import AnyUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.ingest.mainnet import READERS, account_updates, landed
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()


def published(update: AnyUpdate) -> dict[str, list[dict[str, Any]]]:
    """What one update brings to each topic, on a flow of its own."""
    flow = SpreadPipeline(PROGRAMS, ManualClock(), Metrics(), market=Stats(MarketSettings(interval_slots=0)))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for publication in flow.apply(update):
        assert publication.kind == "event"
        parse(publication.topic)
        found[publication.topic].append(msgspec.json.decode(b"{" + publication.body + b"}"))
    return found


def test_transactions_of_programs() -> None:
    """On the topic of each of its programs that has events, and of no other, exactly once."""
    told = 0
    for name, update in landed():
        topics = {topic: messages for topic, messages in published(update).items() if topic.startswith("tx:")}
        ids = {each.program_id for each in update.instructions} | {e.program_id for e in events_of(update, PROGRAMS)}
        programs = {PROGRAMS.by_id[each].name for each in ids if each in PROGRAMS.by_id and PROGRAMS.by_id[each].events}
        assert topics.keys() == {f"tx:{program}" for program in programs}, name
        for messages in topics.values():
            (body,) = messages
            assert body["data"]["signature"] == update.signature
            assert body["data"]["err"] == update.err
            told += 1
    assert told > 60


def test_trades_of_programs_and_mints() -> None:
    """Each trade on its program's topic, and the same body on its mint's."""
    told = 0
    for _, update in landed():
        topics = published(update)
        for topic, messages in topics.items():
            kind, key = parse(topic)
            if kind != "trades":
                continue
            for body in messages:
                data = body["data"]
                assert key in (data["program"], data["mint"])
                assert (data["program"], data["event"]) in READERS
                assert body in topics[f"trades:{data['program']}"]
                assert body in topics[f"trades:{data['mint']}"]
                assert any(other["event_id"] == body["event_id"] for other in topics[f"events:{data['program']}"])
                told += 1
    assert told == 106, "53 trades, each on two topics"


def test_tokens_and_markets() -> None:
    """What is on the topic of all tokens or markets is on the token's own too, and the other way round."""
    told: dict[str, int] = defaultdict(int)
    for _, update in landed():
        topics = published(update)
        for every, own in (("token_updates", "token"), ("market-data", "market-data")):
            singles = [b for topic, messages in topics.items() if topic.startswith(f"{own}:") for b in messages]
            assert sorted(map(repr, topics[every])) == sorted(map(repr, singles))
            for body in topics[every]:
                assert body in topics[f"{own}:{body['data']['mint']}"]
                told[body["data"]["type"]] += 1
    assert told == {"TokenCreated": 9, "TokenPriceUpdate": 53, "MarketData": 53}


def test_accounts() -> None:
    """Each on its own topic and on its program's."""
    told = 0
    for update in account_updates():
        topics = published(update)
        if not topics:
            continue
        ((own,),) = [messages for topic, messages in topics.items() if topic == f"account:{update.pubkey}"]
        assert topics == {f"account:{update.pubkey}": [own], f"accounts:{own['data']['program']}": [own]}
        told += 1
    assert told > 50
