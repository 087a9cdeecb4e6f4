"""Outgoing transactions: instructions as venues give them, signed transactions, and nodes' answers about them."""

from typing import Final, Literal, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.updates import TxError

Depth: TypeAlias = Literal["processed", "confirmed", "finalized"]
"""Certainty of a landing. A `processed` landing may vanish with its fork, a `finalized` landing can't."""

MEMO_PROGRAM: Final = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
MOCK_SWAP_PROGRAM: Final = "MockSwap11111111111111111111111111111111111"
"""Program of the mock venues, which only the mock chain executes. Its instructions contain a `MockSwap` as JSON."""


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
    """Signed transaction, ready to send. It can land up to and including block height `last_valid_height`.

    `signature` is base58 and is known before the first send. `raw` is the transaction as bytes for the node.
    """

    signature: str
    raw: bytes
    last_valid_height: int


class Landing(msgspec.Struct, frozen=True):
    """A transaction that is in a block.

    If `err` is None, the transaction succeeded. Otherwise it changed nothing, except that its fee was paid. `reason` is
    the constant for the error (`slippage_exceeded`, `chain_error`). `received` is the change of the owner's balance of
    each mint: of SOL with its wrapped part, without fees and the rent of new accounts. If `received` is None,
    `amount_out` is what the swap brought.
    """

    depth: Depth
    err: TxError
    reason: str | None = None
    amount_out: BaseUnits | None = None
    received: dict[str, int] | None = None

    def brought(self, mint: str) -> BaseUnits | None:
        """Return how much of a mint the transaction brought; at least 0, None if that is not known."""
        return self.amount_out if self.received is None else BaseUnits(max(0, self.received.get(mint, 0)))


class Answer(msgspec.Struct, frozen=True):
    """Answer of one node about a signature. `landing` is None if this node knows no transaction with the signature.

    `height` is the node's block height. The node may be behind other nodes.
    """

    landing: Landing | None
    height: int


class MockSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Swap on a mock venue: at least `min_out` for `amount_in`, or the swap fails. `quoted_out` was offered."""

    venue: str
    mint_in: str
    mint_out: str
    amount_in: BaseUnits
    quoted_out: BaseUnits
    min_out: BaseUnits


def memo(text: str) -> Instruction:
    """Return the instruction that writes `text` on the chain, where everyone can read it."""
    return Instruction(MEMO_PROGRAM, (), text.encode())
