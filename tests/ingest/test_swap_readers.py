"""Swaps of Whirlpool against the transfers inside them; of DAMM v1 and Moonshot from made-up events and accounts."""

from typing import Any

import pytest

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.ingest.swaps import READERS, Pair, Scene, Swap
from headrace.model.keys import WSOL_MINT
from tests.mainnet import Entry, entries, programs, update

WITH_TRADED = [each for each in entries() if "orca_whirlpool.Traded(log)" in each.facts["events"]]


def moved(args: dict[str, Any]) -> int:
    """The amount of a transfer, as our layout or the node names it."""
    return int(args["amount"] if "amount" in args else args["tokenAmount"]["amount"])


@pytest.mark.parametrize("each", WITH_TRADED, ids=lambda each: each.file)
def test_a_whirlpools_amounts_are_the_transfers_inside_its_swap(each: Entry) -> None:
    whole = update(each.file)
    instructions = instructions_of(whole, programs())
    swaps = [event for event in events_of(whole, programs(), failed=True) if event.name == "Traded"]
    assert swaps
    for event in swaps:
        at = next(n for n, one in enumerate(instructions) if one.path == event.path)
        swap = READERS["orca_whirlpool", "Traded"](event.data, Scene(accounts=instructions[at].accounts))
        assert swap is not None
        transfers = [moved(one.args) for one in instructions[at + 1 : at + 3] if one.name == "transferChecked"]
        sides = (swap.first, swap.second) if swap.first_in else (swap.second, swap.first)
        if "yellowstone" not in each.file:  # the accounts of its inner instructions are cut
            assert list(sides) == transfers
        assert swap.pair == Pair(instructions[at].accounts["token_mint_a"], instructions[at].accounts["token_mint_b"])
        assert swap.user == instructions[at].accounts["token_authority"]
        assert instructions[at].args["a_to_b"] == swap.first_in


def read(program: str, event: str, fields: dict[str, Any], **scene: Any) -> Swap:
    swap = READERS[program, event](fields, Scene(**scene))
    assert swap is not None
    return swap


TRADED = {"whirlpool": "P1", "a_to_b": True, "input_amount": 100, "input_transfer_fee": 3, "output_amount": 50}


@pytest.mark.parametrize(
    ("accounts", "pair", "holders"),
    [
        ({"whirlpool": "P1", "token_mint_a": "A", "token_mint_b": "B"}, Pair("A", "B"), ((None,), (None,))),
        ({"whirlpool": "P1", "token_vault_a": "VA", "token_vault_b": "VB"}, None, (("VA",), ("VB",))),
        (
            {"whirlpool_one": "P1", "whirlpool_two": "P2", "token_vault_one_a": "VA", "token_vault_one_b": "VB"},
            None,
            (("VA",), ("VB",)),
        ),
        (
            {"whirlpool_one": "P2", "whirlpool_two": "P1", "token_mint_intermediate": "M", "token_mint_output": "O"},
            Pair("M", "O"),
            ((), ()),
        ),
        ({}, None, ((None,), (None,))),
    ],
)
def test_a_whirlpools_mints_by_each_instruction(
    accounts: dict[str, str], pair: Pair | None, holders: tuple[tuple[str | None, ...], ...]
) -> None:
    swap = read("orca_whirlpool", "Traded", TRADED, accounts=accounts)
    assert (swap.first, swap.second, swap.first_in, swap.pool) == (97, 50, True, "P1")
    assert (swap.pair, swap.holders) == (pair, holders)


def test_the_second_hop_of_b_to_a_names_its_mints_the_other_way_round() -> None:
    accounts = {"whirlpool_one": "P2", "whirlpool_two": "P1", "token_mint_intermediate": "M", "token_mint_output": "O"}
    assert read("orca_whirlpool", "Traded", {**TRADED, "a_to_b": False}, accounts=accounts).pair == Pair("O", "M")


DAMM_ACCOUNTS = {
    "pool": "P", "user": "U", "a_token_vault": "VA", "b_token_vault": "VB", "user_source_token": "S",
    "user_destination_token": "D", "protocol_token_fee": "F",
}  # fmt: skip


@pytest.mark.parametrize(
    ("mints", "first_in"),
    [
        ({"VA": "A", "VB": "B", "S": "A"}, True),
        ({"VA": "A", "VB": "B", "S": "B"}, False),
        ({"VA": "A", "VB": "B", "F": "B"}, False),
        ({"VA": "A", "VB": "B", "D": "B"}, True),
        ({"VA": "A", "VB": "B", "D": "A"}, False),
        ({"VA": "A", "VB": "B"}, None),
        ({"S": "A"}, None),
        ({}, None),
    ],
)
def test_the_direction_of_damm_v1_follows_from_the_mints(mints: dict[str, str], first_in: bool | None) -> None:
    swap = read("meteora_damm_v1", "Swap", {"in_amount": 7, "out_amount": 5}, accounts=DAMM_ACCOUNTS, mints=mints)
    amounts = {True: (7, 5), False: (5, 7), None: (None, None)}[first_in]
    assert (swap.first, swap.second, swap.first_in) == (*amounts, first_in)
    assert (swap.pool, swap.user) == ("P", "U")


@pytest.mark.parametrize(("kind", "first_in"), [("Buy", False), ("Sell", True), (7, None)])
def test_moonshot_trades_against_sol(kind: Any, first_in: bool | None) -> None:
    fields = {"amount": 7, "collateral_amount": 5, "curve": "C", "sender": "U", "type": kind}
    swap = read("moonshot", "TradeEvent", fields, accounts={"mint": "M"})
    assert (swap.first, swap.second, swap.first_in) == (7, 5, first_in)
    assert (swap.pool, swap.user, swap.pair) == ("C", "U", Pair("M", WSOL_MINT))


@pytest.mark.parametrize("key", [key for key in READERS if key[0] in ("orca_whirlpool", "moonshot", "meteora_damm_v1")])
def test_an_empty_event_is_no_error(key: tuple[str, str]) -> None:
    assert READERS[key]({}, Scene()) is not None
