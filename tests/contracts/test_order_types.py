"""What every order type in the register must do; a new one is tested by being registered."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from headrace.adapters import load_class
from headrace.model.amounts import BaseUnits
from headrace.model.orders import U64_MAX, OrderRefused, Token
from headrace.order_types import ORDER_TYPES, Asked, OrderType, WrongTerms
from headrace.orders.requests import TOKENS, read_request

BODY = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": "1000000000"}
UNKNOWN = Token("4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R")
HOSTILE = [True, [], {}, "", "x", "-1", "0", "1e999999999", "NaN", "Infinity", "9" * 400, "1/0", "0/1", "1/1/1", "١/٢"]


@pytest.fixture(params=sorted(ORDER_TYPES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def order_type(name: str) -> OrderType:
    made: OrderType = load_class(ORDER_TYPES[name])()
    return made


def asked(body: Mapping[str, Any], amount: int = 10**9, token_out: Token = TOKENS["USDC"]) -> Asked:
    return Asked(body, TOKENS["SOL"], token_out, BaseUnits(amount))


def good(order_type: OrderType) -> dict[str, Any]:
    """A body with this type's price, if it has one."""
    return {**BODY, **({order_type.fields[0]: "150.25"} if order_type.fields else {})}


def test_its_fields_are_its_own(order_type: OrderType, name: str) -> None:
    others = [load_class(target)() for known, target in ORDER_TYPES.items() if known != name]
    assert not {field for other in others for field in other.fields} & set(order_type.fields)
    assert not BODY.keys() & set(order_type.fields)


def test_a_good_order_is_read_and_the_trigger_is_exact(order_type: OrderType, name: str) -> None:
    request = read_request({**good(order_type), "type": name}, amount_max=U64_MAX)
    assert request.type == name
    assert (request.trigger is not None) == bool(order_type.fields)
    if request.trigger is not None:
        assert Fraction(request.trigger.out, request.trigger.per) == Fraction("150.25") * 10**6 / 10**9
        assert request.trigger.is_met(15025, 100_000)
        assert request.trigger.is_met(15025 * 10**15, 10**20)
        better, worse = request.trigger.is_met(15025 * 10**15 + 1, 10**20), request.trigger.is_met(1, 10**20)
        assert better != worse, "met on one side of its price only"


def test_the_fields_of_another_type_are_refused(order_type: OrderType, name: str) -> None:
    for other in ORDER_TYPES:
        for field in load_class(ORDER_TYPES[other])().fields:
            if field in order_type.fields:
                continue
            with pytest.raises(OrderRefused) as refused:
                read_request({**good(order_type), "type": name, field: "1"}, amount_max=U64_MAX)
            assert field in refused.value.fields


def test_every_field_refuses_what_is_no_price(order_type: OrderType) -> None:
    for field in order_type.fields:
        for value in [*HOSTILE, Decimal("0.0"), Decimal("-0.5"), Decimal("1e40"), 10**50]:
            with pytest.raises(WrongTerms) as wrong:
                order_type.terms(asked({**BODY, field: value}))
            assert wrong.value.field in order_type.fields


def test_a_price_is_asked_for_once(order_type: OrderType) -> None:
    if order_type.fields:
        for body in (BODY, {**BODY, **dict.fromkeys(order_type.fields, "1/2")}):
            with pytest.raises(WrongTerms):
                order_type.terms(asked(body))


def test_a_mint_of_unknown_decimals_takes_a_rate_only(order_type: OrderType) -> None:
    if order_type.fields:
        price, rate = order_type.fields
        with pytest.raises(WrongTerms):
            order_type.terms(asked({price: "1"}, token_out=UNKNOWN))
        trigger = order_type.terms(asked({rate: "6/4"}, token_out=UNKNOWN)).trigger
        assert trigger is not None
        assert (trigger.out, trigger.per) == (3, 2)


def test_what_it_must_bring_is_never_rounded_down(order_type: OrderType) -> None:
    if order_type.fields:
        terms = order_type.terms(asked({order_type.fields[1]: "2/3"}, amount=10))
        assert terms.least_out in (None, 7)
