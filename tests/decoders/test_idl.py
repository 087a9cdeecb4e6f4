"""IDLs of both formats become the same shapes; a bad one is refused with file, place and expectation."""

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.decoders import idl, shapes
from headrace.decoders.compiler import Layout
from headrace.decoders.idl_types import snake_case
from headrace.decoders.registry import Program
from headrace.model.errors import ConfigError

ADDRESS = "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"


def parse(**document: Any) -> idl.Idl:
    return idl.parse(json.dumps({"address": ADDRESS, **document}).encode(), "mine.json")


def parse_type(kind: Any, *types: dict[str, Any]) -> shapes.Shape:
    fields = [{"name": "value", "type": kind}]
    interface = parse(types=[struct("Event", fields), *types], events=[{"name": "Event"}])
    return interface.events[0].shape.fields[0].shape


def struct(name: str, fields: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": {"kind": "struct", "fields": fields}, **more}


def test_a_legacy_idl_and_a_new_one_say_the_same() -> None:
    legacy = {
        "version": "0.1.0",
        "name": "coin",
        "metadata": {"address": ADDRESS},
        "instructions": [
            {
                "name": "buyExactIn",
                "accounts": [
                    {"name": "userWallet", "isMut": True, "isSigner": True},
                    {"name": "pool", "accounts": [{"name": "baseVault", "isMut": True, "isSigner": False}]},
                ],
                "args": [{"name": "amountIn", "type": "u64"}, {"name": "side", "type": {"defined": "Side"}}],
            }
        ],
        "accounts": [struct("PoolState", [{"name": "baseMint", "type": "publicKey"}])],
        "events": [{"name": "Traded", "fields": [{"name": "baseMint", "type": "publicKey", "index": False}]}],
        "types": [{"name": "Side", "type": {"kind": "enum", "variants": [{"name": "Buy"}, {"name": "Sell"}]}}],
    }

    def derived(text: str) -> list[int]:
        return list(hashlib.sha256(text.encode()).digest()[:8])

    new = {
        "address": ADDRESS,
        "instructions": [
            {
                "name": "buy_exact_in",
                "discriminator": derived("global:buy_exact_in"),
                "accounts": [
                    {"name": "user_wallet", "writable": True, "signer": True},
                    {"name": "pool", "accounts": [{"name": "base_vault", "writable": True}]},
                ],
                "args": [{"name": "amount_in", "type": "u64"}, {"name": "side", "type": {"defined": {"name": "Side"}}}],
            }
        ],
        "accounts": [{"name": "PoolState", "discriminator": derived("account:PoolState")}],
        "events": [{"name": "Traded", "discriminator": derived("event:Traded")}],
        "types": [
            *legacy["types"],
            struct("PoolState", [{"name": "base_mint", "type": "pubkey"}]),
            struct("Traded", [{"name": "base_mint", "type": "pubkey"}]),
        ],
    }
    old, young = (idl.parse(json.dumps(document).encode(), "coin") for document in (legacy, new))
    for kind in ("instructions", "accounts", "events"):
        ours, theirs = getattr(old, kind)[0], getattr(young, kind)[0]
        assert (ours.name, ours.discriminator, ours.accounts) == (theirs.name, theirs.discriminator, theirs.accounts)
        raw = bytes(range(40))
        assert Layout(ours.shape).decode(raw) == Layout(theirs.shape).decode(raw)
    assert old.address == young.address == ADDRESS
    assert old.instructions[0].accounts == ("user_wallet", "pool.base_vault")


@pytest.mark.parametrize(
    ("camel", "snake"),
    [("swapBaseInV2", "swap_base_in_v2"), ("buy", "buy"), ("buy_v2", "buy_v2"), ("setNFTOwner", "set_nft_owner")],
)
def test_snake_case(camel: str, snake: str) -> None:
    assert snake_case(camel) == snake


def test_discriminators_of_any_length() -> None:
    interface = parse(instructions=[{"name": "go", "discriminator": [7], "accounts": [], "args": []}])
    assert interface.instructions[0].discriminator == b"\7"


def test_an_empty_discriminator_is_what_is_left_when_no_other_fits() -> None:
    args = [{"name": "amount", "type": "u8"}]
    known = {"name": "known", "discriminator": [7], "args": args}
    interface = parse(instructions=[{"name": "bare", "discriminator": [], "args": args}, known])
    program = Program(interface, ADDRESS)
    for data, name in ((b"\7\1", "known"), (b"\1", "bare")):
        part = program.instruction(data)
        assert part is not None and (part.name, part.data, part.leftover) == (name, {"amount": 1}, 0)


def test_generics_are_filled_in() -> None:
    pair = struct(
        "Pair",
        [
            {"name": "left", "type": {"generic": "T"}},
            {"name": "right", "type": {"array": [{"generic": "T"}, {"generic": "N"}]}},
        ],
        generics=[{"kind": "type", "name": "T"}, {"kind": "const", "name": "N", "type": "usize"}],
    )
    arguments = [{"kind": "type", "type": "u16"}, {"kind": "const", "value": "3"}]
    shape = parse_type({"defined": {"name": "Pair", "generics": arguments}}, pair)
    assert isinstance(shape, shapes.Struct)
    assert Layout(shape).decode(bytes([1, 0, 2, 0, 3, 0, 4, 0])) == ({"left": 1, "right": [2, 3, 4]}, 0)


def test_generics_are_filled_in_inside_the_arguments_of_generics() -> None:
    box = struct("Box", [{"name": "x", "type": {"generic": "T"}}], generics=[{"kind": "type", "name": "T"}])
    row = struct(
        "Row",
        [{"name": "cells", "type": {"array": [{"generic": "T"}, {"generic": "N"}]}}],
        generics=[{"kind": "type", "name": "T"}, {"kind": "const", "name": "N", "type": "usize"}],
    )

    def of(name: str, *types: Any) -> dict[str, Any]:
        return {"defined": {"name": name, "generics": [{"kind": "type", "type": each} for each in types]}}

    fields = [
        {"name": "few", "type": of("Box", {"option": {"generic": "T"}})},
        {"name": "deep", "type": of("Box", of("Box", {"vec": {"generic": "T"}}))},
        {"name": "row", "type": of("Row", {"generic": "T"}, {"generic": "N"})},
    ]
    outer = struct("Outer", fields, generics=row["generics"])
    arguments = [{"kind": "type", "type": "u8"}, {"kind": "const", "value": "2"}]
    shape = parse_type({"defined": {"name": "Outer", "generics": arguments}}, box, row, outer)
    assert isinstance(shape, shapes.Struct)
    read = {"few": {"x": 5}, "deep": {"x": {"x": "Bw=="}}, "row": {"cells": [8, 9]}}
    assert Layout(shape).decode(b"\1\5" + b"\1\0\0\0\7" + b"\10\11") == (read, 0)


def test_generics_as_anchor_0_29_writes_them() -> None:
    fields = [{"name": "cells", "type": {"genericLenArray": [{"generic": "T"}, "N"]}}]
    row = struct("Row", fields, generics=["T", "N"])
    arguments = [{"type": "u16"}, {"value": "2"}]
    shape = parse_type({"definedWithTypeArgs": {"name": "Row", "args": arguments}}, row)
    assert isinstance(shape, shapes.Struct)
    assert Layout(shape).decode(b"\1\0\2\0") == ({"cells": [1, 2]}, 0)


def test_generics_that_grow_for_ever_are_refused() -> None:
    argument = {"kind": "type", "type": {"option": {"generic": "T"}}}
    again = {"defined": {"name": "Node", "generics": [argument]}}
    node = struct("Node", [{"name": "next", "type": again}], generics=[{"kind": "type", "name": "T"}])
    with pytest.raises(ConfigError, match=r"nested|contain themselves"):
        parse_type({"defined": {"name": "Node", "generics": [{"kind": "type", "type": "u8"}]}}, node)


def test_maps_and_sets_read_as_lists() -> None:
    for idl_type, raw, read in (
        ({"hashMap": ["u16", "string"]}, b"\1\0\0\0" + b"\7\0" + b"\2\0\0\0gm", [[7, "gm"]]),
        ({"bTreeMap": ["u8", {"option": "u8"}]}, b"\2\0\0\0" + b"\1\1\5" + b"\2\0", [[1, 5], [2, None]]),
        ({"bTreeSet": "u16"}, b"\2\0\0\0" + b"\1\0\2\0", [1, 2]),
    ):
        shape = shapes.Struct("Event", (shapes.Field("value", parse_type(idl_type)),))
        assert Layout(shape).decode(raw) == ({"value": read}, 0)


def test_type_aliases() -> None:
    for alias in ({"kind": "type", "alias": {"vec": "u16"}}, {"kind": "alias", "value": {"vec": "u16"}}):
        assert isinstance(parse_type({"defined": {"name": "Words"}}, {"name": "Words", "type": alias}), shapes.Vec)


def test_c_layout_has_padding_and_packed_has_none() -> None:
    fields = [{"name": n, "type": t} for n, t in (("a", "u8"), ("b", "u64"), ("c", "u128"), ("d", "u16"))]
    c = struct("Zero", fields, serialization="bytemuck", repr={"kind": "c"})
    shape = parse_type({"defined": {"name": "Zero"}}, c)
    assert shape.size == 1 + 7 + 8 + 16 + 2 + 6  # u128 is aligned to 8 on chain
    assert isinstance(shape, shapes.Struct)
    raw = b"\1" + bytes(7) + b"\2" + bytes(7) + b"\3" + bytes(15) + b"\4\0" + bytes(6)
    assert Layout(shape).decode(raw) == ({"a": 1, "b": 2, "c": 3, "d": 4}, 0)
    packed = {**c, "repr": {"kind": "c", "packed": True}}
    assert parse_type({"defined": {"name": "Zero"}}, packed).size == 27
    assert parse_type({"defined": {"name": "Zero"}}, struct("Zero", fields)).size == 27


def nested(depth: int) -> Any:
    kind: Any = "u8"
    for _ in range(depth):
        kind = {"option": kind}
    return kind


def doubling(levels: int) -> list[dict[str, Any]]:
    return [
        struct(f"T{i}", [{"name": n, "type": {"defined": {"name": f"T{i + 1}"}}} for n in "ab"]) for i in range(levels)
    ] + [struct(f"T{levels}", [{"name": "a", "type": "u64"}])]


@pytest.mark.parametrize(
    ("kind", "types", "words"),
    [
        ("u65", [], "expected a scalar"),
        ({"vec": "u8", "array": 1}, [], "an object with one key"),
        ({"hashMap": ["u8"]}, [], "a type that borsh knows"),
        ({"defined": {"name": "Gone"}}, [], "the name of a type in this IDL"),
        ({"array": ["u8", -1]}, [], "an array length"),
        ({"array": ["u64", 10**10]}, [], "an array length"),
        ({"array": [{"array": ["u64", 10**6]}, 10**6]}, [], "unfolds to"),
        ({"vec": {"defined": {"name": "Nothing"}}}, [struct("Nothing", [])], "could fill the memory"),
        ({"array": [{"defined": {"name": "Nothing"}}, 9]}, [struct("Nothing", [])], "may take no bytes"),
        ({"coption": "string"}, [], "fixed size"),
        (
            {"defined": {"name": "A"}},
            [struct("A", [{"name": "a", "type": {"vec": {"defined": {"name": "A"}}}}])],
            "A → A",
        ),
        ({"defined": {"name": "T0"}}, doubling(25), "expected"),
        (nested(30), [], "nested"),
        (nested(300), [], "expected"),
        ({"defined": {"name": "E"}}, [{"name": "E", "type": {"kind": "enum", "variants": [3]}}], "a variant"),
        ({"defined": {"name": "K"}}, [{"name": "K", "type": {"kind": "union"}}], 'the kind "struct"'),
        (5, [], "a type"),
        (None, [], "a type"),
    ],
)
def test_refused_types(kind: Any, types: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_type(kind, *types)
    assert "mine.json" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "an Anchor IDL as JSON"),
        (b"{", "an Anchor IDL as JSON"),
        (b"\xff\xfe", "an Anchor IDL as JSON"),
        (b"[" * 100_000, "mine.json"),
        (b"[]", "an object with instructions"),
        (b" " * (idl.IDL_BYTES_MAX + 1), "at most"),
        (b'{"instructions": 3}', "instructions: got 3, expected a list of instructions"),
        (b'{"events": [{"nam": "x"}]}', 'expected an object with a "name"'),
        (b'{"events": [{"name": "x"}]}', "events.x: got x, expected the name of a type"),
        (b'{"events": [{"name": "x", "fields": 3}]}', "a list of fields"),
        (b'{"events": [{"name": "x", "fields": [{"name": "a", "type": "u9"}]}]}', "events.x.a: got u9"),
        (b'{"instructions": [{"name": "x", "discriminator": [900]}]}', "a list of bytes"),
        (b'{"instructions": [{"name": "x", "accounts": [3]}]}', "an account"),
        (b'{"address": "nope"}', "a program id"),
        (b'{"types": [{"name": "x", "type": {"kind": "struct", "fields": [7]}}], "events": [{"name": "x"}]}', "a type"),
    ],
)
def test_refused_files(text: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        idl.parse(text, "mine.json")
    assert "mine.json" in str(refused.value)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    found: list[tuple[Any, Any]] = []
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        found.append((document, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, 3, -1, 1.5, True, "u8", "x", [], {}, [3], {"vec": "u8"}, {"name": "x"}, [[]], {"x": {}}]
)
INTERFACE = {
    "address": ADDRESS,
    "metadata": {"address": ADDRESS},
    "instructions": [
        {
            "name": "go",
            "discriminator": [1],
            "accounts": [{"name": "a", "accounts": [{"name": "b"}]}],
            "args": [
                {"name": "x", "type": {"vec": {"defined": {"name": "E"}}}},
                {"name": "y", "type": {"option": "u8"}},
            ],
            "other_accounts": [["a"]],
        }
    ],
    "accounts": [{"name": "A", "discriminator": [2]}, {"name": "B", "sizes": [9], "mark_at": 1, "discriminator": [3]}],
    "events": [{"name": "A", "discriminator": [4]}, {"name": "C", "fields": [{"name": "z", "type": "bool"}]}],
    "types": [
        struct(
            "A",
            [{"name": "n", "type": {"array": ["u16", 3]}}],
            serialization="bytemuck",
            repr={"kind": "c", "align": 8},
        ),
        struct("B", ["u8", {"defined": {"name": "G", "generics": [{"kind": "type", "type": "u8"}]}}]),
        struct("G", [{"name": "t", "type": {"generic": "T"}}], generics=[{"kind": "type", "name": "T"}]),
        {"name": "E", "type": {"kind": "enum", "variants": [{"name": "U"}, {"name": "V", "fields": ["u8"]}]}},
    ],
    "aliases": {"A": {"n": "m"}},
}


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_idl_is_refused_or_works_but_never_breaks(data: st.DataObject) -> None:
    document = copy.deepcopy(INTERFACE)
    for _ in range(data.draw(st.integers(0, 3))):
        spots = places(document)
        if spots:
            container, key = data.draw(st.sampled_from(spots))
            container[key] = copy.deepcopy(data.draw(JUNK))
    try:
        interface = idl.parse(json.dumps(document).encode(), "mine.json")
    except ConfigError as refused:
        assert "mine.json" in str(refused)
    else:
        for item in (*interface.instructions, *interface.accounts, *interface.events):
            Layout(item.shape, interface.aliases.get(item.name)).decode(bytes(64))
