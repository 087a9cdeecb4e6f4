"""Built swaps have the accounts that the programs' IDLs name, in their order and with their rights."""

import json
from typing import Any, Final

import pytest

from headrace.model.keys import WSOL_MINT
from headrace.model.transactions import Instruction
from headrace.programs import SHIPPED
from headrace.programs.curves import CURVES
from headrace.programs.quoting import TOKEN_PROGRAM
from headrace.programs.swapping import Order, token_account
from headrace.programs.swaps import SWAPS, instructions
from tests.mainnet import programs
from tests.programs.sets import names, pool

USER: Final = "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"
IN_IDL: Final = ("raydium_cpmm", "raydium_clmm", "raydium_launchlab", "meteora_dlmm", "meteora_cp_amm")
"""Venues whose swaps are instructions of their IDL; the others' newer forms are in none."""
SETS: Final = [name for name in names() if pool(name).venue in IN_IDL]
OPTIONAL: Final = ("bin_array_bitmap_extension", "referral_token_account", "host_fee_in")


def built(name: str, number: int, *, exact_out: bool = False) -> Instruction:
    """A swap of the pool's first or second mint."""
    given = pool(name)
    quote = given.quote(given.mints[number], 10**4 if given.venue == "raydium_launchlab" else 10**9)
    order = Order(quote=quote, user=USER, limit=7, exact_out=exact_out)
    return SWAPS[given.venue].build(order, given.accounts)


def interface(venue: str, name: str) -> dict[str, Any]:
    """An instruction of the venue's IDL."""
    idl = json.loads((SHIPPED / venue / "idl.json").read_text())
    found: dict[str, Any] = next(each for each in idl["instructions"] if each["name"] == name)
    return found


def test_every_program_that_quotes_also_swaps() -> None:
    assert set(CURVES) == set(SWAPS)


@pytest.mark.parametrize("exact_out", [False, True])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", SETS)
def test_accounts_are_those_of_the_idl_with_the_same_rights(name: str, number: int, exact_out: bool) -> None:
    given = pool(name)
    instruction = built(name, number, exact_out=exact_out)
    decoded = programs().instruction(instruction.program_id, instruction.data)
    assert decoded is not None
    assert decoded.leftover == 0
    for meta, wanted in zip(instruction.accounts, interface(given.venue, decoded.name)["accounts"], strict=False):
        if wanted["name"] in OPTIONAL and meta.pubkey == instruction.program_id:
            continue
        assert meta.signer == wanted.get("signer", False), wanted["name"]
        assert meta.writable or not wanted.get("writable", False), wanted["name"]
        assert wanted.get("address", meta.pubkey) == meta.pubkey or wanted["name"].endswith("token_program")
    known = programs().by_id[instruction.program_id].instruction_names(instruction.data)
    assert known is not None
    by_name = dict(zip(known.of_accounts(len(instruction.accounts)), instruction.accounts, strict=False))
    fields = given.accounts[given.key].fields
    for named, meta in by_name.items():
        if isinstance(fields.get(named), str):
            assert meta.pubkey == fields[named], named


@pytest.mark.parametrize("name", SETS)
def test_the_users_accounts_are_the_associated_ones_in_the_order_of_the_swap(name: str) -> None:
    given = pool(name)
    for number in (0, 1):
        keys = [meta.pubkey for meta in built(name, number).accounts]
        mine = [token_account(USER, mint, given.accounts) for mint in given.mints]
        assert set(mine) <= set(keys)
        if given.venue != "raydium_launchlab":  # there the base account comes first, whatever goes in
            assert keys.index(mine[number]) < keys.index(mine[1 - number])


@pytest.mark.parametrize("name", [name for name in names() if WSOL_MINT in pool(name).mints])
def test_sol_is_wrapped_where_the_program_takes_no_lamports(name: str) -> None:
    given = pool(name)
    quote = given.quote(WSOL_MINT, 10**6)
    all_of_them = instructions(given.venue, Order(quote=quote, user=USER, limit=1), given.accounts)
    wrapping = [each for each in all_of_them if each.program_id == TOKEN_PROGRAM]
    assert len(wrapping) == (0 if given.venue == "pump" else 2)
    core = [each for each in all_of_them if each.program_id == SWAPS[given.venue].program]
    assert len(core) == 1
