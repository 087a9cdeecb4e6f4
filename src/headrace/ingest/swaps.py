"""Where each program's swap event keeps its amounts, direction, pool and mints: one small reader for each. Pure.

Amounts are those by which the pool or curve priced the swap, in base units: what it took in and what it gave out. Fees
charged beside that are further fields of the event; docs/reference/topics.md has the table. A reader never raises for a
field that is missing or None, nor for an account that is missing: what it can't know it leaves None.

A new program needs a reader here and its lines in READERS and POOL_ACCOUNTS.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT, b58decode

Fields: TypeAlias = Mapping[str, Any]
Holders: TypeAlias = tuple[str | None, ...]
"""Token accounts of one mint, the surest first: any of them may be unknown or closed within the transaction."""


class Scene(NamedTuple):
    """What a whole transaction adds to an event. Empty where only log lines came.

    `accounts` are those of the instruction that emitted the event, in its order: name in the IDL → key, and behind the
    named ones `remaining_0`, …. `mints` says which mint each token account holds.
    """

    accounts: Mapping[str, str] = {}
    mints: Mapping[str, str] = {}

    def pair(self, first: str, second: str) -> "Pair | None":
        """The mints that the accounts of these names are."""
        mints = self.accounts.get(first), self.accounts.get(second)
        return None if mints[0] is None or mints[1] is None else Pair(mints[0], mints[1])


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A pool's two mints in the pool's own order: base and quote, token 0 and 1, X and Y, A and B, coin and pc."""

    first: str
    second: str


class Swap(msgspec.Struct, frozen=True, gc=False):
    """A swap in the pool's own order. `first_in`: the trader gave the pool's first token and took the second.

    `first`, `second` and `first_in` are None where an old layout does not say enough: a swap that can't be read. `user`
    is whom the event or its instruction names. `holders` are token accounts of the first and the second mint.
    """

    first: int | None
    second: int | None
    first_in: bool | None
    pool: str | None
    user: str | None
    pair: Pair | None = None
    holders: tuple[Holders, Holders] = ((), ())


Reader: TypeAlias = Callable[[Fields, Scene], Swap | None]
"""Gives None for an event that is no swap."""

Amounts: TypeAlias = tuple[int | None, int | None, bool | None]
"""`first`, `second` and `first_in` of a Swap."""

_NO_FIELDS: Final[Fields] = MappingProxyType({})


def _in_out(taken: int | None, given: int | None, first_in: bool | None) -> Amounts:
    """The amounts of an event that counts what came in and what went out."""
    if first_in is None:
        return None, None, None
    return (taken, given, True) if first_in else (given, taken, False)


def _inside(fields: Fields, name: str) -> Fields:
    """The fields of a struct within the event."""
    inner = fields.get(name)
    return inner if isinstance(inner, dict) else _NO_FIELDS


def _change(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else abs(after - before)


def _is(value: object, yes: object, no: object) -> bool | None:
    """Whether `value` is `yes`; None where it is neither."""
    return True if value == yes else False if value == no else None


def _pump_pair(fields: Fields) -> Pair | None:
    mint = fields.get("mint")
    return None if mint is None else Pair(mint, _pump_quote_mint(fields))


def _pump_quote_mint(fields: Fields) -> str:
    """Until 2026 all curves were against SOL; since then `quote_mint` says, the zero key being SOL."""
    quote_mint: str | None = fields.get("quote_mint")
    return WSOL_MINT if quote_mint is None or quote_mint == SYSTEM_PROGRAM else quote_mint


def _pump(fields: Fields, _: Scene) -> Swap:
    """A curve is no pool."""
    quote = fields.get("quote_amount")
    if quote is None and _pump_quote_mint(fields) == WSOL_MINT:
        quote = fields.get("sol_amount")
    first_in = _is(fields.get("is_buy"), False, True)
    return Swap(fields.get("token_amount"), quote, first_in, None, fields.get("user"), _pump_pair(fields))


def _pump_post_complete(fields: Fields, _: Scene) -> Swap:
    """The rest of the buy that completed a curve, priced by the reserves with which its pool will begin."""
    first = _change(fields.get("pool_base_reserves_before"), fields.get("pool_base_reserves_after"))
    second = _change(fields.get("pool_quote_reserves_before"), fields.get("pool_quote_reserves_after"))
    first = fields.get("base_out") if first is None else first
    second = fields.get("quote_in") if second is None else second
    return Swap(first, second, False, None, fields.get("user"), _pump_pair(fields))


def _pump_amm_buy(fields: Fields, scene: Scene) -> Swap:
    """Of `quote_amount_in` and `user_quote_amount_in`, instructions that spend an exact amount write the gross one into
    the former, others into the latter: the smaller is what the pool priced."""
    either = fields.get("quote_amount_in"), fields.get("user_quote_amount_in")
    quote = None if either[0] is None or either[1] is None else min(either[0], either[1])
    return _pump_amm((fields.get("base_amount_out"), quote, False), fields, scene)


def _pump_amm_sell(fields: Fields, scene: Scene) -> Swap:
    """The larger of the two amounts is what the pool priced: fees are taken from it."""
    either = fields.get("quote_amount_out"), fields.get("user_quote_amount_out")
    quote = either[0] if either[0] is None or either[1] is None else max(either[0], either[1])
    return _pump_amm((fields.get("base_amount_in"), quote, True), fields, scene)


def _pump_amm(amounts: Amounts, fields: Fields, scene: Scene) -> Swap:
    pool, accounts = fields.get("pool"), scene.accounts
    pair = scene.pair("base_mint", "quote_mint") or _hop_pair(pool, accounts)
    holders = (
        (accounts.get("pool_base_token_account"), fields.get("user_base_token_account")),
        (accounts.get("pool_quote_token_account"), fields.get("user_quote_token_account")),
    )
    return Swap(*amounts, pool, fields.get("user"), pair, holders)


def _hop_pair(pool: str | None, accounts: Mapping[str, str]) -> Pair | None:
    """PumpSwap's `multi_hop_swap` has behind its named accounts, for each hop: base mint, quote mint, pool, vaults."""
    keys = _remaining(accounts)
    at = keys.index(pool) if pool in keys else 0
    return Pair(keys[at - 2], keys[at - 1]) if at >= 2 else None


def _raydium_cpmm(fields: Fields, scene: Scene) -> Swap:
    """Logged as input and output. Which of them is the pool's token 0 follows from the mints: the lower key is."""
    taken = fields.get("input_mint") or scene.accounts.get("input_token_mint")
    given = fields.get("output_mint") or scene.accounts.get("output_token_mint")
    first_in = None if taken is None or given is None else b58decode(taken) < b58decode(given)
    amounts = _in_out(fields.get("input_amount"), fields.get("output_amount"), first_in)
    pair = None if taken is None or given is None else Pair(taken, given) if first_in else Pair(given, taken)
    return Swap(*amounts, fields.get("pool_id"), scene.accounts.get("payer"), pair)


def _raydium_clmm(fields: Fields, scene: Scene) -> Swap:
    """The older instructions name no mint, and the user's accounts may be closed by then: the vaults never are."""
    pool, first_in = fields.get("pool_state"), fields.get("zero_for_one")
    amounts, user = (fields.get("amount_0"), fields.get("amount_1"), first_in), fields.get("sender")
    if first_in is None:
        return Swap(*amounts, pool, user)
    vaults = _clmm_vaults(pool, scene.accounts)
    mints = "input_vault_mint", "output_vault_mint"
    first, second = (0, 1) if first_in else (1, 0)
    holders = (vaults[first], fields.get("token_account_0")), (vaults[second], fields.get("token_account_1"))
    return Swap(*amounts, pool, user, scene.pair(mints[first], mints[second]), holders)


def _clmm_vaults(pool: str | None, accounts: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The vaults that took and gave. `swap_router_base_in` has behind its named accounts, for each hop: config, pool,
    the user's account, vault in, vault out, and more."""
    if "input_vault" in accounts:
        return accounts["input_vault"], accounts.get("output_vault")
    keys = _remaining(accounts)
    at = keys.index(pool) if pool in keys else len(keys)
    return (keys[at + 2], keys[at + 3]) if at + 3 < len(keys) else (None, None)


def _remaining(accounts: Mapping[str, str]) -> list[str]:
    """The accounts behind those that the IDL names, in order."""
    return [key for name, key in accounts.items() if name.startswith("remaining_")]


def _raydium_amm_v4(fields: Fields, scene: Scene) -> Swap | None:
    """`ray_log` names neither pool nor mints. Direction 1 is pc → coin, 2 is coin → pc."""
    match fields.get("log_type"):
        case "swap_base_in":
            taken, given = fields.get("amount_in"), fields.get("out_amount")
        case "swap_base_out":
            taken, given = fields.get("deduct_in"), fields.get("amount_out")
        case _:
            return None
    accounts, first_in = scene.accounts, _is(fields.get("direction"), 2, 1)
    users = "user_source_token_account", "user_destination_token_account"
    first, second = (0, 1) if first_in else (1, 0)
    holders = (
        (accounts.get("pool_coin_token_account"), accounts.get(users[first])),
        (accounts.get("pool_pc_token_account"), accounts.get(users[second])),
    )
    amounts = _in_out(taken, given, first_in)
    return Swap(*amounts, accounts.get("amm"), accounts.get("user_source_owner"), None, holders)


def _raydium_launchlab(fields: Fields, scene: Scene) -> Swap:
    """`amount_in` of a purchase and `amount_out` of a sale hold the fees of protocol, platform and creator, which are
    charged beside the curve; the curve's reserves do not, and their change also says the direction."""
    before, after = fields.get("real_base_before"), fields.get("real_base_after")
    base, quote = _change(before, after), _change(fields.get("real_quote_before"), fields.get("real_quote_after"))
    first_in = _is(fields.get("trade_direction"), "Sell", "Buy")
    if before is not None and after is not None and before != after:
        first_in = after < before  # `real_base` counts what was sold
    pair = scene.pair("base_token_mint", "quote_token_mint")
    return Swap(base, quote, first_in, fields.get("pool_state"), scene.accounts.get("payer"), pair)


def _meteora_dlmm(fields: Fields, scene: Scene) -> Swap:
    amounts = _in_out(fields.get("amount_in"), fields.get("amount_out"), fields.get("swap_for_y"))
    pair = scene.pair("token_x_mint", "token_y_mint")
    return Swap(*amounts, fields.get("lb_pair"), fields.get("from"), pair)


def _meteora_cp_amm(fields: Fields, scene: Scene) -> Swap:
    """Direction 0 is A → B. `EvtSwap` has `actual_amount_in`, `EvtSwap2` has it in its result."""
    return _meteora(fields, scene, "actual_amount_in", ("token_a_mint", "token_b_mint"))


def _meteora_dbc(fields: Fields, scene: Scene) -> Swap:
    """Direction 0 is base → quote. `EvtSwap` has `amount_in`, `EvtSwap2` has it in its result."""
    return _meteora(fields, scene, "amount_in", ("base_mint", "quote_mint"))


def _meteora(fields: Fields, scene: Scene, taken_name: str, mints: tuple[str, str]) -> Swap:
    result = _inside(fields, "swap_result")
    taken = fields.get(taken_name)
    taken = result.get("included_fee_input_amount") if taken is None else taken
    amounts = _in_out(taken, result.get("output_amount"), _is(fields.get("trade_direction"), 0, 1))
    return Swap(*amounts, fields.get("pool"), scene.accounts.get("payer"), scene.pair(*mints))


def _meteora_damm_v1(fields: Fields, scene: Scene) -> Swap:
    """The event has amounts only. The input's mint is that of the account it comes from, and of the fee's account."""
    accounts = scene.accounts
    vaults = accounts.get("a_token_vault"), accounts.get("b_token_vault")
    mint_a, mint_b = (scene.mints.get(vault or "") for vault in vaults)
    given = ("user_source_token", "protocol_token_fee")
    taken = next((mint for name in given if (mint := scene.mints.get(accounts.get(name, ""))) is not None), None)
    if taken is None and (out := scene.mints.get(accounts.get("user_destination_token", ""))) is not None:
        taken = mint_a if out == mint_b else mint_b if out == mint_a else None
    first_in = None if taken is None or mint_a == mint_b else _is(taken, mint_a, mint_b)
    amounts = _in_out(fields.get("in_amount"), fields.get("out_amount"), first_in)
    pair = None if mint_a is None or mint_b is None else Pair(mint_a, mint_b)
    holders = (vaults[0],), (vaults[1],)
    return Swap(*amounts, accounts.get("pool"), accounts.get("user"), pair, holders)


def _orca_whirlpool(fields: Fields, scene: Scene) -> Swap:
    """`input_amount` holds the mint's transfer fee, which the pool never gets. Accounts of two hops name each pool."""
    accounts, pool, first_in = scene.accounts, fields.get("whirlpool"), fields.get("a_to_b")
    taken, fee = fields.get("input_amount"), fields.get("input_transfer_fee")
    amounts = _in_out(None if taken is None or fee is None else taken - fee, fields.get("output_amount"), first_in)
    user = accounts.get("token_authority")
    if accounts.get("whirlpool") == pool or "whirlpool_one" not in accounts:
        pair = scene.pair("token_mint_a", "token_mint_b")
        return Swap(*amounts, pool, user, pair, ((accounts.get("token_vault_a"),), (accounts.get("token_vault_b"),)))
    hop = "one" if accounts.get("whirlpool_one") == pool else "two"
    if f"token_vault_{hop}_a" in accounts:
        vaults = accounts.get(f"token_vault_{hop}_a"), accounts.get(f"token_vault_{hop}_b")
        return Swap(*amounts, pool, user, None, ((vaults[0],), (vaults[1],)))
    names = ("input", "intermediate") if hop == "one" else ("intermediate", "output")
    first, second = names if first_in else reversed(names)
    return Swap(*amounts, pool, user, scene.pair(f"token_mint_{first}", f"token_mint_{second}"))


def _moonshot(fields: Fields, scene: Scene) -> Swap:
    """A curve. The fees of `dex_fee` and `helio_fee` are beside `collateral_amount`, which the curve took or paid. The
    event names what it is paid in, the zero key being SOL; the mint is the instruction's."""
    mint, cost = scene.accounts.get("mint"), fields.get("cost_token")
    amounts = fields.get("amount"), fields.get("collateral_amount"), _is(fields.get("type"), "Sell", "Buy")
    pair = None if mint is None or cost is None else Pair(mint, WSOL_MINT if cost == SYSTEM_PROGRAM else cost)
    return Swap(*amounts, fields.get("curve"), fields.get("sender"), pair)


READERS: Final[Mapping[tuple[str, str], Reader]] = MappingProxyType(
    {
        ("pump", "TradeEvent"): _pump,
        ("pump", "PostCompleteBuyEvent"): _pump_post_complete,
        ("pump_amm", "BuyEvent"): _pump_amm_buy,
        ("pump_amm", "SellEvent"): _pump_amm_sell,
        ("raydium_cpmm", "SwapEvent"): _raydium_cpmm,
        ("raydium_clmm", "SwapEvent"): _raydium_clmm,
        ("raydium_amm_v4", "ray_log"): _raydium_amm_v4,
        ("raydium_launchlab", "TradeEvent"): _raydium_launchlab,
        ("meteora_dlmm", "Swap"): _meteora_dlmm,
        ("meteora_dlmm", "Swap2Evt"): _meteora_dlmm,
        ("meteora_cp_amm", "EvtSwap"): _meteora_cp_amm,
        ("meteora_cp_amm", "EvtSwap2"): _meteora_cp_amm,
        ("meteora_damm_v1", "Swap"): _meteora_damm_v1,
        ("moonshot", "TradeEvent"): _moonshot,
        ("orca_whirlpool", "Traded"): _orca_whirlpool,
        ("meteora_dbc", "EvtSwap"): _meteora_dbc,
        ("meteora_dbc", "EvtSwap2"): _meteora_dbc,
        ("meteora_dbc", "EvtSwap2WithTransferHook"): _meteora_dbc,
    }
)
"""(program, event) → how to read it as a swap. Jupiter's events repeat swaps of other programs: no trades."""

REPEATS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("meteora_dlmm", "Swap2Evt"): "Swap",
        ("meteora_cp_amm", "EvtSwap2"): "EvtSwap",
        ("meteora_dbc", "EvtSwap2"): "EvtSwap",
        ("meteora_dbc", "EvtSwap2WithTransferHook"): "EvtSwap",
    }
)
"""(program, newer event) → the older event of the same swap that some versions of the program emit beside it."""

POOL_EVENTS: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = MappingProxyType(
    {
        ("pump_amm", "CreatePoolEvent"): ("pool", "base_mint", "quote_mint"),
        ("raydium_clmm", "PoolCreatedEvent"): ("pool_state", "token_mint_0", "token_mint_1"),
        ("meteora_dlmm", "LbPairCreate"): ("lb_pair", "token_x", "token_y"),
        ("meteora_cp_amm", "EvtInitializePool"): ("pool", "token_a_mint", "token_b_mint"),
        ("meteora_damm_v1", "PoolCreated"): ("pool", "token_a_mint", "token_b_mint"),
        ("orca_whirlpool", "PoolInitialized"): ("whirlpool", "token_mint_a", "token_mint_b"),
    }
)
"""(program, event) → its fields for the pool that it creates and that pool's first and second mint."""

POOL_ACCOUNTS: Final[Mapping[tuple[str, str], tuple[str, str | None]]] = MappingProxyType(
    {
        ("pump_amm", "Pool"): ("base_mint", "quote_mint"),
        ("raydium_amm_v4", "AmmInfo"): ("coin_mint", "pc_mint"),
        ("raydium_cpmm", "PoolState"): ("token_0_mint", "token_1_mint"),
        ("raydium_clmm", "PoolState"): ("token_mint_0", "token_mint_1"),
        ("raydium_launchlab", "PoolState"): ("base_mint", "quote_mint"),
        ("meteora_dlmm", "LbPair"): ("token_x_mint", "token_y_mint"),
        ("meteora_cp_amm", "Pool"): ("token_a_mint", "token_b_mint"),
        ("meteora_damm_v1", "Pool"): ("token_a_mint", "token_b_mint"),
        ("moonshot", "CurveAccount"): ("mint", None),
        ("orca_whirlpool", "Whirlpool"): ("token_mint_a", "token_mint_b"),
    }
)
"""(program, account) → the fields of a pool account for its first and second mint; None: the second is SOL."""
