"""Test the reasons that curves give where there is no quote: the pool's state, the mint, the time, unknown accounts."""

from typing import Any, Final

import pytest

from headrace.inspect.quotes import quote
from headrace.model.errors import BadInputError
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.programs.curves import CURVES
from headrace.programs.quoting import U64_MAX, Account, Clock, NoQuoteError, TransferFee
from tests.programs.sets import Pool, names, pool

AMM: Final = "raydium_amm_v4/sol_usdc_58oQCh_20261002"
CPMM: Final = "raydium_cpmm/sol_usdc_7JuwJu_202604"
CLMM: Final = "raydium_clmm/stock_usdc_49iMat_20261002"
LAUNCH: Final = "raydium_launchlab/stock_BmQj9p_20261002"
DLMM: Final = "meteora_dlmm/sol_usdc_5rCf1D_20261002"
DAMM: Final = "meteora_damm_v2/sol_token2022_4kuAXo_20261004"
CURVE: Final = "pump/curve_8d4zoL_20261004"
SWAP: Final = "pumpswap/sol_ExeEkq_20261004"


def reason_of(given: Pool, mint: str, amount: int = 10**6, *, exact_out: bool = False) -> str:
    with pytest.raises(NoQuoteError) as refused:
        given.quote(mint, amount, exact_out=exact_out)
    return refused.value.reason


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        (CURVE, {"complete": True}, "complete"),
        (CURVE, {"complete": True, "virtual_token_reserves": 0, "virtual_quote_reserves": 0}, "migrated"),
        (CURVE, {"virtual_token_reserves": 0}, "empty"),
        (CURVE, {"real_token_reserves": 0}, "complete"),
        (AMM, {"status": 2}, "disabled"),
        (AMM, {"status": 7, "out_put": {"pool_open_time": 2**40}}, "not_open"),
        (CPMM, {"status": 4}, "disabled"),
        (CPMM, {"open_time": 2**40}, "not_open"),
        (CLMM, {"status": 16}, "disabled"),
        (CLMM, {"open_time": 2**40}, "not_open"),
        (LAUNCH, {"status": 1}, "complete"),
        (LAUNCH, {"status": 2}, "migrated"),
        (DLMM, {"status": 1}, "disabled"),
        (DLMM, {"pair_type": 1, "activation_point": 2**40}, "not_open"),
        (DAMM, {"pool_status": 1}, "disabled"),
        (DAMM, {"activation_point": 2**40}, "not_open"),
        (DAMM, {"liquidity": 0}, "empty"),
        (DAMM, {"collect_fee_mode": 9}, "unsupported"),
    ],
)
def test_the_state_of_a_pool_is_the_reason(name: str, changes: dict[str, Any], reason: str) -> None:
    given = pool(name)
    assert reason_of(given.with_fields(given.key, **changes), given.mints[1]) == reason


@pytest.mark.parametrize("name", [AMM, CPMM, SWAP])
@pytest.mark.parametrize("side", [0, 1])
def test_a_pool_with_an_empty_side_is_empty(name: str, side: int) -> None:
    given = pool(name)
    vaults = [key for key, each in given.accounts.items() if each.name == "Account"]
    mints = given.mints
    vault = next(key for key in vaults if given.accounts[key].fields["mint"] == mints[side])
    assert reason_of(given.with_fields(vault, amount=0), mints[0]) == "empty"


@pytest.mark.parametrize("name", [AMM, CPMM, SWAP, CLMM, DLMM, DAMM])
def test_a_frozen_token_account_of_the_pool_is_a_reason(name: str) -> None:
    given = pool(name)
    vault = next(key for key, each in given.accounts.items() if each.name == "Account")
    assert reason_of(given.with_fields(vault, state="frozen"), given.mints[0]) == "frozen"


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        ({"extension": "transferHook", "data": {"program_id": USDC_MINT}}, "transfer_hook"),
        ({"extension": "pausableConfig", "data": {"paused": True}}, "disabled"),
    ],
)
@pytest.mark.parametrize("name", [SWAP, CLMM, LAUNCH, DAMM])
def test_mints_that_stop_transfers_are_a_reason(name: str, extension: dict[str, Any], reason: str) -> None:
    given = pool(name)
    mint = next(mint for mint in given.mints if "extensions" in given.accounts[mint].fields)
    assert reason_of(given.with_fields(mint, extensions=[extension]), given.mints[0]) == reason


def fee(epoch: int, bps: int, most: int = 10**15) -> dict[str, int]:
    return {"epoch": epoch, "transfer_fee_basis_points": bps, "maximum_fee": most}


def with_fee(given: Pool, mint: str, older: dict[str, int], newer: dict[str, int]) -> Pool:
    """The set with a transfer fee on a mint; the fee of Token-2022 has two settings."""
    data = {"older_transfer_fee": older, "newer_transfer_fee": newer}
    return given.with_fields(mint, extensions=[{"extension": "transferFeeConfig", "data": data}])


@pytest.mark.parametrize("name", [CLMM, DLMM, DAMM])
@pytest.mark.parametrize("side", [0, 1])
def test_transfer_fees_are_taken_on_both_sides_by_epoch(name: str, side: int) -> None:
    given = pool(name)
    mint, other = given.mints[side], given.mints[1 - side]
    epoch = given.clock.epoch
    assert epoch is not None
    plain_in = given.quote(mint, 10**9 - 10**7)
    plain_out = given.quote(other, 10**9)
    taxed = with_fee(given, mint, fee(0, 0), fee(epoch, 100))
    assert taxed.quote(mint, 10**9).amount_out == plain_in.amount_out
    arrives = plain_out.amount_out - TransferFee(100, 10**15).of(plain_out.amount_out)
    assert taxed.quote(other, 10**9).amount_out == arrives
    later = with_fee(given, mint, fee(0, 0), fee(epoch + 1, 100))
    assert later.quote(mint, 10**9) == given.quote(mint, 10**9)
    by_slot = taxed._replace(clock=Clock(epoch * 432_000, given.clock.unix_timestamp))
    assert by_slot.quote(mint, 10**9) == taxed.quote(mint, 10**9)
    unknown = taxed._replace(clock=Clock(None, given.clock.unix_timestamp))
    if name != DAMM:  # which also asks for the slot
        assert reason_of(unknown, mint, 10**9) == "no_account"


def test_pools_of_mints_with_transfer_fees_are_not_quoted_on_pumpswap() -> None:
    given = pool(SWAP)
    for mint in given.mints:
        known = {**given.accounts, mint: given.accounts.get(mint, given.accounts[given.mints[0]])}
        taxed = with_fee(given._replace(accounts=known), mint, fee(0, 0), fee(1, 100))
        assert reason_of(taxed, given.mints[0]) == "unsupported"
        assert with_fee(taxed, mint, fee(0, 0), fee(2**40, 100)).quote(given.mints[0], 10**9).amount_out


@pytest.mark.parametrize(("bps", "most"), [(1, 10**15), (100, 10**15), (9_999, 10**15), (10_000, 5), (250, 7), (0, 0)])
def test_the_amount_before_a_transfer_fee_is_the_least_that_arrives(bps: int, most: int) -> None:
    rate = TransferFee(bps, most)
    for arriving in (1, 2, 39, 40, 41, 10**6, 10**12 + 7):
        sent = rate.before(arriving)
        assert sent - rate.of(sent) >= arriving
        assert bps == 10_000 or sent - 1 - rate.of(sent - 1) < arriving


@pytest.mark.parametrize("name", [CLMM, DLMM])
def test_arrays_that_end_in_mid_swap_are_named(name: str) -> None:
    given = pool(name)
    arrays = [key for key, each in given.accounts.items() if each.name in ("TickArrayState", "BinArray")]
    alone = given._replace(accounts={key: each for key, each in given.accounts.items() if key not in arrays})
    assert reason_of(alone, given.mints[0]) == "no_array"
    assert reason_of(given, given.mints[0], U64_MAX) in ("no_array", "too_large")


def test_a_curve_whose_mint_is_not_known_is_no_pool() -> None:
    given = pool(CURVE)
    with pytest.raises(BadInputError, match="no pool"):
        quote("pump", WSOL_MINT, 1, given.without(given.mints[0]).accounts, given.clock)


@pytest.mark.parametrize("name", names())
def test_a_truncated_pool_is_bad_input(name: str) -> None:
    given = pool(name)
    account = given.accounts[given.key]
    fields = dict.fromkeys(account.fields)
    empty = Account(account.owner, b"", account.program, account.name, fields)
    with pytest.raises((BadInputError, NoQuoteError)):
        CURVES[given.venue].read(given.key, {**given.accounts, given.key: empty}, given.clock)
