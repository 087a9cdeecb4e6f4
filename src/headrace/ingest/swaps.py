"""Where each program's swap event keeps its amounts, direction, pool and mints: one small reader for each. Pure.

Amounts are the event's own: what its pool took in and gave out. Fees that a program charges beside that (pump,
PumpSwap) are further fields of the event. A reader gives None where an old layout does not say enough.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT, b58decode

Fields: TypeAlias = Mapping[str, Any]
Accounts: TypeAlias = Mapping[str, str]
"""Account name in the IDL → key, of the instruction that emitted the event; empty where only log lines came."""


class Pair(NamedTuple):
    """A pool's two mints in the pool's own order: base and quote, token 0 and 1, X and Y, A and B, coin and pc."""

    first: str
    second: str


class Swap(NamedTuple):
    """A swap in the pool's own order. `first_in`: the trader gave the pool's first token and took the second.

    `holders` are token accounts of the first and the second mint.
    """

    first: int
    second: int
    first_in: bool
    pool: str | None
    user: str | None
    pair: Pair | None = None
    holders: tuple[str | None, str | None] = (None, None)


Reader: TypeAlias = Callable[[Fields, Accounts], Swap | None]


def _pair(accounts: Accounts, first: str, second: str) -> Pair | None:
    return Pair(accounts[first], accounts[second]) if first in accounts and second in accounts else None


def _in_out(fields: Fields, taken: str, given: str, first_in: bool) -> tuple[int, int, bool]:
    """(first, second, first_in) of an event that counts what came in and what went out."""
    return (fields[taken], fields[given], True) if first_in else (fields[given], fields[taken], False)


def _pump(fields: Fields, _: Accounts) -> Swap:
    """A curve is no pool. Until 2026 all were against SOL; since then `quote_mint` says, the zero key being SOL."""
    quote_mint, quote_amount = fields["quote_mint"], fields["quote_amount"]
    pair = Pair(fields["mint"], WSOL_MINT if quote_mint in (None, SYSTEM_PROGRAM) else quote_mint)
    quote = fields["sol_amount"] if quote_amount is None else quote_amount
    return Swap(fields["token_amount"], quote, not fields["is_buy"], None, fields["user"], pair)


def _pump_amm_buy(fields: Fields, accounts: Accounts) -> Swap:
    amounts = fields["base_amount_out"], fields["quote_amount_in"], False
    return _pump_amm(amounts, fields, accounts)


def _pump_amm_sell(fields: Fields, accounts: Accounts) -> Swap:
    amounts = fields["base_amount_in"], fields["quote_amount_out"], True
    return _pump_amm(amounts, fields, accounts)


def _pump_amm(amounts: tuple[int, int, bool], fields: Fields, accounts: Accounts) -> Swap:
    holders = fields["user_base_token_account"], fields["user_quote_token_account"]
    return Swap(*amounts, fields["pool"], fields["user"], _pair(accounts, "base_mint", "quote_mint"), holders)


def _raydium_cpmm(fields: Fields, accounts: Accounts) -> Swap | None:
    """Told as input and output. Which of them is the pool's token 0 follows from the mints: the lower key is."""
    taken = fields["input_mint"] or accounts.get("input_token_mint")
    given = fields["output_mint"] or accounts.get("output_token_mint")
    if taken is None or given is None:
        return None
    first_in = b58decode(taken) < b58decode(given)
    pair = Pair(taken, given) if first_in else Pair(given, taken)
    amounts = _in_out(fields, "input_amount", "output_amount", first_in)
    return Swap(*amounts, fields["pool_id"], accounts.get("payer"), pair)


def _raydium_clmm(fields: Fields, accounts: Accounts) -> Swap:
    first_in = fields["zero_for_one"]
    taken, given = "input_vault_mint", "output_vault_mint"
    pair = _pair(accounts, taken, given) if first_in else _pair(accounts, given, taken)
    holders = fields["token_account_0"], fields["token_account_1"]
    return Swap(fields["amount_0"], fields["amount_1"], first_in, fields["pool_state"], fields["sender"], pair, holders)


def _raydium_amm_v4(fields: Fields, accounts: Accounts) -> Swap | None:
    """`ray_log` names neither pool nor mints. Direction 1 is pc → coin, 2 is coin → pc."""
    match fields["log_type"]:
        case "swap_base_in":
            taken, given = "amount_in", "out_amount"
        case "swap_base_out":
            taken, given = "deduct_in", "amount_out"
        case _:
            return None
    amounts = _in_out(fields, taken, given, fields["direction"] == 2)
    holders = accounts.get("pool_coin_token_account"), accounts.get("pool_pc_token_account")
    return Swap(*amounts, accounts.get("amm"), accounts.get("user_source_owner"), None, holders)


def _raydium_launchlab(fields: Fields, accounts: Accounts) -> Swap:
    amounts = _in_out(fields, "amount_in", "amount_out", fields["trade_direction"] == "Sell")
    pair = _pair(accounts, "base_token_mint", "quote_token_mint")
    return Swap(*amounts, fields["pool_state"], accounts.get("payer"), pair)


def _meteora_dlmm(fields: Fields, accounts: Accounts) -> Swap:
    amounts = _in_out(fields, "amount_in", "amount_out", fields["swap_for_y"])
    return Swap(*amounts, fields["lb_pair"], fields["from"], _pair(accounts, "token_x_mint", "token_y_mint"))


def _meteora_cp_amm(fields: Fields, accounts: Accounts) -> Swap:
    """Direction 0 is A → B."""
    result = fields["swap_result"]
    flat = {
        "in": result["included_fee_input_amount"] if "params" not in fields else fields["actual_amount_in"],
        "out": result["output_amount"],
    }
    amounts = _in_out(flat, "in", "out", fields["trade_direction"] == 0)
    return Swap(*amounts, fields["pool"], accounts.get("payer"), _pair(accounts, "token_a_mint", "token_b_mint"))


def _meteora_dbc(fields: Fields, accounts: Accounts) -> Swap:
    """Direction 0 is base → quote."""
    result = fields["swap_result"]
    taken = fields["amount_in"] if "amount_in" in fields else result["included_fee_input_amount"]
    flat = {"in": taken, "out": result["output_amount"]}
    amounts = _in_out(flat, "in", "out", fields["trade_direction"] == 0)
    return Swap(*amounts, fields["pool"], accounts.get("payer"), _pair(accounts, "base_mint", "quote_mint"))


READERS: Final[Mapping[tuple[str, str], Reader]] = MappingProxyType(
    {
        ("pump", "TradeEvent"): _pump,
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
        ("meteora_dbc", "EvtSwap"): _meteora_dbc,
        ("meteora_dbc", "EvtSwap2"): _meteora_dbc,
        ("meteora_dbc", "EvtSwap2WithTransferHook"): _meteora_dbc,
    }
)
"""(program, event) → how to read it as a swap. Jupiter's events tell swaps of other programs again: not trades here."""

TOLD_AS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("meteora_dlmm", "Swap2Evt"): "Swap",
        ("meteora_cp_amm", "EvtSwap2"): "EvtSwap",
        ("meteora_dbc", "EvtSwap2"): "EvtSwap",
        ("meteora_dbc", "EvtSwap2WithTransferHook"): "EvtSwap",
    }
)
"""A newer event → the older one that the same instruction also emits for the same swap, in some program versions."""

POOL_EVENTS: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = MappingProxyType(
    {
        ("pump_amm", "CreatePoolEvent"): ("pool", "base_mint", "quote_mint"),
        ("raydium_clmm", "PoolCreatedEvent"): ("pool_state", "token_mint_0", "token_mint_1"),
        ("meteora_dlmm", "LbPairCreate"): ("lb_pair", "token_x", "token_y"),
        ("meteora_cp_amm", "EvtInitializePool"): ("pool", "token_a_mint", "token_b_mint"),
    }
)
"""(program, event) → its fields for the pool that it creates and that pool's first and second mint."""

POOL_ACCOUNTS: Final[Mapping[tuple[str, str], tuple[str, str]]] = MappingProxyType(
    {
        ("pump_amm", "Pool"): ("base_mint", "quote_mint"),
        ("raydium_amm_v4", "AmmInfo"): ("coin_mint", "pc_mint"),
        ("raydium_cpmm", "PoolState"): ("token_0_mint", "token_1_mint"),
        ("raydium_clmm", "PoolState"): ("token_mint_0", "token_mint_1"),
        ("raydium_launchlab", "PoolState"): ("base_mint", "quote_mint"),
        ("meteora_dlmm", "LbPair"): ("token_x_mint", "token_y_mint"),
        ("meteora_cp_amm", "Pool"): ("token_a_mint", "token_b_mint"),
    }
)
"""(program, account) → the fields of a pool account for its first and second mint."""
