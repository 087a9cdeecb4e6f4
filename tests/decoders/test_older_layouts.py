"""Layouts that live programs have and the IDLs on board lack: older ones, and those of newer instructions."""

import json
from pathlib import Path

import pybase64
import pytest

from headrace.decoders.idl import discriminator
from headrace.decoders.registry import Programs
from headrace.inspect.transactions import inspect
from tests.mainnet import programs

LAYOUTS = Path(__file__).parents[1] / "data" / "idl" / "layouts"


def test_no_shipped_idl_has_a_warning() -> None:
    assert Programs.load().warnings == []


def test_the_older_position_of_dlmm_is_read_to_its_last_byte() -> None:
    account = json.loads((LAYOUTS / "11_dlmm_position_v1_account.json").read_text())
    raw = account["data"][0] if isinstance(account["data"], list) else account["data"]
    data = pybase64.b64decode(raw)
    assert (len(data), data[:8].hex()) == (7560, "aabc8fe47a40f7d0")
    found = inspect(raw, programs(), owner="meteora_dlmm")
    assert isinstance(found, dict)
    assert (found["name"], found["leftover"]) == ("Position", 0)
    shown = found["data"]
    assert shown["lower_bin_id"] <= shown["upper_bin_id"] < shown["lower_bin_id"] + 70
    assert len(shown["liquidity_shares"]) == 70


def test_clmm_creates_a_customizable_pool() -> None:
    found = inspect((LAYOUTS / "10_clmm_create_customizable_pool.json").read_bytes(), programs())
    assert isinstance(found, dict)
    (made,) = [each for each in found["instructions"] if each["program"] == "raydium_clmm"]
    assert made["name"] == "create_customizable_pool"
    assert set(made["args"]) == {"sqrt_price_x64", "collect_fee_on", "enable_dynamic_fee"}


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("raydium_clmm", "open_limit_order"),
        ("raydium_clmm", "settle_limit_order"),
        ("pump", "withdraw"),
        ("pump", "admin_set_creator"),
        ("meteora_cp_amm", "claim_partner_fee"),
        ("meteora_dbc", "protocol_withdraw_surplus"),
    ],
)
def test_an_instruction_that_the_newest_idl_lacks(program: str, name: str) -> None:
    part = programs().by_name[program].instruction(discriminator("global", name) + bytes(200))
    assert part is not None and part.name == name


@pytest.mark.parametrize(("size", "name"), [(173, "LimitOrder"), (81, "LimitOrderNonce")])
def test_clmm_limit_orders_are_told_by_their_size(size: int, name: str) -> None:
    account = programs().by_name["raydium_clmm"].account(bytes(size))
    assert account is not None and (account.name, account.leftover) == (name, 0)
