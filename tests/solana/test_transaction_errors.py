"""Errors in bincode read as JSON-RPC writes them."""

import struct

import pytest
from solders.transaction_status import InstructionErrorFieldless, TransactionErrorFieldless

from headrace.solana import transaction_errors
from headrace.solana.transaction_errors import transaction_error


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (struct.pack("<IBII", 8, 2, 25, 6001), {"InstructionError": [2, {"Custom": 6001}]}),
        (struct.pack("<IBI", 8, 0, 1), {"InstructionError": [0, "InvalidArgument"]}),
        (struct.pack("<I", 7), "BlockhashNotFound"),
        (struct.pack("<IB", 30, 3), {"DuplicateInstruction": 3}),
        (struct.pack("<IB", 31, 4), {"InsufficientFundsForRent": {"account_index": 4}}),
        (struct.pack("<IB", 35, 5), {"ProgramExecutionTemporarilyRestricted": {"account_index": 5}}),
        (b"", {"bincode": ""}),
        (struct.pack("<I", 30), {"bincode": "1e000000"}),
        (struct.pack("<IBI", 8, 2, 25), {"bincode": "080000000219000000"}),
        (struct.pack("<I", 99), {"bincode": "63000000"}),
        (struct.pack("<IBI", 8, 2, 99), {"bincode": "080000000263000000"}),
    ],
)
def test_bincode_errors_are_read_as_json_rpc_writes_them(raw: bytes, error: object) -> None:
    assert transaction_error(raw) == error


def test_the_names_are_those_of_solders_and_instruction_errors_come_in_its_order() -> None:
    named = [name for name in transaction_errors._TRANSACTION if hasattr(TransactionErrorFieldless, name)]
    carrying = {"InstructionError", "DuplicateInstruction", *transaction_errors._OF_AN_ACCOUNT}
    assert set(transaction_errors._TRANSACTION) - set(named) == carrying
    plain = [name for name in transaction_errors._INSTRUCTION if name not in ("Custom", "BorshIoError")]
    assert [int(getattr(InstructionErrorFieldless, name)) for name in plain] == list(range(len(plain)))
