"""Messages to updates: real notifications, and anything else."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pybase64 import b64decode, b64encode_as_string

from headrace.model.errors import BadInputError
from headrace.model.updates import AccountUpdate, LogsUpdate
from headrace.sources.connection import SignatureNotice, SlotNotice
from headrace.sources.rpc_pubsub.frames import Ack, Refusal, Stamp, Unknown, read
from headrace.sources.rpc_pubsub.registry import ServerId
from headrace.sources.subscriptions import SLOTS, ChainSubscription, Kind
from headrace.testing.ledger import made_up_key, made_up_signature

PUBSUB = Path(__file__).parents[2] / "data" / "mainnet" / "pubsub"
STAMP = Stamp("rpc-0", "processed")
KEY = made_up_key("a")
KINDS: tuple[Kind, ...] = ("slots", "logs", "program", "account", "signature")
ACTIVE: dict[ServerId, ChainSubscription] = {
    number: ChainSubscription(kind, KEY if kind != "slots" else "") for number, kind in enumerate(KINDS)
}


def lines(kind: str) -> list[str]:
    return (PUBSUB / f"{kind}Notification.projected.jsonl").read_text().splitlines()


def frame(kind: str, result: object, subscription: int) -> bytes:
    told = {
        "jsonrpc": "2.0",
        "method": f"{kind}Notification",
        "params": {"result": result, "subscription": subscription},
    }
    return msgspec.json.encode(told)


@pytest.mark.parametrize("line", lines("logs"))
def test_recorded_logs_are_read_whole(line: str) -> None:
    told: Any = msgspec.json.decode(line)
    params = told["params"]
    update = read(line.encode(), {params["subscription"]: ACTIVE[1]}, STAMP, 7)
    assert isinstance(update, LogsUpdate)
    value = params["result"]["value"]
    assert (update.signature, update.err, list(update.logs)) == (value["signature"], value["err"], value["logs"])
    assert (update.slot, update.feed, update.received_ns) == (params["result"]["context"]["slot"], f"logs:{KEY}", 7)


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("line", lines("program"))
def test_recorded_accounts_are_read_whole(line: str, zstd: bool) -> None:
    told: Any = msgspec.json.decode(line)
    params = told["params"]
    account = params["result"]["value"]["account"]
    data = b64decode(account["data"][0])
    if zstd:
        packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        account["data"] = [b64encode_as_string(packer.compress(data) + packer.flush()), "base64+zstd"]
    update = read(msgspec.json.encode(told), {params["subscription"]: ACTIVE[2]}, STAMP, 0)
    assert isinstance(update, AccountUpdate)
    assert (update.data, update.owner, update.lamports) == (data, account["owner"], account["lamports"])
    assert update.pubkey == params["result"]["value"]["pubkey"]


def test_slots_signatures_acks_and_refusals_are_read() -> None:
    assert read(frame("slot", {"slot": 9, "parent": 8, "root": 1}, 0), ACTIVE, STAMP, 0) == SlotNotice(9, 8, 1)
    done = {"context": {"slot": 9}, "value": {"err": None}}
    assert read(frame("signature", done, 4), ACTIVE, STAMP, 0) == SignatureNotice(9, ACTIVE[4])
    assert read(frame("slot", {"slot": 9, "parent": 8, "root": 1}, 55), ACTIVE, STAMP, 0) == Unknown(55, ("slots",), 9)
    assert read(b'{"jsonrpc":"2.0","result":24040,"id":3}', ACTIVE, STAMP, 0) == Ack(3, 24040)
    assert read(b'{"jsonrpc":"2.0","result":true,"id":3}', ACTIVE, STAMP, 0) == Ack(3, None)
    refusal = b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"no"},"id":3}'
    assert read(refusal, ACTIVE, STAMP, 0) == Refusal(3, -32602, "no")


def test_members_in_any_order_are_read() -> None:
    late = (
        b'{"params":{"subscription":0,"result":{"root":1,"parent":8,"slot":9}},"id":null,"method":"slotNotification"}'
    )
    assert read(late, ACTIVE, STAMP, 0) == SlotNotice(9, 8, 1)


def refusal_of(message: bytes) -> str:
    with pytest.raises(BadInputError) as raised:
        read(message, ACTIVE, STAMP, 0)
    return raised.value.reason


def test_bad_messages_are_refused_with_a_reason() -> None:
    logs = {"context": {"slot": 5}, "value": {"signature": made_up_signature(1), "err": None, "logs": []}}
    assert refusal_of(frame("logs", logs, 2)) == "other_kind"
    account = {"lamports": 1, "data": ["", "base64"], "owner": "0" * 40, "executable": False}
    assert refusal_of(frame("account", {"context": {"slot": 5}, "value": account}, 3)) == "bad_key"
    assert refusal_of(b"") == "not_json"
    assert refusal_of(b'{"x":' * 100_000) == "too_deep"
    assert refusal_of(b"{}") == "not_pubsub"
    assert refusal_of(b"[]") == "wrong_type"
    bomb = zstandard.compress(bytes(50_000_000))
    account |= {"owner": KEY, "data": [b64encode_as_string(bomb), "base64+zstd"]}
    assert refusal_of(frame("account", {"context": {"slot": 5}, "value": account}, 3)) == "too_large"


def test_a_bomb_without_a_declared_size_is_refused() -> None:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    account = {"lamports": 1, "data": [b64encode_as_string(bomb), "base64+zstd"], "owner": KEY, "executable": False}
    assert refusal_of(frame("account", {"context": {"slot": 5}, "value": account}, 3)) == "bad_zstd"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        read(message, ACTIVE, STAMP, 0)
    except BadInputError:
        pass


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(["logs", "program", "account", "slot", "signature"]), _json, st.integers(-1, 6))
def test_any_result_is_read_or_refused(kind: str, result: object, subscription: int) -> None:
    told = {"method": f"{kind}Notification", "params": {"result": result, "subscription": subscription}}
    try:
        read(msgspec.json.encode(told), {0: SLOTS, **ACTIVE}, STAMP, 0)
    except BadInputError:
        pass


@given(st.data())
def test_a_recorded_message_cut_or_changed_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    whole = lines("program")[0].encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + (whole[at + 1 :] if data.draw(st.booleans()) else b"")
    try:
        read(changed, {24041: ACTIVE[2]}, STAMP, 0)
    except BadInputError:
        pass


def test_messages_of_no_account_that_are_too_much_are_refused_before_values_are_made_of_them() -> None:
    value: dict[str, Any] = {"signature": made_up_signature(1), "err": None, "logs": ["x" * 1000] * 1000}
    result: dict[str, Any] = {"context": {"slot": 9}, "value": value}
    assert isinstance(read(frame("logs", result, 1), ACTIVE, STAMP, 0), LogsUpdate)
    value["logs"] = [""] * 400_000
    with pytest.raises(BadInputError, match="too_large"):
        read(frame("logs", result, 1), ACTIVE, STAMP, 0)
    value["logs"], value["err"] = [], {"InstructionError": [[]] * 5000}
    with pytest.raises(BadInputError, match="too_complex"):
        read(frame("logs", result, 1), ACTIVE, STAMP, 0)
    with pytest.raises(BadInputError, match="too_large"):
        read(b'{"pad":"%b","method":"logsNotification"}' % (b"x" * 2**20), ACTIVE, STAMP, 0)
