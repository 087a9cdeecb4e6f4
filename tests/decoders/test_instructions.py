"""Instructions with names, on real transactions, and for programs without an IDL."""

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from headrace.decoders import native
from headrace.decoders.instructions import EVENT_CALL, arguments_of, instructions_of
from headrace.model.events import NamedInstruction
from headrace.model.keys import b58encode
from headrace.model.updates import Instruction
from tests.mainnet import Entry, entries, entry, programs, update

SYSTEM = "11111111111111111111111111111111"
BUDGET = "ComputeBudget111111111111111111111111111111"


def _of(start: str) -> list[NamedInstruction]:
    return instructions_of(update(entry(start).file), programs())


def _arguments(start: str, path: tuple[int, ...]) -> dict[str, Any]:
    return next(arguments_of(each, programs()) for each in update(entry(start).file).instructions if each.path == path)


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_every_real_instruction_keeps_its_place_and_accounts(each: Entry) -> None:
    told = update(each.file)
    decoded = instructions_of(told, programs())
    assert [found.path for found in decoded] == [instruction.path for instruction in told.instructions]
    assert [tuple(found.accounts.values()) for found in decoded] == [each.accounts for each in told.instructions]


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_the_trading_instructions_are_those_that_the_index_names(each: Entry) -> None:
    found = Counter(f"{each.program}.{each.name}" for each in instructions_of(update(each.file), programs()))
    for name, count in each.facts.get("instructions", {}).items():
        name = name.removesuffix("(not in npm IDL)").replace("meteora_damm_v2", "meteora_cp_amm")
        if not name.startswith("spl_token"):
            assert found[name] == count


def test_a_sell_value_by_value() -> None:
    sell = next(each for each in _of("2KBsKB7x") if each.program == "pump")
    assert (sell.name, sell.path) == ("sell_v2", (1, 0))
    assert _arguments("2KBsKB7x", sell.path) == {"amount": "70135987937292", "min_sol_output": "1"}
    assert len(sell.accounts) == 26
    assert sell.accounts["base_mint"] == "Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump"
    assert sell.accounts["user"] == "2GBkFfJwjMkFTNvng4eUKgGi2reR7MxcPVWye8ai8pvU"


def test_accounts_beyond_the_idl_are_numbered() -> None:
    swap = next(each for each in _of("4ARos3Yq") if each.program == "raydium_clmm")
    names = list(swap.accounts)
    assert names[:2] == ["payer", "amm_config"]
    assert names[13:] == [f"remaining_{n}" for n in range(len(names) - 13)]
    assert len(names) > 13


def test_an_event_call_is_named_so() -> None:
    calls = [each for each in _of("2KBsKB7x") if each.name == EVENT_CALL]
    assert [(each.program, list(each.accounts)) for each in calls] == [("pump", ["event_authority"])]
    assert _arguments("2KBsKB7x", calls[0].path) == {}


def test_a_program_without_an_idl_shows_its_bytes() -> None:
    route = _of("2KBsKB7x")[1]
    assert (route.program, route.name) == ("rapidV5DAKtecYzetwCNoxXWHpezjeg4hGt9BGiVcGW", None)
    assert _arguments("2KBsKB7x", route.path) == {"data": "2hL4k5xnACbbQ65FoLQWjAen6caAtMPR4ZL9e5LAjfuXro"}
    assert list(route.accounts)[:2] == ["remaining_0", "remaining_1"]


def test_long_unknown_data_is_not_turned_into_base58() -> None:
    told = update(entry("2KBsKB7x").file)
    long = replace(told.instructions[1], data=bytes(10_240))
    assert list(arguments_of(long, programs())) == ["base64"]


def test_what_a_node_parsed_keeps_the_names_of_the_node() -> None:
    transfer = _of("2RoRJxat")[0]
    assert (transfer.program, transfer.name, transfer.accounts) == ("system_program", "transfer", {})
    assert _arguments("2RoRJxat", transfer.path)["lamports"] == 3000000


KEY = b58encode(b"\x11" * 32)


@pytest.mark.parametrize(
    ("program_id", "data", "expected"),
    [
        (SYSTEM, "02000000" + "40420f0000000000", ("transfer", {"lamports": "1000000"})),
        (
            SYSTEM,
            "00000000" + "01" + "00" * 7 + "a5" + "00" * 7 + "11" * 32,
            ("create_account", {"lamports": "1", "space": "165", "owner": KEY}),
        ),
        (SYSTEM, "02000000" + "40", ("transfer", None)),
        (SYSTEM, "01000000" + "11" * 32, ("assign", {"owner": KEY})),
        (SYSTEM, "01000000" + "11" * 31, ("assign", None)),
        (
            SYSTEM,
            "0b000000" + "01" + "00" * 7 + "02" + "00" * 7 + "676d" + "11" * 32,
            ("transfer_with_seed", {"lamports": "1", "seed": "gm", "from_owner": KEY}),
        ),
        (SYSTEM, "0b000000" + "01" + "00" * 7 + "ff" * 8 + "676d", ("transfer_with_seed", None)),
        (SYSTEM, "04000000", ("advance_nonce_account", {})),
        (SYSTEM, "ff000000", None),
        (SYSTEM, "ffffffff", None),
        (BUDGET, "02" + "400d0300", ("set_compute_unit_limit", {"units": 200000})),
        (BUDGET, "03" + "a086010000000000", ("set_compute_unit_price", {"micro_lamports": "100000"})),
        (BUDGET, "", ("request_units", None)),
        ("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL", "", ("create", {})),
        ("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL", "01", ("create_idempotent", {})),
        ("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr", "676d", ("memo", {"text": "gm"})),
        ("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr", "ff", ("memo", {"text": "\ufffd"})),
        ("Vote111111111111111111111111111111111111111", "0c000000", None),
        ("2GBkFfJwjMkFTNvng4eUKgGi2reR7MxcPVWye8ai8pvU", "02000000", None),
    ],
)
def test_programs_of_the_runtime(program_id: str, data: str, expected: tuple[str, Any] | None) -> None:
    found = native.command(program_id, bytes.fromhex(data))
    assert (None if found is None else (found.name, found.args)) == expected
    named = native.command_name(program_id, bytes.fromhex(data))
    assert named == (None if found is None else (found.name, found.accounts))


@pytest.mark.parametrize("parsed", [None, {}, {"type": 5}, {"type": "x", "info": [1]}, {"info": "gm"}])
def test_parsed_instructions_of_any_form(parsed: dict[str, object] | None) -> None:
    one = Instruction(program_id=SYSTEM, accounts=(), data=None, path=(0,), parsed=parsed)
    told = replace(update(entry("2RoRJxat").file), instructions=(one,))
    assert len(instructions_of(told, programs())) == 1
    assert isinstance(arguments_of(one, programs()), dict)
