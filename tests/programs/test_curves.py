"""Curves against what the venues' own SDKs quote, and the rules that each of them keeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import BadInputError
from headrace.programs.curves import CURVES
from headrace.programs.quoting import U64_MAX, Account, NoQuoteError
from tests.examples import examples
from tests.programs.sets import Answer, answers, names, needed, pool

SETS = [name for name in names() if pool(name).venue in CURVES]


@pytest.mark.parametrize("answer", answers(), ids=lambda answer: f"{answer.name}-{answer.mint[:4]}-{answer.amount}")
def test_quotes_are_those_of_the_venues_own_sdk(answer: Answer) -> None:
    if answer.expected is None:
        with pytest.raises(NoQuoteError):
            pool(answer.name).quote(answer.mint, answer.amount)
        return
    found = pool(answer.name).quote(answer.mint, answer.amount, exact_out=answer.exact_out)
    quoted = (found.amount_in, found.amount_out) if answer.exact_out else (found.amount_out, found.amount_in)
    assert quoted[0] == answer.expected
    assert quoted[1] == answer.amount or quoted[0] == pool(answer.name).left
    total = sum(fee.amount for fee in found.fees)
    for to, amount in answer.fees.items():
        by_name = sum(fee.amount for fee in found.fees if fee.to == to)
        assert amount == {"fee": total, "trade_fee": total}.get(to, by_name)


@pytest.mark.parametrize("name", SETS)
def test_a_quote_reads_no_account_that_its_curve_does_not_name(name: str) -> None:
    given_pool = pool(name)
    known = needed(given_pool.venue, given_pool.key, given_pool.accounts)
    coins = {key for key, account in given_pool.accounts.items() if account.name == "Mint"}
    kept = {key: account for key, account in given_pool.accounts.items() if key in known | coins}
    mint = given_pool.mints[0]
    assert given_pool._replace(accounts=kept).quote(mint, 10**9) == given_pool.quote(mint, 10**9)


@pytest.mark.parametrize("name", SETS)
@given(data=st.data())
@settings(max_examples=examples(100), deadline=None)
def test_no_round_trip_gains_and_more_in_never_gives_less_out(name: str, data: st.DataObject) -> None:
    market = pool(name).market()
    mints = pool(name).mints
    mint_in, mint_out = data.draw(st.sampled_from([mints, mints[::-1]]))
    amount = data.draw(st.integers(0, 14).flatmap(lambda digits: st.integers(1, 10 ** (digits + 1))))
    try:
        there = market.quote(mint_in, amount)
    except NoQuoteError:
        return
    assert there.amount_in <= amount
    assert all(fee.amount > 0 for fee in there.fees)
    assert there.impact >= 0
    try:
        more = market.quote(mint_in, amount + data.draw(st.integers(1, amount)))
        assert more.amount_out >= there.amount_out
    except NoQuoteError as error:
        assert error.reason in ("too_large", "no_array") or not there.amount_out
    if there.amount_out:
        again = market.quote(mint_in, there.amount_out, exact_out=True)
        assert again.amount_in <= there.amount_in + 3  # the purchase may be rounded up, part by part
        assert again.amount_out >= there.amount_out
        try:
            back = market.quote(mint_out, there.amount_out)
        except NoQuoteError:
            return
        assert back.amount_out <= there.amount_in


@pytest.mark.parametrize("name", SETS)
def test_an_account_that_is_missing_is_named(name: str) -> None:
    given_pool = pool(name)
    mint = given_pool.mints[0]
    for key in needed(given_pool.venue, given_pool.key, given_pool.accounts):
        account = given_pool.accounts.get(key)
        if key == given_pool.key or account is None or account.name in ("Mint", "BinArray", "TickArrayState"):
            continue
        try:
            given_pool.without(key).quote(mint, 10**6)
        except NoQuoteError as error:
            assert (error.reason, key in str(error)) == ("no_account", True)


@pytest.mark.parametrize("name", SETS)
def test_accounts_that_are_something_else_are_refused(name: str) -> None:
    given_pool = pool(name)
    for key in needed(given_pool.venue, given_pool.key, given_pool.accounts):
        account = given_pool.accounts.get(key)
        if key == given_pool.key or account is None:
            continue
        other = Account("11111111111111111111111111111111", b"")
        with pytest.raises(BadInputError, match="expected"):
            changed = given_pool._replace(accounts={**given_pool.accounts, key: other})
            CURVES[given_pool.venue].read(given_pool.key, changed.accounts, changed.clock)


@pytest.mark.parametrize("name", SETS)
def test_amounts_that_no_swap_has_and_foreign_mints_are_refused(name: str) -> None:
    market = pool(name).market()
    for exact_out in (False, True):
        for amount, reason in ((0, "too_small"), (-1, "too_small"), (U64_MAX + 1, "too_large")):
            with pytest.raises(NoQuoteError) as refused:
                market.quote(pool(name).mints[0], amount, exact_out=exact_out)
            assert refused.value.reason == reason
    with pytest.raises(NoQuoteError) as refused:
        market.quote("11111111111111111111111111111112", 1)
    assert refused.value.reason == "wrong_mint"
    with pytest.raises(NoQuoteError):
        market.quote(pool(name).mints[0], U64_MAX, exact_out=True)
