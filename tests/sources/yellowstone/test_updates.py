"""Messages of a node become updates: recorded ones as their JSON is read, wrong ones as losses of their feeds."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.keys import b58decode
from headrace.model.updates import AccountUpdate, Instruction, TokenBalance, TransactionUpdate
from headrace.sources.connection import LandedNotice, SignatureNotice, SlotNotice, StatusNotice, Unreadable
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.sources.yellowstone.filters import Filters
from headrace.sources.yellowstone.messages import geyser
from headrace.sources.yellowstone.requests import Requests
from headrace.sources.yellowstone.updates import BlockMeta, InForce, Ping, Reader, Unused, leading_names
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.yellowstone_messages import (
    STATUSES,
    account_message,
    block_meta_message,
    status_message,
    transaction_message,
)
from tests.mainnet import update
from tests.sources.yellowstone.recorded import message_of, recorded

PROGRAM = made_up_key("program")
LOGS, TRANSACTIONS = ChainSubscription("logs", PROGRAM), ChainSubscription("transactions", PROGRAM)
ACCOUNTS = ChainSubscription("program", PROGRAM)
SIGNATURE = ChainSubscription("signature", made_up_signature(1))
WANTED = (SLOTS, LOGS, TRANSACTIONS, ACCOUNTS, SIGNATURE)
NAMES = ("logs.1", "transactions.2", "program.3", "signature.4")

ACCOUNT = AccountUpdate(
    source="yellowstone-0",
    feed=ACCOUNTS.feed,
    received_ns=7,
    slot=1000,
    pubkey=made_up_key("account"),
    owner=PROGRAM,
    lamports=2**64 - 1,
    data=b"\x01\x02",
    executable=True,
    write_version=11,
    signature=made_up_signature(2),
    commitment="processed",
)
TRANSACTION = TransactionUpdate(
    source="yellowstone-0",
    feed=LOGS.feed,
    received_ns=7,
    slot=1000,
    signature=made_up_signature(1),
    err={"InstructionError": [0, {"Custom": 6001}]},
    version=0,
    account_keys=(made_up_key("payer"), PROGRAM, made_up_key("token account")),
    instructions=(
        Instruction(program_id=PROGRAM, accounts=(made_up_key("payer"),), data=b"\x09", path=(0,), stack_height=1),
        Instruction(program_id=PROGRAM, accounts=(), data=b"", path=(0, 0), stack_height=2),
    ),
    logs=("Program log: hello",),
    signers=1,
    fee=5000,
    index=3,
    post_token_balances=(
        TokenBalance(
            account=made_up_key("token account"), mint=made_up_key("mint"), owner=None, amount=2**64 - 1, decimals=6
        ),
    ),
    compute_units=10,
)


def reader(wanted: tuple[ChainSubscription, ...] = WANTED) -> Reader:
    requests = Requests("processed")
    requests.make(wanted, Filters({}))
    return Reader(requests, "yellowstone-0", "processed")


def read(message: Any, *names: str) -> Any:
    message.filters.extend(names)
    return list(reader().read(message.SerializeToString(), 7))


@pytest.mark.parametrize("each", recorded(), ids=lambda each: each.file)
def test_recorded_transactions_are_read_as_from_json(each: Any) -> None:
    (found,) = reader().read(message_of(each.document, ("logs.1",)), 1)
    assert isinstance(found, TransactionUpdate)
    assert msgspec.structs.replace(found, source="test", feed="test", index=None) == msgspec.structs.replace(
        update(each.file), index=None
    )


def test_account_and_transaction_come_back_as_they_were_written() -> None:
    assert read(account_message(ACCOUNT), "program.3") == [ACCOUNT]
    assert read(transaction_message(TRANSACTION), "logs.1") == [TRANSACTION]


def test_one_update_is_delivered_for_each_subscription_that_it_fits() -> None:
    found = read(transaction_message(TRANSACTION), "logs.1", "transactions.2", "signature.4")
    assert found == [
        TRANSACTION,
        msgspec.structs.replace(TRANSACTION, feed=TRANSACTIONS.feed),
        SignatureNotice(1000, SIGNATURE),
    ]


def test_updates_under_former_names_are_left_out() -> None:
    requests = Requests("processed")
    requests.make(WANTED, Filters({}))
    requests.make((SLOTS, TRANSACTIONS), Filters({}))
    message = transaction_message(TRANSACTION)
    message.filters.append("logs.1")
    assert Reader(requests, "s", "processed").read(message.SerializeToString(), 7) == (Unused("transaction"),)


def test_transaction_without_instructions_and_logs_is_to_be_fetched() -> None:
    message = transaction_message(TRANSACTION)
    message.transaction.transaction.meta.inner_instructions_none = True
    message.transaction.transaction.meta.log_messages_none = True
    assert read(message, "transactions.2") == [LandedNotice(1000, TRANSACTIONS, made_up_signature(1))]


def test_slot_statuses() -> None:
    found = {status: read(status_message(9, status, 8), "slots.1") for status in STATUSES}
    assert found == {
        "processed": [InForce(1), SlotNotice(9, 8, 0)],
        "confirmed": [InForce(1), StatusNotice(9, "confirmed", 8)],
        "finalized": [InForce(1), StatusNotice(9, "finalized", 8)],
        "created_bank": [InForce(1), StatusNotice(9, "created_bank", 8)],
        "dead": [InForce(1), StatusNotice(9, "dead", 8)],
        "first_shred": [InForce(1)],
        "completed": [InForce(1)],
    }


def test_unknown_status_is_a_loss_of_slots() -> None:
    message = status_message(9, "dead")
    message.slot.status = 99
    assert read(message, "slots.1") == [InForce(1), Unreadable((SLOTS,), "unknown_status", 9)]


def test_block_meta_and_ping() -> None:
    assert read(block_meta_message(9, "hash", 8), "meta") == [BlockMeta(9, "hash", 8)]
    ping = geyser.SubscribeUpdate()
    ping.ping.SetInParent()
    assert read(ping) == [Ping()]


def test_slot_below_its_parent_is_a_loss() -> None:
    assert read(status_message(9, "processed", 10), "slots.1") == [Unreadable((SLOTS,), "bad_slot")]
    assert read(block_meta_message(2**63, "hash", 10), "meta") == [Unused("bad_slot")]


def _spoilt(**fields: Any) -> Any:
    message = account_message(ACCOUNT)
    for name, value in fields.items():
        setattr(message.account.account, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_spoilt(pubkey=b"short"), "bad_key"),
        (_spoilt(owner=bytes(33)), "bad_key"),
        (_spoilt(txn_signature=bytes(63)), "bad_signature"),
        (_spoilt(data=bytes(10 * 1024 * 1024 + 4097)), "too_large"),
    ],
    ids=["pubkey", "owner", "signature", "data"],
)
def test_wrong_account_is_a_loss_of_its_subscriptions(message: Any, reason: str) -> None:
    assert read(message, "program.3") == [Unreadable((ACCOUNTS,), reason, 1000)]


def test_index_outside_the_keys_is_a_loss() -> None:
    message = transaction_message(TRANSACTION)
    message.transaction.transaction.transaction.message.instructions[0].program_id_index = 200
    assert read(message, "logs.1") == [Unreadable((LOGS,), "bad_index", 1000)]
    message = transaction_message(TRANSACTION)
    message.transaction.transaction.meta.inner_instructions[0].index = 5
    assert read(message, "logs.1") == [Unreadable((LOGS,), "bad_index", 1000)]
    message = transaction_message(TRANSACTION)
    message.transaction.transaction.meta.post_token_balances[0].ui_token_amount.amount = "many"
    assert read(message, "logs.1") == [Unreadable((LOGS,), "bad_shape", 1000)]


def test_update_of_an_unknown_kind_is_a_loss_of_its_subscriptions() -> None:
    raw = geyser.SubscribeUpdate(filters=["logs.1"]).SerializeToString() + bytes([15 << 3 | 2, 2, 8, 1])
    assert list(reader().read(raw, 7)) == [Unreadable((LOGS,), "unknown_kind")]


def test_kinds_without_a_type_are_left_out() -> None:
    message = geyser.SubscribeUpdate()
    message.entry.slot = 7
    assert read(message, "filter.9") == [Unused("entry")]
    message = geyser.SubscribeUpdate()
    message.transaction_status.slot = 7
    assert read(message, "filter.9") == [Unused("transaction_status")]


def test_status_of_a_transaction_has_the_transaction_fetched() -> None:
    def status(slot: int, signature: bytes) -> geyser.SubscribeUpdate:
        message = geyser.SubscribeUpdate()
        message.transaction_status.slot, message.transaction_status.signature = slot, signature
        return message

    signature = made_up_signature(3)
    found = read(status(7, b58decode(signature)), *NAMES[:2])
    assert found == [LandedNotice(7, each, signature) for each in (LOGS, TRANSACTIONS)]
    assert read(status(7, b"short"), NAMES[0]) == [Unreadable((LOGS,), "bad_signature", 7)]
    assert read(status(2**63, b58decode(signature)), NAMES[0]) == [Unreadable((LOGS,), "bad_slot")]


def test_block_is_read_as_its_transactions_and_accounts() -> None:
    message = geyser.SubscribeUpdate()
    message.block.slot = 1000
    message.block.transactions.append(transaction_message(TRANSACTION).transaction.transaction)
    message.block.accounts.append(account_message(ACCOUNT).account.account)
    found = read(message, "logs.1")
    assert found == [TRANSACTION, msgspec.structs.replace(ACCOUNT, feed=LOGS.feed)]


def test_truncated_message_is_a_loss_of_the_subscriptions_that_are_still_named() -> None:
    message = transaction_message(TRANSACTION)
    message.filters.extend(("logs.1", "transactions.2"))
    raw = message.SerializeToString()
    whole = leading_names(raw)
    assert whole == ["logs.1", "transactions.2"]
    for size in range(1, len(raw)):
        found = reader().read(raw[:size], 7)
        for each in found:
            assert isinstance(each, Unreadable | Unused | LandedNotice | TransactionUpdate)
        if size > len("logs.1") + len("transactions.2") + 4 and isinstance(found[0], Unreadable):
            assert found[0].subscriptions == (LOGS, TRANSACTIONS)
        elif size < len("logs.1") + 2:
            assert found == (Unreadable(WANTED, "not_protobuf"),)


@given(st.binary(max_size=300))
def test_no_bytes_raise(raw: bytes) -> None:
    assert reader().read(raw, 7) is not None


@given(st.integers(0, 5000), st.integers(0, 255))
def test_no_changed_byte_raises(place: int, value: int) -> None:
    message = transaction_message(TRANSACTION)
    message.filters.append("logs.1")
    raw = bytearray(message.SerializeToString())
    raw[place % len(raw)] = value
    for each in reader().read(bytes(raw), 7):
        assert each is not None


@given(st.sampled_from(recorded()), st.integers(0, 100_000))
def test_recorded_transaction_cut_anywhere_is_a_loss_or_shorter(each: Any, place: int) -> None:
    raw = message_of(each.document, ("logs.1",))
    (found,) = reader().read(raw[: place % len(raw)], 1)
    assert isinstance(found, Unreadable | TransactionUpdate | LandedNotice | Unused)


def test_keys_are_those_of_the_wire() -> None:
    (found,) = read(account_message(ACCOUNT), "program.3")
    assert b58decode(found.pubkey) == b58decode(ACCOUNT.pubkey)
