"""Log lines that name a pool and no mint: their trades wait for the answer, come once, and are never lost."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.ingest.awaited import HELD_MAX, AwaitedPools
from headrace.model.events import Publication
from headrace.model.updates import AnyUpdate, LogsUpdate, PoolUpdate, SlotUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.ingest.mainnet import landed, logs_view, transaction
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
State = Literal["known", "none", "unanswered"]


class Flow:
    """A pipeline, what it asked for, and what it published on topics of trades."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.pipeline = SpreadPipeline(
            PROGRAMS, ManualClock(), Metrics(), ask_pool=lambda *asked: self.asked.append(asked)
        )
        self.published: list[Publication] = []

    def feed(self, *updates: AnyUpdate) -> list[Publication]:
        new = [publication for update in updates for publication in self.pipeline.apply(update)]
        self.published += new
        return new

    def answer(self, pool: str, mints: tuple[str, str] | None, state: State = "known") -> list[Publication]:
        return self.feed(
            PoolUpdate(source="pools", feed="pools", received_ns=0, slot=0, pool=pool, state=state, mints=mints)
        )


def body(publication: Publication) -> dict[str, Any]:
    return dict(msgspec.json.decode(b"{" + publication.body + b"}"))


def trades(publications: Iterable[Publication]) -> Counter[tuple[str, ...]]:
    """Topic, mints, side and amounts of each trade."""
    found: Counter[tuple[str, ...]] = Counter()
    for publication in publications:
        if publication.topic.startswith("trades:") and publication.kind == "event":
            data = body(publication)["data"]
            names = ("mint", "quote_mint", "side", "base_amount", "quote_amount", "pool")
            found[publication.topic, *(str(data[name]) for name in names)] += 1
    return found


def mints_of(update: TransactionUpdate) -> dict[str, tuple[str, str]]:
    """The pools of a whole transaction and their mints, in the pool's order."""
    flow = SpreadPipeline(PROGRAMS, ManualClock(), Metrics())
    flow.apply(update)
    return {pool: (pair.first, pair.second) for pool, pair in flow._pools._pairs.items()}


def asks(update: TransactionUpdate) -> bool:
    flow = Flow()
    flow.feed(logs_view(update))
    return bool(flow.asked)


ASKING = [pytest.param(update, id=name[:6]) for name, update in landed() if update.logs is not None and asks(update)]
ONE = transaction("27HoMFgk")
POOL, MINTS = next(iter(mints_of(ONE).items()))


def test_log_lines_of_several_programs_ask_for_pools() -> None:
    programs = set()
    for param in ASKING:
        flow = Flow()
        flow.feed(logs_view(param.values[0]))  # type: ignore[arg-type]
        programs |= {PROGRAMS.name_of(program_id) for _, program_id in flow.asked}
    assert programs == {"orca_whirlpool", "pump_amm", "raydium_clmm", "raydium_launchlab"}


@pytest.mark.parametrize("update", ASKING)
def test_with_the_pools_answered_log_lines_publish_the_trades_of_the_whole_transaction(
    update: TransactionUpdate,
) -> None:
    flow, whole = Flow(), Flow()
    flow.feed(logs_view(update))
    for pool, _ in list(flow.asked):
        assert not [found for found in trades(flow.published) if found[-1] == pool], "nothing goes out unanswered"
        flow.answer(pool, mints_of(update)[pool])
    expected = trades(whole.feed(update))
    logged = {event.topic for event in flow.published if event.topic.startswith("events:")}
    programs = {topic.removeprefix("events:") for topic in logged}
    named = {mint for found in expected if found[0].removeprefix("trades:") in programs for mint in found[1:3]}
    pools = {pool for pool, _ in flow.asked}
    assert {found for found in trades(flow.published) if found[-1] in pools} == {
        found for found in expected if found[-1] in pools
    }
    assert named
    assert len(flow.pipeline._awaited) == 0


def test_the_event_is_published_at_once_and_the_trade_under_its_id_when_the_pool_is_known() -> None:
    flow = Flow()
    first = flow.feed(logs_view(ONE))
    events = [body(each) for each in first if each.topic == "events:pump_amm"]
    assert events
    assert not trades(first)
    second = flow.answer(POOL, MINTS)
    assert {each.topic for each in second} >= {"trades:pump_amm"}
    assert {body(each)["event_id"] for each in second if each.topic == "trades:pump_amm"} <= {
        event["event_id"] for event in events
    }
    assert not [each for each in second if each.topic.startswith(("events:", "tx:"))]


def test_a_pool_that_is_known_is_not_asked_for_again() -> None:
    flow = Flow()
    flow.feed(logs_view(ONE))
    flow.answer(POOL, MINTS)
    later = flow.feed(msgspec.structs.replace(logs_view(ONE), slot=ONE.slot + 1))
    assert len(flow.asked) == 1
    assert trades(later)


def test_trades_of_a_pool_that_is_being_asked_for_wait_in_their_order() -> None:
    flow = Flow()
    slots = [ONE.slot + number for number in range(5)]
    for slot in slots:
        assert not trades(flow.feed(msgspec.structs.replace(logs_view(ONE), slot=slot)))
    assert len(flow.asked) == 1
    answered = [body(each) for each in flow.answer(POOL, MINTS) if each.topic == "trades:pump_amm"]
    assert [int(each["chain"]["slot"]) for each in answered] == slots


@pytest.mark.parametrize("state", ["none", "unanswered"])
def test_a_trade_whose_pool_nobody_knows_is_published_without_mint_and_a_gap_is_declared(state: State) -> None:
    flow = Flow()
    flow.feed(logs_view(ONE))
    answered = flow.answer(POOL, None, state)
    assert [found[1:3] for found in trades(answered)] == [("None", "None")]
    gaps = [each for each in answered if each.kind == "gap"]
    assert "trades:pump_amm" in {each.topic for each in gaps}
    assert body(gaps[0])["data"]["from_slot"] == str(ONE.slot)
    later = flow.feed(msgspec.structs.replace(logs_view(ONE), slot=ONE.slot + 1))
    assert bool(trades(later)) == (state == "none")
    assert len(flow.asked) == (1 if state == "none" else 2)


def test_the_whole_transaction_publishes_the_trade_while_its_pool_is_asked_for_and_the_answer_adds_nothing() -> None:
    flow = Flow()
    flow.feed(logs_view(ONE))
    assert trades(flow.feed(ONE))
    assert not trades(flow.answer(POOL, MINTS))
    assert max(trades(flow.published).values()) == 1


def test_a_slot_that_died_takes_its_waiting_trades_with_it() -> None:
    flow = Flow()
    flow.feed(logs_view(ONE))
    flow.feed(SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=ONE.slot, status="dead"))
    assert not flow.answer(POOL, MINTS)


def test_a_trade_that_waited_until_its_slot_was_confirmed_says_so() -> None:
    flow = Flow()
    flow.feed(logs_view(ONE))
    flow.feed(SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=ONE.slot, status="confirmed"))
    answered = [body(each) for each in flow.answer(POOL, MINTS) if each.kind == "event"]
    assert {each["chain"]["commitment"] for each in answered} == {"confirmed"}


def test_without_anyone_to_ask_the_trade_is_published_at_once() -> None:
    flow = SpreadPipeline(PROGRAMS, ManualClock(), Metrics())
    assert [found[1] for found in trades(flow.apply(logs_view(ONE)))] == ["None"]


def lines(number: int, size: int = 1) -> LogsUpdate:
    return LogsUpdate(
        source="rpc-0", feed="logs:x", received_ns=0, slot=number, signature="s", err=None, logs=("x" * size,)
    )


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    for size, most in ((1, HELD_MAX), (10_000_000, 2)):
        awaited = AwaitedPools(lambda *_: None)
        held = 0
        while awaited.takes("pool"):
            awaited.hold("pool", "program", lines(held, size))
            held += 1
        assert held == most
        assert len(awaited.answered("pool", "unanswered")) == most
        assert awaited.takes("pool")
        assert (len(awaited), awaited._bytes) == (0, 0)
