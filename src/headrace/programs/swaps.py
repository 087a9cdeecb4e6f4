"""Register of swaps by program; builds all instructions of a swap."""

import struct
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.model.transactions import Instruction
from headrace.programs import SHIPPED
from headrace.programs.quoting import TOKEN_PROGRAM, Accounts
from headrace.programs.swapping import (
    ASSOCIATED_TOKEN_PROGRAM,
    Order,
    Swap,
    read,
    signs,
    token_account,
    token_program,
    write,
)

_CREATE_IDEMPOTENT: Final = b"\x01"
_SYNC_NATIVE: Final = b"\x11"
_CLOSE_ACCOUNT: Final = b"\x09"


def _find() -> dict[str, Swap]:
    """Import the `swap.py` of each program folder that has it."""
    names = sorted(path.parent.name for path in SHIPPED.glob("*/swap.py"))
    return {name: import_module(f"headrace.programs.{name}.swap").SWAP for name in names}


SWAPS: Final[Mapping[str, Swap]] = MappingProxyType(_find())
"""Swaps by program name."""


def instructions(venue: str, order: Order, accounts: Accounts) -> tuple[Instruction, ...]:
    """Return all instructions of a swap: token accounts, wrapping, the swap itself, unwrapping.

    Wrapping creates the user's account of wrapped SOL. Unwrapping closes that account, and all its SOL goes to the
    user.
    """
    swap, quote, user = SWAPS[venue], order.quote, order.user
    core = swap.build(order, accounts)
    wrapped = () if swap.native else tuple(mint for mint in (quote.mint_in, quote.mint_out) if mint == WSOL_MINT)
    needed = [mint for mint in (quote.mint_out, *wrapped) if mint != WSOL_MINT or wrapped]
    before = [_create(user, mint, accounts) for mint in dict.fromkeys(needed)]
    if quote.mint_in in wrapped:
        wallet = token_account(user, WSOL_MINT, accounts)
        most = order.limit if order.exact_out else quote.amount_in
        transfer = struct.pack("<IQ", 2, most)
        before.append(Instruction(SYSTEM_PROGRAM, (signs(user), write(wallet)), transfer))
        before.append(Instruction(TOKEN_PROGRAM, (write(wallet),), _SYNC_NATIVE))
    after = []
    if wrapped:
        closed = (write(token_account(user, WSOL_MINT, accounts)), write(user), signs(user))
        after.append(Instruction(TOKEN_PROGRAM, closed, _CLOSE_ACCOUNT))
    return (*before, core, *after)


def _create(user: str, mint: str, accounts: Accounts) -> Instruction:
    """Return the instruction that creates the user's token account unless it exists."""
    program = token_program(mint, accounts)
    account = token_account(user, mint, accounts)
    metas = (signs(user), write(account), read(user), read(mint), read(SYSTEM_PROGRAM), read(program))
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, metas, _CREATE_IDEMPOTENT)
