"""Swaps of Whirlpool, DAMM v1 and Moonshot: by facts from outside, and from made-up events and accounts."""

import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from headrace.decoders.registry import Programs
from headrace.ingest.known import pair_of_pool
from headrace.model.keys import SYSTEM_PROGRAM, WSOL_MINT
from headrace.model.updates import LogsUpdate, TransactionUpdate
from headrace.programs.meanings import Pair, Scene, Swap
from tests.ingest.independent import LAYOUTS, borsh, swap_events
from tests.ingest.mainnet import READERS
from tests.ingest.test_independent_trades import FILES, _updates
from tests.ingest.test_known_trades import messages, new_pipeline

WHIRLPOOL = "whirLbMiicVdio4qvUfM5KAg6Ct8VwpYzGff3uctyCc"
WHIRLPOOL_SWAPS = {"f8c69e91e17587c8": 1, "2b04ed0b1ac91e62": 1, "c360ed6c44a2dbe6": 2, "ba8fd11dfe02c275": 2}
"""Discriminators of `swap`, `swap_v2`, `two_hop_swap` and `two_hop_swap_v2` → their swaps."""

DAMM_V1 = "Eo7WjKq67rjJQSZxS6z3YkapzY3eMj6Xy8X5EQVn5UaB"
DAMM_V1_SWAP = "UWzjvs3QCsSPHnQAAAAAAHs/lNQBAAAAdDsAAAAAAADdDgAAAAAAAAAAAAAAAAAA"
"""The event of a swap on mainnet, public as a test of a parser."""


def with_whirlpool() -> list[tuple[Path, TransactionUpdate]]:
    return [
        (path, update)
        for path in FILES
        for update in _updates(path)
        if update.err is None and any(one.program_id == WHIRLPOOL for one in update.instructions)
    ]


def test_every_whirlpool_swap_instruction_has_its_event_and_its_price() -> None:
    """Within one range of ticks the output is the input without fees times the root prices before and after."""
    priced = 0
    for path, update in with_whirlpool():
        swaps = [WHIRLPOOL_SWAPS.get((one.data or b"")[:8].hex(), 0) for one in update.instructions
                 if one.program_id == WHIRLPOOL]  # fmt: skip
        traded = [event for event in swap_events(update) if event.program == "orca_whirlpool"]
        assert len(traded) == sum(swaps), path
        for event in traded:
            fields = borsh(LAYOUTS["orca_whirlpool", "Traded"], event.body)
            net = fields["input"] - fields["transfer_fee"] - sum(struct.unpack("<QQ", event.body[-16:]))
            square = fields["before"] * fields["after"]
            due = net * square >> 128 if fields["a_to_b"] else (net << 128) // square
            assert abs(due - fields["output"]) <= 1 + due // 10**10, path  # the chain rounds both roots
            priced += 1
    assert priced == 8


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


def test_damm_v1s_input_holds_its_fees() -> None:
    """The pool takes 25 bps: both fees together are that of `in_amount`, and a fifth of them is the protocol's."""
    payload = b64decode(DAMM_V1_SWAP)
    part = Programs.load().by_name["meteora_damm_v1"].event(payload)
    assert part is not None
    fields = part.data
    fees = fields["trade_fee"] + fields["protocol_fee"]
    assert (fields["in_amount"], fields["out_amount"], fees) == (7_609_999, 7_861_452_667, 19_025)
    assert fees == -(-fields["in_amount"] * 25 // 10_000)
    assert fields["protocol_fee"] == fees // 5


@pytest.mark.parametrize(("kind", "first_in"), [("Buy", False), ("Sell", True), (7, None)])
@pytest.mark.parametrize("cost_token", [WSOL_MINT, SYSTEM_PROGRAM])
def test_moonshot_trades_against_what_the_event_names(kind: Any, first_in: bool | None, cost_token: str) -> None:
    fields = {"amount": 9, "collateral_amount": 4, "type": kind, "curve": "C", "sender": "U", "cost_token": cost_token}
    swap = read("moonshot", "TradeEvent", fields, accounts={"mint": "M"})
    assert (swap.first, swap.second, swap.first_in, swap.pool, swap.user) == (9, 4, first_in, "C", "U")
    assert swap.pair == Pair("M", WSOL_MINT)
    assert read("moonshot", "TradeEvent", fields).pair is None


def test_a_moonshot_curve_says_its_mint_and_is_against_sol() -> None:
    for data, pair in (({"mint": "M"}, ("M", WSOL_MINT)), ({}, None)):
        assert pair_of_pool("moonshot", "CurveAccount", data) == pair


def test_log_lines_of_damm_v1_are_events_and_no_trade() -> None:
    lines = LogsUpdate(source="", feed="", received_ns=0, slot=1, signature="s", err=None, logs=(
        f"Program {DAMM_V1} invoke [1]", f"Program data: {DAMM_V1_SWAP}", f"Program {DAMM_V1} success",
    ))  # fmt: skip
    topics = [topic for topic, _ in messages(new_pipeline(), lines)]
    assert "events:meteora_damm_v1" in topics
    assert not [topic for topic in topics if topic.startswith("trades:")]
