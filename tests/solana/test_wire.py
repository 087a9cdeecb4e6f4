"""Wire bytes: real transactions of every version are read as solders reads them, spoiled ones are refused."""

from typing import Any

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.transaction import VersionedTransaction

from headrace.model.errors import BadInputError
from headrace.solana.wire import SIZE_MAX, WireTransaction, parse_wire
from tests.mainnet import entries


def _wires() -> list[bytes]:
    found = []
    for each in entries():
        document: Any = each.document
        told = document.get("wire") or document.get("result", {}).get("transaction")
        if isinstance(told, list):
            told = told[0]
        if isinstance(told, str):
            found.append(pybase64.b64decode(told))
    return found


WIRES = _wires()


def _as_solders_has_it(raw: bytes) -> Any:
    """None where solders refuses, in whichever way it does."""
    try:
        return _from_solders(VersionedTransaction.from_bytes(raw))
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return None


def _from_solders(told: Any) -> Any:
    version = str(told.version())
    message = told.message
    return (
        version if version.isdigit() else "legacy",
        tuple(bytes(each) for each in told.signatures),
        message.header.num_required_signatures,
        tuple(map(str, message.account_keys)),
        [(each.program_id_index, bytes(each.accounts), bytes(each.data)) for each in message.instructions],
    )


def _comparable(told: WireTransaction) -> Any:
    return (
        str(told.version),
        told.signatures,
        told.signers,
        told.keys,
        [(each.program_index, each.accounts, each.data) for each in told.instructions],
    )


def test_recorded_transactions_have_every_version() -> None:
    assert {parse_wire(raw).version for raw in WIRES} == {"legacy", 0, 1}


@pytest.mark.parametrize("raw", WIRES)
def test_real_bytes_are_read_as_by_solders(raw: bytes) -> None:
    assert _comparable(parse_wire(raw)) == _as_solders_has_it(raw)


@given(st.sampled_from(WIRES), st.data())
def test_spoiled_bytes_are_refused_or_mean_what_solders_says(raw: bytes, data: st.DataObject) -> None:
    spoiled = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    spoiled = spoiled[: data.draw(st.integers(0, len(spoiled)))] if data.draw(st.booleans()) else spoiled
    try:
        told = parse_wire(bytes(spoiled))
    except BadInputError:
        return
    theirs = _as_solders_has_it(bytes(spoiled))
    if theirs is not None and told.keys:
        assert _comparable(told) == theirs


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse_wire(raw)
    except BadInputError as error:
        assert error.reason == "bad_wire"


@pytest.mark.parametrize("raw", [WIRES[0], WIRES[-1]])
def test_bytes_that_end_early_or_late_are_refused(raw: bytes) -> None:
    for end in range(len(raw)):
        with pytest.raises(BadInputError):
            parse_wire(raw[:end])
    with pytest.raises(BadInputError, match="after the end"):
        parse_wire(raw + b"\0")


def test_more_bytes_than_any_transaction_has_are_refused() -> None:
    with pytest.raises(BadInputError) as caught:
        parse_wire(bytes(SIZE_MAX + 1))
    assert caught.value.reason == "too_large"


def test_a_version_of_the_future_gives_its_number_only() -> None:
    raw = next(raw for raw in WIRES if raw[0] == 0x81)
    assert parse_wire(b"\x82" + raw[1:]) == WireTransaction(version=2)
    raw = next(raw for raw in WIRES if raw[0] == 1 and raw[65] == 0x80)
    told = parse_wire(raw[:65] + b"\x83" + raw[66:])
    assert told == WireTransaction(version=3, signatures=(raw[1:65],))


def test_a_length_is_written_in_one_way_only() -> None:
    """compact-u16 has no needless bytes, or the same transaction could be written in several ways."""
    raw = next(raw for raw in WIRES if raw[0] == 1 and raw[65] < 0x80)
    count = raw[68]
    for needless in (bytes([count | 0x80, 0]), bytes([count | 0x80, 0x80, 0])):
        spoiled = raw[:68] + needless + raw[69:]
        assert _as_solders_has_it(spoiled) is None
        with pytest.raises(BadInputError, match="no compact-u16"):
            parse_wire(spoiled)
