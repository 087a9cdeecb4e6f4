"""DBC and DAMM v2 on made-up pools: every fee mode, against what Meteora's own SDKs answered."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.inspect.quotes import quote, read_accounts
from headrace.programs.meteora_cp_amm import curve as damm
from headrace.programs.meteora_dbc import curve as dbc
from headrace.programs.meteora_fees import TradeFee, variable_rate
from headrace.programs.quoting import NO_FEE, Account, Market, Mint, NoQuoteError
from tests.mainnet import programs

FOLDER: Final = Path(__file__).parents[1] / "data" / "quotes"


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return found


def sets() -> list[dict[str, Any]]:
    """Sets of accounts of curves, with the SDK's answers."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "meteora_dbc_sets.json").read_text())
    return found


@pytest.mark.parametrize("number", range(3))
def test_accounts_of_curves_are_read_and_quoted_as_by_the_sdk(number: int) -> None:
    given = sets()[number]
    accounts, clock = read_accounts(json.dumps(given).encode(), programs())
    for each in given["answers"]:
        try:
            found = quote(
                "meteora_dbc", each["input"], int(each["amount"]), accounts, clock, exact_out=each["exact_out"]
            )
            assert [str(found.amount_in), str(found.amount_out)] == each["answer"]
        except NoQuoteError:
            assert each["answer"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_migrated": 1}, "migrated"),
        ({"quote_reserve": 85 * 10**9}, "complete"),
        ({"activation_point": 2**40}, "not_open"),
    ],
)
def test_curves_that_do_not_sell_say_why(changes: dict[str, int], reason: str) -> None:
    accounts, clock = read_accounts(json.dumps(sets()[0]).encode(), programs())
    key, pool = next((key, each) for key, each in accounts.items() if each.name == "VirtualPool")
    state = {**pool.fields["pool_state"], **changes}
    accounts[key] = Account(pool.owner, pool.data, pool.program, pool.name, {"pool_state": state})
    with pytest.raises(NoQuoteError) as refused:
        dbc.CURVE.read(key, accounts, clock)
    assert refused.value.reason == reason


def fee(case: dict[str, Any], base: Any, most: int, step: int) -> TradeFee:
    """The trade fee of a case."""
    dynamic = case["dyn"]
    return TradeFee(
        base=base,
        most=most,
        variable=variable_rate(int(case["vol"]), step, dynamic["control"]) if dynamic["on"] else 0,
        point=int(case["point"]),
        activation=int(case["activation"]),
        start_price=int(case.get("init", 0)),
        price=int(case["price"]),
    )


def curve_of(case: dict[str, Any]) -> Market:
    """A bonding curve of a case."""
    given = case["base"]
    base = {
        "base_fee_mode": given["mode"],
        "first_factor": given["first"],
        "second_factor": int(given["second"]),
        "third_factor": int(given["third"]),
        "cliff_fee_numerator": int(given["cliff"]),
    }
    points = [{"sqrt_price": int(price), "liquidity": int(liquidity)} for price, liquidity in case["curve"]]
    return dbc.VirtualPool(
        key="pool",
        mints=("A", "B"),
        fee_on_output=case["mode"] == dbc.OUTPUT_TOKEN,
        sqrt_price=int(case["price"]),
        end=int(case["end"]),
        ranges=dbc.ranges_of(int(case["start"]), points),
        fee=fee(case, dbc.base_fee(base), dbc.RATE_MAX, case["dyn"]["step"]),
    )


def pool_of(case: dict[str, Any]) -> Market:
    """A pool of a case."""
    return damm.Pool(
        key="pool",
        mints=(Mint("A", None, NO_FEE), Mint("B", None, NO_FEE)),
        collect_fee_mode=case["mode"],
        sqrt_price=int(case["price"]),
        low=int(case["low"]),
        high=int(case["high"]),
        liquidity=int(case["liq"]),
        reserves=(int(case["a"]), int(case["b"])),
        fee=fee(case, damm.base_fee(bytes(case["base"])), damm.RATE_MAX[case["version"]], 1),
        protocol_percent=20,
        compounding_bps=case["comp"],
    )


def answer(market: Market, case: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the input, the output, and the fees of pool owners and protocol; None where there is no quote."""
    try:
        found = market.quote("A" if case["sell"] else "B", int(case["amount"]), exact_out=case["exact_out"])
    except NoQuoteError:
        return None
    protocol = sum(part.amount for part in found.fees if part.to == "protocol")
    return found.amount_in, found.amount_out, sum(part.amount for part in found.fees) - protocol, protocol


def expected(case: dict[str, Any]) -> tuple[int, int, int, int] | None:
    sdk = case["sdk"]
    if "error" in sdk:
        return None
    return int(sdk["i"]), int(sdk["o"]), int(sdk["t"]) + int(sdk.get("c", 0)), int(sdk["p"])


@pytest.mark.parametrize("case", cases("meteora_dbc"), ids=lambda case: f"{case['base']['mode']}-{case['amount']}")
def test_curves_quote_as_the_sdk_of_dbc(case: dict[str, Any]) -> None:
    assert answer(curve_of(case), case) == expected(case)


@pytest.mark.parametrize("case", cases("meteora_cp_amm"), ids=lambda case: f"{case['base'][8]}-{case['amount']}")
def test_pools_quote_as_the_sdk_of_damm_v2(case: dict[str, Any]) -> None:
    wanted = expected(case)
    nothing = wanted is not None and not wanted[1]  # the SDK's outer call refuses that, as the curve does
    assert answer(pool_of(case), case) == (None if nothing else wanted)
