"""Amounts of money as integers in base units, never as floats, and the numbers that clients write."""

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NewType

BaseUnits = NewType("BaseUnits", int)
"""Amount of any SPL coin in base units.

10**`decimals` base units are one whole coin, where `decimals` is its mint's.
"""

Bps = NewType("Bps", int)
"""Basis points. 10_000 basis points are the whole."""

SOL_DECIMALS: Final = 9
"""Decimals of SOL: 1 SOL is 10**9 lamports."""

PRICE_DIGITS: Final = 12
"""Number of significant digits of a price. Further digits are truncated."""


_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def decimal_of(given: Any) -> Decimal:
    """Return the exact value of a number that a client gave as a number or as text.

    Raises ValueError for anything else. Text must be written as JSON writes numbers: `Decimal` alone would also accept
    `1_0` and the digits of every script.
    """
    text = isinstance(given, str) and _NUMBER.fullmatch(given)
    if isinstance(given, bool) or not (text or isinstance(given, int | Decimal)):
        raise ValueError("is not a number")
    try:
        return Decimal(given)
    except InvalidOperation:
        raise ValueError("is not a number") from None


def decimal_string(units: int, decimals: int) -> str:
    """Return base units as a plain decimal string, exact, without trailing zeros: `(1_500_000_000, 9)` is `"1.5"`.

    No rounding happens. Raises ValueError if `decimals` is negative.
    """
    if decimals < 0:
        raise ValueError(f"decimals is {decimals}, expected 0 or more")
    if decimals == 0:
        return str(units)
    sign, digits = ("-", str(-units)) if units < 0 else ("", str(units))
    digits = digits.rjust(decimals + 1, "0")
    fraction = digits[-decimals:].rstrip("0")
    whole = digits[:-decimals]
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def ratio_text(numerator: int, denominator: int, digits: int) -> str:
    """Return the ratio of two positive integers, truncated to `digits` significant digits. Integer digits are kept."""
    scale = max(0, digits + len(str(denominator)) - len(str(numerator)))
    quotient = numerator * 10**scale // denominator
    excess = min(scale, len(str(quotient)) - digits)
    return decimal_string(quotient // 10**excess, scale - excess) if excess > 0 else decimal_string(quotient, scale)
