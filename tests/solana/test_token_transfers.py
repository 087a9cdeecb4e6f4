"""Transfers of tokens: held against the balances of recorded transactions, and each kind of instruction by itself."""

from collections import Counter as Count
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.keys import TOKEN_2022_PROGRAM, TOKEN_PROGRAM, WSOL_MINT
from headrace.model.transfers import TokenTransfer
from headrace.model.updates import Instruction, TokenBalance, TransactionUpdate
from headrace.solana.token_transfers import token_transfers
from tests import mainnet
from tests.examples import examples

PROGRAMS = {TOKEN_PROGRAM, TOKEN_2022_PROGRAM}
LANDED = [each.file for each in mainnet.entries() if each.kind != "simulation"]
WRAPPING = {1, 9, 16, 17, 18}
"""Instructions by which the balance of wrapped SOL changes without a transfer: open, close, sync."""


def wrapped(update: TransactionUpdate) -> set[str]:
    """The accounts whose balance is made of lamports by an instruction of this transaction."""
    found = set()
    for each in update.instructions:
        parsed: dict[str, Any] = each.parsed or {}
        named = str(parsed.get("type", "")).startswith(("sync", "close", "initialize"))
        if each.program_id in PROGRAMS and (named or (each.data and each.data[0] in WRAPPING)):
            found |= {*each.accounts[:1], *map(str, parsed.get("info", {}).values())}
    return found


def changes(update: TransactionUpdate) -> dict[str, int]:
    """The change of each account's balance by the nodes' own account."""
    found = Count[str]()
    for held in update.post_token_balances:
        found[held.account] += held.amount
    for held in update.pre_token_balances:
        found[held.account] -= held.amount
    return found


def moved(transfers: Sequence[TokenTransfer]) -> dict[str, int]:
    """The change of each account's balance by the transfers."""
    found = Count[str]()
    for each in transfers:
        if each.source is not None:
            found[each.source] -= each.amount
        if each.destination is not None:
            found[each.destination] += each.amount - (each.fee or 0)
    return found


@pytest.mark.parametrize("file", LANDED)
def test_transfers_add_up_to_the_recorded_change_of_every_balance(file: str) -> None:
    update = mainnet.update(file)
    transfers = token_transfers(update)
    if update.err is not None:
        assert transfers == []
        return
    skipped, by_transfers = wrapped(update), moved(transfers)
    mints = {held.account: held.mint for held in (*update.pre_token_balances, *update.post_token_balances)}
    for account, change in changes(update).items():
        if not (mints[account] == WSOL_MINT and account in skipped):
            incoming = [each.fee for each in transfers if each.destination == account]
            if None in incoming:  # several transfers with a fee that no instruction names
                assert len(incoming) > 1
                assert change < by_transfers[account]
            else:
                assert by_transfers.get(account, 0) == change, account
    for each in transfers:
        assert each.mint is not None
        ends = [end for end in (each.source, each.destination) if end is not None]
        assert {mints.get(end, each.mint) for end in ends} == {each.mint}
    assert [each.path for each in transfers] == sorted(each.path for each in transfers)


def test_recorded_transactions_have_transfers_of_both_programs() -> None:
    found = Count(each.program_id for file in LANDED for each in token_transfers(mainnet.update(file)))
    assert found[TOKEN_PROGRAM] > 50
    assert found[TOKEN_2022_PROGRAM] > 5
    unnamed = [each for file in LANDED for each in token_transfers(mainnet.update(file)) if each.fee is None]
    assert len(unnamed) == 9


def token_instruction(data: bytes, *accounts: str, program: str = TOKEN_2022_PROGRAM, **more: Any) -> Instruction:
    return Instruction(program_id=program, accounts=accounts, data=data, path=(0,), **more)


def executed(*instructions: Instruction, pre: dict[str, int], post: dict[str, int]) -> TransactionUpdate:
    def held(amounts: dict[str, int]) -> tuple[TokenBalance, ...]:
        return tuple(
            TokenBalance(account=account, mint="mint", owner=f"{account}'s owner", amount=amount, decimals=6)
            for account, amount in amounts.items()
        )

    return TransactionUpdate(
        source="test", feed="test", received_ns=1, slot=1, signature="s", err=None, version=0, account_keys=(),
        instructions=instructions, logs=(), pre_token_balances=held(pre), post_token_balances=held(post),
    )  # fmt: skip


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_fee_named_by_the_instruction_is_the_fee() -> None:
    data = bytes([26, 1]) + u64(1_000) + bytes([6]) + u64(30)
    update = executed(token_instruction(data, "a", "mint", "b", "owner"), pre={"a": 1_000}, post={"a": 0, "b": 970})
    assert token_transfers(update) == [
        TokenTransfer(
            (0,), 0, "transfer", TOKEN_2022_PROGRAM, "mint", 6, "a", "a's owner", "b", "b's owner", 1_000, 30, "owner"
        )
    ]


@pytest.mark.parametrize(("post", "fee"), [({"b": 970}, 30), ({"b": 1_000}, 0), ({"b": 1_001}, None), ({}, None)])
def test_withheld_fee_is_what_came_and_is_not_in_the_balance(post: dict[str, int], fee: int | None) -> None:
    data = bytes([12]) + u64(1_000) + bytes([6])
    update = executed(token_instruction(data, "a", "mint", "b", "owner"), pre={"a": 1_000}, post={"a": 0, **post})
    (transfer,) = token_transfers(update)
    assert (transfer.amount, transfer.fee) == (1_000, fee)


def test_fees_of_two_transfers_to_one_account_are_not_guessed() -> None:
    data = bytes([12]) + u64(500) + bytes([6])
    twice = [token_instruction(data, source, "mint", "b", "owner") for source in "ac"]
    update = executed(*twice, pre={"a": 500, "c": 500}, post={"a": 0, "c": 0, "b": 970})
    assert [each.fee for each in token_transfers(update)] == [None, None]


def test_batch_of_p_token_holds_several_transfers() -> None:
    one, two = bytes([3]) + u64(7), bytes([12]) + u64(9) + bytes([6])
    data = bytes([255, 3, len(one)]) + one + bytes([4, len(two)]) + two
    batch = token_instruction(data, "a", "b", "owner", "b", "mint", "c", "other", program=TOKEN_PROGRAM)
    update = executed(batch, pre={"a": 10, "b": 10}, post={"a": 3, "b": 8, "c": 9})
    found = [(each.ordinal, each.source, each.destination, each.amount, each.fee) for each in token_transfers(update)]
    assert found == [(0, "a", "b", 7, 0), (1, "b", "c", 9, 0)]


def test_mint_and_burn_have_one_side() -> None:
    update = executed(
        token_instruction(bytes([7]) + u64(5), "mint", "a", "authority"),
        token_instruction(bytes([15]) + u64(3) + bytes([6]), "a", "mint", "owner"),
        pre={},
        post={"a": 2},
    )
    found = [(each.kind, each.source, each.destination, each.amount, each.fee) for each in token_transfers(update)]
    assert found == [("mint", None, "a", 5, 0), ("burn", "a", None, 3, 0)]


def test_parsed_instructions_are_read_like_bytes() -> None:
    info = {"source": "a", "destination": "b", "mint": "mint", "authority": "o", "tokenAmount": {"amount": "9"}}
    parsed = msgspec.structs.replace(
        token_instruction(b"", program=TOKEN_PROGRAM), data=None, parsed={"type": "transferChecked", "info": info}
    )
    whole = token_instruction(bytes([12]) + u64(9) + bytes([6]), "a", "mint", "b", "o", program=TOKEN_PROGRAM)
    balances = {"pre": {"a": 9}, "post": {"a": 0, "b": 9}}
    assert token_transfers(executed(parsed, **balances)) == token_transfers(executed(whole, **balances))


def test_failed_transaction_transfers_nothing() -> None:
    data = bytes([3]) + u64(7)
    update = executed(token_instruction(data, "a", "b", "owner"), pre={"a": 7}, post={"a": 7})
    assert token_transfers(update) != []
    assert token_transfers(msgspec.structs.replace(update, err="AccountNotFound")) == []


@given(st.lists(st.tuples(st.binary(max_size=40), st.lists(st.sampled_from("abcd"), max_size=6)), max_size=4))
@settings(max_examples=examples(200))
def test_any_bytes_are_read_or_left_out(instructions: list[tuple[bytes, list[str]]]) -> None:
    made = [token_instruction(data, *accounts) for data, accounts in instructions]
    for each in token_transfers(executed(*made, pre={"a": 1}, post={"b": 1})):
        assert 0 <= each.amount < 2**64
        assert each.fee is None or 0 <= each.fee <= each.amount
