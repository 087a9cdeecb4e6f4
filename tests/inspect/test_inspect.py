"""What `headrace decode` gives: the promised shape for every real file, and readable text."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from headrace.inspect.readable import render_text
from headrace.inspect.transactions import Result, inspect
from headrace.model.errors import BadInputError
from tests.examples import examples
from tests.mainnet import FOLDER, Entry, entries, entry, programs, spoiled

TRANSACTION = ["signature", "slot", "version", "err", "events", "instructions"]
EVENT = ["program", "name", "via", "truncated", "leftover", "data"]
INSTRUCTION = ["program", "name", "path", "accounts", "args"]
ACCOUNT = ["program", "name", "leftover", "data"]
ACCOUNT_SETS = sorted(path for path in (FOLDER / "accounts").glob("*/*.json"))
NO_PROGRAM = {"system_program", "Sysvar1111111111111111111111111111111111111"}


def _one(told: Any, **more: Any) -> Result:
    found = inspect(told if isinstance(told, str) else json.dumps(told), programs(), **more)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_every_transaction_has_the_promised_shape(each: Entry) -> None:
    found = _one(each.document)
    assert list(found) == TRANSACTION
    assert all(list(event) == EVENT for event in found["events"])
    assert all(list(instruction) == INSTRUCTION for instruction in found["instructions"])
    assert (found["version"], found["err"]) == (each.facts["version"], each.facts["err"])
    assert json.loads(json.dumps(found)) == found
    assert all(line.isprintable() for line in render_text(found).splitlines())
    named = {name.removesuffix("(log)").split(".")[0] for name in each.facts["events"]}
    assert {event["program"] for event in found["events"]} == {
        n.replace("meteora_damm_v2", "meteora_cp_amm") for n in named
    }


@pytest.mark.parametrize("path", ACCOUNT_SETS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_account_of_every_set_is_read_to_its_end(path: Any) -> None:
    found = inspect(path.read_text(), programs())
    keyed = json.loads(path.read_text())["accounts"]
    assert isinstance(found, list)
    assert [each["pubkey"] for each in found] == [each["pubkey"] for each in keyed]
    for each, told in zip(found, keyed, strict=True):
        assert list(each) == ["pubkey", *ACCOUNT]
        if each["program"] not in NO_PROGRAM:
            assert each["name"] is not None
            assert each["leftover"] == 0
        assert list(_one({"result": {"context": {"slot": 1}, "value": told["account"]}})) == ACCOUNT


def test_wide_integers_are_text_and_narrow_ones_numbers() -> None:
    (event,) = _one(entry("2KBsKB7x").document)["events"]
    assert (event["data"]["sol_amount"], event["data"]["timestamp"]) == ("3392434780", "1792405978")
    assert event["data"]["is_buy"] is False
    transfer = next(
        each for each in _one(entry("2KBsKB7x").document)["instructions"] if each["name"] == "transferChecked"
    )
    assert transfer["args"] == {"amount": "70135987937292", "decimals": 6}
    assert transfer["path"] == [1, 2]


@pytest.mark.parametrize("each", [e for e in entries() if e.kind == "simulations"], ids=lambda each: each.file)
def test_a_simulation_gives_the_same_events_without_its_transaction(each: Entry) -> None:
    whole, alone = _one(each.document), _one(each.document["response"])
    assert alone["events"] == whole["events"]
    assert (alone["version"], alone["signature"]) == (None, None)
    inner = [instruction for instruction in whole["instructions"] if len(instruction["path"]) == 2]
    assert alone["instructions"] == inner


def test_what_was_not_told_is_null() -> None:
    wire = entry("1DnjawZs").document["result"]["transaction"][0]
    found = _one(wire)
    assert (found["slot"], found["err"], found["version"], found["events"]) == (None, None, 1, [])
    frame = (FOLDER / "pubsub" / "logsNotification.projected.jsonl").read_text().splitlines()[0]
    logged = _one(frame)
    assert (logged["version"], logged["instructions"]) == (None, [])
    assert Counter(each["via"] for each in logged["events"]) == {"log": len(logged["events"])}
    assert _one(entry("012d7892").document)["signature"] is None


def test_notifications_one_a_line() -> None:
    found = inspect((FOLDER / "pubsub" / "programNotification.projected.jsonl").read_bytes(), programs())
    assert isinstance(found, list)
    assert len(found) == 58
    assert {each["leftover"] for each in found} == {0}


def test_a_block_is_its_transactions() -> None:
    told = entry("26EFfjMX").document["result"]
    element = {name: told[name] for name in ("transaction", "meta", "version")}
    block = {"blockhash": "x", "parentSlot": 8, "transactions": [element, element]}
    alone = _one(told)
    for document, slot in (
        ({"jsonrpc": "2.0", "id": 1, "result": block}, None),
        ({"method": "blockNotification", "params": {"result": {"context": {"slot": 9}, "value": {
            "slot": 9, "block": block, "err": None}}}}, 9),
    ):  # fmt: skip
        assert inspect(json.dumps(document), programs()) == [{**alone, "slot": slot}] * 2


def test_a_yellowstone_account_update() -> None:
    told = json.loads(ACCOUNT_SETS[0].read_text())["accounts"][0]
    owner, data = told["account"]["owner"], told["account"]["data"][0]
    update = {"slot": 5, "account": {"pubkey": told["pubkey"], "owner": owner, "lamports": "1", "data": data}}
    assert _one({"filters": [], "account": update}) == _one(data, owner=owner)


def test_an_account_that_the_node_parsed_is_refused_with_what_to_do() -> None:
    parsed = {"program": "spl-token", "parsed": {"type": "mint", "info": {}}, "space": 82}
    account = {"data": parsed, "owner": "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "lamports": 1}
    for document in (account, {"pubkey": "11111111111111111111111111111111", "account": account}):
        with pytest.raises(BadInputError, match='"encoding": "base64"'):
            _one(document)


def test_bare_account_data_with_its_owner_by_name_or_id() -> None:
    account = json.loads(ACCOUNT_SETS[0].read_text())["accounts"][0]["account"]
    by_id = _one(account["data"][0], owner=account["owner"])
    assert list(by_id) == ACCOUNT
    assert _one(account["data"][0], owner=by_id["program"]) == by_id


def test_an_account_of_an_unknown_program_is_shown_as_it_is() -> None:
    found = _one("AQID", owner="11111111111111111111111111111111")
    assert found == {"program": "system_program", "name": None, "leftover": 3, "data": {"raw": "AQID"}}
    assert _one("AQID", owner="pump")["name"] is None


@pytest.mark.parametrize("owner", ["", "nobody", "0" * 44])
def test_an_owner_that_is_none(owner: str) -> None:
    with pytest.raises(BadInputError, match="pump_amm") as caught:
        inspect("AQID", programs(), owner=owner)
    assert caught.value.reason == "unknown_owner"


def test_text_shows_amounts_names_and_who_called_whom() -> None:
    lines = render_text(_one(entry("2KBsKB7x").document)).splitlines()
    assert lines[0].startswith("transaction  2KBsKB7x")
    assert lines[1] == "slot 458801413  version 1  ok"
    assert "  pump TradeEvent  (cpi)" in lines
    assert "    sol_amount                 3392434780" in lines
    assert "      lamports  1000000  (0.001 SOL)" in lines
    assert "    1.0  pump sell_v2" in lines


def test_text_of_failures_cuts_and_accounts() -> None:
    failed = render_text(_one(entry("3GufGVVR").document))
    assert 'failed: {"InstructionError":[4,{"Custom":1}]}' in failed
    cut = entry("2r4uXUJt").document["result"]
    logs = {"signature": cut["transaction"]["signatures"][0], "err": None, "logs": cut["meta"]["logMessages"]}
    assert "(log, log truncated)" in render_text(_one(logs))
    found = inspect(ACCOUNT_SETS[0].read_text(), programs())
    assert "account  4kuAXoXBgRq79PMJ1bArHF1UfPoKnXZo7nYysUrZEzpj  meteora_cp_amm Pool" in render_text(found)
    assert "? " not in render_text(_one("AQID", owner="pump")).splitlines()[1]


def test_a_name_from_the_chain_can_not_command_a_terminal() -> None:
    result = _one(entry("2MfmZSU8").document)
    event = next(each for each in result["events"] if each["name"] == "CreateEvent")
    event["data"]["name"] = "\x1b]0;owned\x07\u202egnp.exe\nslot 1"
    event["data"]["nested"] = [{"x": "\x9b2J"}]
    shown = render_text(result)
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)
    assert "\\x1b]0;owned\\x07\\u202egnp.exe\\nslot 1" in shown


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(spoiled([entry("2KBsKB7x").document, entry("012d7892").document, json.loads(ACCOUNT_SETS[2].read_text())]))
def test_spoiled_files_are_shown_or_refused(document: Any) -> None:
    try:
        found = inspect(json.dumps(document), programs())
    except BadInputError:
        return
    json.dumps(found)
    render_text(found)
