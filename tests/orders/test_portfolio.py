"""The integer portfolio against one in exact fractions, and its rounding as it is stated."""

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.amounts import BaseUnits
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.orders import U64_MAX, Fill
from headrace.orders.portfolio import Holding, Portfolio, money_of, view
from headrace.orders.requests import TOKENS, decimals_of

SOL, USDC, USDT, X = WSOL_MINT, USDC_MINT, USDT_MINT, "4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R"

amounts = st.integers(1, 50) | st.integers(1, U64_MAX)
mints = st.sampled_from([SOL, USDC, USDT, X])


def fill(mint_in: str, mint_out: str, amount_in: int, amount_out: int, position: int = 1) -> Fill:
    return Fill(
        position=position,
        order_id=f"o{position}",
        mint_in=mint_in,
        mint_out=mint_out,
        amount_in=BaseUnits(amount_in),
        amount_out=BaseUnits(amount_out),
        at_ms=0,
    )


fills = st.lists(st.builds(fill, mints, mints, amounts, amounts).filter(lambda it: it.mint_in != it.mint_out))


@dataclass
class Exact:
    """The same without any rounding."""

    units: Fraction = Fraction(0)
    cost: Fraction = Fraction(0)
    realised: Fraction = Fraction(0)

    def buy(self, units: int, cost: int) -> None:
        self.units += units
        self.cost += cost

    def sell(self, units: int, proceeds: int) -> None:
        covered = min(self.units, Fraction(units))
        if covered:
            cost = self.cost * covered / self.units
            self.units -= covered
            self.cost -= cost
            self.realised += Fraction(proceeds) * covered / units - cost


@given(st.lists(st.tuples(st.booleans(), amounts, amounts), max_size=60))
def test_a_holding_is_the_exact_one_rounded_against_its_owner(trades: list[tuple[bool, int, int]]) -> None:
    holding, exact, sales = Holding(), Exact(), 0
    for buys, units, money in trades:
        for it in (holding, exact):
            (it.buy if buys else it.sell)(units, money)
        sales += not buys
        assert holding.units == exact.units
        assert 0 <= holding.cost <= exact.cost < holding.cost + sales + 1
        assert exact.realised - 2 * sales <= holding.realised <= exact.realised
        # Nothing appears or is lost: what was paid is in the cost that is left, or was taken off a sale.
        if holding.units == 0:
            assert holding.cost == 0


@given(fills)
def test_balances_are_what_went_in_and_out(trades: list[Fill]) -> None:
    portfolio = Portfolio()
    for each in trades:
        portfolio.apply(each)
    for mint in (SOL, USDC, USDT, X):
        came = sum(each.amount_out for each in trades if each.mint_out == mint)
        went = sum(each.amount_in for each in trades if each.mint_in == mint)
        assert portfolio.balances[mint] == came - went


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=30), st.data())
def test_once_all_is_sold_the_profit_is_exact_but_for_its_sales(
    buys: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Bought for C, sold in parts for P: the profit is P - C, to the unit, as no sale was partly covered."""
    holding, proceeds_of_all = Holding(), 0
    for units, cost in buys:
        holding.buy(units, cost)
    while holding.units:
        units = data.draw(st.integers(max(1, holding.units // 5), holding.units))
        proceeds = data.draw(amounts)
        proceeds_of_all += proceeds
        holding.sell(units, proceeds)
    assert holding.realised == proceeds_of_all - sum(cost for _, cost in buys)


def test_the_pair_says_in_what_costs_are_counted() -> None:
    assert money_of(SOL, USDC) == money_of(USDC, SOL) == USDC
    assert money_of(USDT, USDC) == USDC
    assert money_of(SOL, X) == SOL
    assert money_of("b", "a") == money_of("a", "b") == "a"


def test_a_portfolio_is_shown_in_units_and_decimal_text() -> None:
    portfolio = Portfolio()
    portfolio.apply(fill(USDC, SOL, 300_000_000, 2_000_000_000))  # 2 SOL for 300 USDC
    portfolio.apply(fill(SOL, USDC, 500_000_000, 80_000_000))  # half a SOL for 80: 5 more than it cost
    portfolio.apply(fill(SOL, X, 7, 10))
    shown = view("ann", portfolio, decimals_of)
    assert shown["fills"] == 3
    assert {balance["mint"]: balance["amount"] for balance in shown["balances"]} == {
        SOL: "1.499999993",
        USDC: "-220",
        X: None,
    }
    sol = next(holding for holding in shown["holdings"] if holding["mint"] == SOL)
    assert sol == {
        "mint": SOL,
        "costMint": USDC,
        "units": "1500000000",
        "cost": "225000000",
        "averageCost": "150",
        "realised": "5000000",
        "realisedAmount": "5",
        "uncovered": "0",
    }
    assert TOKENS["USDC"].mint == USDC
    assert TOKENS["USDT"].mint == USDT
