"""The router against brute force: no single pool and no other split of the same parts brings more."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.programs.quoting import Market, NoQuoteError
from headrace.programs.raydium_amm_v4.curve import Pool
from headrace.venues.router import Candidate, best_route, cheapest_route, split, two_hops
from tests.examples import examples
from tests.programs.sets import pool

COIN = "2A7tFB6FvWibmB2xd38ver2gfFMf8DEpKC1pcQW9xUZy"


def market(key: str, mints: tuple[str, str], reserves: tuple[int, int], fee_of: int = 25) -> Pool:
    return Pool(key=key, mints=mints, reserves=reserves, fee_of=fee_of, fee_whole=10_000)


reserve = st.integers(0, 5).flatmap(lambda digits: st.integers(10**9, 10 ** (digits + 10)))
pools = st.lists(st.tuples(reserve, reserve, st.integers(0, 300)), min_size=1, max_size=4).map(
    lambda drawn: [market(str(n), (WSOL_MINT, USDC_MINT), (a, b), fee) for n, (a, b, fee) in enumerate(drawn)]
)


def shares(count: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to give `parts` to so many."""
    return (share for share in product(range(parts + 1), repeat=count) if sum(share) == parts)


def brought(markets: list[Pool], share: tuple[int, ...], size: int) -> int:
    return sum(each.quote(WSOL_MINT, part * size).amount_out for each, part in zip(markets, share, strict=True) if part)


@given(markets=pools, size=st.integers(10**5, 10**10))
@settings(max_examples=examples(200), deadline=None)
def test_no_split_of_the_same_parts_brings_more_than_rounding(markets: list[Pool], size: int) -> None:
    amount, parts = 16 * size, 4
    found = split(markets, WSOL_MINT, amount)
    assert found.amount_in == amount
    best = max(brought(markets, share, amount // parts) for share in shares(len(markets), parts))
    assert found.amount_out >= best - 4 * len(markets)  # each pool rounds down, and a part may be worth little


@given(markets=pools, amount=st.integers(1, 10**12))
@settings(max_examples=examples(200), deadline=None)
def test_a_route_is_never_worse_than_the_best_single_pool(markets: list[Pool], amount: int) -> None:
    candidates = [Candidate(each.mints, each) for each in markets]
    found = best_route(candidates, WSOL_MINT, USDC_MINT, amount)
    assert found.amount_in == amount
    assert found.amount_out >= max(each.quote(WSOL_MINT, amount).amount_out for each in markets)


def test_a_large_amount_is_split_until_prices_meet() -> None:
    markets = [
        market("a", (WSOL_MINT, USDC_MINT), (10**12, 10**12)),
        market("b", (WSOL_MINT, USDC_MINT), (3 * 10**12,) * 2),
    ]
    found = split(markets, WSOL_MINT, 4 * 10**11)
    assert [path[0].amount_in for path in found.paths] == [10**11, 3 * 10**11]


def test_two_hops_over_sol_are_found_where_no_pool_has_the_pair() -> None:
    candidates = [
        Candidate(each.mints, each)
        for each in (
            market("first", (COIN, WSOL_MINT), (10**15, 10**11)),
            market("worse", (COIN, WSOL_MINT), (10**15, 10**10)),
            market("second", (WSOL_MINT, USDC_MINT), (10**11, 10**10)),
        )
    ]
    found = best_route(candidates, COIN, USDC_MINT, 10**9)
    assert [[quote.pool for quote in path] for path in found.paths] == [["first", "second"]]
    first, second = found.paths[0]
    assert first.amount_out == second.amount_in
    assert two_hops(candidates, COIN, WSOL_MINT, 10**9) == []


def test_where_no_pool_leads_there_is_no_route() -> None:
    with pytest.raises(NoQuoteError, match="no_route"):
        best_route([Candidate((COIN, WSOL_MINT), market("a", (COIN, WSOL_MINT), (1, 1)))], COIN, USDC_MINT, 1)


def test_real_pools_of_one_pair_share_an_amount() -> None:
    names = ("raydium_amm_v4/sol_usdc_58oQCh_20261002", "meteora_dlmm/sol_usdc_5rCf1D_20261002")
    markets: list[Market] = [pool(name).market() for name in names]
    amount = 2_000 * 10**9
    found = best_route([Candidate((WSOL_MINT, USDC_MINT), each) for each in markets], WSOL_MINT, USDC_MINT, amount)
    assert len(found.paths) == 2
    assert found.amount_in == amount
    assert found.amount_out > max(each.quote(WSOL_MINT, amount).amount_out for each in markets)


@given(markets=pools, amount=st.integers(1, 10**9))
@settings(max_examples=examples(100), deadline=None)
def test_the_cheapest_route_brings_enough_and_costs_no_more_than_any_pool(markets: list[Pool], amount: int) -> None:
    costs = []
    for each in markets:
        with suppress(NoQuoteError):
            costs.append(each.quote(WSOL_MINT, amount, exact_out=True).amount_in)
    candidates = [Candidate(each.mints, each) for each in markets]
    if not costs:
        with pytest.raises(NoQuoteError):
            cheapest_route(candidates, WSOL_MINT, USDC_MINT, amount)
        return
    found = cheapest_route(candidates, WSOL_MINT, USDC_MINT, amount)
    assert found.amount_in == min(costs)
    assert found.amount_out >= amount


def test_an_exact_output_over_two_pools_has_enough_in_between() -> None:
    first = market("a", (WSOL_MINT, USDC_MINT), (10**12, 10**11))
    second = market("b", (USDC_MINT, COIN), (10**11, 10**12))
    candidates = [Candidate(each.mints, each) for each in (first, second)]
    found = cheapest_route(candidates, WSOL_MINT, COIN, 10**8)
    ((one, other),) = found.paths
    assert one.amount_out >= other.amount_in
    assert found.amount_out >= 10**8
