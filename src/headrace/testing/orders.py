"""Fakes of the order flow's ports: a scripted chain, a venue with a fixed quote, and orders."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from headrace.chains import Answer, Blockhash, Landing
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import TransientError
from headrace.model.orders import Order, OrderRequest, OrderStatus, Outcome, Quote
from headrace.model.transactions import MEMO_PROGRAM, MOCK_SWAP_PROGRAM, Instruction, MockSwap, Signed
from headrace.orders.requests import TOKENS


class ScriptedChain:
    """A chain whose height changes only through `move`, and on which a transaction lands only through `land`.

    `on_send` is called with each transaction sent. `before_look` and `before_height` run at the start of those calls,
    so that a test can change the chain between two calls. `away` makes every call fail.
    """

    def __init__(self, *, height: int = 1000, validity: int = 150) -> None:
        self.height = self.finalized = height
        self.validity = validity
        self.away = self.send_fails = False
        self.owner = "wallet"
        self.sent: list[Signed] = []
        self.landed: dict[str, Landing] = {}
        self.memos: dict[str, str] = {}
        self.on_send: Callable[[Signed], None] = lambda _: None
        self.before_look: Callable[[], None] = lambda: None
        self.before_height: Callable[[], None] = lambda: None
        self.on_wait: Callable[[], None] = lambda: None
        self.on_trouble: Callable[[TransientError], None] = lambda _: None

    async def blockhash(self) -> Blockhash:
        self._ask()
        return Blockhash(f"bh{self.height}", self.height + self.validity)

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Sign any instructions. The memo becomes part of the transaction's signature."""
        memo = next(each.data.decode() for each in instructions if each.program_id == MEMO_PROGRAM)
        signature = f"{memo}:{blockhash.hash}"
        self.memos[signature] = memo
        return Signed(signature, signature.encode(), blockhash.last_valid_height)

    async def send(self, signed: Signed) -> None:
        self.sent.append(signed)
        self.on_send(signed)
        if self.send_fails:
            raise TransientError("no answer")

    async def finalized_height(self) -> int:
        self._ask()
        self.before_height()
        return self.finalized

    async def look(self, signature: str) -> Answer:
        self._ask()
        self.before_look()
        return Answer(self.landed.get(signature), self.height)

    async def changed(self, signature: str, timeout_s: float) -> None:
        await asyncio.sleep(min(timeout_s, 0.002))
        self.on_wait()

    async def check(self, *, thorough: bool) -> None:
        self._ask()

    async def close(self) -> None:
        """Do nothing: the chain has no resources."""

    def land(self, signed: Signed, landing: Landing | None = None) -> None:
        """Put a transaction into a block, unless its blockhash has expired."""
        if self.height <= signed.last_valid_height:
            self.landed.setdefault(signed.signature, landing or Landing("confirmed", None, None, BaseUnits(7)))

    def move(self, height: int) -> None:
        """Set the height. All blocks up to it are finalized."""
        self.height = self.finalized = height

    def executions(self, memo: str) -> int:
        """Return the number of times that the order was executed."""
        return sum(self.memos[s] == memo and landing.err is None for s, landing in self.landed.items())

    def _ask(self) -> None:
        if self.away:
            raise TransientError("the node can't be asked")


class FixedVenue:
    """A venue that always quotes the same amount. `away` makes quotes fail, `stuck` makes `swap` fail."""

    def __init__(self, name: str = "fixed", amount_out: int = 100, *, away: bool = False, stuck: bool = False) -> None:
        self.name, self.amount_out, self.away, self.stuck = name, amount_out, away, stuck

    async def quote(self, request: OrderRequest) -> Quote:
        if self.away:
            raise TransientError(f"{self.name} is away")
        return Quote(venue=self.name, amount_in=request.amount, amount_out=BaseUnits(self.amount_out), fee_bps=Bps(25))

    async def swap(self, quote: Quote, owner: str, min_out: BaseUnits) -> Sequence[Instruction]:
        """Return one instruction whose data is `min_out`."""
        if self.stuck:
            raise TransientError(f"{self.name} gives no instructions")
        return [Instruction(MOCK_SWAP_PROGRAM, (), str(min_out).encode())]

    async def check(self, *, thorough: bool) -> None:
        if self.away:
            raise TransientError(f"{self.name} is away")

    async def close(self) -> None:
        """Do nothing: the venue has no resources."""


def mock_swap(min_out: int) -> Instruction:
    """Return a swap for the mock chain with a quote of 100 base units out."""
    swap = MockSwap(
        venue="v",
        mint_in="a",
        mint_out="b",
        amount_in=BaseUnits(1),
        quoted_out=BaseUnits(100),
        min_out=BaseUnits(min_out),
    )
    return Instruction(MOCK_SWAP_PROGRAM, (), msgspec.json.encode(swap))


def new_order(
    order_id: str, now_ms: int, *, priority: int = 5, user_id: str = "u", expires_at_ms: int | None = None
) -> Order:
    """Return a market order for 1 SOL, as intake would store it."""
    return Order(
        id=order_id,
        request=OrderRequest(
            user_id=user_id,
            said_in="SOL",
            said_out="USDC",
            token_in=TOKENS["SOL"],
            token_out=TOKENS["USDC"],
            amount=BaseUnits(10**9),
            slippage_bps=Bps(100),
            priority=priority,
            expires_at_ms=expires_at_ms,
        ),
        outcome=Outcome(),
        status=OrderStatus.PENDING,
        seq=1,
        epoch=0,
        cancel_requested=False,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
