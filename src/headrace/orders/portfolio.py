"""A user's portfolio: balances, cost and profit, added up from the user's fills in integers. Pure."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from headrace.model.amounts import decimal_string
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.orders import Fill

MONEY: Final = (USDC_MINT, USDT_MINT, WSOL_MINT)
"""Mints in which cost is measured. A pair's cost is in the first of these mints that the pair contains.

If it contains none, the cost is in the mint whose text sorts first.
"""

AVERAGE_DECIMALS: Final = 9

RULES: Final = 1
"""Version of these rules, raised when the same fills add up to a different portfolio.

A saved state of another version is not used.
"""


@dataclass
class Holding:
    """Position in one mint, measured in the mint that it was bought with. All amounts are in base units.

    - `units`: bought and not sold yet.
    - `cost`: the cost of `units`.
    - `realised`: the proceeds of sales less their cost; may be negative.
    - `uncovered`: units that were sold without a known purchase. Their cost is unknown, so their proceeds are in the
      balances but not in the profit.
    """

    units: int = 0
    cost: int = 0
    realised: int = 0
    uncovered: int = 0

    def buy(self, units: int, cost: int) -> None:
        """Add units bought for `cost`."""
        self.units += units
        self.cost += cost

    def sell(self, units: int, proceeds: int) -> None:
        """Subtract units that were sold for `proceeds`, at average cost.

        The cost of a part is rounded up and the proceeds of a part down, so profit is never overstated. The remaining
        cost is exact: once everything is sold, the whole cost has been subtracted.
        """
        covered = min(units, self.units)
        self.uncovered += units - covered
        if covered:
            cost = -(-self.cost * covered // self.units)
            self.units -= covered
            self.cost -= cost
            self.realised += proceeds * covered // units - cost


class _State(msgspec.Struct):
    rules: int
    fills: int
    balances: dict[str, str]
    holdings: list[tuple[str, str, str, str, str, str]]


_states = msgspec.json.Decoder(_State)


class Portfolio:
    """Sum of fills in the order of the log. The same fills give the same portfolio.

    `unreadable` is the number of fills that could not be read and are missing from the sum.
    """

    def __init__(self) -> None:
        self.fills = self.unreadable = 0
        self.balances: dict[str, int] = defaultdict(int)
        self.holdings: dict[tuple[str, str], Holding] = defaultdict(Holding)

    @classmethod
    def of_state(cls, state: str) -> Self | None:
        """Return the portfolio saved as `state`; None if it can't be read or its rules are of another version."""
        try:
            read = _states.decode(state)
        except msgspec.DecodeError:
            return None
        if read.rules != RULES:
            return None
        portfolio = cls()
        portfolio.fills = read.fills
        portfolio.balances.update({mint: int(units) for mint, units in read.balances.items()})
        for mint, money, *amounts in read.holdings:
            portfolio.holdings[mint, money] = Holding(*map(int, amounts))
        return portfolio

    def state(self) -> str:
        """Encode everything but `unreadable` as JSON. Amounts are text, because sums can exceed 64 bits."""
        holdings = [
            (mint, money, str(it.units), str(it.cost), str(it.realised), str(it.uncovered))
            for (mint, money), it in self.holdings.items()
        ]
        balances = {mint: str(units) for mint, units in self.balances.items()}
        return msgspec.json.encode(_State(RULES, self.fills, balances, holdings)).decode()

    def apply(self, fill: Fill) -> None:
        """Add a fill. A fill whose landing was lost moved nothing and is ignored."""
        if fill.finality == "lost":
            return
        self.fills += 1
        self.balances[fill.mint_in] -= fill.amount_in
        self.balances[fill.mint_out] += fill.amount_out
        money = money_of(fill.mint_in, fill.mint_out)
        if money == fill.mint_in:
            self.holdings[fill.mint_out, money].buy(fill.amount_out, fill.amount_in)
        else:
            self.holdings[fill.mint_in, money].sell(fill.amount_in, fill.amount_out)


def money_of(one: str, other: str) -> str:
    """Return the mint of a pair in which the other mint's cost is measured."""
    for mint in MONEY:
        if mint in (one, other):
            return mint
    return min(one, other)


def view(user_id: str, portfolio: Portfolio, decimals_of: Callable[[str], int | None]) -> dict[str, Any]:
    """Return the portfolio as clients get it: base units as text, and decimal text where the decimals are known."""

    def text(units: int, mint: str) -> str | None:
        decimals = decimals_of(mint)
        return None if decimals is None else decimal_string(units, decimals)

    def average(holding: Holding, mint: str, money: str) -> str | None:
        """Return the price of one whole token in whole tokens of `money`, truncated after nine decimals."""
        decimals, money_decimals = decimals_of(mint), decimals_of(money)
        if decimals is None or money_decimals is None or not holding.units:
            return None
        scaled = holding.cost * 10 ** (decimals + AVERAGE_DECIMALS) // (holding.units * 10**money_decimals)
        return decimal_string(scaled, AVERAGE_DECIMALS)

    return {
        "userId": user_id,
        "fills": portfolio.fills,
        "unreadable": portfolio.unreadable,
        "balances": [
            {"mint": mint, "units": str(units), "amount": text(units, mint)}
            for mint, units in sorted(portfolio.balances.items())
        ],
        "holdings": [
            {
                "mint": mint,
                "costMint": money,
                "units": str(holding.units),
                "cost": str(holding.cost),
                "averageCost": average(holding, mint, money),
                "realised": str(holding.realised),
                "realisedAmount": text(holding.realised, money),
                "uncovered": str(holding.uncovered),
            }
            for (mint, money), holding in sorted(portfolio.holdings.items())
        ],
    }
