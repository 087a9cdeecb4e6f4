"""IDLs of both formats become the same shapes; what can't be read costs what uses it, with a warning that names it."""

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
from tests.examples import examples

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


def test_generics_that_grow_for_ever_end_with_a_warning() -> None:
    argument = {"kind": "type", "type": {"option": {"generic": "T"}}}
    again = {"option": {"defined": {"name": "Node", "generics": [argument]}}}
    node = struct("Node", [{"name": "next", "type": again}], generics=[{"kind": "type", "name": "T"}])
    fields = [{"name": "value", "type": {"defined": {"name": "Node", "generics": [{"kind": "type", "type": "u8"}]}}}]
    interface = parse(types=[struct("Event", fields), node], events=[{"name": "Event"}])
    assert "grow" in interface.warnings[0]
    layout = Layout(interface.events[0].shape)
    assert layout.decode(b"\1\0") == ({"value": {"next": {"next": None}}}, 0)
    assert layout.decode(b"\1" * 999)[0] == {"value": None}
    assert layout.unreadable_parts == 1


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
        ("u65", [], "value: got u65, expected a scalar"),
        ({"vec": "u8", "array": 1}, [], "an object with one key"),
        ({"hashMap": ["u8"]}, [], "a type that borsh knows"),
        ({"defined": {"name": "Gone"}}, [], "got Gone, expected the name of a type in this IDL"),
        ({"defined": "Gone"}, [], "got Gone, expected the name of a type in this IDL"),
        ({"defined": "Gone<u8>"}, [], "got Gone, expected the name of a type in this IDL"),
        ({"defined": "Vec<"}, [], "got Vec<, expected a type, or Rust text of one"),
        ({"generic": "T"}, [], "a generic type that is given"),
        ({"array": ["u8", -1]}, [], "an array length"),
        ({"array": ["u8", "N"]}, [], "an array length"),
        ({"array": ["u64", 10**10]}, [], "an array length"),
        ({"array": [{"array": ["u64", 10**6]}, 10**6]}, [], "unfolds to"),
        ({"vec": {"defined": {"name": "Nothing"}}}, [struct("Nothing", [])], "could fill the memory"),
        ({"array": [{"defined": {"name": "Nothing"}}, 9]}, [struct("Nothing", [])], "may take no bytes"),
        ({"coption": "string"}, [], "fixed size"),
        (nested(70), [], "nested at most"),
        ({"defined": {"name": "E"}}, [{"name": "E", "type": {"kind": "enum", "variants": [3]}}], "a variant"),
        ({"defined": {"name": "K"}}, [{"name": "K", "type": {"kind": "union"}}], 'the kind "struct"'),
        ({"defined": {"name": "K"}}, [{"name": "K", "type": 3}], "there is no such type"),
        (5, [], "a type"),
        (None, [], "a type"),
    ],
)
def test_a_type_that_cannot_be_read_costs_what_uses_it(kind: Any, types: list[dict[str, Any]], words: str) -> None:
    fields = [{"name": "before", "type": "u8"}, {"name": "value", "type": kind}, {"name": "after", "type": "u8"}]
    others = [struct("Event", fields), struct("Plain", [{"name": "n", "type": "u8"}])]
    interface = parse(types=[*others, *types], events=[{"name": "Event"}, {"name": "Plain"}])
    assert any(words in warning and "mine.json" in warning for warning in interface.warnings), interface.warnings
    event, plain = (Layout(each.shape) for each in interface.events)
    data, leftover = event.decode(b"\5" + b"\1" * 300)
    assert (data["before"], data["after"]) == (5, None)
    assert leftover >= 299
    assert json.loads(event.encode_json(data)) == data
    assert plain.decode(b"\7") == ({"n": 7}, 0)


def test_what_does_not_meet_the_unreadable_type_is_read() -> None:
    gone = {"defined": {"name": "Gone"}}
    action = {"name": "Action", "type": {"kind": "enum", "variants": [{"name": "A"}, {"name": "B", "fields": [gone]}]}}
    fields = [
        {"name": "few", "type": {"vec": gone}},
        {"name": "maybe", "type": {"option": gone}},
        {"name": "action", "type": {"defined": {"name": "Action"}}},
        {"name": "pair", "type": {"defined": {"name": "Pair"}}},
        {"name": "end", "type": "u8"},
    ]
    pair = struct("Pair", [{"name": "a", "type": "u8"}, {"name": "b", "type": gone}])
    interface = parse(types=[struct("Event", fields), pair, action], events=[{"name": "Event"}])
    layout = Layout(interface.events[0].shape)
    nothing: dict[str, Any] = {"few": [], "maybe": None, "action": "A", "pair": {"a": 9, "b": None}, "end": None}
    for raw, leftover in ((bytes(6) + b"\t", 0), (bytes(6) + b"\tabc", 3)):
        assert layout.decode(raw) == (nothing, leftover)
    assert json.loads(layout.encode_json(nothing)) == nothing
    for at, name in ((0, "few"), (4, "maybe"), (5, "action")):
        data, leftover = layout.decode(bytes(at) + b"\1" + bytes(11 - at))
        assert (data[name], data["end"]) == (None, None)
        assert json.loads(layout.encode_json(data)) == data
    assert layout.unreadable_parts == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "an Anchor IDL as JSON"),
        (b"{", "an Anchor IDL as JSON"),
        (b"\xff\xfe", "an Anchor IDL as JSON"),
        (b"[" * 100_000, "mine.json"),
        (b"[]", "an object with instructions"),
        (b" " * (idl.IDL_BYTES_MAX + 1), "at most"),
        (b'{"address": "nope"}', "a program id"),
        (b'{"address": 5}', "a program id"),
    ],
)
def test_refused_files(text: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        idl.parse(text, "mine.json")
    assert "mine.json" in str(refused.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"instructions": 3}, "instructions: got 3, expected a list of instructions; left out"),
        ({"events": [{"nam": "x"}]}, "events.1: got {'nam': 'x'}, expected an object with a \"name\"; left out"),
        ({"events": [{"name": "x"}]}, "events.x: got x, expected the name of a type in this IDL; its bytes are shown"),
        ({"events": [{"name": "x", "fields": 3}]}, "events.x: got 3, expected a list of fields"),
        ({"events": [{"name": "x", "fields": [{"name": "a", "type": "u9"}]}]}, "events.x.a: got u9"),
        ({"instructions": [{"name": "x", "discriminator": [900]}]}, "instructions.x: got [900], expected a discrim"),
        ({"instructions": [{"name": "x", "accounts": [3]}]}, "it is called account_0"),
        ({"instructions": [{"name": "x", "accounts": 3}]}, "accounts without names"),
        ({"accounts": [{"name": "x", "sizes": ["a"]}], "types": [struct("x", [])]}, "accounts.x: got Expected"),
        ({"types": [struct("x", [7])], "events": [{"name": "x"}]}, "types.x.0: got 7, expected a type"),
        ({"types": [{"name": "x"}]}, "types.x: got None"),
        ({"types": [struct("x", ["u8"], repr=3)], "events": [{"name": "x"}]}, "types.x: got 3, expected a repr"),
        ({"aliases": 3}, "aliases: got Expected"),
    ],
)
def test_a_malformed_entry_costs_itself(more: dict[str, Any], words: str) -> None:
    fields = [{"name": "n", "type": "u8"}]
    good = {kind: [{"name": "good", "discriminator": [1], "args": fields}] for kind in ("instructions", "events")}
    good |= {"accounts": [{"name": "good", "discriminator": [1]}], "types": [struct("good", fields)]}
    for kind, entries in more.items():
        good[kind] = [*good[kind], *entries] if isinstance(entries, list) else entries
    interface = parse(**good)
    assert any(warning.startswith(f"IDL mine.json: {words}") or words in warning for warning in interface.warnings)
    program = Program(interface, ADDRESS)
    assert program.warnings == interface.warnings
    account = program.account(b"\1\7")
    assert account is not None and account.data == {"n": 7}


def test_an_idl_of_nothing_says_so() -> None:
    assert parse().warnings == (
        "IDL mine.json: top: got no instructions, accounts and events, expected some of them; nothing is decoded by it",
    )


def test_warnings_are_bounded() -> None:
    interface = parse(events=[{"name": f"e{n}", "fields": [{"name": "a", "type": "u9"}]} for n in range(5000)])
    assert len(interface.warnings) == 51
    assert interface.warnings[-1] == "IDL mine.json: more than 50 warnings"


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_json(mark: bytes) -> None:
    text = json.dumps({"address": ADDRESS})
    raw = text.encode("utf-16") if mark == b"utf-16" else mark + text.encode()
    assert idl.parse(raw, "mine.json").address == ADDRESS


# -- types that contain themselves, and depth --


def tree_event(*types: dict[str, Any], kind: Any = None) -> Layout:
    fields = [{"name": "id", "type": "u8"}, {"name": "tree", "type": kind or {"defined": {"name": "Node"}}}]
    interface = parse(types=[struct("Event", fields), *types], events=[{"name": "Event"}])
    assert interface.warnings == ()
    return Layout(interface.events[0].shape)


def read_tree(layout: Layout, raw: bytes, tree: Any) -> None:
    data, leftover = layout.decode(b"\7" + raw)
    assert (data, leftover) == ({"id": 7, "tree": tree}, 0)
    assert json.loads(layout.encode_json(data)) == data


def test_a_type_may_contain_itself_through_an_enum_and_a_list() -> None:
    variants = [
        {"name": "Leaf", "fields": ["u8"]},
        {"name": "Split", "fields": [{"name": "d", "type": {"vec": {"defined": {"name": "Node"}}}}]},
    ]
    layout = tree_event({"name": "Node", "type": {"kind": "enum", "variants": variants}})
    tree = {"Split": {"d": [{"Leaf": 5}, {"Split": {"d": [{"Leaf": 9}]}}]}}
    read_tree(layout, bytes.fromhex("010200000000050101000000") + b"\0\t", tree)
    assert layout.decode(b"\7\1\2\0\0\0\0\5") == ({"id": 7, "tree": None}, 7)


def test_a_type_may_contain_itself_through_an_option() -> None:
    layout = tree_event(
        struct("Node", [{"name": "v", "type": "u8"}, {"name": "next", "type": {"option": {"defined": "Node"}}}])
    )
    read_tree(layout, b"\1\1\2\1\3\0", {"v": 1, "next": {"v": 2, "next": {"v": 3, "next": None}}})


def test_types_may_contain_one_another() -> None:
    layout = tree_event(
        struct("Node", [{"name": "odd", "type": {"vec": {"defined": {"name": "Odd"}}}}]),
        struct("Odd", [{"name": "even", "type": {"option": {"defined": {"name": "Node"}}}}]),
    )
    read_tree(layout, b"\1\0\0\0\1\1\0\0\0\0", {"odd": [{"even": {"odd": [{"even": None}]}}]})


def test_a_generic_type_may_contain_itself() -> None:
    argument = [{"kind": "type", "type": {"generic": "T"}}]
    again = {"option": {"defined": {"name": "List", "generics": argument}}}
    node = struct(
        "List",
        [{"name": "v", "type": {"generic": "T"}}, {"name": "next", "type": again}],
        generics=[{"kind": "type", "name": "T"}],
    )
    of_u16 = {"defined": {"name": "List", "generics": [{"kind": "type", "type": "u16"}]}}
    read_tree(tree_event(node, kind=of_u16), b"\1\0\1\2\0\0", {"v": 1, "next": {"v": 2, "next": None}})


def test_a_struct_that_is_its_own_field_has_no_end_and_reads_as_null() -> None:
    for fields in ([["a", "Node"]], [["a", "Node"], ["b", "Node"]]):
        layout = tree_event(struct("Node", [{"name": n, "type": {"defined": t}} for n, t in fields]))
        for _ in range(2):
            assert layout.decode(b"\7" + bytes(5000)) == ({"id": 7, "tree": None}, 5000)
        assert layout.unreadable_parts == 2


@pytest.mark.parametrize("depth", [10, 65, 67, 1000, 100_000])
def test_values_nested_deeper_than_the_bound_read_as_null_and_are_counted(depth: int) -> None:
    layout = tree_event(
        struct("Node", [{"name": "v", "type": "u8"}, {"name": "next", "type": {"option": {"defined": "Node"}}}])
    )
    raw = b"\7" + b"\1\1" * depth + b"\1\0"
    data, leftover = layout.decode(raw)
    if depth < 67:
        assert (leftover, layout.unreadable_parts) == (0, 0)
    else:
        assert (leftover, layout.unreadable_parts) == (len(raw) - 1 - 2 * 66 - 1, 1)
    read, levels = data["tree"], 0
    while read is not None:
        read, levels = read["next"], levels + 1
    assert levels == min(depth + 1, 67)
    json.loads(layout.encode_json(data))


@pytest.mark.parametrize("depth", [18, 40, 60])
def test_deep_types_are_read(depth: int) -> None:
    shape = parse_type(nested(depth))
    layout = Layout(shapes.Struct("Event", (shapes.Field("value", shape),)))
    for _ in range(2):
        assert layout.decode(b"\1" * depth + b"\5\6") == ({"value": 5}, 1)
        assert layout.decode(b"\1" * (depth - 1) + b"\0\6") == ({"value": None}, 1)
    assert layout.encode_json({"value": 5}) == b'{"value":5}'


def test_types_that_double_at_each_level_end_with_the_data() -> None:
    layout = Layout(shapes.Struct("Event", (shapes.Field("value", parse_type({"defined": "T0"}, *doubling(25))),)))
    for _ in range(2):
        data, _ = layout.decode(bytes(4000))
        json.loads(layout.encode_json(data))
    empty = [*doubling(25)[:-1], struct("T25", [])]
    layout = Layout(shapes.Struct("Event", (shapes.Field("value", parse_type({"defined": "T0"}, *empty)),)))
    assert layout.decode(bytes(4000))[1] == 4000


def chain(length: int, wrap: Any) -> list[dict[str, Any]]:
    links = [struct(f"T{n}", [{"name": "a", "type": wrap({"defined": f"T{n + 1}"})}]) for n in range(length)]
    return [*links, struct(f"T{length}", [{"name": "a", "type": "u8"}])]


@pytest.mark.parametrize("wrap", [lambda kind: kind, lambda kind: {"option": kind}, lambda kind: {"vec": kind}])
def test_a_chain_of_a_thousand_types_costs_only_what_uses_its_depth(wrap: Any) -> None:
    fields = [{"name": "id", "type": "u8"}, {"name": "value", "type": {"defined": "T0"}}]
    interface = parse(
        types=[struct("Event", fields), *chain(1000, wrap), struct("Plain", [{"name": "n", "type": "u8"}])],
        events=[{"name": "Event"}, {"name": "Plain"}],
    )
    event, plain = (Layout(each.shape) for each in interface.events)
    data, _ = event.decode(b"\7" + b"\1" * 5000)
    assert data == {"id": 7, "value": None}
    assert plain.decode(b"\7") == ({"n": 7}, 0)
    shallow, _ = event.decode(b"\7" + bytes(8))
    json.loads(event.encode_json(shallow))


@pytest.mark.parametrize("depth", [1000, 50_000])
def test_json_nested_a_thousand_deep_costs_what_stands_there(depth: int) -> None:
    deep = '{"vec":' * depth + '"u8"' + "}" * depth
    text = json.dumps(
        {
            "address": ADDRESS,
            "events": [{"name": "Event", "fields": [{"name": "a", "type": "u8"}, {"name": "b", "type": "DEEP"}]}],
            "accounts": [{"name": "Plain", "discriminator": [1]}],
            "types": [struct("Plain", [{"name": '\\"[{', "type": "u8"}])],
        }
    ).replace('"DEEP"', deep)
    interface = idl.parse(text.encode(), "mine.json")
    assert any("nested at most" in warning for warning in interface.warnings)
    assert Layout(interface.accounts[0].shape).decode(b"\5") == ({'\\"[{': 5}, 0)
    assert Layout(interface.events[0].shape).decode(b"\5" + b"\1" * 50)[0] == {"a": 5, "b": None}


# -- types as text --


@pytest.mark.parametrize(
    ("text", "raw", "read"),
    [
        ("Tracked<u64>", bytes([5] + [0] * 7 + [6]), {"value": "5", "at": {"slot": 6}}),
        ("Tracked<Option<u16>>", b"\1\5\0\6", {"value": 5, "at": {"slot": 6}}),
        ("Tracked < Vec < u8 > >", b"\1\0\0\0\7\6", {"value": "Bw==", "at": {"slot": 6}}),
        ("crate::state::Tracked<[u8; 4]>", b"\1\2\3\4\6", {"value": [1, 2, 3, 4], "at": {"slot": 6}}),
        ("Tracked<Tracked<u8>>", b"\1\2\6", {"value": {"value": 1, "at": {"slot": 2}}, "at": {"slot": 6}}),
        ("Tracked<(u8, Update)>", b"\1\2\6", {"value": [1, {"slot": 2}], "at": {"slot": 6}}),
        ("(Update,u64)", b"\5\6" + bytes(7), [{"slot": 5}, "6"]),
        ("(u8,)", b"\5", 5),
        ("[Update; 2]", b"\5\6", [{"slot": 5}, {"slot": 6}]),
        ("Option<Box<Update>>", b"\1\5", {"slot": 5}),
        ("HashMap<u8, String>", b"\1\0\0\0\5\1\0\0\0a", [[5, "a"]]),
        ("Ref<'info, u8>", b"\5", {"it": 5}),
        ("Grid<u16, 2>", b"\1\0\2\0", {"cells": [1, 2]}),
        ("Pair<u8, u16>", b"\1\2\0", {"key": 1, "value": 2}),
        ("usize", bytes([5] + [0] * 7), "5"),
        ("isize", b"\xff" * 8, "-1"),
        ("u16", b"\5\0", 5),
    ],
)
def test_types_as_text(text: str, raw: bytes, read: Any) -> None:
    types = [
        struct("Tracked", [{"name": "value", "type": {"defined": "T"}}, {"name": "at", "type": {"defined": "Update"}}]),
        struct("Update", [{"name": "slot", "type": "u8"}]),
        struct("Ref", [{"name": "it", "type": {"defined": "T"}}]),
        struct("Grid", [{"name": "cells", "type": {"array": [{"defined": "A"}, "N"]}}]),
        struct("Pair", [{"name": "key", "type": {"defined": "K"}}, {"name": "value", "type": {"defined": "V"}}]),
    ]
    document = {
        "metadata": {"address": ADDRESS},
        "types": [*types, struct("Event", [{"name": "value", "type": {"defined": text}}])],
        "events": [{"name": "Event"}],
    }
    interface = idl.parse(json.dumps(document).encode(), "mine.json")
    assert [text in warning for warning in interface.warnings] == ([True] if "size" in text else [])
    layout = Layout(interface.events[0].shape)
    data, leftover = layout.decode(raw)
    assert leftover == 0
    assert json.loads(layout.encode_json(data)) == {"value": read}


def test_generic_text_whose_parameters_have_no_certain_order_is_not_guessed() -> None:
    swapped = struct("Pair", [{"name": "value", "type": {"defined": "V"}}, {"name": "key", "type": {"defined": "K"}}])
    event = struct("Event", [{"name": "value", "type": {"defined": "Pair<u8, u16>"}}])
    interface = parse(types=[swapped, event], events=[{"name": "Event"}])
    assert "parameters are certain" in interface.warnings[0]
    assert Layout(interface.events[0].shape).decode(b"\1\2\0") == ({"value": None}, 3)


@given(st.text(alphabet="Tu8<>()[],;: &'_V", max_size=40))
def test_any_text_is_a_type_or_none(text: str) -> None:
    parse_type({"defined": text})


# -- names of the legacy format --


@pytest.mark.parametrize(
    ("camel", "rust"),
    [
        ("testLog1", "test_log_1"), ("testLog1", "test_log1"), ("swapV2Exact", "swap_v_2_exact"),
        ("usd2Eur", "usd_2_eur"), ("swapXY", "swap_x_y"), ("swapXY", "swap_xy"), ("log12", "log_1_2"),
        ("setNFTOwner", "set_nft_owner"), ("initializeV1", "initialize_v1"), ("aB", "a_b"),
    ],
)  # fmt: skip
def test_a_legacy_name_is_found_by_each_name_that_anchor_may_have_hashed(camel: str, rust: str) -> None:
    document = {"metadata": {"address": ADDRESS}, "instructions": [{"name": camel, "args": []}]}
    program = Program(idl.parse(json.dumps(document).encode(), "mine.json"), ADDRESS)
    part = program.instruction(idl.discriminator("global", rust))
    assert part is not None and part.name == snake_case(camel)


def test_a_name_that_is_certain_comes_before_one_that_is_guessed() -> None:
    entries = [
        {"name": "log1", "args": []},
        {"name": "other", "args": [], "discriminator": list(idl.discriminator("global", "log_1"))},
    ]
    document = {"metadata": {"address": ADDRESS}, "instructions": entries}
    program = Program(idl.parse(json.dumps(document).encode(), "mine.json"), ADDRESS)
    part = program.instruction(idl.discriminator("global", "log_1"))
    assert part is not None and part.name == "other"


@pytest.mark.parametrize("name", ["a1b2c3d4e5f6g7h8", "1" * 60, "X" * 60])
def test_names_of_many_digits_are_guessed_within_bounds(name: str) -> None:
    assert len(list(idl.guessed(name))) <= 200


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


@settings(max_examples=examples(300))
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
