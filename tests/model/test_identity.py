"""What a token's patterns open, and what none of them does."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.credentials import Credential
from headrace.model.identity import Identity, Permissions, is_subject

KEY: Final = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
PUBLIC: Final = (
    "slots",
    "token_updates",
    "market-data",
    f"market-data:{KEY}",
    "trades:pump",
    f"trades:{KEY}",
    "tx:pump",
)
OWNED: Final = ("user:42", "user:43", "orders:42", "orders:43", "order:42", "order:0199")
OF_42: Final = {"user:42", "orders:42"}


def opened(*patterns: str) -> set[str]:
    identity = Identity("42", 0, Permissions.of(patterns))
    return {topic for topic in (*PUBLIC, *OWNED) if identity.may_read(topic)}


@pytest.mark.parametrize(
    ("patterns", "topics"),
    [
        ((), set()),
        (("*",), set(PUBLIC)),
        (("slots",), {"slots"}),
        (("trades:*",), {"trades:pump", f"trades:{KEY}"}),
        (("trades:pump", "slots"), {"trades:pump", "slots"}),
        (("market-data",), {"market-data"}),
        (("market-data:*",), {f"market-data:{KEY}"}),
        (("trades",), set()),
        (("trades:p*",), set()),
        (("*:pump",), set()),
        (("Trades:*", " trades:*", "trades:* ", "", ":", ":*", "**", "trades:**"), set()),
        (("user:*", "orders:*", "order:*", "user:43", "orders:43", "order:42", "*"), set(PUBLIC)),
    ],
)
def test_patterns(patterns: tuple[str, ...], topics: set[str]) -> None:
    assert opened(*patterns) == topics | OF_42


@given(st.lists(st.text(max_size=20) | st.sampled_from(["*", "user:*", "orders:*", "order:*", *OWNED]), max_size=8))
def test_no_token_opens_what_is_anothers(patterns: list[str]) -> None:
    assert opened(*patterns) & set(OWNED) == OF_42


@given(st.lists(st.sampled_from(["*", "trades:*", "tx:*", "slots", *PUBLIC])), st.sampled_from(PUBLIC))
def test_more_patterns_never_close_anything(patterns: list[str], more: str) -> None:
    assert opened(*patterns) | {more} == opened(*patterns, more)


@pytest.mark.parametrize("text", ["1", "auth0|abc", "a b", "x" * 128])
def test_subjects(text: str) -> None:
    assert is_subject(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a\n", "ж", "a\x00", 42, None, ["42"], True])
def test_what_is_no_subject(text: object) -> None:
    assert not is_subject(text)


def test_a_credential_shows_nothing_of_itself() -> None:
    assert repr(Credential("ticket", "s3cret")) == "<ticket>"
    assert f"{[Credential('token', 's3cret')]}" == "[<token>]"
