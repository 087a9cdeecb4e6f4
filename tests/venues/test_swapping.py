"""Instructions along a route: where SOL is wrapped and unwrapped, and what each pool must bring."""

import struct
from typing import Final

from headrace.model.amounts import BaseUnits, Bps
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.model.orders import Leg, Quote
from headrace.programs.pump.swap import SWAP as PUMP
from headrace.programs.quoting import TOKEN_PROGRAM
from headrace.programs.raydium_amm_v4.swap import SWAP as AMM
from headrace.venues.supply import PoolState
from headrace.venues.swapping import ANYONE, instructions_of, size_of
from tests.programs.sets import Pool, pool

POOL: Final = pool("raydium_amm_v4/sol_usdc_58oQCh_20261002")
CURVE: Final = pool("pump/curve_8d4zoL_20261004")
CLOSE: Final = b"\x09"


def state(given: Pool) -> PoolState:
    return PoolState(given.key, given.venue, given.mints, given.accounts, given.clock, 1)


POOLS: Final = {POOL.key: state(POOL), CURVE.key: state(CURVE)}


def leg(given: Pool, mint_in: str, amount: int) -> Leg:
    quote = given.quote(mint_in, amount)
    return Leg(given.key, mint_in, quote.mint_out, BaseUnits(amount), BaseUnits(quote.amount_out))


def quote_of(*legs: Leg, amount_in: int, amount_out: int) -> Quote:
    return Quote(
        venue="pools",
        amount_in=BaseUnits(amount_in),
        amount_out=BaseUnits(amount_out),
        fee_bps=Bps(0),
        route=legs,
    )


def test_sol_is_unwrapped_before_a_program_that_takes_it_unwrapped() -> None:
    first = leg(POOL, USDC_MINT, 25_000_000)
    second = leg(CURVE, WSOL_MINT, first.amount_out or 0)
    quote = quote_of(first, second, amount_in=25_000_000, amount_out=second.amount_out or 0)
    built = instructions_of(quote, POOLS, ANYONE, BaseUnits(1))
    called = [each.program_id for each in built]
    closing = [n for n, each in enumerate(built) if each.program_id == TOKEN_PROGRAM and each.data == CLOSE]
    assert len(closing) == 1
    assert called.index(AMM.program) < closing[0] < called.index(PUMP.program)
    assert size_of(built, ANYONE) < 1232


def test_the_first_pool_of_two_must_bring_what_the_second_takes() -> None:
    first = leg(POOL, USDC_MINT, 25_000_000)
    second = leg(CURVE, WSOL_MINT, first.amount_out or 0)
    quote = quote_of(first, second, amount_in=25_000_000, amount_out=second.amount_out or 0)
    built = instructions_of(quote, POOLS, ANYONE, BaseUnits(7))
    data = {each.program_id: each.data for each in built}
    assert struct.unpack("<QQ", data[AMM.program][-16:]) == (25_000_000, first.amount_out)
    assert struct.unpack("<QQ", data[PUMP.program][8:24]) == (first.amount_out, 7)


def test_the_parts_of_a_split_bring_at_least_the_least_amount() -> None:
    legs = [leg(POOL, USDC_MINT, amount) for amount in (10_000_001, 15_000_003)]
    brought = sum(each.amount_out or 0 for each in legs)
    quote = quote_of(*legs, amount_in=25_000_004, amount_out=brought)
    least = brought * 9_950 // 10_000
    built = instructions_of(quote, POOLS, ANYONE, BaseUnits(least))
    limits = [struct.unpack("<Q", each.data[-8:])[0] for each in built if each.program_id == AMM.program]
    assert len(limits) == 2
    assert least <= sum(limits) <= least + 1
