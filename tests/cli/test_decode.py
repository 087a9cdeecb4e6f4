"""`headrace decode`: what it takes, what it prints, and what it says of things that it can't decode."""

import io
import json
import sys
from pathlib import Path

import pybase64
import pytest

from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.node import ScriptedNode
from tests.cli.conftest import Headrace, in_thread
from tests.mainnet import FOLDER, PUMP, entry

SIGNATURE = "2KBsKB7xmfFz3qLB6U3YMTuc2Z8W3WYrEJhxqvtNytqw2co2W3zQizTPzMtC1c37NnaCuKpaoaxiT6QT4pqmF5nW"
FILE = FOLDER / entry(SIGNATURE).file
CURVE = json.loads((FOLDER / "accounts/pump/curve_8d4zoL_20261004.json").read_text())


BONDING_CURVE = bytes.fromhex("17b7f83760d8ac60")  # the discriminator of that account


def curve_data() -> bytes:
    """A real bonding curve account of pump.fun."""
    owned = [each for each in CURVE["accounts"] if each["account"]["owner"] == PUMP]
    found = next(each for each in owned if pybase64.b64decode(each["account"]["data"][0]).startswith(BONDING_CURVE))
    return pybase64.b64decode(found["account"]["data"][0])


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_file_as_json(headrace: Headrace) -> None:
    result = headrace("decode", str(FILE), "--json")
    found = json.loads(result.out)
    assert (result.status, result.err, result.out.count("\n")) == (0, "", 1)
    assert found["signature"] == SIGNATURE
    assert [event["name"] for event in found["events"]].count("TradeEvent") == 1


def test_a_file_as_text(headrace: Headrace) -> None:
    result = headrace("decode", str(FILE))
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"transaction  {SIGNATURE}\nslot ")
    assert "\n  pump TradeEvent  (cpi)\n" in result.out


def test_standard_input_of_several_lines(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (FOLDER / "pubsub" / "logsNotification.projected.jsonl").read_text().splitlines()[:3]
    type_in(monkeypatch, "\n".join(lines))
    result = headrace("decode", "-", "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    sent = [json.loads(line)["params"]["result"]["value"]["signature"] for line in lines]
    assert [each["signature"] for each in found] == sent


def test_one_bad_line_spoils_no_other(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (FOLDER / "pubsub" / "logsNotification.projected.jsonl").read_text().splitlines()[:3]
    type_in(monkeypatch, "\n".join([lines[0], '{"method":', lines[1], "[7]", lines[2]]))
    result = headrace("decode", "-", "--json")
    assert result.status == 1
    assert len(result.out.splitlines()) == 3
    told = result.err.splitlines()
    assert [line.partition(": bad_json")[0] for line in told[:1]] == ["headrace: standard input, line 2"]
    assert told[1].startswith("headrace: standard input, line 4: unrecognised")


@pytest.mark.parametrize("owner", ["pump", PUMP])
def test_account_data_on_the_command_line(headrace: Headrace, owner: str) -> None:
    data = pybase64.b64encode_as_string(curve_data())
    result = headrace("decode", data, "--owner", owner, "--json")
    assert json.loads(result.out)["name"] == "BondingCurve"


def test_a_wire_transaction_on_the_command_line(headrace: Headrace) -> None:
    simulation = next(iter(sorted((FOLDER / "simulations").iterdir())))
    result = headrace("decode", json.loads(simulation.read_text())["wire"], "--json")
    assert json.loads(result.out)["instructions"]


async def test_a_signature_and_a_key_are_asked_from_the_node(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedNode() as node:
        monkeypatch.setenv("SOLANA_RPC_URL", node.http_url)
        node.ledger.land([PUMP], signature=SIGNATURE, result=entry(SIGNATURE).document["result"])
        node.advance_slot()
        node.advance_slot()
        node.emit_account(key := made_up_key("curve"), PUMP, curve_data())
        transaction = await in_thread(headrace, "decode", SIGNATURE, "--json")
        account = await in_thread(headrace, "decode", key, "--json")
    assert json.loads(transaction.out)["signature"] == SIGNATURE
    assert json.loads(account.out)["name"] == "BondingCurve"


async def test_what_the_node_does_not_know(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    signature, key = made_up_signature(7), made_up_key("nobody")
    async with ScriptedNode() as node:
        monkeypatch.setenv("SOLANA_RPC_URL", node.http_url)
        no_transaction = await in_thread(headrace, "decode", signature)
        no_account = await in_thread(headrace, "decode", key)
    assert no_transaction == (1, "", f"headrace: {signature}: not found: the node knows no such transaction\n")
    assert no_account == (1, "", f"headrace: {key}: not found: the node knows no such account\n")


async def test_a_node_that_is_away_or_refuses(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedNode() as node:
        monkeypatch.setenv("SOLANA_RPC_URL", f"{node.http_url}/?api-key=hush")
        node.http_faults.errors["getTransaction"] = (-32011, "Transaction history is not available from this node")
        refused = await in_thread(headrace, "decode", SIGNATURE)
    away = await in_thread(headrace, "decode", SIGNATURE)
    for result, says in ((refused, "history is not available"), (away, "ConnectError")):
        assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
        assert says in result.err
        assert "hush" not in result.err


@pytest.mark.parametrize("name", ["no-such-file.json", "hello", "abcd", "../nothing", SIGNATURE[:-9]])
def test_a_name_that_stands_for_nothing(headrace: Headrace, name: str) -> None:
    assert headrace("decode", name) == (
        1, "", f"headrace: {name}: nothing there: expected a file, - for standard input, a signature or a public key\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "this is empty; accepted is"),
        ('{"a":', "bad_json: Input data was truncated; accepted is"),
        ('{"a": 1}', "this is a JSON object of a; accepted is"),
        ("not base64!", "bad_base64: "),
        ('{"result": null}', "not_found: null: the node does not know this transaction or account"),
        ('{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}', 'rpc_error: {"code":-32602'),
    ],
)
def test_nonsense_is_named_with_what_is_accepted(headrace: Headrace, content: str, says: str) -> None:
    Path("input.json").write_text(content)
    result = headrace("decode", "input.json")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith("headrace: input.json: ")
    assert says in result.err


def test_files_that_can_not_be_read(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("folder").mkdir()
    assert headrace("decode", "folder") == (1, "", "headrace: folder: Is a directory\n")
    type_in(monkeypatch, "?")
    assert headrace("decode", "-").err.startswith("headrace: standard input: bad_base64: ")


def test_an_owner_that_is_none(headrace: Headrace) -> None:
    result = headrace("decode", "AAAA", "--owner", "nope")
    assert result.status == 1
    assert "'nope' is no program id and no program on board (jupiter_v6, " in result.err
