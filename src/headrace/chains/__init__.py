"""The chain as the order flow uses it: sign, send, look up, read heights. Port and register."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from headrace.adapters import Register
from headrace.model.errors import TransientError
from headrace.model.transactions import Answer, Depth, Instruction, Landing, Signed

__all__ = ["CHAINS", "Answer", "Blockhash", "Chain", "Depth", "Landing"]


class Blockhash(msgspec.Struct, frozen=True):
    """Recent blockhash. A transaction with it can land up to and including block height `last_valid_height`."""

    hash: str
    last_valid_height: int


class Chain(Protocol):
    """A chain on which identical bytes execute at most once, and different bytes may both execute.

    No answer is certain. A send may be lost, and a send that raised may have succeeded. A look-up may lag behind the
    chain, and a `processed` landing may vanish with its fork. Heights only grow, but each node may answer with its own
    height.

    Each call raises TransientError if the node can't be reached.
    """

    owner: str
    """Public key of the wallet that signs. It pays the fee and holds the coins of all orders."""

    on_trouble: Callable[[TransientError], None]
    """Called on the event loop with the error when the node can't be reached."""

    async def blockhash(self) -> Blockhash:
        """Return a recent blockhash."""

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Return the transaction of these instructions, signed by `owner`. Sends nothing.

        The same instructions and blockhash give the same bytes. Raises InvariantError for instructions that no
        transaction of this chain can hold.
        """

    async def send(self, signed: Signed) -> None:
        """Send the bytes to a node. After a return they may still not land; after an error they may still land."""

    async def finalized_height(self) -> int:
        """Return the height of the newest block that no fork can take back."""

    async def look(self, signature: str) -> Answer:
        """Return the node's answer about a signature, from the whole history and not only from recent blocks."""

    async def changed(self, signature: str, timeout_s: float) -> None:
        """Return when the state of this signature may have changed, or after `timeout_s`.

        Only a hint: call `look` next.
        """

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while the node can't be reached or accepts nothing.

        `thorough`: the last check failed.
        """

    async def close(self) -> None:
        """Release all resources of the chain."""


CHAINS: Final[Register[Chain]] = Register(
    "chains", {"local": "headrace.chains.local:LocalChain", "mock": "headrace.chains.mock:MockChain"}
)
"""All chains. `[orders] chain` names the one in use."""
