"""What is known of mints, their decimals and supplies, learned from what passes. Pure and bounded."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.model.events import DecodedAccount, DecodedEvent
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT
from headrace.model.updates import TokenBalance

MINTS_MAX: Final = 100_000

PUMP_DECIMALS: Final = 6
PUMP_SUPPLY: Final = 10**15
"""Base units of a pump.fun coin: a thousand million whole ones. The program itself reckons market caps so, except for
coins in mayhem mode, whose supply grows."""

Fields: TypeAlias = Mapping[str, Any]


class Facts(NamedTuple):
    """Of one mint: decimals, and supply in base units; None where nothing told them."""

    decimals: int | None = None
    supply: int | None = None


UNKNOWN: Final = Facts()
_WELL_KNOWN: Final = {WSOL_MINT: Facts(9), USDC_MINT: Facts(6), USDT_MINT: Facts(6)}

Told: TypeAlias = Iterable[tuple[str | None, Facts]]


class Mints:
    """Facts by mint, of at most `mints_max`; when full, the mint learned first is forgotten.

    The latest word counts, except that a supply which a program merely goes by (pump.fun) gives way to one that was
    read from the mint.
    """

    def __init__(self, mints_max: int = MINTS_MAX) -> None:
        self._mints_max = mints_max
        self._facts: dict[str, Facts] = {}

    def of(self, mint: str) -> Facts:
        return _WELL_KNOWN.get(mint) or self._facts.get(mint, UNKNOWN)

    def learn(self, mint: str, told: Facts, *, nominal: bool = False) -> None:
        """Add what was told. `nominal`: the supply counts only where none is known."""
        known = self._facts.get(mint)
        if known is None:
            if len(self._facts) >= self._mints_max:
                del self._facts[next(iter(self._facts))]
            self._facts[mint] = told
            return
        decimals, supply = told
        if decimals is None:
            decimals = known.decimals
        if supply is None or (nominal and known.supply is not None):
            supply = known.supply
        if known != (decimals, supply):
            self._facts[mint] = Facts(decimals, supply)

    def learn_event(self, event: DecodedEvent, base: str | None = None) -> None:
        """What the event says of its mints; `base` is the mint that it trades or creates, if it does."""
        data = event.data
        match event.program, event.name:
            case "pump", "TradeEvent" | "CreateEvent" if base is not None:
                mayhem = data.get("mayhem_mode") or data.get("is_mayhem_mode")
                self.learn(base, Facts(PUMP_DECIMALS, None if mayhem else PUMP_SUPPLY), nominal=True)
            case "pump_amm", "BuyEvent" | "SellEvent" if base is not None:
                self.learn(base, Facts(supply=data.get("base_supply")))
            case "pump_amm", "CreatePoolEvent":
                for side in ("base", "quote"):
                    if mint := data.get(f"{side}_mint"):
                        self.learn(mint, Facts(data.get(f"{side}_mint_decimals")))
            case "raydium_launchlab", "PoolCreateEvent" if base is not None:
                token = data.get("base_mint_param") or {}
                self.learn(base, Facts(token.get("decimals"), _curve_supply(data.get("curve_param"))))

    def learn_account(self, pubkey: str, account: DecodedAccount) -> None:
        """What the account says, if it is a mint or a pool that knows its mints."""
        reader = _ACCOUNTS.get((account.program, account.name))
        for mint, facts in reader(pubkey, account.data) if reader is not None else ():
            if mint is not None:
                self.learn(mint, facts)

    def learn_balances(self, balances: Iterable[TokenBalance]) -> None:
        """Decimals, which a whole transaction tells of every mint that it touched."""
        for held in balances:
            self.learn(held.mint, Facts(held.decimals))


def _curve_supply(curve: Any) -> int | None:
    """LaunchLab: `{"Constant": {"data": {"supply": …}}}`, or null for a kind of curve that the IDL lacks."""
    for kind in curve.values() if isinstance(curve, dict) else ():
        if isinstance(kind, dict) and isinstance(inner := kind.get("data"), dict):
            return inner.get("supply")
    return None


def _mint(pubkey: str, fields: Fields) -> Told:
    return ((pubkey, Facts(fields.get("decimals"), fields.get("supply"))),)


def _launchlab(_: str, fields: Fields) -> Told:
    base = Facts(fields.get("base_decimals"), fields.get("supply"))
    return (fields.get("base_mint"), base), (fields.get("quote_mint"), Facts(fields.get("quote_decimals")))


def _pool(*names: tuple[str, str]) -> Callable[[str, Fields], Told]:
    """A pool with (mint, decimals) fields."""
    return lambda _, fields: tuple((fields.get(mint), Facts(fields.get(decimals))) for mint, decimals in names)


_ACCOUNTS: Final[Mapping[tuple[str, str], Callable[[str, Fields], Told]]] = MappingProxyType(
    {
        ("spl_token", "Mint"): _mint,
        ("spl_token_2022", "Mint"): _mint,
        ("raydium_launchlab", "PoolState"): _launchlab,
        ("raydium_amm_v4", "AmmInfo"): _pool(("coin_mint", "coin_decimals"), ("pc_mint", "pc_decimals")),
        ("raydium_cpmm", "PoolState"): _pool(("token_0_mint", "mint_0_decimals"), ("token_1_mint", "mint_1_decimals")),
        ("raydium_clmm", "PoolState"): _pool(("token_mint_0", "mint_decimals_0"), ("token_mint_1", "mint_decimals_1")),
    }
)
"""(program, account) → what it says of which mints."""
