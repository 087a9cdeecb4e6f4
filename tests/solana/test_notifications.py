"""PubSub frames: the real ones, all methods, and what is refused."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from headrace.model.errors import BadInputError
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.solana.notifications import update_from_notification
from tests.examples import examples
from tests.mainnet import FOLDER, PUMP, STAMP, entry, spoiled, update


def _frames(name: str) -> list[Any]:
    return [json.loads(line) for line in (FOLDER / "pubsub" / f"{name}.projected.jsonl").read_text().splitlines()]


LOGS, ACCOUNTS = _frames("logsNotification"), _frames("programNotification")


def test_recorded_log_notifications_are_read() -> None:
    for frame in LOGS:
        value = frame["params"]["result"]["value"]
        told = update_from_notification(frame, **STAMP)
        assert isinstance(told, LogsUpdate)
        assert (told.signature, told.err, list(told.logs)) == (value["signature"], value["err"], value["logs"])
        assert told.slot == frame["params"]["result"]["context"]["slot"]


def test_recorded_account_notifications_are_read() -> None:
    for frame in ACCOUNTS:
        keyed = frame["params"]["result"]["value"]
        told = update_from_notification(frame, **STAMP)
        assert isinstance(told, AccountUpdate)
        assert (told.pubkey, told.owner) == (keyed["pubkey"], keyed["account"]["owner"])
        assert told.lamports == keyed["account"]["lamports"]
        assert len(told.data) == keyed["account"].get("space", len(told.data))


def test_an_account_notification_gets_its_pubkey_from_the_subscription() -> None:
    frame = {**ACCOUNTS[0], "method": "accountNotification"}
    keyed = frame["params"]["result"]["value"]
    frame["params"] = {"result": {**frame["params"]["result"], "value": keyed["account"]}}
    told = update_from_notification(frame, **STAMP, pubkey=keyed["pubkey"])
    assert told == update_from_notification(ACCOUNTS[0], **STAMP)


def test_a_transaction_notification_is_read() -> None:
    result = entry("1DnjawZs").document["result"]
    inside = {name: result[name] for name in ("transaction", "meta", "version")}
    params = {"subscription": 1, "result": {"signature": "…", "slot": result["slot"], "transaction": inside}}
    told = update_from_notification({"method": "transactionNotification", "params": params}, **STAMP)
    assert isinstance(told, TransactionUpdate)
    assert told.instructions == update(entry("1DnjawZs").file).instructions


@pytest.mark.parametrize("frame", [None, [], 1, {}, {"method": "slotNotification"}, {"method": 5}])
def test_other_frames_are_refused(frame: Any) -> None:
    with pytest.raises(BadInputError) as caught:
        update_from_notification(frame, **STAMP)
    assert caught.value.reason == "unknown_notification"


@pytest.mark.parametrize("params", [None, {}, {"result": None}, {"result": {"context": {"slot": 1}}}])
@pytest.mark.parametrize("kind", ["logs", "program", "account"])
def test_frames_without_content_are_refused(kind: str, params: Any) -> None:
    with pytest.raises(BadInputError) as caught:
        update_from_notification({"method": f"{kind}Notification", "params": params}, **STAMP)
    assert caught.value.reason == "bad_shape"


def test_a_transaction_notification_without_a_transaction_is_refused() -> None:
    params: Any = {"result": {"transaction": None}}
    with pytest.raises(BadInputError) as caught:
        update_from_notification({"method": "transactionNotification", "params": params}, **STAMP)
    assert caught.value.reason == "bad_shape"


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow])
@given(spoiled([LOGS[0], ACCOUNTS[3]]))
def test_spoiled_frames_are_read_or_refused(frame: Any) -> None:
    try:
        told = update_from_notification(frame, **STAMP, pubkey=PUMP)
    except BadInputError:
        return
    assert told.slot >= 0
