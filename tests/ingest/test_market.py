"""Market messages of real trades, to the exact unit; forks, gaps, repeats and new tellings in the whole update flow."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

import headrace
from headrace.decoders.registry import Programs
from headrace.ingest.chain_time import ChainTime
from headrace.ingest.known import Mints
from headrace.market import MarketSettings
from headrace.market.metrics import MarketMetrics
from headrace.market.stats import Stats
from headrace.model.events import DecodedEvent, Publication
from headrace.model.facts import MintFacts
from headrace.model.updates import (
    AnyUpdate,
    GapUpdate,
    RewindUpdate,
    SlotStatus,
    SlotUpdate,
    TransactionUpdate,
)
from headrace.programs.pump.facts import SUPPLY
from headrace.programs.register import EVENTS
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.sources.recording import Recording
from tests.ingest.mainnet import PUMP, landed, logs_view, transaction
from tests.market.naive import Told, cut, cut_significant, numbers
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
DEMO = Path(headrace.__file__).parent / "data" / "demo.hrec"
SOL = "So11111111111111111111111111111111111111112"
COIN = "Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump"
"""What transaction 2KBsKB sells: 70135987937292 base units for 3392434780 lamports."""
LOCAL_COIN = "J2xccRtuG43drESLYznHhLhQkLTdfepcKYbiQ9BsJVaf"
"""Of the local bank, which tells no token balances."""

Message = tuple[str, str, dict[str, Any]]


def flow_with(interval_slots: int = 0, audience: Sequence[str] = ()) -> tuple[SpreadPipeline, Stats]:
    stats = Stats(MarketSettings(interval_slots=interval_slots))
    return SpreadPipeline(PROGRAMS, ManualClock(), Metrics(), audience=lambda: audience, market=stats), stats


def fed(flow: SpreadPipeline, *updates: AnyUpdate) -> list[Publication]:
    return [publication for update in updates for publication in flow.apply(update)]


def told(publications: Iterable[Publication], topic: str) -> list[Message]:
    return [
        (p.kind, p.topic, msgspec.json.decode(b"{" + p.body + b"}")) for p in publications if p.topic.startswith(topic)
    ]


def slot(number: int, status: SlotStatus, parent: int | None = None) -> SlotUpdate:
    return SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=number, status=status, parent=parent)


def sale(number: int, signature: str = "one") -> TransactionUpdate:
    return msgspec.structs.replace(
        transaction("2KBsKB"), slot=number, signature=signature, commitment="processed", feed=f"logs:{PUMP}"
    )


def test_one_trade_says_it_on_four_topics() -> None:
    flow, _ = flow_with()
    publications = flow.apply(transaction("2KBsKB"))
    ((_, _, body),) = told(publications, "market-data:")
    update = transaction("2KBsKB")
    assert body["data"] == {
        "type": "MarketData",
        "token_id": "ee6571ef-2cf7-56b6-be33-7e85c9c335ed",
        "mint": COIN,
        "quote_mint": SOL,
        "price": "0.0000000483693875251",
        "change_24h": "0",
        "volume_24h": "3.39243478",
        "market_cap": "48.369387525",
        "since": update.block_time_s,
    }
    assert body["chain"] == {
        "slot": str(update.slot),
        "signature": update.signature,
        "ix": [],
        "commitment": "confirmed",
        "tx_version": None,
        "source": "rpc-0",
        "truncated": False,
        "via": None,
    }
    ((_, _, price),) = told(publications, f"token:{COIN}")
    assert price["data"] == {
        key: "TokenPriceUpdate" if key == "type" else value
        for key, value in body["data"].items()
        if key not in ("volume_24h", "market_cap")
    }
    assert [b for _, topic, b in told(publications, "market-data") if topic == "market-data"] == [body]
    assert [b for _, _, b in told(publications, "token_updates")] == [price]
    topics = [p.topic for p in publications]
    assert topics.index(f"trades:{COIN}") < topics.index("market-data"), "the trade comes before what follows from it"


def test_a_curve_that_fills_up_has_the_volume_that_the_program_asks_for() -> None:
    """The local bank ran a whole pump.fun curve: it completes at 85.005359062 SOL and 1e15 base units of supply."""
    flow, _ = flow_with()
    bank = [update for _, update in landed(("local_bank",))]
    messages = [body["data"] for _, _, body in told(fed(flow, *bank), "market-data:")]
    assert [data["volume_24h"] for data in messages][-1] == "85.005359062"
    assert messages[-1]["change_24h"] == "432.11"


async def demo() -> list[AnyUpdate]:
    outlet: Channel[AnyUpdate] = Channel(10_000)
    await Recording(DEMO, ManualClock(), speed=None).run(outlet)
    return await outlet.get_batch(10_000)


def decimals_of(update: TransactionUpdate) -> dict[str, int]:
    return {held.mint: held.decimals for held in (*update.pre_token_balances, *update.post_token_balances)}


class Reckoner:
    """Reckons every market message again, from the trades that were published on the topics of their mints."""

    def __init__(self) -> None:
        self.flow, _ = flow_with()
        self.trades: dict[tuple[str, str], dict[str, Told]] = defaultdict(dict)
        self.decimals = {SOL: 9, LOCAL_COIN: 6}
        self.checked = 0

    def feed(self, update: AnyUpdate) -> None:
        """Apply an update; every transaction among them has a block time."""
        publications = self.flow.apply(update)
        if isinstance(update, TransactionUpdate):
            assert update.block_time_s is not None
            self.decimals |= decimals_of(update)
            for kind, topic, body in told(publications, "trades:"):
                if kind == "event" and topic == f"trades:{body['data']['mint']}":
                    self.count(body, update.slot, update.block_time_s)
        said: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for kind, topic, body in told(publications, "market-data:"):
            assert kind != "retract"
            if kind == "event":
                assert topic == f"market-data:{body['data']['mint']}"
                said[body["data"]["mint"], body["data"]["quote_mint"]].append(body["data"])
        for key, messages in said.items():  # one for each trade
            trades = list(self.trades[key].values())
            for nth, data in enumerate(messages, len(trades) - len(messages) + 1):
                self.check(data, trades[:nth])

    def count(self, body: dict[str, Any], number: int, time_s: int) -> None:
        data = body["data"]
        base, quote = int(data["base_amount"]), int(data["quote_amount"])
        trades = self.trades[data["mint"], data["quote_mint"]]
        assert body["event_id"] not in trades
        if base and quote:
            trades[body["event_id"]] = Told(time_s // 60, number, len(trades), base, quote, time_s)

    def check(self, data: dict[str, Any], trades: Iterable[Told]) -> None:
        exact = numbers(trades)
        assert exact is not None
        base_decimals, quote_decimals = self.decimals[data["mint"]], self.decimals[data["quote_mint"]]
        with localcontext(prec=100):
            price = exact.price * Fraction(10**base_decimals, 10**quote_decimals)
            assert Decimal(data["price"]) == cut_significant(price, 12)
            assert Decimal(data["change_24h"]) == cut(exact.change, 2)
            assert Decimal(data["volume_24h"]) == Decimal(exact.volume).scaleb(-quote_decimals)
        assert data["since"] == exact.since
        self.checked += 1


async def test_every_trade_of_the_demo_recording_is_reckoned_again() -> None:
    reckoner = Reckoner()
    for update in await demo():
        if isinstance(update, TransactionUpdate) and update.block_time_s is None:
            update = msgspec.structs.replace(update, block_time_s=1_760_000_000)
        reckoner.feed(update)
    assert reckoner.checked == 49


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("step_s", [1, 7_000])
def test_every_mainnet_transaction_is_reckoned_again(backwards: bool, step_s: int) -> None:
    reckoner = Reckoner()
    in_time = sorted((update for _, update in landed()), key=lambda update: update.slot)
    for nth, update in enumerate(in_time[::-1] if backwards else in_time):
        reckoner.feed(msgspec.structs.replace(update, block_time_s=1_790_000_000 + nth * step_s))
    assert reckoner.checked == 53
    assert not reckoner.flow.measures.bad


CAPS = [
    # signature, mint, cap in the quote, and why
    ("2KBsKB", COIN, Fraction(3392434780 * 10**15, 70135987937292 * 10**9)),  # pump.fun: a thousand million coins
    ("27HoMF", "6YLtFQaMzWt9aykgUYV7Uk5p7nF7yDTHHAEEWbA8pump",
     Fraction(820213 * 995593267624508, 141041791 * 10**9)),  # PumpSwap: the event's own base_supply
    ("5LzhiG", "54y4DV6shhwvojpRCCqwvgRTPd45UGrCEghpsa9pBj7F", None),
    # LaunchLab: created with 1e15 in the same transaction
]  # fmt: skip


@pytest.mark.parametrize(("signature", "mint", "cap"), CAPS)
def test_market_caps_to_the_unit(signature: str, mint: str, cap: Fraction | None) -> None:
    flow, _ = flow_with()
    publications = flow.apply(transaction(signature))
    ((_, _, trade),) = told(publications, f"trades:{mint}")
    ((_, _, body),) = told(publications, f"market-data:{mint}")
    base, quote = int(trade["data"]["base_amount"]), int(trade["data"]["quote_amount"])
    assert Decimal(body["data"]["market_cap"]) == cut(cap or Fraction(quote * 10**15, base * 10**9), 9)


def test_a_supply_that_nobody_told_is_null() -> None:
    flow, _ = flow_with()
    ((_, _, body),) = told(flow.apply(transaction("54MFrV")), "market-data:")
    assert body["data"]["market_cap"] is None
    assert body["data"]["price"] == "0.00254057935257"


def test_repeats_and_poorer_views_count_once() -> None:
    flow, stats = flow_with()
    whole = sale(9)
    fed(flow, logs_view(whole), whole, logs_view(whole), msgspec.structs.replace(whole, source="rpc-1"))
    assert stats.trades == {"applied": 1}


def test_a_fork_takes_messages_back_and_says_how_the_mint_stands_without_them() -> None:
    flow, stats = flow_with()
    fed(flow, slot(10, "processed", 9), sale(10, "kept"))
    lost = told(fed(flow, slot(11, "processed", 10), sale(11, "lost")), "market-data:")
    fed(flow, slot(12, "processed", 10), sale(12, "other side"))
    settled = told(fed(flow, slot(12, "confirmed")), f"market-data:{COIN}")
    kinds = [(kind, body["data"]) for kind, _, body in settled]
    assert kinds[0] == ("promote", {"slot": "10", "commitment": "confirmed"})
    assert kinds[1] == ("retract", {"event_ids": [lost[0][2]["event_id"]], "reason": "fork"})
    assert kinds[2] == ("promote", {"slot": "12", "commitment": "confirmed"})
    (kind, _, correction) = settled[3]
    assert (kind, correction["data"]["volume_24h"]) == ("event", "6.78486956")
    assert correction["chain"]["commitment"] == "confirmed", "its slot was just confirmed: no promote will follow"
    assert len({body["event_id"] for _, _, body in settled if "event_id" in body} | {lost[0][2]["event_id"]}) == 2
    assert stats.trades == {"applied": 3, "retracted": 1}
    assert told(fed(flow, slot(12, "finalized")), "market-data") == []
    assert not len(stats._undecided), "what is final is no longer kept to be undone"


def test_what_is_held_back_comes_with_the_slots_and_can_be_taken_back() -> None:
    flow, _ = flow_with(interval_slots=3)
    assert len(told(fed(flow, slot(10, "processed", 9), sale(10, "a")), "market-data:")) == 1
    assert told(fed(flow, slot(11, "processed", 10), sale(11, "b")), "market-data:") == []
    ((_, _, late),) = told(fed(flow, slot(13, "processed", 10)), "market-data:")
    assert (late["chain"]["slot"], late["chain"]["commitment"]) == ("11", "processed")
    settled = told(fed(flow, slot(13, "confirmed")), f"market-data:{COIN}")
    assert ("retract", {"event_ids": [late["event_id"]], "reason": "fork"}) in [
        (kind, body["data"]) for kind, _, body in settled
    ]
    assert settled[-1][2]["data"]["volume_24h"] == "3.39243478"


def test_gaps_are_told_to_who_reckons_with_the_numbers() -> None:
    flow, _ = flow_with(audience=["market-data:M", "token:M"])
    flow.apply(sale(10))
    gap = GapUpdate(
        source="rpc-0", feed=f"logs:{PUMP}", received_ns=0, slot=20, gap_id="g", from_slot=11, to_slot=20, state="open"
    )
    topics = {publication.topic for publication in flow.apply(gap)}
    assert topics >= {"market-data", f"market-data:{COIN}", "market-data:M", f"token:{COIN}", "token:M"}


def test_a_recording_that_starts_over_is_not_counted_twice() -> None:
    flow, _ = flow_with()
    first = told(fed(flow, sale(9, "a"), sale(10, "b")), "market-data")
    flow.apply(RewindUpdate(source="recording", feed="", received_ns=0, slot=0, lap=2))
    assert told(fed(flow, sale(9, "a"), sale(10, "b")), "market-data") == first


def test_switched_off_nothing_is_told() -> None:
    flow = SpreadPipeline(PROGRAMS, ManualClock(), Metrics())
    publications = fed(flow, slot(9, "processed"), transaction("2KBsKB"), slot(9, "dead"))
    assert told(publications, "market-data") == told(publications, "token") == []
    assert told(publications, "trades:pump")


def test_what_is_counted_is_exported() -> None:
    flow, stats = flow_with()
    metrics = Metrics()
    metrics.registry.register(MarketMetrics(stats))
    flow.apply(transaction("2KBsKB"))
    text = metrics.render().decode()
    assert 'headrace_market_trades_total{outcome="applied"} 1.0' in text
    assert 'headrace_market_messages_total{type="MarketData"} 1.0' in text
    assert 'headrace_market_messages_total{type="TokenPriceUpdate"} 1.0' in text
    assert "headrace_market_series 1.0" in text
    assert "headrace_market_buckets 1.0" in text


def event(program: str, name: str, **data: Any) -> DecodedEvent:
    return DecodedEvent(program=program, program_id="P", name=name, via="cpi", path=(0,), ordinal=0, data=data)


def learn(mints: Mints, seen: DecodedEvent, mint: str) -> None:
    mints.learn_event(seen, EVENTS[seen.program, seen.name], mint)


def test_facts_of_mints_and_whose_word_counts() -> None:
    mints = Mints()
    assert (mints.of(SOL), mints.of("M")) == (MintFacts(9), MintFacts())
    learn(mints, event("pump", "TradeEvent", mayhem_mode=False), "M")
    assert mints.of("M") == MintFacts(6, SUPPLY)
    learn(mints, event("pump_amm", "SellEvent", base_supply=7), "M")
    learn(mints, event("pump", "TradeEvent", mayhem_mode=False), "M")
    assert mints.of("M") == MintFacts(6, 7), "what was read from the mint counts"
    mints.learn_account("M", "spl_token_2022", "Mint", {"decimals": 6, "supply": 8})
    assert mints.of("M") == MintFacts(6, 8)
    learn(mints, event("pump", "TradeEvent", mayhem_mode=True), "N")
    assert mints.of("N") == MintFacts(6, None), "in mayhem mode the supply grows"
    learn(mints, event("raydium_launchlab", "PoolCreateEvent", base_mint_param={"decimals": 6}, curve_param=None), "L")
    assert mints.of("L") == MintFacts(6, None)
    info = {"coin_mint": "C", "coin_decimals": 5, "pc_mint": SOL, "pc_decimals": 1}
    mints.learn_account("pool", "raydium_amm_v4", "AmmInfo", info)
    assert (mints.of("C"), mints.of(SOL)) == (MintFacts(5), MintFacts(9))


def test_mints_are_bounded() -> None:
    mints = Mints(mints_max=3)
    for name in "abcd":
        mints.learn(name, MintFacts(1))
    assert [mints.of(name).decimals for name in "abcd"] == [None, 1, 1, 1]


@pytest.mark.parametrize(
    ("block_time_s", "fields", "time_s"),
    [
        (1_700_000_000, {"timestamp": 5}, 1_700_000_000),
        (None, {"timestamp": 1_700_000_001}, 1_700_000_001),
        (None, {"current_timestamp": 1_700_000_002}, 1_700_000_002),
        (None, {"timestamp": -1}, 77),
        (None, {"timestamp": 2**63 - 1}, 77),
        (None, {}, 77),
    ],
)
def test_time_is_the_chains_own(block_time_s: int | None, fields: dict[str, Any], time_s: int) -> None:
    update = msgspec.structs.replace(transaction("2KBsKB"), block_time_s=block_time_s, received_ns=77 * 10**9)
    assert ChainTime().of(update, fields) == time_s
