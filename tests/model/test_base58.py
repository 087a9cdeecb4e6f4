"""Base58 agrees with the library at every length, in both directions."""

import based58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.base58 import b58decode, b58encode


@given(st.integers(0, 3), st.binary(max_size=700))
def test_as_the_library_has_it(zeros: int, rest: bytes) -> None:
    raw = bytes(zeros) + rest
    text = based58.b58encode(raw).decode() if raw else ""
    assert b58encode(raw) == text
    assert b58decode(text) == raw


@pytest.mark.parametrize("text", ["0", "O", "I", "l", " ", "2 2", "é", "√", "2" * 200 + "0", "2" * 200 + "é", "\ud800"])
def test_characters_outside_the_alphabet(text: str) -> None:
    with pytest.raises(ValueError, match="not base58"):
        b58decode(text)
