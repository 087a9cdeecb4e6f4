"""What a text is: every kind is told from its fields, and what is none of them is refused with both sides named."""

import json
from typing import Any

import based58
import pybase64
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.inspect.recognise import ACCEPTED, chain_name, recognise
from headrace.model.errors import BadInputError
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from tests.examples import examples
from tests.mainnet import FOLDER, PUMP, entry, spoiled, update


def _one(told: Any, **more: Any) -> Any:
    (found,) = recognise(told if isinstance(told, str) else json.dumps(told), **more)
    return found


def test_a_transaction_in_and_out_of_its_envelope() -> None:
    document = entry("2KBsKB7x").document
    whole = _one(document)
    assert isinstance(whole, TransactionUpdate)
    assert whole.instructions == update(entry("2KBsKB7x").file).instructions
    assert _one(document["result"]) == _one(json.dumps(document, indent=2)) == whole
    assert recognise(json.dumps(document).encode()) == [whole]


def test_a_simulation_with_and_without_its_transaction() -> None:
    document = entry("447d3fdb").document
    value = document["response"]["result"]["value"]
    assert "logs" not in value
    whole, alone = _one(document), _one(document["response"])
    assert (whole.slot, len(whole.account_keys)) == (alone.slot, 20)
    assert _one(document["response"]["result"]) == alone
    assert _one(value).instructions == alone.instructions


def test_notifications_and_lines_of_them() -> None:
    text = (FOLDER / "pubsub" / "logsNotification.projected.jsonl").read_text()
    found = recognise(text)
    assert len(found) == 31
    assert all(isinstance(each, LogsUpdate) for each in found)
    line = json.loads(text.splitlines()[0])
    assert _one(line["params"]["result"]["value"]).logs == _one(line).logs


def test_accounts_alone_in_sets_and_in_lists() -> None:
    text = (FOLDER / "accounts" / "pump" / "curve_8d4zoL_20261004.json").read_text()
    found = recognise(text)
    keyed = json.loads(text)["accounts"]
    assert [each.pubkey for each in found if isinstance(each, AccountUpdate)] == [each["pubkey"] for each in keyed]
    assert recognise(json.dumps({"result": keyed})) == found
    account = keyed[0]["account"]
    alone = _one({"result": {"context": {"slot": 5}, "value": account}})
    assert (alone.pubkey, alone.data) == ("", found[0].data if isinstance(found[0], AccountUpdate) else b"")
    assert _one(account) == alone
    several = recognise(json.dumps({"result": {"context": {"slot": 5}, "value": [account, account]}}))
    assert several == [alone, alone]
    base64 = account["data"][0]
    for told in (base64, json.dumps(base64), json.dumps([base64, "base64"])):
        assert _one(told, owner=account["owner"]).data == alone.data


def test_wire_bytes_in_base64_and_base58() -> None:
    base64 = entry("1DnjawZs").document["result"]["transaction"][0]
    found = _one(base64)
    assert found.signature == update(entry("1DnjawZs").file).signature
    assert found.logs is None
    assert _one(based58.b58encode(pybase64.b64decode(base64)).decode()) == found
    assert _one(json.dumps(base64)) == found


def test_a_yellowstone_update() -> None:
    assert _one(entry("2DfsmTYv").document).instructions == update(entry("2DfsmTYv").file).instructions


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (PUMP, "pubkey"),
        (f" {PUMP}\n", "pubkey"),
        ("1" * 32, "pubkey"),
        (entry("2KBsKB7x").facts["id"], "signature"),
        ("1" * 64, "signature"),
        ("x", None),
        ("", None),
        ("0" * 44, None),
        ("0" * 88, None),
        ("z" * 88, None),
        ("é" * 70, None),
    ],
)
def test_names_to_ask_a_node_for(text: str, kind: str | None) -> None:
    assert chain_name(text) == kind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unrecognised"),
        (" \n", "unrecognised"),
        ("hello", "bad_base64"),
        ("é", "bad_base64"),
        (b"\xff\xfe", "not_text"),
        ("{", "bad_json"),
        ('{"a":1}\n{"a":', "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("{}", "unrecognised"),
        ('{"result":null}', "not_found"),
        ('{"result":{"context":{"slot":1},"value":null}}', "not_found"),
        ('{"result":5}', "unrecognised"),
        ('{"result":{"a":1,"b":2}}', "unrecognised"),
        ("[1]", "unrecognised"),
        ("[true]", "unrecognised"),
        ("[[[[[[[[[[[[[]]]]]]]]]]]]]", "unrecognised"),
        ('{"error":{"code":-32015,"message":"Transaction version (1) is not supported"}}', "rpc_error"),
        ('{"wire":"","response":{"error":{"code":-32002}}}', "rpc_error"),
        ('{"wire":5,"response":{"result":{}}}', "unrecognised"),
        ('{"wire":"AAAA","response":5}', "unrecognised"),
        ('{"method":"slotNotification"}', "unknown_notification"),
        ('{"transaction":{},"meta":{}}', "bad_shape"),
        ('{"transaction":{}}', "bad_shape"),
        ('{"data":"","owner":5}', "bad_shape"),
        ('{"pubkey":"x","account":{}}', "bad_shape"),
        ('{"err":null,"logs":5}', "bad_shape"),
        ('{"signature":"x","logs":[]}', "bad_shape"),
    ],
)
def test_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        recognise(text)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_a_refusal_names_what_was_seen_and_what_is_accepted() -> None:
    with pytest.raises(BadInputError, match="a JSON object of foo, bar") as caught:
        recognise('{"foo": 1, "bar": 2}')
    assert ACCEPTED in caught.value.detail


DOCUMENTS = [entry(start).document for start in ("2KBsKB7x", "012d7892", "2DfsmTYv")]


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(spoiled(DOCUMENTS))
def test_spoiled_documents_are_read_or_refused(document: Any) -> None:
    try:
        recognise(json.dumps(document, ensure_ascii=True))
    except BadInputError as error:
        assert error.reason


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        recognise(text)
    except BadInputError as error:
        assert error.reason
