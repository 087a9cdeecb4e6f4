"""Swaps on the programs that mainnet runs: they execute, and bring and take exactly what was quoted."""

import random
from typing import Final

import pytest

from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.programs.pump.curve import GLOBAL as PUMP_GLOBAL
from headrace.programs.pump_amm.curve import GLOBAL_CONFIG
from headrace.programs.quoting import NoQuoteError, PoolQuote
from headrace.programs.swapping import Order, token_account
from headrace.programs.swaps import SWAPS, instructions
from headrace.solana.bank import Held
from tests.programs.banks import Scene

PROGRAMS: Final = {
    "pump/curve_8d4zoL_20261004": ("pump", "pump_fees", "mayhem", "spl_token", "spl_token_2022"),
    "pump/curve_J7b61t_20261004": ("pump", "pump_fees", "mayhem", "spl_token", "spl_token_2022"),
    "pumpswap/sol_ExeEkq_20261004": ("pump_amm", "pump_fees", "spl_token", "spl_token_2022"),
    "raydium_amm_v4/sol_usdc_58oQCh_20261002": ("raydium_amm_v4", "spl_token"),
    "meteora_dlmm/sol_usdc_5rCf1D_20261002": ("meteora_dlmm", "spl_token"),
}
"""Set → programs that a swap on it calls."""
DIGITS: Final = {"meteora_dlmm": 10.5}
"""Amounts have up to 13 digits; on this venue more than so many cross more bins than a transaction has time for."""
PLENTY: Final = 10**15
NOTHING: Final = Held(SYSTEM_PROGRAM, b"", 0)


def scene(name: str) -> Scene:
    """A bank in which the user has plenty of both tokens, and of which the pool's own accounts are there."""
    made = Scene(name, *PROGRAMS[name])
    pool = made.pool()
    for mint in pool.mints:
        if mint != WSOL_MINT or not SWAPS[made.venue].native:
            made.hold(made.owner, mint, PLENTY)
    extra: list[str] = []
    if made.venue == "pump":
        curve = pool.accounts[pool.key].fields
        extra.append(made.hold(pool.key, pool.mints[0], curve["real_token_reserves"] + 2 * 10**14))
        # Global has grown by one field since the set was taken.
        held = made.bank.account(PUMP_GLOBAL)
        assert held is not None
        made.bank.put(PUMP_GLOBAL, held._replace(data=held.data + b"\0"))
        buyback = pool.accounts[PUMP_GLOBAL].fields["buyback_fee_recipients"][0]
        made.bank.airdrop(buyback, 10**9)
    if made.venue == "pump_amm":
        buyback = pool.accounts[GLOBAL_CONFIG].fields["buyback_fee_recipients"][0]
        extra.append(made.hold(buyback, pool.mints[1], 0))
    users = [token_account(made.owner, mint, pool.accounts) for mint in pool.mints]
    settle(made)
    made.save(*extra, *users, *(key for key in made.keys if key not in users))
    return made


def settle(made: Scene) -> None:
    """Make the accounts whose rent a user's first trade pays, and let a first trade lengthen an older curve."""
    if made.venue not in ("pump", "pump_amm"):
        return
    pool = made.pool()
    before = made.bank.accounts(made.keys)
    quote = pool.quote(pool.mints[1], 10**6)
    order = Order(quote=quote, user=made.owner, limit=1)
    assert made.send(SWAPS[made.venue].build(order, pool.accounts)).err is None
    for key, held in before.items():
        if key != pool.key or made.venue != "pump":
            made.bank.put(key, held)
            continue
        longer = made.bank.account(key)
        assert longer is not None
        made.bank.put(key, longer._replace(data=held.data + bytes(len(longer.data) - len(held.data))))


def swapped(made: Scene, order: Order) -> tuple[int, int, str | None]:
    """Return what a swap took and brought, without the account of wrapped SOL being made or closed."""
    pool, quote = made.pool(), order.quote
    native = SWAPS[made.venue].native
    core = SWAPS[made.venue].build(order, pool.accounts)

    def held(mint: str) -> int:
        return made.lamports() if native and mint == WSOL_MINT else made.has(mint)

    before = held(quote.mint_in), held(quote.mint_out)
    executed = made.send(core)
    after = held(quote.mint_in), held(quote.mint_out)
    fee = 5000 if native else 0
    taken = before[0] - after[0] - (fee if quote.mint_in == WSOL_MINT else 0)
    brought = after[1] - before[1] + (fee if quote.mint_out == WSOL_MINT else 0)
    return taken, brought, executed.err


def check_sizes(name: str, count: int, *, seed: int) -> None:
    """Swap `count` random amounts, each on the saved state, in both directions, and compare with the quotes."""
    made, luck = scene(name), random.Random(f"{name}:{seed}")
    done = 0
    pool = made.pool()
    market = pool.market()
    for number in range(4 * count):
        made.restore()
        mint_in = pool.mints[number % 2]
        exact_out = luck.random() < 0.4
        amount = int(10 ** luck.uniform(1, DIGITS.get(made.venue, 13)))
        try:
            quote = market.quote(mint_in, amount, exact_out=exact_out)
        except NoQuoteError:
            continue
        if not quote.amount_out or quote.amount_in > PLENTY:
            continue
        limit = quote.amount_in if exact_out else quote.amount_out
        taken, brought, err = swapped(made, Order(quote=quote, user=made.owner, limit=limit, exact_out=exact_out))
        assert (taken, brought, err) == (quote.amount_in, quote.amount_out, None), (quote, exact_out)
        done += 1
        if done == count:
            return
    raise AssertionError(f"only {done} of {count} amounts were quoted")


@pytest.mark.parametrize("name", PROGRAMS)
def test_swaps_execute_with_exactly_the_quoted_amounts(name: str) -> None:
    check_sizes(name, 12, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", PROGRAMS)
def test_200_random_sizes_execute_with_exactly_the_quoted_amounts(name: str) -> None:
    check_sizes(name, 400, seed=2)


def one(made: Scene, mint: str, amount: int) -> PoolQuote:
    return made.pool().quote(mint, amount)


@pytest.mark.parametrize("name", PROGRAMS)
def test_quotes_stay_exact_after_other_swaps(name: str) -> None:
    made, luck = scene(name), random.Random(name)
    for number in range(10):
        mints = made.pool().mints
        quote = one(made, mints[number % 2], int(10 ** luck.uniform(5, 9)))
        if not quote.amount_out:
            continue
        order = Order(quote=quote, user=made.owner, limit=quote.amount_out)
        assert swapped(made, order) == (quote.amount_in, quote.amount_out, None)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_swap_that_brings_less_than_its_limit_fails(name: str) -> None:
    made = scene(name)
    quote = one(made, made.pool().mints[1], 10**6)
    order = Order(quote=quote, user=made.owner, limit=quote.amount_out + 1)
    taken, brought, err = swapped(made, order)
    assert (taken, brought) == (0, 0)
    assert err is not None


@pytest.mark.parametrize("name", PROGRAMS)
def test_sol_is_wrapped_before_and_unwrapped_behind(name: str) -> None:
    made = scene(name)
    pool = made.pool()
    coin = next(mint for mint in pool.mints if mint != WSOL_MINT)
    for mint_in in (WSOL_MINT, coin):
        made.restore()
        made.bank.put(
            token_account(made.owner, WSOL_MINT, pool.accounts), Held("11111111111111111111111111111111", b"", 0)
        )
        quote = one(made, mint_in, 10**6)
        order = Order(quote=quote, user=made.owner, limit=quote.amount_out)
        coins, lamports = made.has(coin), made.lamports()
        assert made.send(*instructions(made.venue, order, pool.accounts)).err is None
        coins, lamports = made.has(coin) - coins, made.lamports() - lamports + 5000
        expected = (
            (quote.amount_out, -quote.amount_in) if mint_in == WSOL_MINT else (-quote.amount_in, quote.amount_out)
        )
        assert (coins, lamports) == expected
