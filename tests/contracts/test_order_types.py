"""The contract of every order type in the register; a new type is tested by being registered."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.amounts import BaseUnits
from headrace.model.orders import U64_MAX, OrderRefused, Token, Watch
from headrace.order_types import ORDER_TYPES, Field, OrderBody, OrderType, StatefulType, WrongTerms
from headrace.order_types.register import fields_by_type, order_type
from headrace.orders.requests import TOKENS, read_request
from tests.orders.trailing_stop import TrailingStop

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1000000000"}
UNKNOWN = Token("4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R")
HOSTILE = [True, [], {}, "", "x", "-1", "0", "1e999999999", "NaN", "Infinity", "9" * 400, "1/0", "0/1", "1/1/1", "١/٢"]
GOOD = {"price": "150.25", "rate": "15025/100000", "bps": 500}
trades = st.lists(st.tuples(st.integers(1, 9) | st.integers(1, U64_MAX), st.integers(1, 9)), max_size=8)


@pytest.fixture(params=sorted(ORDER_TYPES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def registered(name: str) -> OrderType:
    return order_type(name)


def asked(body: Mapping[str, Any], amount: int = 10**9, token_out: Token = TOKENS["USDC"]) -> OrderBody:
    return OrderBody(body, TOKENS["SOL"], token_out, BaseUnits(amount))


def good(registered: OrderType) -> dict[str, Any]:
    """A body with the type's first field, if the type has fields."""
    return {**BODY, **{field.name: GOOD[field.kind] for field in registered.fields[:1]}}


def named(registered: OrderType, kind: str) -> list[str]:
    return [field.name for field in registered.fields if field.kind == kind]


def test_no_field_belongs_to_two_types_or_to_every_order(registered: OrderType, name: str) -> None:
    others = {field.name for other, fields in fields_by_type().items() if other != name for field in fields}
    own = {field.name for field in registered.fields}
    assert not own & (others | BODY.keys())
    options = [field.option for fields in fields_by_type().values() for field in fields if field.option is not None]
    assert len(options) == len(set(options))


def test_a_good_body_gives_terms_that_wait_if_the_type_has_fields(registered: OrderType, name: str) -> None:
    request = read_request({**good(registered), "type": name}, amount_max=U64_MAX)
    assert request.type == name
    waits = request.trigger is not None or isinstance(request.watch, Watch)
    assert waits == bool(registered.fields)
    assert isinstance(request.watch, Watch) == isinstance(registered, StatefulType)


def test_a_price_and_the_same_rate_give_the_same_exact_trigger(registered: OrderType) -> None:
    for price, rate in zip(named(registered, "price"), named(registered, "rate"), strict=True):
        trigger = registered.terms(asked({price: "150.25"})).trigger
        assert trigger is not None
        assert trigger == registered.terms(asked({rate: "15025/100000"})).trigger
        assert Fraction(trigger.out, trigger.per) == Fraction("150.25") * 10**6 / 10**9
        assert trigger.is_met(15025, 100_000)
        assert trigger.is_met(15025 * 10**15, 10**20)
        better, worse = trigger.is_met(15025 * 10**15 + 1, 10**20), trigger.is_met(1, 10**20)
        assert better != worse, "met on one side of its price only"


def test_the_fields_of_another_type_are_refused(registered: OrderType, name: str) -> None:
    for other, fields in fields_by_type().items():
        for field in fields:
            if other == name:
                continue
            with pytest.raises(OrderRefused) as refused:
                read_request({**good(registered), "type": name, field.name: "1"}, amount_max=U64_MAX)
            assert field.name in refused.value.fields


def test_a_value_that_is_no_price_rate_or_share_is_refused_by_every_field(registered: OrderType) -> None:
    for field in registered.fields:
        for value in [*HOSTILE, *_hostile_of(field)]:
            with pytest.raises(WrongTerms) as wrong:
                registered.terms(asked({**BODY, field.name: value}))
            assert wrong.value.field in {each.name for each in registered.fields}


def _hostile_of(field: Field) -> list[Any]:
    small = [Decimal("0.0"), Decimal("-0.5"), Decimal("1e40"), 10**50]
    return [*small, 0, -1, 10_001, "500", Decimal("1.5")] if field.kind == "bps" else small


def test_a_body_without_the_type_s_fields_is_refused(registered: OrderType) -> None:
    if registered.fields:
        with pytest.raises(WrongTerms):
            registered.terms(asked(BODY))


def test_a_price_beside_a_rate_is_refused(registered: OrderType) -> None:
    for price, rate in zip(named(registered, "price"), named(registered, "rate"), strict=True):
        with pytest.raises(WrongTerms):
            registered.terms(asked({**BODY, price: "1/2", rate: "1/2"}))


def test_a_mint_of_unknown_decimals_takes_a_rate_and_no_price(registered: OrderType) -> None:
    for price, rate in zip(named(registered, "price"), named(registered, "rate"), strict=True):
        with pytest.raises(WrongTerms):
            registered.terms(asked({price: "1"}, token_out=UNKNOWN))
        trigger = registered.terms(asked({rate: "6/4"}, token_out=UNKNOWN)).trigger
        assert trigger is not None
        assert (trigger.out, trigger.per) == (3, 2)


def test_the_least_that_an_order_must_bring_is_never_rounded_down(registered: OrderType) -> None:
    for rate in named(registered, "rate"):
        assert registered.terms(asked({rate: "2/3"}, amount=10)).least_out in (None, 7)


@given(trades, trades, trades)
def test_watches_joined_in_any_order_are_the_watch_of_all_trades(
    first: list[tuple[int, int]], second: list[tuple[int, int]], third: list[tuple[int, int]]
) -> None:
    for kind in (*map(order_type, ORDER_TYPES), TrailingStop()):
        if isinstance(kind, StatefulType):
            check_joins(kind, first, second, third)


def check_joins(kind: StatefulType, *parts: list[tuple[int, int]]) -> None:
    """Observe each part in a process of its own: however the watches are joined, the watch of all trades comes out."""
    start = kind.terms(asked(good(kind))).watch
    assert start is not None

    def seen(trades: list[tuple[int, int]]) -> Watch:
        watch = start
        for out, per in trades:
            watch = kind.observe(watch, BaseUnits(out), BaseUnits(per))
        return watch

    one, two, three = (seen(part) for part in parts)
    assert kind.join(one, one) == one
    assert kind.join(one, two) == kind.join(two, one)
    assert kind.join(kind.join(one, two), three) == kind.join(one, kind.join(two, three))
    assert kind.join(kind.join(one, two), three) == seen([trade for part in parts for trade in part])
    for out, per in parts[0]:
        assert kind.observe(one, BaseUnits(out), BaseUnits(per)) == one, "a trade that was seen changes nothing"
