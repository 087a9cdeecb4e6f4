"""Fees of pump.fun's curves and pools, which depend on the coin's market cap and on its quote mint."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from headrace.model.errors import BadInputError
from headrace.model.keys import SYSTEM_PROGRAM, USDC_MINT, WSOL_MINT
from headrace.programs.quoting import BPS, Account, ceil_div, whole

NATIVE_MINT_2022: Final = "9pan9bMn5HatX4EJdBwg9VgCa7Uz5HL8N1m5D3NdXej9"
SOL_MINTS: Final = frozenset((SYSTEM_PROGRAM, WSOL_MINT, NATIVE_MINT_2022))
"""Keys that the program treats as SOL: the zero key, and both mints of wrapped SOL."""
STABLE_MINTS: Final = frozenset((USDC_MINT,))
SUPPLY: Final = 10**15
"""Supply in base units by which market caps are computed, even after burns; except for coins in mayhem mode."""


class Rates(NamedTuple):
    """Fee rates in bps."""

    lp: int
    protocol: int
    creator: int

    def total(self) -> int:
        return self.lp + self.protocol + self.creator

    def of(self, amount: int) -> tuple[int, int, int]:
        """Return the fees (lp, protocol, creator) on an amount; each rounds up."""
        return (
            ceil_div(amount * self.lp, BPS),
            ceil_div(amount * self.protocol, BPS),
            ceil_div(amount * self.creator, BPS),
        )

    def net(self, amount: int) -> int:
        """Return the part of `amount` that is traded after the fees.

        Rounds down. If net plus the rounded-up fees would exceed `amount`, the excess is subtracted, too.
        """
        net = amount * BPS // (BPS + self.total())
        return net - max(0, net + sum(self.of(net)) - amount)

    def gross(self, net: int) -> int:
        """Return the least amount that leaves `net` after the fees. Their rates must sum to less than BPS."""
        gross = ceil_div(net * BPS, BPS - self.total())
        while gross - sum(self.of(gross)) < net:  # the rounding of the fees adds two or three units at most
            gross += 1
        return gross


def rates_of(config: Account, quote_mint: str, market_cap: int, *, canonical: bool = True) -> Rates:
    """Return the rates of a coin that trades against `quote_mint`, by its market cap in base units of that mint.

    `canonical`: a curve, or the pool that a curve's coin migrated to; other pools pay the flat fees.
    """
    flat, tiers = whole(config, "flat_fees", "fee_tiers")
    if not canonical:
        return _rates(flat)
    if quote_mint in SOL_MINTS:
        return _tier(tiers, market_cap)
    if quote_mint in STABLE_MINTS:
        return _tier(config.fields.get("stable_fee_tiers") or tiers, market_cap)
    exotic = config.fields.get("exotic_flat_fees")
    rates = _rates(exotic) if exotic else Rates(0, 0, 0)
    return rates if rates.total() else _rates(flat)


def with_creator(rates: Rates, coin: Account, settings: Account, creator: str | None) -> Rates:
    """Return the rates with the coin's own rate for its creator; without that rate if the coin has no creator."""
    if creator in (None, SYSTEM_PROGRAM):
        return rates._replace(creator=0)
    own = coin.fields.get("creator_fee_bps")
    return rates._replace(creator=own) if own and settings.fields.get("creator_fee_configurable") else rates


def creator_of(coin: Account) -> str:
    """Return the recipient of the creator's fee: `creator`, `cashback` (the trader) or `holders`."""
    if coin.fields.get("is_cashback_coin"):
        return "cashback"
    return "holders" if coin.fields.get("is_holder_reward") else "creator"


def _tier(tiers: Sequence[Mapping[str, Any]], market_cap: int) -> Rates:
    """Return the last tier whose threshold the market cap reaches; below all thresholds the first tier."""
    if not tiers:
        raise BadInputError("truncated account", "a fee config without tiers")
    reached: Iterable[Mapping[str, Any]] = (
        t for t in reversed(tiers) if market_cap >= t["market_cap_lamports_threshold"]
    )
    return _rates(next(iter(reached), tiers[0])["fees"])


def _rates(fees: Mapping[str, int]) -> Rates:
    return Rates(fees["lp_fee_bps"], fees["protocol_fee_bps"], fees["creator_fee_bps"])
