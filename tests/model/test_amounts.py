"""decimal_string is exact in both directions."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.amounts import decimal_string


@given(st.integers(-(2**127), 2**127), st.integers(0, 30))
def test_same_number_as_decimal(units: int, decimals: int) -> None:
    with localcontext(prec=100):
        assert Decimal(decimal_string(units, decimals)) * 10**decimals == units


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(0, 9, "0"), (1, 9, "0.000000001"), (1_500_000_000, 9, "1.5"), (-5, 1, "-0.5"), (7, 0, "7"), (10**9, 9, "1")],
)
def test_plain_text(units: int, decimals: int, text: str) -> None:
    assert decimal_string(units, decimals) == text


def test_negative_decimals_are_refused() -> None:
    with pytest.raises(ValueError, match="decimals is -1"):
        decimal_string(1, -1)
