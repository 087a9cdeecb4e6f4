"""`headrace quote`: an exact answer from a file of accounts, or one line that says why there is none."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.model.keys import USDC_MINT, WSOL_MINT
from tests.cli.conftest import Headrace
from tests.mainnet import FOLDER

ACCOUNTS: Final = FOLDER / "accounts"
CPMM: Final = ACCOUNTS / "raydium_cpmm" / "sol_usdc_7JuwJu_202604.json"
AMM: Final = ACCOUNTS / "raydium_amm_v4" / "sol_usdc_58oQCh_20261002.json"


def asked(file: Path, venue: str, amount: int, mint: str = WSOL_MINT) -> list[str]:
    """The words of a command that quotes."""
    return ["quote", "--accounts", str(file), "--venue", venue, "--input", mint, "--amount", str(amount)]


def test_a_quote_as_json_has_amounts_as_text_and_the_slot_of_the_file(headrace: Headrace) -> None:
    result = headrace(*asked(AMM, "raydium_amm_v4", 50_000_000), "--json")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out) == {
        "venue": "raydium_amm_v4",
        "inputMint": WSOL_MINT,
        "outputMint": USDC_MINT,
        "amountIn": "50000000",
        "amountOut": "6086724",
        "fees": [{"to": "lp", "mint": WSOL_MINT, "amount": "125000"}],
        "impact": "2",
        "route": [
            {
                "venue": "raydium_amm_v4",
                "pool": "58oQChx4yWmvKdwLLZzBi4ChoCc2fqCUWBkwMihLYQo2",
                "inputMint": WSOL_MINT,
                "outputMint": USDC_MINT,
            }
        ],
        "slot": 452_593_963,
    }


def test_exact_out_asks_for_an_amount_of_the_other_mint(headrace: Headrace) -> None:
    result = headrace(*asked(CPMM, "raydium_cpmm", 3_670_086), "--exact-out", "--json")
    answer = json.loads(result.out)
    assert (answer["amountIn"], answer["amountOut"], answer["slot"]) == ("49999989", "3670086", None)


def test_a_quote_for_people_names_who_gets_the_fees(headrace: Headrace) -> None:
    out = headrace(*asked(CPMM, "raydium_cpmm", 50_000_000)).out
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "quote.md").read_text()
    assert out in page
    assert f"fee to protocol: 15000 {WSOL_MINT}" in out


def test_where_there_is_no_quote_the_reason_is_said(headrace: Headrace) -> None:
    result = headrace(*asked(AMM, "raydium_amm_v4", 2**64), "--json")
    assert result.status == 1
    assert json.loads(result.out)["reason"] == "too_large"
    assert "raydium_amm_v4 gives no quote: too_large" in result.err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"--venue": "raydium"}, "unknown venue: raydium, expected one of "),
        ({"--venue": "pump"}, "no pool: no account of these is a pool of pump that trades"),
        ({"--input": "11111111111111111111111111111112"}, "no pool"),
        ({"--input": "sol"}, "not a mint: sol, expected a public key"),
        ({"--accounts": "/nowhere.json"}, "/nowhere.json: No such file"),
    ],
)
def test_what_can_not_be_asked_is_refused(headrace: Headrace, changes: dict[str, str], expected: str) -> None:
    words = asked(AMM, "raydium_amm_v4", 1)
    for option, value in changes.items():
        words[words.index(option) + 1] = value
    result = headrace(*words)
    assert result.status == 1
    assert expected in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("amount", ["-1", "1.5", "1e9", "٣", "1" * 21, ""])
def test_amounts_that_are_no_base_units_are_refused(headrace: Headrace, amount: str) -> None:
    words = asked(AMM, "raydium_amm_v4", 1)
    words[-1] = amount
    assert headrace(*words).status == 2


def spoilt(document: Any, how: str) -> Any:
    accounts = document["accounts"]
    if how == "no accounts":
        return {"captured": {}}
    if how == "no data":
        accounts[0]["account"].pop("data")
    if how == "no base64":
        accounts[0]["account"]["data"] = ["*", "base64"]
    if how == "no key":
        accounts[0]["pubkey"] = "x"
    if how == "truncated":
        for each in accounts:
            data = each["account"]["data"]
            data[0] = data[0][: len(data[0]) // 8 * 4]
    if how == "of another program":
        for each in accounts:
            each["account"]["owner"] = "11111111111111111111111111111111"
    return document


@pytest.mark.parametrize("how", ["no accounts", "no data", "no base64", "no key", "truncated", "of another program"])
def test_a_file_that_is_no_file_of_accounts_is_refused(headrace: Headrace, tmp_path: Path, how: str) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps(spoilt(json.loads(AMM.read_text()), how)))
    result = headrace(*asked(file, "raydium_amm_v4", 10**6))
    assert result.status == 1
    assert result.err.startswith("headrace: ")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_text_that_is_no_object_is_refused(headrace: Headrace, tmp_path: Path, text: str) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(text)
    result = headrace(*asked(file, "raydium_amm_v4", 1))
    assert result.status == 1
    assert "not a file of accounts" in result.err
