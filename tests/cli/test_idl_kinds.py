"""Each kind of IDL and input in tests/data/idl gives its right value on the command line."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import Headrace

FOLDER: Final = Path(__file__).parents[1] / "data" / "idl"
TREE: Final = {"Split": {"d": [{"Leaf": 5}, {"Split": {"d": [{"Leaf": 9}]}}]}}
DAO: Final = {"key": "Dao", "admin": "US517G5965aydkZ46HS38QLi7UQiSojurfbQfKCELFx", "bump": 255}
SIGNATURE: Final = "6pc4LiB8KHAPvbUbkozrTcPL5zXspYBdATv5raNDyVbhiKjrKokLb9o111kxTD5KkPVd7UBSCcFcnWFkrJ82Hu6"
MY_EVENT: Final = {"program": "prog", "name": "MyEvent", "data": {"n": "5"}}


def decode(headrace: Headrace, monkeypatch: pytest.MonkeyPatch, kind: str, *more: str) -> tuple[int, list[Any], str]:
    """Exit status, the objects on standard output, and standard error."""
    monkeypatch.setenv("IDL_FOLDER", str(FOLDER / kind / "idl"))
    result = headrace("decode", "--json", *more)
    return result.status, [json.loads(line) for line in result.out.splitlines()], result.err


@pytest.mark.parametrize(
    ("kind", "name", "data", "warning"),
    [
        ("recursive_type", "Acc", {"id": "7", "tree": TREE}, ""),
        ("type_not_in_idl", "Acc", {"id": "7"}, "instructions.initialize.x: got Broken, expected"),
        ("legacy_generic_as_text", "Example", {"value": {"value": "5", "last_update": {"slot": "6"}}}, ""),
        ("legacy_tuple_as_text", "Example", {"pair": [{"slot": "5"}, "6"]}, ""),
        ("shank_key_is_the_discriminator", "Dao", DAO, ""),
        ("shank_without_discriminator", "Dao", DAO, ""),
        ("transparent_newtype_alignment", "Acc", {"flag": 3, "amount": "9", "tail": 1}, ""),
        ("bom", "Acc", {"id": "7"}, ""),
    ],
)  # fmt: skip
def test_an_account(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, data: dict[str, Any], warning: str
) -> None:
    account = (FOLDER / kind / "account.b64").read_text().strip()
    status, found, err = decode(headrace, monkeypatch, kind, "--owner", "prog", account)
    assert (status, found) == (0, [{"program": "prog", "name": name, "leftover": 0, "data": data}])
    assert warning in err if warning else not err


def test_a_codama_root_without_content_is_read_and_says_that_it_is_empty(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found, err = decode(headrace, monkeypatch, "codama_idl", "--owner", "prog", "AAAAAAAAAAA=")
    assert (status, found[0]["program"], found[0]["name"]) == (0, "prog", None)
    assert "no instructions, accounts and events" in err


def test_the_digits_of_a_legacy_name(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "legacy_name_ends_with_a_number"
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "input.json"))
    instruction = found[0]["instructions"][0]
    assert (status, err, instruction["name"], instruction["args"]) == (0, "", "test_log1", {"x": "7"})


def events_and_instructions(found: dict[str, Any]) -> tuple[Any, Any]:
    """What a transaction did, without places and notes."""
    events = found["events"] and [{name: each[name] for name in MY_EVENT} for each in found["events"]]
    return events, [(each["program"], each["name"]) for each in found["instructions"]]


def test_an_event_behind_program_log(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "event_behind_program_log"
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "input.json"))
    assert (status, err, events_and_instructions(found[0])) == (0, "", ([MY_EVENT], []))
    assert found[0]["events"][0]["via"] == "log"


def test_a_batch_with_a_null_gives_the_others(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "batch_with_one_null"
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "input.json"))
    assert (status, len(found)) == (1, 2)
    assert [events_and_instructions(each)[0] for each in found] == [[MY_EVENT]] * 2
    assert err.count("\n") == 1 and "input.json, item 2: not_found" in err


def test_a_transaction_without_outcome(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "meta_null"
    path = str(FOLDER / kind / "input.json")
    status, found, err = decode(headrace, monkeypatch, kind, path)
    assert (status, err, events_and_instructions(found[0])) == (0, "", (None, [("prog", "go")]))
    assert (found[0]["signature"], found[0]["slot"], found[0]["err"]) == (SIGNATURE, 1, None)
    assert "outcome unknown" in headrace("decode", path).out


def test_looked_up_keys_that_nobody_names_are_said(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "loaded_addresses_missing"
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "input.json"))
    assert (status, found) == (1, [])
    assert "loadedAddresses" in err
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "complete.json"))
    assert (status, err, events_and_instructions(found[0])[0]) == (0, "", [MY_EVENT])


def test_a_transaction_as_web3js_writes_it(headrace: Headrace, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "web3js_versioned_response"
    status, found, err = decode(headrace, monkeypatch, kind, str(FOLDER / kind / "input.json"))
    assert (status, err) == (0, "")
    assert events_and_instructions(found[0]) == ([MY_EVENT], [("prog", "go"), ("prog", "emit_cpi")])
    assert found[0]["events"][0]["via"] == "cpi"
