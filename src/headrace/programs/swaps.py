"""Register of swaps by program; builds all instructions of a swap."""

import struct
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final, NamedTuple

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


class Step(NamedTuple):
    """One swap of a route: the program's name, and the accounts of its pool."""

    venue: str
    order: Order
    accounts: Accounts


def instructions(venue: str, order: Order, accounts: Accounts) -> tuple[Instruction, ...]:
    """Return all instructions of a swap: token accounts, wrapping, the swap itself, unwrapping.

    Wrapping creates the user's account of wrapped SOL. Unwrapping closes that account, and all its SOL goes to the
    user.
    """
    return instructions_along((Step(venue, order, accounts),))


def instructions_along(steps: Sequence[Step]) -> tuple[Instruction, ...]:
    """Return all instructions of several swaps of one user, in this order.

    A swap whose input is the output of the swap before takes what that swap brought. SOL is wrapped before a swap of
    wrapped SOL, and unwrapped at the end, or earlier where a program takes unwrapped SOL.
    """
    made: list[Instruction] = []
    is_wrapped = False  # whether the user's account of wrapped SOL exists
    created: set[str] = set()
    for number, (venue, order, accounts) in enumerate(steps):
        swap, quote, user = SWAPS[venue], order.quote, order.user
        core = swap.build(order, accounts)
        uses_wrapped = not swap.native and WSOL_MINT in (quote.mint_in, quote.mint_out)
        needed = dict.fromkeys((quote.mint_out, WSOL_MINT) if uses_wrapped else (quote.mint_out,))
        for mint in needed:
            if mint not in created and (mint != WSOL_MINT or uses_wrapped):
                made.append(_create(user, mint, accounts))
                created.add(mint)
        is_wrapped = is_wrapped or uses_wrapped
        before = steps[number - 1] if number else None
        follows = before is not None and before.order.quote.mint_out == quote.mint_in
        brought_wrapped = follows and before is not None and not SWAPS[before.venue].native
        if quote.mint_in == WSOL_MINT and not swap.native and not brought_wrapped:
            made += _wrap(user, order.limit if order.exact_out else quote.amount_in, accounts)
        elif quote.mint_in == WSOL_MINT and swap.native and brought_wrapped:
            made.append(_unwrap(user, accounts))
            is_wrapped = False
            created.discard(WSOL_MINT)
        made.append(core)
    if is_wrapped:
        made.append(_unwrap(steps[-1].order.user, steps[-1].accounts))
    return tuple(made)


def _wrap(user: str, amount: int, accounts: Accounts) -> tuple[Instruction, Instruction]:
    """Return the instructions that move SOL into the user's account of wrapped SOL."""
    wallet = token_account(user, WSOL_MINT, accounts)
    transfer = struct.pack("<IQ", 2, amount)
    return (
        Instruction(SYSTEM_PROGRAM, (signs(user), write(wallet)), transfer),
        Instruction(TOKEN_PROGRAM, (write(wallet),), _SYNC_NATIVE),
    )


def _unwrap(user: str, accounts: Accounts) -> Instruction:
    """Return the instruction that closes the user's account of wrapped SOL."""
    closed = (write(token_account(user, WSOL_MINT, accounts)), write(user), signs(user))
    return Instruction(TOKEN_PROGRAM, closed, _CLOSE_ACCOUNT)


def _create(user: str, mint: str, accounts: Accounts) -> Instruction:
    """Return the instruction that creates the user's token account unless it exists."""
    program = token_program(mint, accounts)
    account = token_account(user, mint, accounts)
    metas = (signs(user), write(account), read(user), read(mint), read(SYSTEM_PROGRAM), read(program))
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, metas, _CREATE_IDEMPOTENT)
