"""Parses the rate of a limit or stop: a price in whole coins, or a rate in base units."""

import re
from fractions import Fraction
from typing import Any, Final

from headrace.model.amounts import BaseUnits, decimal_of
from headrace.model.orders import U64_MAX
from headrace.order_types import OrderBody, WrongTerms

_RATE: Final = re.compile(r"([0-9]{1,20})/([0-9]{1,20})")
_DIGITS_MAX: Final = 40


def read_rate(asked: OrderBody, price_field: str, rate_field: str) -> tuple[BaseUnits, BaseUnits]:
    """Return (out, per): `out` base units out for `per` base units in, in lowest terms, each within 64 bits.

    A price is the number of whole coins out for one whole coin in, as in executedPrice. It requires the decimals of
    both mints. A rate is text such as `"150000000/1000000000"`, out before in, and requires no decimals. Raises
    WrongTerms.
    """
    price, rate = asked.body.get(price_field), asked.body.get(rate_field)
    if price is None and rate is None:
        raise WrongTerms(price_field, f"is missing: give {price_field} or {rate_field}")
    if price is not None and rate is not None:
        raise WrongTerms(price_field, f"is given twice: give either {price_field} or {rate_field}")
    try:
        found = _of_price(asked, price) if rate is None else _of_rate(rate)
    except ValueError as error:
        raise WrongTerms(price_field if rate is None else rate_field, str(error)) from None
    return BaseUnits(found.numerator), BaseUnits(found.denominator)


def _of_price(asked: OrderBody, price: Any) -> Fraction:
    decimals_in, decimals_out = asked.token_in.decimals, asked.token_out.decimals
    if decimals_in is None or decimals_out is None:
        raise ValueError("the decimals of a mint are not known: give a rate in base units")
    number = decimal_of(price)
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or len(digits) > _DIGITS_MAX or abs(exponent) > _DIGITS_MAX:
        raise ValueError("is beyond what a price can be")
    return _checked(Fraction(number) * 10**decimals_out / 10**decimals_in)


def _of_rate(rate: Any) -> Fraction:
    match = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if match is None or not int(match[2]):
        raise ValueError("is not two amounts in base units, like 3/2: out before in")
    return _checked(Fraction(int(match[1]), int(match[2])))


def _checked(rate: Fraction) -> Fraction:
    if rate <= 0:
        raise ValueError("is not more than 0")
    if rate.numerator > U64_MAX or rate.denominator > U64_MAX:
        raise ValueError("is beyond 64 bits in base units")
    return rate
