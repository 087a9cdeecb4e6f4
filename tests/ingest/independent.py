"""Trades reckoned a second time from raw bytes, sharing nothing with the readers: tiny borsh, own walks, own tables.

The layouts are those of the public IDLs, written down here again. A trade is confirmed by what moved: the token
transfers within its instruction, the reserves before and after, or the equation by which the pool prices.
"""

import re
import struct
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from headrace.model.updates import Instruction, TransactionUpdate

EVENT_CALL = bytes.fromhex("e445a52e51cb9a1d")
TOKEN_PROGRAMS = ("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
PROGRAMS = {
    "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P": "pump",
    "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA": "pump_amm",
    "675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8": "raydium_amm_v4",
    "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C": "raydium_cpmm",
    "CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK": "raydium_clmm",
    "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj": "raydium_launchlab",
    "LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo": "meteora_dlmm",
    "cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG": "meteora_cp_amm",
    "dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN": "meteora_dbc",
    "Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB": "meteora_damm_v1",
    "MoonCVVNZFSYkqNXP6bxHLPL6QQJiMagDL3qcqUQTrG": "moonshot",
    "whirLbMiicVdio4qvUfM5KAg6Ct8VwpYzGff3uctyCc": "orca_whirlpool",
}
SYSTEM = "11111111111111111111111111111111"
SWAPS = {
    ("pump", "bddb7fd34ee661ee"): "TradeEvent",
    ("pump", "6fb06d8b316cd5fb"): "PostCompleteBuyEvent",
    ("pump_amm", "67f4521f2cf57777"): "BuyEvent",
    ("pump_amm", "3e2f370aa503dc2a"): "SellEvent",
    ("raydium_cpmm", "40c6cde8260871e2"): "SwapEvent",
    ("raydium_clmm", "40c6cde8260871e2"): "SwapEvent",
    ("raydium_launchlab", "bddb7fd34ee661ee"): "TradeEvent",
    ("meteora_dlmm", "516ce3becdd00ac4"): "Swap",
    ("meteora_dlmm", "2e7452d7941b544d"): "Swap2Evt",
    ("meteora_cp_amm", "1b3c15d58aaabb93"): "EvtSwap",
    ("meteora_cp_amm", "bd4233a826507599"): "EvtSwap2",
    ("meteora_dbc", "1b3c15d58aaabb93"): "EvtSwap",
    ("meteora_dbc", "bd4233a826507599"): "EvtSwap2",
    ("meteora_damm_v1", "516ce3becdd00ac4"): "Swap",
    ("moonshot", "bddb7fd34ee661ee"): "TradeEvent",
    ("orca_whirlpool", "e1ca49af932ba096"): "Traded",
}
LAYOUTS = {
    ("pump", "TradeEvent"): (
        "mint:k sol:Q token:Q is_buy:? user:k time:q vsol:Q vtoken:Q rsol:Q rtoken:Q fee_to:k fee_bps:Q fee:Q "
        "creator:k creator_bps:Q creator_fee:Q track:? unclaimed:Q claimed:Q volume:Q updated:q ix_name:s mayhem:? "
        "cashback_bps:Q cashback:Q buyback_bps:Q buyback:Q shareholders:S quote_mint:k quote:Q vquote:Q rquote:Q"
    ),
    ("pump", "PostCompleteBuyEvent"): (
        "user:k mint:k curve:k quote_mint:k time:q base:Q quote:Q fee_bps:Q fee:Q creator_bps:Q creator_fee:Q "
        "buyback:Q base_before:Q quote_before:Q base_after:Q quote_after:Q"
    ),
    ("pump_amm", "BuyEvent"): (
        "time:q base:Q max_quote:Q user_base:Q user_quote:Q pool_base:Q pool_quote:Q quote_in:Q lp_bps:Q lp_fee:Q "
        "protocol_bps:Q protocol_fee:Q with_lp:Q user_quote_in:Q pool:k user:k user_base_account:k "
        "user_quote_account:k fee_to:k fee_to_account:k coin_creator:k creator_bps:Q creator_fee:Q track:? "
        "unclaimed:Q claimed:Q volume:Q updated:q min_base:Q ix_name:s "
        "cashback_bps:Q cashback:Q buyback_bps:Q buyback:Q virtual:Z"
    ),
    ("pump_amm", "SellEvent"): (
        "time:q base:Q min_quote:Q user_base:Q user_quote:Q pool_base:Q pool_quote:Q quote_out:Q lp_bps:Q lp_fee:Q "
        "protocol_bps:Q protocol_fee:Q without_lp:Q user_quote_out:Q pool:k user:k user_base_account:k "
        "user_quote_account:k fee_to:k fee_to_account:k coin_creator:k creator_bps:Q creator_fee:Q cashback_bps:Q "
        "cashback:Q buyback_bps:Q buyback:Q virtual:Z"
    ),
    ("raydium_cpmm", "SwapEvent"): "pool:k in_before:Q out_before:Q input:Q output:Q transfer_fee:Q",
    ("meteora_cp_amm", "EvtSwap2"): (
        "pool:k direction:B mode:B referral:? amount_0:Q amount_1:Q swap_mode:B input:Q without_fee:Q left:Q output:Q "
        "price:Z claiming:Q protocol:Q compounding:Q referral_fee:Q sent:Q"
    ),
    ("orca_whirlpool", "Traded"): "pool:k a_to_b:? before:U after:U input:Q output:Q transfer_fee:Q transfer_fee_out:Q",
    ("raydium_launchlab", "TradeEvent"): (
        "pool:k total:Q virtual_base:Q virtual_quote:Q base_before:Q quote_before:Q base_after:Q quote_after:Q"
    ),
}  # fmt: skip


class Transfer(NamedTuple):
    """Tokens that moved. `net` is less the mint's transfer fee where the instruction says it."""

    at: int
    source: str
    destination: str
    mint: str | None
    amount: int
    net: int


class SwapEvent(NamedTuple):
    """A swap event's bytes behind the discriminator. `path` is that of the instruction that wrote it; None: a log's."""

    program: str
    name: str
    body: bytes
    path: tuple[int, ...] | None


def borsh(layout: str, body: bytes) -> dict[str, Any]:
    """The fields as far as the bytes go."""
    fields: dict[str, Any] = {}
    at = 0
    value: Any
    for name, kind in (each.split(":") for each in layout.split()):
        if kind == "k":
            size, value = 32, body[at : at + 32].hex()
        elif kind == "Z":
            size, value = 16, int.from_bytes(body[at : at + 16], "little", signed=True)
        elif kind == "U":
            size, value = 16, int.from_bytes(body[at : at + 16], "little")
        elif kind == "s":
            (length,) = struct.unpack_from("<I", body, at) if at + 4 <= len(body) else (0,)
            size, value = 4 + length, body[at + 4 : at + 4 + length].decode(errors="replace")
        elif kind == "S":
            (count,) = struct.unpack_from("<I", body, at) if at + 4 <= len(body) else (0,)
            size, value = 4 + 34 * count, count
        else:
            size = struct.calcsize("<" + kind)
            value = struct.unpack_from("<" + kind, body, at)[0] if at + size <= len(body) else None
        at += size
        if at > len(body):
            return fields
        fields[name] = value
    return fields


def subtree(update: TransactionUpdate, path: tuple[int, ...]) -> Iterator[tuple[int, Instruction]]:
    """(place, instruction) of what ran within the instruction at `path`."""
    inside, height = False, None
    for at, instruction in enumerate(update.instructions):
        if instruction.path == path:
            inside, height = True, instruction.stack_height
        elif inside:
            if instruction.path[0] != path[0]:
                return
            if len(path) > 1 and height is not None and (instruction.stack_height or 0) <= height:
                return
            yield at, instruction


def transfers(update: TransactionUpdate, path: tuple[int, ...]) -> list[Transfer]:
    """The token transfers within the instruction at `path`, in order."""
    mints = {held.account: held.mint for held in (*update.pre_token_balances, *update.post_token_balances)}
    found = []
    for at, instruction in subtree(update, path):
        if instruction.program_id not in TOKEN_PROGRAMS:
            continue
        moved = _parsed(instruction) if instruction.data is None else _raw(instruction.data, instruction.accounts)
        if moved is not None:
            source, destination, mint, amount, fee = moved
            mint = mint or mints.get(source) or mints.get(destination)
            found.append(Transfer(at, source, destination, mint, amount, amount - fee))
    return found


def _raw(data: bytes, accounts: tuple[str, ...]) -> tuple[str, str, str | None, int, int] | None:
    if data[:1] == b"\x03":
        return accounts[0], accounts[1], None, struct.unpack_from("<Q", data, 1)[0], 0
    if data[:1] == b"\x0c":
        return accounts[0], accounts[2], accounts[1], struct.unpack_from("<Q", data, 1)[0], 0
    if data[:2] == b"\x1a\x01":
        amount, _, fee = struct.unpack_from("<QBQ", data, 2)
        return accounts[0], accounts[2], accounts[1], amount, fee
    return None


def _parsed(instruction: Instruction) -> tuple[str, str, str | None, int, int] | None:
    parsed: Any = instruction.parsed or {}
    info = parsed.get("info")
    if not str(parsed.get("type")).startswith("transfer"):
        return None
    amount = info["amount"] if "amount" in info else info["tokenAmount"]["amount"]
    fee = info.get("feeAmount", {}).get("amount", 0)
    return info["source"], info["destination"], info.get("mint"), int(amount), int(fee)


def swap_events(update: TransactionUpdate) -> list[SwapEvent]:
    """Every swap event that its programs wrote: calls to themselves, then log lines that no call repeats."""
    called = [event for event in map(_called, _with_parents(update)) if event is not None]
    repeated = Counter((each.program, each.body) for each in called)
    found = list(called)
    for event in _logged(update.logs or ()):
        if repeated[event.program, event.body]:
            repeated[event.program, event.body] -= 1
        else:
            found.append(event)
    newer = {"Swap2Evt": "Swap", "EvtSwap2": "EvtSwap"}
    older = {(each.program, each.name, each.path) for each in found}
    return [each for each in found if (each.program, newer.get(each.name), each.path) not in older]


def _with_parents(update: TransactionUpdate) -> Iterator[tuple[Instruction, tuple[int, ...]]]:
    stack: list[Instruction] = []
    for instruction in update.instructions:
        height = instruction.stack_height or len(instruction.path)
        del stack[height - 1 :]
        yield instruction, stack[-1].path if stack else ()
        stack.append(instruction)


def _called(call: tuple[Instruction, tuple[int, ...]]) -> SwapEvent | None:
    instruction, parent = call
    program = PROGRAMS.get(instruction.program_id)
    if program is None or instruction.data is None or not instruction.data.startswith(EVENT_CALL):
        return None
    return _event(program, instruction.data[8:], parent)


def _event(program: str, payload: bytes, path: tuple[int, ...] | None) -> SwapEvent | None:
    name = SWAPS.get((program, payload[:8].hex()))
    return None if name is None else SwapEvent(program, name, payload[8:], path)


def _logged(lines: tuple[str, ...]) -> Iterator[SwapEvent]:
    stack: list[str] = []
    for line in lines:
        if opened := re.match(r"Program (\w+) invoke \[(\d+)\]$", line):
            stack.append(opened[1])
        elif re.match(r"Program \w+ (success$|failed)", line) and stack:
            stack.pop()
        elif line.startswith("Program data: ") and stack and stack[-1] in PROGRAMS:
            event = _event(PROGRAMS[stack[-1]], b64decode(line.split()[2]), None)
            if event is not None:
                yield event
        elif line.startswith("Program log: ray_log: ") and stack and PROGRAMS.get(stack[-1]) == "raydium_amm_v4":
            body = b64decode(line.split()[3])
            if body[0] in (3, 4):
                yield SwapEvent("raydium_amm_v4", "ray_log", body, None)


def confirmations(update: TransactionUpdate, trade: dict[str, Any], path: tuple[int, ...]) -> list[str]:
    """By what the trade (the data of a message) is confirmed; empty if by nothing."""
    base, quote = int(trade["base_amount"]), int(trade["quote_amount"])
    if trade["program"] in ("pump", "pump_amm", "raydium_launchlab"):
        events = [borsh(LAYOUTS[e.program, e.name], e.body) for e in swap_events(update)
                  if (e.program, e.name) == (trade["program"], trade["event"])]  # fmt: skip
        reckoned = [each for fields in events for each in _reckoned(trade, fields, base, quote)]
        return [*reckoned, *_base_transfer(update, trade, path, base)] if reckoned else []
    if trade["program"] == "moonshot":
        paid = _lamports_to(update, path, trade["pool"]) if trade["side"] == "buy" else []
        return ["SOL transfer"] if quote in paid and _base_transfer(update, trade, path, base) else []
    return _pool_transfers(update, trade, path, base, quote)


def _reckoned(trade: dict[str, Any], fields: dict[str, Any], base: int, quote: int) -> list[str]:
    buy = trade["side"] == "buy"
    match trade["program"], trade["event"]:
        case "pump", "TradeEvent":
            vquote, vtoken = fields.get("vquote") or fields["vsol"], fields["vtoken"]
            if fields["token"] != base or fields["is_buy"] != buy:
                return []
            before = (vquote - quote, vtoken + base) if buy else (vquote + quote, vtoken - base)
            product, now = before[0] * before[1], vquote * vtoken
            return ["reserves"] if abs(now - product) <= 2 * max(*before, vquote, vtoken) else []
        case "pump", "PostCompleteBuyEvent":
            changed = fields["base_before"] - fields["base_after"], fields["quote_after"] - fields["quote_before"]
            return ["reserves"] if changed == (base, quote) else []
        case "pump_amm", _:
            quotes, bases = fields["pool_quote"] + fields.get("virtual", 0), fields["pool_base"]
            if fields["base"] != base:
                return []
            if buy:
                smaller = min(fields["quote_in"], fields["user_quote_in"])
                fits = any(
                    base == bases * spent // (quotes + spent) or spent == -(-quotes * base // (bases - base))
                    for spent in (quote, quote - 1)  # instructions that spend an exact amount price one unit less
                )
                return ["equation"] if quote == smaller and fits else []
            return ["equation"] if quote == fields["quote_out"] == quotes * base // (bases + base) else []
        case "raydium_launchlab", _:
            change = fields["base_after"] - fields["base_before"], fields["quote_after"] - fields["quote_before"]
            return ["reserves"] if change == ((base, quote) if buy else (-base, -quote)) else []
    raise AssertionError(trade["program"])


def _base_transfer(update: TransactionUpdate, trade: dict[str, Any], path: tuple[int, ...], base: int) -> list[str]:
    return (
        ["base transfer"] if any(t.mint == trade["mint"] and t.amount == base for t in transfers(update, path)) else []
    )


def _lamports_to(update: TransactionUpdate, path: tuple[int, ...], account: str) -> list[int]:
    """Return what the System program's transfers within the instruction brought the account."""
    return [
        struct.unpack_from("<Q", one.data, 4)[0]
        for _, one in subtree(update, path)
        if one.program_id == SYSTEM
        and one.data is not None
        and one.data[:4] == b"\2\0\0\0"
        and one.accounts[1] == account
    ]


def _pool_transfers(
    update: TransactionUpdate, trade: dict[str, Any], path: tuple[int, ...], base: int, quote: int
) -> list[str]:
    """A transfer in and a later one out, of these mints and to the unit."""
    moved = transfers(update, path)
    fees = _logged_fees(update)
    given, taken = (trade["quote_mint"], quote), (trade["mint"], base)
    if trade["side"] == "sell":
        given, taken = taken, given
    for number, one in enumerate(moved):
        for other in moved[number + 1 :]:
            if (one.mint, other.mint) == (given[0], taken[0]) and other.amount == taken[1]:
                if one.amount == given[1]:
                    return ["transfers"]
                if given[1] in (one.net, _change(update, one.destination), one.amount - fees.get(given[1], 0)):
                    return ["transfers less transfer fee"]
    return []


def _logged_fees(update: TransactionUpdate) -> dict[int, int]:
    """What went in → the mint's transfer fee on it, as swap events say it."""
    fees: dict[int, int] = {}
    for event in swap_events(update):
        match event.program, event.name:
            case "raydium_cpmm", "SwapEvent":
                fields = borsh(LAYOUTS[event.program, event.name], event.body)
                fees[fields["input"]] = fields.get("transfer_fee", 0)
            case "orca_whirlpool", "Traded":
                fields = borsh(LAYOUTS[event.program, event.name], event.body)
                fees[fields["input"] - fields["transfer_fee"]] = fields["transfer_fee"]
            case "meteora_cp_amm", "EvtSwap2":
                fields = borsh(LAYOUTS[event.program, event.name], event.body)
                fees[fields["input"]] = fields["sent"] - fields["input"]
    return fees


def _change(update: TransactionUpdate, account: str) -> int | None:
    """How much more the account holds after the transaction."""
    before = {held.account: held.amount for held in update.pre_token_balances}
    after = {held.account: held.amount for held in update.post_token_balances}
    return after[account] - before.get(account, 0) if account in after else None
