"""The mock venues, in place of Raydium and Meteora: quotes that deviate at random from a reference price."""

import random
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Self

import msgspec

from headrace.adapters import Context
from headrace.config import Setting
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import TransientError
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.orders import BPS_WHOLE, Leg, OrderRequest, Quote
from headrace.model.transactions import MOCK_SWAP_PROGRAM, AccountMeta, Instruction, MockSwap
from headrace.runtime.clock import Clock

REFERENCE: Final = {
    (WSOL_MINT, USDC_MINT): (150 * 10**6, 10**9),
    (WSOL_MINT, USDT_MINT): (150 * 10**6, 10**9),
    (USDC_MINT, WSOL_MINT): (10**9, 150 * 10**6),
    (USDT_MINT, WSOL_MINT): (10**9, 150 * 10**6),
}
"""(mint in, mint out) → (base units out, base units in). Every other pair is exchanged one for one."""


class MockMarketSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[mock_venues]`. `variance` is a range of fractions: `0.02-0.05` is two to five per cent, up or down."""

    quote_ms: Annotated[
        int, msgspec.Meta(ge=0, le=60_000), Setting("time that a quote takes", env=("MOCK_QUOTE_MS",))
    ] = 200
    variance: Annotated[
        str,
        msgspec.Meta(pattern=r"^0(\.\d{1,4})?(-0\.\d{1,4})?$"),
        Setting("deviation of quotes from the reference price, as fractions", env=("MOCK_VARIANCE",)),
    ] = "0.02-0.05"
    seed: Annotated[int, Setting("seed of the mock venues' prices", env=("MOCK_SEED",))] = 0
    error: Annotated[
        float, msgspec.Meta(ge=0, le=1), Setting("chance that a venue gives no quote", env=("MOCK_QUOTE_ERROR",))
    ] = 0.0


class MockMarket:
    """A venue with a fee. The same seed gives the same series of prices. All mock venues share these settings."""

    Settings: ClassVar = MockMarketSettings
    SECTION: ClassVar = "mock_venues"
    name: ClassVar[str]
    fee_bps: ClassVar[Bps]

    @classmethod
    async def open(cls, settings: MockMarketSettings, context: Context) -> Self:
        """Return the venue. Of `context` it uses only the clock."""
        return cls(settings, context.clock)

    def __init__(self, settings: MockMarketSettings, clock: Clock) -> None:
        name, self._settings, self._clock = self.name, settings, clock
        low, _, high = settings.variance.partition("-")
        self._stray_bps = sorted((_bps(low), _bps(high or low)))
        self._luck = random.Random(f"{settings.seed}:{name}")  # noqa: S311
        self._luck_of_checks = random.Random(f"{settings.seed}:{name}:checks")  # noqa: S311

    async def quote(self, request: OrderRequest) -> Quote:
        """Return an offer that deviates from the reference price, after the configured delay."""
        if self._settings.quote_ms:
            await self._clock.sleep(self._settings.quote_ms / 1000)
        if self._luck.random() < self._settings.error:
            raise TransientError(f"{self.name} gives no quote")
        stray_bps = self._luck.randint(*self._stray_bps) * self._luck.choice((-1, 1))
        out, per = REFERENCE.get((request.token_in.mint, request.token_out.mint), (1, 1))
        gross = request.amount * out * (BPS_WHOLE + stray_bps) // (per * BPS_WHOLE)
        net = gross * (BPS_WHOLE - self.fee_bps) // BPS_WHOLE  # rounded down: never more than will arrive
        return Quote(
            venue=self.name,
            amount_in=request.amount,
            amount_out=BaseUnits(net),
            fee_bps=self.fee_bps,
            route=(Leg(self.name, request.token_in.mint, request.token_out.mint),),
        )

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return one instruction for the mock chain."""
        swap = MockSwap(
            venue=self.name,
            mint_in=quote.route[0].mint_in,
            mint_out=quote.route[-1].mint_out,
            amount_in=quote.amount_in,
            quoted_out=quote.amount_out,
            min_out=min_out,
        )
        accounts = (AccountMeta(owner, signer=True, writable=True),)
        return [Instruction(MOCK_SWAP_PROGRAM, accounts, msgspec.json.encode(swap))]

    async def check(self, *, thorough: bool) -> None:
        """Fail with the configured chance.

        The draws are of a separate series, so that checks don't change the quotes of a seed.
        """
        if self._luck_of_checks.random() < self._settings.error:
            raise TransientError(f"{self.name} gives no quote")

    async def close(self) -> None:
        """Do nothing: a mock venue has no resources."""


class MockMeteora(MockMarket):
    """Mock in place of Meteora; fee 0.3 %."""

    name = "meteora"
    fee_bps = Bps(30)


class MockRaydium(MockMarket):
    """Mock in place of Raydium; fee 0.25 %."""

    name = "raydium"
    fee_bps = Bps(25)


def _bps(fraction: str) -> int:
    """Return a fraction in basis points: `0.02` is 200.

    The setting's pattern allows four decimals, so nothing is rounded.
    """
    return int(fraction.partition(".")[2].ljust(4, "0")) if "." in fraction else int(fraction) * BPS_WHOLE
