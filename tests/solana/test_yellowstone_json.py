"""Yellowstone updates as JSON: every way to print bytes, envelopes, versions, and what is refused."""

import copy
from typing import Any

import based58
import pybase64
import pytest

from headrace.model.errors import BadInputError
from headrace.model.keys import b58encode
from headrace.solana.yellowstone_json import account_from_yellowstone_json, transaction_from_yellowstone_json
from tests.mainnet import STAMP, entries, entry, update

DLMM = "2DfsmTYv"


def _read(document: Any) -> Any:
    return transaction_from_yellowstone_json(document, **STAMP)


def _rewritten(value: Any, how: str) -> Any:
    """Every run of bytes in another form; short lists of indexes too, as they are bytes fields in the protocol."""
    if isinstance(value, dict):
        keep = {"preBalances", "postBalances"}
        return {name: each if name in keep else _rewritten(each, how) for name, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, int) for each in value) and value:
        raw = bytes(value)
        return {"type": "Buffer", "data": value} if how == "buffer" else pybase64.b64encode_as_string(raw)
    return [_rewritten(each, how) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("how", ["buffer", "base64"])
@pytest.mark.parametrize("each", [e for e in entries() if e.kind == "yellowstone_txupdates"], ids=lambda e: e.file)
def test_bytes_are_read_however_they_are_printed(each: Any, how: str) -> None:
    assert _read(_rewritten(each.document, how)) == update(each.file)


def test_keys_and_signature_in_base58_base64_or_numbers() -> None:
    document = entry(DLMM).document
    keys = document["transaction"]["transaction"]["message"]["accountKeys"]
    keys[0] = based58.b58encode(bytes(keys[0])).decode()
    raw = based58.b58decode(document["transaction"]["signature"].encode())
    for signature in (list(raw), pybase64.b64encode_as_string(raw), {"type": "Buffer", "data": list(raw)}):
        document["transaction"]["signature"] = signature
        assert _read(document) == update(entry(DLMM).file)


def test_a_subscribe_update_with_numbers_as_text_is_read() -> None:
    document = entry(DLMM).document
    document["slot"] = str(document["slot"])
    document["transaction"]["meta"]["fee"] = "5000"
    document["transaction"]["index"] = "0"
    assert _read({"filters": ["x"], "transaction": document, "createdAt": "…"}) == update(entry(DLMM).file)


def test_looked_up_keys_are_counted_after_the_static_ones() -> None:
    told = update(entry("5LzhiGZB").file)
    assert len(told.account_keys) == 23
    assert any(set(each.accounts) & set(told.account_keys[15:]) for each in told.instructions)


@pytest.mark.parametrize(("message", "version"), [({"versioned": True}, 0), ({"config": {}}, 1), ({}, "legacy")])
def test_the_version_follows_the_message(message: dict[str, Any], version: object) -> None:
    document = entry(DLMM).document
    document["transaction"]["transaction"]["message"].update(message)
    assert _read(document).version == version


def test_an_error_reads_as_json_rpc_writes_it() -> None:
    document = entry(DLMM).document
    document["transaction"]["meta"]["err"] = {"err": [8, 0, 0, 0, 2, 25, 0, 0, 0, 0x71, 0x17, 0, 0]}
    assert _read(document).err == {"InstructionError": [2, {"Custom": 6001}]}
    document["transaction"]["meta"]["err"] = {"err": [8, 0, 0, 0, 2]}
    assert _read(document).err == {"bincode": "0800000002"}


@pytest.mark.parametrize("enveloped", [False, True])
def test_an_account_update_is_read(enveloped: bool) -> None:
    account = {"pubkey": [7] * 32, "owner": pybase64.b64encode_as_string(b"\x08" * 32), "lamports": "5", "data": "AQID"}
    told: Any = {"account": {**account, "writeVersion": "9"}, "slot": "12", "isStartup": False}
    read = account_from_yellowstone_json({"filters": [], "account": told} if enveloped else told, **STAMP)
    assert (read.pubkey, read.owner) == (b58encode(b"\x07" * 32), b58encode(b"\x08" * 32))
    assert (read.slot, read.lamports, read.data) == (12, 5, b"\1\2\3")
    with pytest.raises(BadInputError):
        account_from_yellowstone_json({"account": {**account, "owner": [1]}, "slot": 1}, **STAMP)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("signature", [1, 2, 3], "bad_shape"),
        ("signature", "0OIl" * 20, "bad_base58"),
        ("signature", [256] * 64, "bad_shape"),
        ("meta", None, "bad_shape"),
        ("meta", {"err": None, "loadedWritableAddresses": [[1]]}, "bad_shape"),
        ("meta", {"err": None, "innerInstructions": [{"index": 99, "instructions": []}]}, "bad_index"),
        (
            "meta",
            {"err": None, "innerInstructions": [{"index": 0, "instructions": [{"programIdIndex": 99}]}]},
            "bad_index",
        ),
        ("meta", {"err": None, "logMessages": [1, 2]}, "bad_shape"),
        ("index", -1, "bad_shape"),
    ],
)
def test_malformed_input_is_refused_with_its_reason(place: str, value: Any, reason: str) -> None:
    document = copy.deepcopy(entry(DLMM).document)
    document["transaction"][place] = value
    with pytest.raises(BadInputError) as caught:
        _read(document)
    assert caught.value.reason == reason
