"""Instructions of a swap along a route, and whether they fit into one transaction. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from solders.hash import Hash
from solders.instruction import AccountMeta as SoldersMeta
from solders.instruction import Instruction as SoldersInstruction
from solders.message import MessageV0
from solders.pubkey import Pubkey

from headrace.model.amounts import BaseUnits
from headrace.model.errors import BadInputError, TransientError
from headrace.model.orders import Leg, Quote
from headrace.model.transactions import Instruction, memo
from headrace.programs.quoting import NoQuoteError
from headrace.programs.swapping import Order
from headrace.programs.swaps import SWAPS, Step, instructions_along
from headrace.venues.router import Route
from headrace.venues.supply import PoolState

SIZE_MAX: Final = 1232
"""Maximum number of bytes of a transaction with one signature, without tables of addresses."""
SIGNATURE_BYTES: Final = 65
"""Bytes of one signature with the number of signatures."""
VERSION_BYTES: Final = 1
_HASH: Final = Hash.default()
ANYONE: Final = str(Pubkey.from_bytes(b"\x01" * 32))
"""A key in place of the owner's, to measure transactions."""
MEMO: Final = memo("0" * 36)
"""A memo as long as an order's id."""


def fits(route: Route, pools: Mapping[str, PoolState]) -> bool:
    """Return whether the swap along a route can be built and fits into one transaction with a memo."""
    legs = [
        Leg(quote.pool, quote.mint_in, quote.mint_out, BaseUnits(quote.amount_in), BaseUnits(quote.amount_out))
        for path in route.paths
        for quote in path
    ]
    if len(legs) == 1:  # one pool always fits; some programs are quoted and not swapped
        return True
    try:
        built = _built(legs, pools, ANYONE, BaseUnits(1), (BaseUnits(route.amount_in), BaseUnits(route.amount_out)))
    except (NoQuoteError, BadInputError, TransientError):
        return False
    return size_of((*built, MEMO), ANYONE) <= SIZE_MAX


def instructions_of(
    quote: Quote, pools: Mapping[str, PoolState], owner: str, min_out: BaseUnits
) -> tuple[Instruction, ...]:
    """Return the instructions of a quote's route.

    The first pool of two must bring exactly what was quoted, as the second takes that amount. Of a split, each pool
    must bring its part of `min_out`, rounded up. Raises NoQuoteError, or TransientError where no swap can be built.
    """
    return _built(quote.route, pools, owner, min_out, (quote.amount_in, quote.amount_out))


def _built(
    legs: Sequence[Leg],
    pools: Mapping[str, PoolState],
    owner: str,
    min_out: BaseUnits,
    amounts: tuple[BaseUnits, BaseUnits],
) -> tuple[Instruction, ...]:
    amount_in, amount_out = amounts
    steps = []
    for leg in legs:
        pool = pools[leg.pool]
        market = pool.market()
        if market is None or pool.program not in SWAPS:
            raise TransientError("the pool gives no swap")
        given = amount_in if leg.amount_in is None else leg.amount_in
        least = amount_out if leg.amount_out is None else leg.amount_out
        if leg.mint_out == legs[-1].mint_out:
            least = BaseUnits(-(-least * min_out // amount_out) if amount_out else min_out)
        order = Order(quote=market.quote(leg.mint_in, given), user=owner, limit=max(1, least))
        steps.append(Step(pool.program, order, pool.accounts))
    try:
        return instructions_along(steps)
    except BadInputError as error:
        raise TransientError("the pool gives no swap") from error


def size_of(instructions: Sequence[Instruction], payer: str) -> int:
    """Return the bytes of a transaction of these instructions, signed by `payer` alone."""
    compiled = MessageV0.try_compile(Pubkey.from_string(payer), [_compiled(each) for each in instructions], [], _HASH)
    return SIGNATURE_BYTES + len(bytes(compiled)) + VERSION_BYTES


def _compiled(instruction: Instruction) -> SoldersInstruction:
    metas = [SoldersMeta(Pubkey.from_string(meta.pubkey), meta.signer, meta.writable) for meta in instruction.accounts]
    return SoldersInstruction(Pubkey.from_string(instruction.program_id), instruction.data, metas)
