"""The chain as the order flow sees it: sign, send, look, count heights. Port and register."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from headrace.adapters import Register
from headrace.model.errors import TransientError
from headrace.model.transactions import Answer, Depth, Instruction, Landing, Signed

__all__ = ["CHAINS", "Answer", "Blockhash", "Chain", "Depth", "Landing"]


class Blockhash(msgspec.Struct, frozen=True):
    """A transaction that names it can land up to and including block height `last_valid_height`."""

    hash: str
    last_valid_height: int


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
        """Return a recent blockhash."""

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Return the transaction of these instructions, signed by `owner`; nothing is sent.

        The same instructions and blockhash give the same bytes. Raises InvariantError for instructions that no
        transaction of this chain can hold.
        """

    async def send(self, signed: Signed) -> None:
        """Hand the bytes to a node. Returning does not mean that they land; raising does not mean that they don't."""

    async def finalized_height(self) -> int:
        """Return the height of the newest block that no fork can take back."""

    async def look(self, signature: str) -> Answer:
        """Return what the node knows about a signature, in the whole history and not only among recent ones."""

    async def changed(self, signature: str, timeout_s: float) -> None:
        """Return when there may be news of this signature, or after `timeout_s`. A hint: look."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while the node can't be asked, or takes nothing. `thorough`: the last check failed."""

    async def close(self) -> None:
        """Release what the chain holds."""


CHAINS: Final[Register[Chain]] = Register(
    "chains", {"local": "headrace.chains.local:LocalChain", "mock": "headrace.chains.mock:MockChain"}
)
"""All chains. `[orders] chain` names the one that is used."""
