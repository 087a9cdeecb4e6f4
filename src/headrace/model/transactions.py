"""Transactions on their way: instructions as venues give them, the signed bytes, and what a node knows of them."""

from typing import Final, Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.updates import TxError

Depth: TypeAlias = Literal["processed", "confirmed", "finalized"]
"""How sure a landing is: a `processed` one may vanish with its fork, a `finalized` one can't."""

MEMO_PROGRAM: Final = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
MOCK_SWAP_PROGRAM: Final = "MockSwap11111111111111111111111111111111111"
"""Program of the mock venues; only the mock chain executes it. An instruction carries a `MockSwap` as JSON."""


class AccountMeta(msgspec.Struct, frozen=True):
    """Account that an instruction names, and what the program may do with it."""

    pubkey: str
    signer: bool = False
    writable: bool = False


class Instruction(msgspec.Struct, frozen=True):
    """One call of a program within a transaction."""

    program_id: str
    accounts: tuple[AccountMeta, ...]
    data: bytes


class Signed(msgspec.Struct, frozen=True):
    """Signed transaction, ready to send; it can land up to and including block height `last_valid_height`.

    `signature` is base58, `raw` are the bytes for the node. The signature is known before anything was sent.
    """

    signature: str
    raw: bytes
    last_valid_height: int


class Landing(msgspec.Struct, frozen=True):
    """Transaction that is in a block. `err` None: the transaction did what it should; else nothing changed but the fee.

    `reason` is the constant for that error (`slippage_exceeded`, `chain_error`).
    """

    depth: Depth
    err: TxError
    reason: str | None = None
    amount_out: BaseUnits | None = None


class Answer(msgspec.Struct, frozen=True):
    """Answer of one node about a signature. `landing` None: this node knows no transaction with the signature.

    The node knows the chain up to `height`, which may be behind what other nodes know.
    """

    landing: Landing | None
    height: int


class MockSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Swap on a mock venue: at least `min_out` for `amount_in`, or an error; `quoted_out` was offered."""

    venue: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits
    quoted_out: BaseUnits
    min_out: BaseUnits


def memo(text: str) -> Instruction:
    """Return the instruction that puts `text` on the chain for everyone to read."""
    return Instruction(MEMO_PROGRAM, (), text.encode())
