"""The chain as the order flow sees it: sign, send, look, count heights. Port and register."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits
from headrace.model.errors import TransientError
from headrace.model.instructions import Instruction, Signed
from headrace.model.updates import TxError

Depth: TypeAlias = Literal["processed", "confirmed", "finalized"]


class Blockhash(msgspec.Struct, frozen=True):
    """A transaction that names it can land up to and including block height `last_valid_height`."""

    hash: str
    last_valid_height: int


class Landing(msgspec.Struct, frozen=True):
    """A transaction that is in a block. `err` None: it did what it should; else it changed nothing but its fee.

    `reason` is the constant for that error (`slippage_exceeded`, `chain_error`).
    """

    depth: Depth
    err: TxError
    reason: str | None = None
    amount_out: BaseUnits | None = None


class Answer(msgspec.Struct, frozen=True):
    """What one node says about a signature. `landing` None: this node knows none, and it knows heights up to
    `height`, which may be behind what other nodes know."""

    landing: Landing | None
    height: int


class Chain(Protocol):
    """A chain on which identical bytes execute at most once, and different bytes may both execute.

    Nothing here is sure: a send may be lost or succeed although it raised; a lookup may lag, and a `processed` landing
    may vanish with its fork. Heights only grow, but different nodes may answer with different ones.
    Each call raises TransientError when the node can't be asked.
    """

    owner: str
    """Public key of the wallet that signs: pays the fee, and has the tokens of all orders."""

    on_trouble: Callable[[TransientError], None]
    """Called, on the event loop, with the error when the node could not be asked."""

    async def blockhash(self) -> Blockhash:
        """A recent one."""

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Return the transaction of these instructions, signed by `owner`; nothing is sent.

        The same instructions and blockhash give the same bytes. Raises InvariantError for instructions that no
        transaction of this chain can hold.
        """

    async def send(self, signed: Signed) -> None:
        """Hand the bytes to a node. Returning does not mean that they land; raising does not mean that they don't."""

    async def finalized_height(self) -> int:
        """The height of the newest block that no fork can take back."""

    async def look(self, signature: str) -> Answer:
        """What is known about a signature, in the whole history and not only among recent ones."""

    async def changed(self, signature: str, timeout_s: float) -> None:
        """Return when there may be news of this signature, or after `timeout_s`. A hint: look."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when it can't be asked, or takes nothing, for now. `thorough`: it just failed."""

    async def close(self) -> None:
        """Release what it holds."""


CHAINS: Final[Mapping[str, str]] = MappingProxyType({"mock": "headrace.chains.mock:MockChain"})
"""Name → "module:Class", imported when first used."""
