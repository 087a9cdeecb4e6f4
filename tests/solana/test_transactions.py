"""Transactions from JSON: every real file, every encoding, hand-checked values, and any spoiling of them."""

import copy
import json
from collections.abc import Callable
from typing import Any

import based58
import pybase64
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.decoders.events import events_of
from headrace.decoders.instructions import arguments_of, instructions_of
from headrace.model.errors import BadInputError
from headrace.model.updates import TokenBalance, TransactionUpdate
from headrace.solana.transactions import transaction_from_rpc, transaction_from_simulation
from headrace.solana.wire import parse_wire
from headrace.solana.yellowstone_json import transaction_from_yellowstone_json
from tests.examples import examples
from tests.mainnet import STAMP, Entry, entries, entry, programs, read, spoiled, update

V1_SELL = "2KBsKB7xmfFz3qLB6U3YMTuc2Z8W3WYrEJhxqvtNytqw2co2W3zQizTPzMtC1c37NnaCuKpaoaxiT6QT4pqmF5nW"


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_every_real_transaction_is_what_the_index_says(each: Entry) -> None:
    told, facts = update(each.file), each.facts
    assert told.version == facts["version"]
    assert told.err == facts["err"]
    if each.kind != "simulations":
        assert told.signature == facts["id"]
    if "account_keys" in facts:
        assert len(told.account_keys) == facts["account_keys"]
        assert len(told.logs or ()) == facts["n_logs"]
    if "programs" in facts:
        counts: dict[str, int] = {}
        for instruction in told.instructions:
            name = programs().name_of(instruction.program_id).replace("meteora_cp_amm", "meteora_damm_v2")
            counts[name] = counts.get(name, 0) + 1
        expected = {name: count for name, count in facts["programs"].items() if len(name) < 32}
        assert {name: counts.get(name) for name in expected} == expected
        assert sum(counts.values()) == sum(facts["programs"].values())


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_paths_count_in_execution_order(each: Entry) -> None:
    paths = [instruction.path for instruction in update(each.file).instructions]
    assert paths == sorted(paths)
    assert [path[0] for path in paths if len(path) == 1] == list(range(len([p for p in paths if len(p) == 1])))
    for top in {path[0] for path in paths}:
        inner = [path[1] for path in paths if len(path) == 2 and path[0] == top]
        assert inner == list(range(len(inner)))


def test_a_v1_transaction_value_by_value() -> None:
    told = update(f"transactions/{V1_SELL}.json")
    assert (told.slot, told.version, told.fee, told.signers, told.index) == (458801413, 1, 105000, 1, 572)
    assert (told.block_time_s, told.compute_units, told.err) == (1792405978, 76247, None)
    assert len(told.account_keys) == 29
    transfer, route, sell = told.instructions[:3]
    assert transfer.program_id == "11111111111111111111111111111111"
    assert transfer.data == (2).to_bytes(4, "little") + (1_000_000).to_bytes(8, "little")
    assert transfer.accounts == (
        "2GBkFfJwjMkFTNvng4eUKgGi2reR7MxcPVWye8ai8pvU",
        "ASt2enHCghUdhSHnJkjzKRMbuM5YiGbrXrCXs5pRSMor",
    )
    assert (route.path, route.stack_height, sell.path, sell.stack_height) == ((1,), 1, (1, 0), 2)
    assert told.pre_token_balances[3] == TokenBalance(
        account="GTuoASXkgdXTxURKV49YTg6kHTbX26HhPDUCXrD4xJMN",
        mint="Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump",
        owner="2GBkFfJwjMkFTNvng4eUKgGi2reR7MxcPVWye8ai8pvU",
        amount=93514650583056,
        decimals=6,
    )


def test_looked_up_keys_follow_the_static_ones() -> None:
    document = entry("MV2m3VVec").document
    told = read("transactions", document)
    loaded = document["result"]["meta"]["loadedAddresses"]
    assert told.account_keys[11:] == (*loaded["writable"], *loaded["readonly"])
    assert {each.program_id for each in told.instructions} & set(loaded["readonly"])


def _as(document: Any, encoding: str) -> Any:
    document = copy.deepcopy(document)
    raw = pybase64.b64decode(document["result"]["transaction"][0])
    if encoding == "base58":
        text = based58.b58encode(raw).decode()
    else:
        text = pybase64.b64encode_as_string(zstandard.compress(raw) if "zstd" in encoding else raw)
    document["result"]["transaction"] = [text, encoding]
    return document


@pytest.mark.parametrize("start", ["1DnjawZs", "213kMyMK", "3mpAjSPh"])
def test_every_encoding_of_bytes_gives_the_same_update(start: str) -> None:
    document = entry(start).document
    told = read("transactions", document)
    for encoding in ("base58", "base64", "base64+zstd"):
        assert read("transactions", _as(document, encoding)) == told
    document["result"]["transaction"] = _as(document, "base58")["result"]["transaction"][0]
    assert read("transactions", document) == told


def _keyed(document: Any) -> Any:
    """The document as a node writes it in jsonParsed where it can parse nothing: keys instead of indexes."""
    document = copy.deepcopy(document)
    result = document["result"]
    keys = update(f"transactions/{result['transaction']['signatures'][0]}.json").account_keys
    message, loaded = result["transaction"]["message"], result["meta"].pop("loadedAddresses")
    static = len(keys) - len(loaded["writable"]) - len(loaded["readonly"])
    signers = message.pop("header")["numRequiredSignatures"]
    message["accountKeys"] = [
        {"pubkey": key, "signer": n < signers, "source": "transaction" if n < static else "lookupTable"}
        for n, key in enumerate(keys)
    ]
    groups = result["meta"]["innerInstructions"]
    for instruction in [*message["instructions"], *(each for group in groups for each in group["instructions"])]:
        instruction["programId"] = keys[instruction.pop("programIdIndex")]
        instruction["accounts"] = [keys[index] for index in instruction["accounts"]]
    return document


@pytest.mark.parametrize("start", ["2KBsKB7x", "2eVpZNvQ", "661yA5s6"])
def test_json_and_json_parsed_give_the_same_update(start: str) -> None:
    document = entry(start).document
    assert read("transactions", _keyed(document)) == read("transactions", document)


def test_what_a_node_parsed_is_kept_as_it_said() -> None:
    told = update(entry("2RoRJxat").file)
    transfer = told.instructions[0]
    assert transfer.data is None
    assert transfer.parsed is not None
    assert transfer.parsed["type"] == "transfer"
    assert told.signers == 2


def test_a_memo_is_parsed_to_mere_text() -> None:
    document = entry("2RoRJxat").document
    document["result"]["transaction"]["message"]["instructions"][0]["parsed"] = "gm"
    assert read("transactions", document).instructions[0].parsed == {"info": "gm"}


def test_the_version_is_told_by_the_message_where_the_node_leaves_it_out() -> None:
    for start, version in (("2KBsKB7x", 1), ("2dabmQiy", "legacy")):
        document = entry(start).document
        del document["result"]["version"]
        assert read("transactions", document).version == version


@pytest.mark.parametrize("version", [2, 127])
def test_a_version_of_the_future_keeps_what_can_be_known(version: int) -> None:
    for start in ("2KBsKB7x", "2RoRJxat"):
        document = entry(start).document
        known = read("transactions", document)
        document["result"]["version"] = version
        told = read("transactions", document)
        assert (told.signature, told.err, told.logs, told.fee) == (known.signature, known.err, known.logs, known.fee)
        assert (told.version, told.account_keys, told.instructions, told.pre_token_balances) == (version, (), (), ())
        assert {event.via for event in events_of(told, programs())} == {"log"}
    document = entry("1DnjawZs").document
    raw = bytearray(pybase64.b64decode(document["result"]["transaction"][0]))
    raw[0] = 0x80 | version
    document["result"]["transaction"][0] = pybase64.b64encode_as_string(bytes(raw))
    told = read("transactions", document)
    assert (told.version, told.signature, told.instructions) == (version, "", ())


def test_an_element_of_a_block_gets_the_slot_of_the_block() -> None:
    document = entry("3mpAjSPh").document
    assert "slot" not in document["result"]
    assert read("transactions", document).slot == 0
    told = transaction_from_rpc(document["result"], **STAMP, slot=77, index=3)
    assert (told.slot, told.index) == (77, 3)


def test_a_simulation_without_its_transaction_tells_inner_instructions_only() -> None:
    document = entry("012d7892").document
    whole = read("simulations", document)
    value = document["response"]["result"]["value"]
    told = transaction_from_simulation(value, None, **STAMP)
    assert [each for each in told.instructions if len(each.path) == 2] == [
        each for each in whole.instructions if len(each.path) == 2
    ]
    assert told.account_keys == ()
    value["innerInstructions"][0]["instructions"][0] = {"programIdIndex": 3, "accounts": [0], "data": "2"}
    assert transaction_from_simulation(value, None, **STAMP).instructions == ()


def test_keys_that_a_failed_simulation_never_loaded_are_named_by_their_place() -> None:
    document = entry("e6d14080").document
    value = document["response"]["result"]["value"]
    value.update(err="AddressLookupTableNotFound", innerInstructions=None, logs=[], loadedAddresses=None)
    value.update(preTokenBalances=None, postTokenBalances=None)
    told = read("simulations", document)
    assert [key for key in told.account_keys if key.startswith("lookup_")] == [f"lookup_{n}" for n in range(6)]


def _edit(edit: str, value: Any) -> Any:
    document = entry("2KBsKB7x").document
    *way, last = edit.split(".")
    holder = document["result"]
    for step in way:
        holder = holder[int(step) if step.isdigit() else step]
    holder[int(last) if last.isdigit() else last] = value
    return document


@pytest.mark.parametrize(
    ("edit", "value", "reason"),
    [
        ("meta", None, "bad_shape"),
        ("meta.err", 5, "bad_shape"),
        ("meta.logMessages", [None], "bad_shape"),
        ("meta.logMessages", "Program log: x", "bad_shape"),
        ("meta.innerInstructions.0.index", 9, "bad_index"),
        ("meta.innerInstructions.0.index", -1, "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.programIdIndex", 29, "bad_index"),
        ("meta.innerInstructions.0.instructions.0.programIdIndex", -1, "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.programIdIndex", None, "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.accounts", [255], "bad_index"),
        ("meta.innerInstructions.0.instructions.0.accounts", [-1], "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.accounts", [2**70], "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.accounts", ["1" * 32], "bad_shape"),
        ("meta.innerInstructions.0.instructions.0.data", "0OIl", "bad_base58"),
        ("meta.innerInstructions.0.instructions.0.data", "2" * 20000, "too_large"),
        ("meta.innerInstructions.0.instructions.0.stackHeight", 0, "bad_shape"),
        ("meta.preTokenBalances.0.accountIndex", 200, "bad_index"),
        ("meta.preTokenBalances.0.uiTokenAmount.amount", "-5", "bad_shape"),
        ("meta.preTokenBalances.0.uiTokenAmount.amount", "1e5", "bad_shape"),
        ("meta.loadedAddresses", {"writable": ["0" * 44], "readonly": []}, "bad_base58"),
        ("transaction.signatures", [], "bad_shape"),
        ("transaction.signatures.0", "0" * 88, "bad_base58"),
        ("transaction.message.accountKeys.0", "l" * 44, "bad_base58"),
        ("transaction.message.accountKeys", ["1" * 32] * 300, "bad_shape"),
        ("transaction", ["AA==", "base64", 3], "bad_shape"),
        ("transaction", ["AA==", "base128"], "bad_encoding"),
        ("transaction", ["AAAA", "base64"], "bad_wire"),
        ("slot", -1, "bad_shape"),
        ("slot", "458801413", "bad_shape"),
        ("version", "v1", "bad_shape"),
    ],
)
def test_malformed_input_is_refused_with_its_reason(edit: str, value: Any, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        read("transactions", _edit(edit, value))
    assert caught.value.reason == reason


@pytest.mark.parametrize(("result", "reason"), [(None, "not_found"), ([], "bad_shape"), ("x", "bad_shape")])
def test_null_and_other_types_are_refused(result: Any, reason: str) -> None:
    with pytest.raises(BadInputError) as caught:
        transaction_from_rpc(result, **STAMP)
    assert caught.value.reason == reason


def test_looked_up_keys_must_be_as_many_as_the_transaction_looks_up() -> None:
    document = entry("213kMyMK").document
    document["result"]["meta"]["loadedAddresses"]["writable"].pop()
    with pytest.raises(BadInputError, match="36 keys loaded, 37 looked up"):
        read("transactions", document)


def _readers() -> list[tuple[Callable[[Any], TransactionUpdate], Any]]:
    simulation = entry("012d7892").document
    wire = pybase64.b64decode(simulation["wire"])
    value = simulation["response"]["result"]["value"]
    return [
        (lambda told: transaction_from_simulation(told, wire, **STAMP), value),
        (lambda told: transaction_from_simulation(told, None, **STAMP), value),
        (lambda told: transaction_from_yellowstone_json(told, **STAMP), entry("2DfsmTYv").document),
        *[
            (lambda told: transaction_from_rpc(told, **STAMP), entry(start).document["result"])
            for start in ("2KBsKB7x", "2RoRJxat", "2EawktQ9")
        ],
    ]


READERS = _readers()


@settings(max_examples=examples(500), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(st.data())
def test_spoiled_json_is_read_or_refused_and_never_breaks_a_decoder(data: st.DataObject) -> None:
    reader, document = data.draw(st.sampled_from(READERS))
    try:
        told = reader(data.draw(spoiled([document])))
    except BadInputError as error:
        assert error.reason
        return
    events_of(told, programs(), failed=True)
    assert len(instructions_of(told, programs())) == len(told.instructions)
    json.dumps([arguments_of(each, programs()) for each in told.instructions])


def test_wire_of_a_simulation_is_read_strictly() -> None:
    document = entry("012d7892").document
    wire = pybase64.b64decode(document["wire"])
    assert parse_wire(wire).version == 1
    with pytest.raises(BadInputError):
        transaction_from_simulation(document["response"]["result"]["value"], wire[:-1], **STAMP)
