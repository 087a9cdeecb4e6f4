"""The types with which a program's `swap.py` builds the instruction of a quoted swap.

`SWAP` of each `swap.py` builds one instruction, which includes the limit. `swaps.py` adds the instructions before and
after it, which are the same for all programs.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from headrace.model.keys import WSOL_MINT
from headrace.model.transactions import AccountMeta, Instruction
from headrace.programs.quoting import NO_ACCOUNT, TOKEN_PROGRAM, Accounts, NoQuoteError, PoolQuote, pda

ASSOCIATED_TOKEN_PROGRAM: Final = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"  # noqa: S105  (an address)
INSTRUCTIONS_SYSVAR: Final = "Sysvar1nstructions1111111111111111111111111"
MEMO_PROGRAM: Final = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Quoted swap of `user`, from and to the user's associated token accounts.

    `limit` is the least output, or with `exact_out` the most input. The instruction fails if the limit is not met.
    """

    quote: PoolQuote
    user: str
    limit: int
    exact_out: bool = False


class Swap(NamedTuple):
    """A program's way of swapping.

    `slippage` has the codes of the program's errors for a limit that is not met. With `native`, the program takes SOL
    from the user's own account and pays SOL to it, unwrapped.
    """

    program: str
    build: Callable[[Order, Accounts], Instruction]
    slippage: frozenset[int]
    native: bool = False


def read(key: str) -> AccountMeta:
    """Return the account meta of a read-only account."""
    return AccountMeta(key)


def write(key: str) -> AccountMeta:
    """Return the account meta of a writable account."""
    return AccountMeta(key, writable=True)


def signs(key: str) -> AccountMeta:
    """Return the account meta of a writable account that signs."""
    return AccountMeta(key, signer=True, writable=True)


def amounts(discriminator: str, *values: int) -> bytes:
    """Return a discriminator (hex) followed by u64 values."""
    return bytes.fromhex(discriminator) + struct.pack(f"<{len(values)}Q", *values)


def token_program(mint: str, accounts: Accounts) -> str:
    """Return the program that owns a mint. Raises NoQuoteError if the mint is not known."""
    account = accounts.get(mint)
    if account is None:
        if mint == WSOL_MINT:
            return TOKEN_PROGRAM
        raise NoQuoteError(NO_ACCOUNT, f"mint {mint}")
    return account.owner


def token_account(owner: str, mint: str, accounts: Accounts) -> str:
    """Return the associated token account of an owner."""
    return pda(ASSOCIATED_TOKEN_PROGRAM, owner, token_program(mint, accounts), mint)
