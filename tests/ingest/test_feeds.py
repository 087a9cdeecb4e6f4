"""Transactions that several subscriptions bring: each key's own topic gets them, and no topic twice."""

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.ingest.gaps import FeedTopics
from headrace.model.events import Publication
from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.testing.ledger import made_up_key
from tests.ingest.mainnet import PUMP, landed, logs_view
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
WALLET = made_up_key("wallet")
FEEDS = (f"logs:{PUMP}", f"transactions:{PUMP}", f"transactions:{WALLET}", f"logs:{WALLET}")
PUMP_TRADE = next(update for _, update in landed() if any(i.program_id == PUMP for i in update.instructions))


def pipeline() -> SpreadPipeline:
    return SpreadPipeline(PROGRAMS, ManualClock(), Metrics())


def on_feed(update: LogsUpdate | TransactionUpdate, feed: str) -> LogsUpdate | TransactionUpdate:
    return msgspec.structs.replace(update, feed=feed)


def topics(publications: Iterable[Publication]) -> Counter[str]:
    return Counter(publication.topic for publication in publications)


@pytest.mark.parametrize("feeds", [FEEDS[1:3], FEEDS[2:0:-1]], ids=["program first", "wallet first"])
def test_a_transaction_of_two_feeds_is_on_the_topics_of_both_keys_once(feeds: tuple[str, ...]) -> None:
    flow = pipeline()
    published = [each for feed in (*feeds, *feeds) for each in flow.apply(on_feed(PUMP_TRADE, feed))]
    counts = topics(published)
    assert (counts["tx:pump"], counts[f"tx:{WALLET}"], counts["events:pump"]) == (1, 1, counts["trades:pump"])
    ids = {msgspec.json.decode(b"{" + each.body + b"}")["event_id"] for each in published if each.topic[:3] == "tx:"}
    assert len(ids) == 1


def test_log_lines_of_two_feeds_are_on_the_topics_of_both_keys_once() -> None:
    flow, lines = pipeline(), logs_view(PUMP_TRADE)
    published = [each for feed in (FEEDS[0], FEEDS[3]) * 2 for each in flow.apply(on_feed(lines, feed))]
    counts = topics(published)
    assert (counts["tx:pump"], counts[f"tx:{WALLET}"]) == (1, 1)


def test_a_failed_transaction_of_two_feeds_is_on_the_topics_of_both() -> None:
    flow = pipeline()
    failed = msgspec.structs.replace(logs_view(PUMP_TRADE), err="AccountInUse")
    published = [each for feed in (FEEDS[3], FEEDS[0]) for each in flow.apply(on_feed(failed, feed))]
    assert topics(published) == {"tx:pump": 1, f"tx:{WALLET}": 1}


def test_a_gap_of_whole_transactions_concerns_all_topics_that_they_feed() -> None:
    audience = ["events:raydium_cpmm", "trades:x", "slots", "account:x", "tx:y", "token:x", "market-data", "app:z"]
    of = FeedTopics(PROGRAMS.name_of, lambda: audience).of
    assert of(f"transactions:{PUMP}") == sorted(
        [
            "trades:pump", "events:pump", "tx:pump", "token_updates",
            "events:raydium_cpmm", "trades:x", "tx:y", "token:x", "market-data",
        ]
    )  # fmt: skip
    assert f"tx:{WALLET}" in of(f"transactions:{WALLET}")


def test_each_instruction_of_a_transaction_shows_its_accounts() -> None:
    (shown,) = [
        msgspec.json.decode(b"{" + each.body + b"}")["data"]
        for each in pipeline().apply(on_feed(PUMP_TRADE, FEEDS[1]))
        if each.topic == "tx:pump"
    ]
    for instruction, told in zip(PUMP_TRADE.instructions, shown["instructions"], strict=True):
        assert tuple(told["accounts"]) == instruction.accounts
