"""Market statistics equal a naive reckoning in fractions, whatever comes late, is taken back or held back."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.market import MarketSettings
from headrace.market.messages import cap_text, change_text
from headrace.market.series import Point
from headrace.market.stats import PENDING_SLOTS_MAX, Stats
from headrace.model.amounts import ratio_text
from headrace.model.facts import Dead, Finalized, Proof
from headrace.model.trades import Derived, Place, SeenTrade, token_id_of
from tests.examples import examples
from tests.market.naive import Told, cut, cut_significant, numbers

NOON_S = 1_790_000_000 // 60 * 60
DAY_S = 86_400


def trade(
    mint: str = "M",
    slot: int = 1,
    *,
    base: int = 10_000,
    quote: int = 20_000,
    time_s: int = NOON_S,
    final: bool = False,
    quote_mint: str = "Q",
    **known: int | None,
) -> SeenTrade:
    known = {"decimals": 6, "quote_decimals": 9, "supply": 10**15, **known}
    return SeenTrade(
        mint=mint, quote_mint=quote_mint, base_amount=base, quote_amount=quote, time_s=time_s, final=final,
        place=Place(slot, f"sig{slot}", "rpc-0", "logs:P"), unproven=False, **known,
    )  # fmt: skip


def of_type(derived: Iterable[Derived], kind: str) -> list[dict[str, Any]]:
    found = [msgspec.json.decode(each.data) for each in derived]
    return [data for data in found if data["type"] == kind]


def market(derived: Iterable[Derived]) -> list[dict[str, Any]]:
    return of_type(derived, "MarketData")


def every_trade() -> Stats:
    return Stats(MarketSettings(interval_slots=0))


def check(data: dict[str, Any], told: Iterable[Told]) -> None:
    """The message says what the model reckons from these trades (6 and 9 decimals, a supply of 10**15)."""
    exact = numbers(told)
    assert exact is not None
    with localcontext(prec=100):
        assert Decimal(data["price"]) == cut_significant(exact.price * Fraction(10**6, 10**9), 12)
        assert Decimal(data["change_24h"]) == cut(exact.change, 2)
        assert Decimal(data["volume_24h"]) == Decimal(exact.volume).scaleb(-9)
        assert Decimal(data["market_cap"]) == cut(exact.price * 10**15 / 10**9, 9)
    assert data["since"] == exact.since


class Market(RuleBasedStateMachine):
    """Trades of few mints over some days, in any order; slots that die or become final."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = every_trade()
        self.alive: dict[tuple[str, str], list[tuple[Told, bool]]] = defaultdict(list)
        self.said: dict[tuple[str, str], Derived] = {}
        self.ids: set[str] = set()
        self.nth = 0

    def hear(self, derived: list[Derived]) -> None:
        for each in derived:
            assert each.name not in self.ids, "an event id came twice"
            self.ids.add(each.name)
            data = msgspec.json.decode(each.data)
            assert data["token_id"] == token_id_of(data["mint"])
            if data["type"] == "MarketData":
                assert (each.topic, each.single) == ("market-data", f"market-data:{data['mint']}")
                self.said[data["mint"], data["quote_mint"]] = each
            else:
                assert (each.topic, each.single) == ("token_updates", f"token:{data['mint']}")

    @rule(
        mint=st.sampled_from("MN"),
        quote_mint=st.sampled_from("QR"),
        slot=st.integers(1, 8),
        hours=st.integers(0, 60),
        seconds=st.sampled_from([0, 1, 59, 60, 3599, 3540]),
        base=st.sampled_from([0, 1, 999, 1000, 12_345, 10**15, 2**64 - 1]),
        quote=st.sampled_from([0, 1, 999, 1000, 54_321, 10**9, 2**64 - 1]),
        final=st.booleans(),
    )
    def happen(
        self, mint: str, quote_mint: str, slot: int, hours: int, seconds: int, base: int, quote: int, final: bool
    ) -> None:
        time_s = NOON_S + hours * 3600 + seconds
        seen = trade(mint, slot, base=base, quote=quote, time_s=time_s, final=final, quote_mint=quote_mint)
        self.hear(self.stats.apply(seen))
        if base and quote:
            self.nth += 1
            told = Told(time_s // 60, slot, self.nth, base, quote, time_s)
            self.alive[mint, quote_mint].append((told, final))

    @rule(slot=st.integers(1, 8))
    def die(self, slot: int) -> None:
        self.hear(self.stats.decide(Dead(slot, "fork")))
        for key, trades in self.alive.items():
            self.alive[key] = [(told, final) for told, final in trades if final or told.slot != slot]

    @rule(slot=st.integers(1, 8))
    def become_final(self, slot: int) -> None:
        self.stats.decide(Finalized(slot))
        for key, trades in self.alive.items():
            self.alive[key] = [(told, final or told.slot == slot) for told, final in trades]

    @rule(slot=st.integers(1, 9))
    def go_on(self, slot: int) -> None:
        self.hear(self.stats.advance(slot))

    @invariant()
    def the_last_word_is_right(self) -> None:
        for key, trades in self.alive.items():
            exact = numbers(told for told, _ in trades)
            if exact is not None:
                check(msgspec.json.decode(self.said[key].data), [told for told, _ in trades])
                assert self.said[key].place.slot == exact.slot

    @invariant()
    def minutes_are_counted(self) -> None:
        assert self.stats.minutes == sum(map(len, self.stats._series.values()))


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=examples(120), stateful_step_count=40)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("MNO"),
            st.integers(0, 3),
            st.booleans(),
            st.integers(1000, 10**12),
        ),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_messages_that_are_held_back_come_in_time_and_never_too_often(
    steps: list[tuple[str, int, bool, int]], interval: int
) -> None:
    stats = Stats(MarketSettings(interval_slots=interval))
    trades: dict[str, list[Told]] = defaultdict(list)
    said: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    slot = 1
    for nth, (mint, step, late, quote) in enumerate(steps):
        slot += step
        where = max(1, slot - 2) if late else slot
        derived = stats.advance(slot) + stats.apply(trade(mint, where, quote=quote))
        trades[mint].append(Told(NOON_S // 60, where, nth, 10_000, quote, NOON_S))
        for data in market(derived):
            said[data["mint"]].append((slot, data))
    for data in market(stats.advance(slot + interval)):
        said[data["mint"]].append((slot + interval, data))
    assert not stats._due
    for mint, messages in said.items():
        check(messages[-1][1], trades[mint])
        slots = [at for at, _ in messages]
        assert all(after - before >= interval for before, after in pairwise(slots))
    assert said.keys() == trades.keys()


def test_the_last_message_of_a_quiet_mint_comes_with_later_slots() -> None:
    stats = Stats(MarketSettings(interval_slots=3))
    assert len(market(stats.apply(trade(slot=10)))) == 1
    assert stats.apply(trade(slot=11, quote=30_000)) == []
    assert stats.apply(trade(slot=12, quote=40_000)) == []
    assert stats.advance(12) == []
    (data,) = market(stats.advance(13))
    assert (data["price"], data["volume_24h"]) == ("0.004", "0.00009")
    assert stats.advance(99) == []


def test_trades_of_a_day_to_the_minute_are_in_the_window() -> None:
    stats = every_trade()
    stats.apply(trade(slot=1, quote=20_000, final=True))
    (data,) = market(stats.apply(trade(slot=2, quote=30_000, time_s=NOON_S + DAY_S - 60, final=True)))
    assert (data["change_24h"], data["volume_24h"], data["since"]) == ("50", "0.00005", NOON_S)
    (data,) = market(stats.apply(trade(slot=3, quote=40_000, time_s=NOON_S + DAY_S, final=True)))
    assert (data["change_24h"], data["volume_24h"], data["since"]) == ("100", "0.00007", NOON_S + 60)
    (data,) = market(stats.apply(trade(slot=4, quote=40_000, time_s=NOON_S + 3 * DAY_S, final=True)))
    assert (data["change_24h"], data["volume_24h"]) == ("0", "0.00004"), "compared with the last price before the day"
    assert stats.minutes == 1


def test_trades_of_a_dead_slot_are_taken_back_with_a_message_at_once() -> None:
    stats = Stats(MarketSettings(interval_slots=100))
    stats.apply(trade(slot=10))
    stats.apply(trade(slot=11, quote=90_000, time_s=NOON_S + 2 * DAY_S))
    (data,) = market(stats.decide(Dead(11, "fork")))
    assert (data["price"], data["change_24h"], data["volume_24h"]) == ("0.002", "0", "0.00002")
    assert stats.decide(Dead(11, "fork")) == []
    assert stats.decide(Dead(10, "fork")) == [], "without a trade there is nothing to tell"
    assert stats.trades == {"applied": 2, "retracted": 2}


def test_one_transaction_of_a_slot_is_withdrawn_and_the_others_stay() -> None:
    stats = Stats(MarketSettings(interval_slots=100))
    stats.apply(trade(slot=10))
    phantom = trade(slot=10, quote=90_000)
    stats.apply(
        msgspec.structs.replace(
            phantom, place=msgspec.structs.replace(phantom.place, signature="phantom"), unproven=True
        )
    )
    (data,) = market(stats.decide(Proof(10, absent=("phantom",))))
    assert (data["price"], data["volume_24h"]) == ("0.002", "0.00002")
    assert stats.decide(Proof(10, absent=("phantom",))) == []
    assert stats.decide(Proof(11, absent=("sig10",))) == []
    assert stats.trades == {"applied": 2, "retracted": 1}
    assert stats.decide(Dead(10, "fork")) == []
    assert stats.trades == {"applied": 2, "retracted": 2}


def test_unknown_decimals_and_supply_make_null() -> None:
    stats = every_trade()
    told = stats.apply(trade(decimals=None, supply=None))
    assert of_type(told, "TokenPriceUpdate") == []
    (data,) = market(told)
    assert (data["price"], data["market_cap"], data["volume_24h"], data["change_24h"]) == (None, None, "0.00002", "0")
    (data,) = market(stats.apply(trade(slot=2, quote_decimals=None)))
    assert (data["price"], data["market_cap"], data["volume_24h"]) == (None, None, None)
    (data,) = market(stats.apply(trade(slot=3)))
    assert (data["price"], data["market_cap"]) == ("0.002", "2000000")


def test_dust_has_a_volume_but_no_price_and_nothing_is_no_trade() -> None:
    stats = every_trade()
    assert stats.apply(trade(base=999)) == []
    (data,) = market(stats.apply(trade(slot=2)))
    assert (data["price"], data["volume_24h"]) == ("0.002", "0.00004")
    (data,) = market(stats.apply(trade(slot=3, quote=1)))
    assert (data["price"], data["volume_24h"]) == ("0.002", "0.000040001")
    assert stats.apply(trade(slot=4, base=0)) == stats.apply(trade(slot=4, quote=0)) == []
    assert stats.trades["empty"] == 2


def test_beyond_the_bounds_the_mint_that_traded_longest_ago_is_forgotten() -> None:
    stats = Stats(MarketSettings(mints_max=50, minutes_max=120))
    for number in range(5_000):
        slot = 1 + number // 100
        stats.apply(trade("busy", slot, time_s=NOON_S + number))
        stats.apply(trade(f"dies {number}", slot, time_s=NOON_S + number))
        assert stats.held <= 50
        assert stats.minutes <= 120
        assert sum(map(len, stats._due.values())) <= stats.held, "who is forgotten owes nothing"
    assert stats.forgotten == 5_001 - stats.held
    assert {mint for mint, _ in stats._series} >= {"busy", "dies 4999"}
    stats.advance(10_000)
    assert not stats._due
    (data,) = market(stats.apply(trade("dies 0", 10_001, time_s=NOON_S + 9_000)))
    assert data["since"] == NOON_S + 9_000, "it begins anew"


def test_minutes_of_one_mint_alone_are_those_of_a_day() -> None:
    stats = every_trade()
    for number in range(5_000):
        stats.apply(trade(slot=1 + number, time_s=NOON_S + 60 * number, final=True))
    assert stats.minutes == 1440


def test_trades_whose_slot_is_never_decided_become_final_in_the_end() -> None:
    stats = every_trade()
    for slot in range(1, PENDING_SLOTS_MAX + 2):
        stats.apply(trade(slot=slot))
    assert stats.decide(Dead(1, "fork")) == []
    assert len(market(stats.decide(Dead(2, "fork")))) == 1
    assert len(stats._undecided) == PENDING_SLOTS_MAX - 1


def test_reset_forgets_all_but_the_counts() -> None:
    stats = every_trade()
    before = stats.apply(trade())
    stats.reset()
    assert (stats.held, stats.minutes) == (0, 0)
    assert stats.apply(trade()) == before, "the same telling gives the same bytes"
    assert stats.trades["applied"] == 2


UNITS = st.integers(1, 2**64 - 1)


@given(UNITS, UNITS, st.integers(0, 60), st.integers(0, 60))
def test_ratios_are_cut_never_rounded_up(numerator: int, denominator: int, up: int, down: int) -> None:
    numerator, denominator = numerator * 10**up, denominator * 10**down
    with localcontext(prec=400):
        told = Decimal(ratio_text(numerator, denominator, 12))
        assert told == cut_significant(Fraction(numerator, denominator), 12)
    assert "E" not in ratio_text(numerator, denominator, 12)


@given(UNITS, UNITS, UNITS, UNITS, UNITS)
def test_changes_and_caps_are_cut(base: int, quote: int, base_then: int, quote_then: int, supply: int) -> None:
    last, then = Point(0, 0, 0, base, quote, 0), Point(0, 0, 0, base_then, quote_then, 0)
    exact = Fraction(quote, base) / Fraction(quote_then, base_then) * 100 - 100
    with localcontext(prec=400):
        assert Decimal(change_text(last, then)) == cut(exact, 2)
        assert Decimal(cap_text(last, supply, 9) or "") == cut(Fraction(quote * supply, base * 10**9), 9)


@pytest.mark.parametrize(
    ("numerator", "denominator", "text"),
    [
        (1, 3, "0.333333333333"),
        (2, 3, "0.666666666666"),
        (10**20 + 1, 1, "100000000000000000001"),
        (1, 8, "0.125"),
        (1, 3 * 10**9, "0.000000000333333333333"),
        (999_999_999_999_9, 10, "999999999999.9"),
    ],
)
def test_ratios_of_integers_are_written_as_decimals(numerator: int, denominator: int, text: str) -> None:
    digits = 13 if text.endswith(".9") else 12
    assert ratio_text(numerator, denominator, digits) == text
