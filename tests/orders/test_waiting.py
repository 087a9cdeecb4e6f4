"""A trade takes those orders for which it is enough, all of them and no others."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.model.amounts import BaseUnits
from headrace.model.orders import U64_MAX, Order, Token, Trigger
from headrace.orders.waiting import Waiting
from headrace.testing.orders import new_order

MINTS = ["a", "b", "c"]
few = st.integers(1, 4) | st.integers(1, U64_MAX)
pairs = st.permutations(MINTS).map(lambda mints: tuple(mints[:2]))
sides = st.sampled_from(["at_least", "at_most"])


def resting(number: int, pair: tuple[str, str], when: Any, out: int, per: int) -> Order:
    order = new_order(f"o{number}", 1)
    trigger = Trigger(when=when, out=BaseUnits(out), per=BaseUnits(per))
    request = replace(order.request, token_in=Token(pair[0]), token_out=Token(pair[1]), trigger=trigger)
    return replace(order, request=request)


def is_met(order: Order, pair: tuple[str, str], out: int, per: int) -> bool:
    request = order.request
    assert request.trigger is not None
    return (request.token_in.mint, request.token_out.mint) == pair and request.trigger.is_met(out, per)


@given(
    st.lists(st.tuples(pairs, sides, few, few), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), pairs, few, few), max_size=6),
)
def test_a_trade_takes_the_same_orders_as_asking_each_one(
    given_orders: list[tuple[tuple[str, str], str, int, int]], steps: list[tuple[int, tuple[str, str], int, int]]
) -> None:
    waiting, left = Waiting(), {}
    for number, wanted in enumerate(given_orders):
        order = resting(number, *wanted)
        left[order.id] = order
        waiting.add(order)
        waiting.add(order)
    for number, pair, out, per in steps:
        waiting.remove(f"o{number}")
        left.pop(f"o{number}", None)
        met = {order.id for order in left.values() if is_met(order, pair, out, per)}
        taken = [order.id for order in waiting.take(*pair, out, per)]
        assert sorted(taken) == sorted(met)
        left = {order_id: order for order_id, order in left.items() if order_id not in met}
        assert len(waiting) == len(left)
        mints = {token.mint for order in left.values() for token in (order.request.token_in, order.request.token_out)}
        assert [waiting.has(mint) for mint in MINTS] == [mint in mints for mint in MINTS]


def test_a_trade_looks_at_no_order_that_it_does_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user may have a thousand of them, and a market some hundred trades a second."""
    waiting, looked, less = Waiting(), 0, Fraction.__lt__
    for number in range(2000):
        waiting.add(resting(number, ("a", "b"), "at_least", 1000 + number, 1))

    def counted(one: Fraction, other: Fraction) -> bool:
        nonlocal looked
        looked += 1
        return less(one, other)

    monkeypatch.setattr(Fraction, "__lt__", counted)
    assert not waiting.take("a", "b", 999, 1)
    assert [order.id for order in waiting.take("a", "b", 1001, 1)] == ["o0", "o1"]
    assert looked < 50
