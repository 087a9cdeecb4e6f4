"""Compiled layouts read what a plain borsh writer wrote, whole, cut, grown or random."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.decoders import idl
from headrace.decoders.compiler import Layout
from tests.decoders.borsh import Drawn, idls
from tests.examples import examples

U64 = {"kind": "struct", "fields": [{"name": "a", "type": "u64"}]}


def layout_of(interface: dict[str, Any], **more: Any) -> Layout:
    event = idl.parse(json.dumps(interface).encode(), "test").events[0]
    return Layout(event.shape, **more)


def layout(fields: dict[str, Any], *types: dict[str, Any], **more: Any) -> Layout:
    members = [{"name": name, "type": kind} for name, kind in fields.items()]
    event = {"name": "Event", "type": {"kind": "struct", "fields": members}}
    return layout_of({"events": [{"name": "Event"}], "address": "1" * 32, "types": [event, *types]}, **more)


def enum(name: str, *variants: Any) -> dict[str, Any]:
    return {"name": name, "type": {"kind": "enum", "variants": list(variants)}}


@settings(max_examples=examples(250))
@given(idls(), st.binary(max_size=9))
def test_reads_what_borsh_wrote(case: tuple[dict[str, Any], Drawn], tail: bytes) -> None:
    interface, drawn = case
    compiled = layout_of(interface)
    assert compiled.decode(drawn.raw) == (drawn.native, 0)
    assert compiled.decode(b"12345678" + drawn.raw + tail, 8) == (drawn.native, len(tail))
    assert json.loads(compiled.encode_json(drawn.native)) == drawn.wire
    assert compiled.short_reads == 0


def is_part(read: Any, whole: Any) -> bool:
    """Whether all that was read is as it was written; None is what was cut off."""
    if isinstance(read, dict) and isinstance(whole, dict):
        return list(read) == list(whole) and all(is_part(read[name], whole[name]) for name in read)
    return read is None or bool(read == whole)


@settings(max_examples=examples(100))
@given(idls(), st.data())
def test_a_cut_gives_the_whole_fields_before_it(case: tuple[dict[str, Any], Drawn], data: st.DataObject) -> None:
    interface, drawn = case
    compiled = layout_of(interface)
    length = data.draw(st.integers(0, len(drawn.raw)))
    fields, leftover = compiled.decode(drawn.raw[:length])
    assert list(fields) == list(drawn.native)
    assert is_part(fields, drawn.native)
    assert leftover <= length
    first, _ = compiled.decode(drawn.raw[:length])  # the second time by the prefix compiled for this length
    assert first == fields
    assert compiled.short_reads in (0, 2)
    json.loads(compiled.encode_json(fields))


@settings(max_examples=examples(150))
@given(idls(), st.binary(max_size=300))
def test_random_bytes_never_raise(case: tuple[dict[str, Any], Drawn], raw: bytes) -> None:
    compiled = layout_of(case[0])
    fields, leftover = compiled.decode(raw)
    assert 0 <= leftover <= len(raw)
    json.loads(compiled.encode_json(fields))


@settings(max_examples=examples(50))
@given(idls(), st.data())
def test_a_projection_reads_the_same_values(case: tuple[dict[str, Any], Drawn], data: st.DataObject) -> None:
    interface, drawn = case
    names = data.draw(st.sets(st.sampled_from(sorted(drawn.native))))
    some = layout_of(interface).project(names)
    assert some.decode(drawn.raw) == ({n: v for n, v in drawn.native.items() if n in names}, 0)
    assert json.loads(some.encode_json(some.decode(drawn.raw)[0])) == {n: drawn.wire[n] for n in names}


def test_every_length_of_a_growing_layout() -> None:
    compiled = layout({"a": "u64", "name": "string", "b": "u16", "c": "pubkey", "d": "bool"})
    raw = bytes(range(8)) + b"\x03\0\0\0abc" + b"\1\2" + bytes(32) + b"\1"
    steps = {8: 1, 15: 2, 17: 3, 49: 4, 50: 5}
    for lap in range(2):  # the second lap meets prefixes that are compiled already, in another order
        for length in (range(51), reversed(range(51)))[lap]:
            fields, leftover = compiled.decode(raw[:length])
            whole = max((end for end in steps if end <= length), default=0)
            assert sum(value is not None for value in fields.values()) == steps.get(whole, 0), length
            assert leftover == length - whole
    assert compiled.short_reads == 100
    assert compiled.decode(raw + b"xyz")[1] == 3


def test_huge_counts_allocate_nothing() -> None:
    nested = {"vec": {"vec": "string"}}
    for kind in ({"vec": "u64"}, {"vec": "string"}, "string", "bytes", nested):
        compiled = layout({"a": kind})
        assert compiled.decode(b"\xff\xff\xff\xff" + bytes(64)) == ({"a": None}, 68)
        assert compiled.short_reads == 1


def test_an_unknown_variant_keeps_its_number_and_what_can_be_placed() -> None:
    side = enum("Side", {"name": "Buy"}, {"name": "Sell"})
    compiled = layout({"a": "u8", "side": {"defined": {"name": "Side"}}, "b": "u8"}, side)
    assert compiled.decode(b"\1\1\2") == ({"a": 1, "side": "Sell", "b": 2}, 0)
    assert compiled.decode(b"\1\7\2") == ({"a": 1, "side": 7, "b": 2}, 0)
    assert compiled.unknown_variants == 1
    assert compiled.encode_json({"a": 1, "side": 7, "b": 2}) == b'{"a":1,"side":7,"b":2}'


def test_behind_an_unknown_variant_with_data_nothing_can_be_placed() -> None:
    action = enum("Action", {"name": "Wait"}, {"name": "Pay", "fields": [{"name": "amount", "type": "u64"}]})
    compiled = layout({"a": "u8", "action": {"defined": {"name": "Action"}}, "b": "u8"}, action)
    assert compiled.decode(b"\1\0\2") == ({"a": 1, "action": "Wait", "b": 2}, 0)
    assert compiled.decode(b"\1\7\2\3") == ({"a": 1, "action": 7, "b": None}, 2)
    assert (compiled.unknown_variants, compiled.short_reads) == (1, 0)
    in_a_list = layout({"a": "u8", "actions": {"vec": {"defined": {"name": "Action"}}}, "b": "u8"}, action)
    assert in_a_list.decode(b"\1\2\0\0\0\0\7\2") == ({"a": 1, "actions": None, "b": None}, 7)


def test_aliases_show_a_value_under_its_older_name() -> None:
    compiled = layout({"quote": "u64", "x": "u8"}, aliases={"quote": "sol", "x": "quote", "gone": "y"})
    fields, _ = compiled.decode(bytes([5] + [0] * 7 + [9]))
    assert fields == {"quote": 5, "x": 9, "sol": 5}
    assert compiled.encode_json(fields) == b'{"quote":"5","x":9,"sol":"5"}'
    assert compiled.decode(b"\5" + bytes(7))[0] == {"quote": 5, "x": None, "sol": 5}
    assert compiled.encode_json({"quote": 5, "x": None, "sol": 5}) == b'{"quote":"5","x":null,"sol":"5"}'
    assert compiled.project(["sol"]).decode(bytes(9))[0] == {"sol": 0, "quote": 0}


def test_padding_is_read_and_left_out() -> None:
    compiled = layout({"a": "u8", "_padding": {"array": ["u8", 7]}, "padding_1": {"vec": "u16"}, "b": "u8"})
    assert compiled.decode(b"\1" + bytes(7) + b"\2\0\0\0aabb" + b"\3") == ({"a": 1, "b": 3}, 0)


def test_names_cannot_bring_code() -> None:
    evil = "a'] = __import__('os').abort() #{0}%s\"\\\n"
    variant = {"name": evil, "fields": [{"name": evil, "type": "u8"}]}
    fields = {evil: "u8", "x%s{}": "string", "e": {"defined": {"name": evil}}}
    compiled = layout(fields, enum(evil, variant), aliases={evil: evil + "2"})
    fields, leftover = compiled.decode(b"\5\1\0\0\0z\0\6")
    assert (fields, leftover) == ({evil: 5, "x%s{}": "z", "e": {evil: {evil: 6}}, evil + "2": 5}, 0)
    assert json.loads(compiled.encode_json(fields)) == fields


@pytest.mark.parametrize("name", ["class", "__class__", "__dict__", "x y", "ünï", ""])
def test_a_name_that_no_attribute_can_have_is_a_field_like_any(name: str) -> None:
    compiled = layout({"a": "u8", name: "u16", "b": "u8"})
    assert compiled.decode(b"\1\2\0\3") == ({"a": 1, name: 2, "b": 3}, 0)


@pytest.mark.parametrize("count", [1, 15, 28, 29, 30, 31, 40])
def test_fields_keep_the_order_of_the_layout_whatever_their_types(count: int) -> None:
    kinds = ["u128", "pubkey", "string", {"option": "u8"}, {"array": ["u8", 3]}, {"vec": "u8"}, "bool"]
    fields = {f"f{n}": kinds[n % len(kinds)] for n in range(count)}
    compiled = layout(fields, aliases={"f0": "other"})
    data, _ = compiled.decode(bytes(2000))
    assert list(data) == [*fields, "other"]
    assert data["f0"] == data["other"] == 0
    assert data == compiled.decode(bytes(2000))[0]


def test_bytes_that_are_no_text_read_as_replacement_characters() -> None:
    compiled = layout({"a": "string", "b": "u8"})
    assert compiled.decode(b"\2\0\0\0\xff\xfe\7\1") == ({"a": "��", "b": 7}, 1)
    assert compiled.short_reads == 0


def test_items_of_nothing_but_padding_are_counted_whole_and_cut() -> None:
    nothing = {"name": "Nothing", "type": {"kind": "struct", "fields": [{"name": "padding", "type": "u16"}]}}
    items = {"defined": {"name": "Nothing"}}
    compiled = layout({"few": {"vec": items}, "many": {"array": [items, 9]}, "end": "u8"}, nothing)
    raw = b"\2\0\0\0" + bytes(4) + bytes(18) + b"\5"
    assert compiled.decode(raw) == ({"few": [{}, {}], "many": [{}] * 9, "end": 5}, 0)
    assert compiled.decode(raw[:-1]) == ({"few": [{}, {}], "many": [{}] * 9, "end": None}, 0)


def test_a_nested_struct_that_ends_early_keeps_its_first_fields() -> None:
    members = [{"name": name, "type": kind} for name, kind in (("amount", "u64"), ("fee", "u64"), ("by", "pubkey"))]
    result = {"name": "Result", "type": {"kind": "struct", "fields": members}}
    compiled = layout({"id": "u8", "result": {"defined": {"name": "Result"}}, "later": "u8"}, result)
    raw = b"\7" + (5).to_bytes(8, "little") + (6).to_bytes(8, "little")
    for _ in range(2):
        for length, amount, fee in ((17, 5, 6), (12, 5, None), (9, 5, None)):
            data, leftover = compiled.decode(raw[:length])
            assert data == {"id": 7, "result": {"amount": amount, "fee": fee, "by": None}, "later": None}
            assert leftover == (length - 1) % 8
            assert json.loads(compiled.encode_json(data)) == {
                "id": 7,
                "result": {"amount": "5", "fee": None if fee is None else str(fee), "by": None},
                "later": None,
            }
        assert compiled.decode(raw[:8]) == ({"id": 7, "result": None, "later": None}, 7)
    assert compiled.short_reads == 8


def test_bools_and_option_tags_that_are_neither_0_nor_1_are_counted() -> None:
    compiled = layout({"a": "bool", "b": {"option": "u8"}, "c": {"vec": "bool"}, "d": {"coption": "u8"}})
    raw = b"\2" + b"\3\7" + b"\2\0\0\0\1\2" + b"\2\0\0\0\5"
    read = {"a": True, "b": 7, "c": [True, True], "d": 5}
    assert compiled.decode(raw) == (read, 0)
    assert compiled.invalid_values == 4
    assert json.loads(compiled.encode_json(read)) == read
    plain = layout({"a": "bool", "b": {"option": "u8"}, "c": {"vec": "bool"}, "d": {"coption": "u8"}})
    plain.decode(b"\1" + b"\1\7" + b"\2\0\0\0\1\0" + b"\1\0\0\0\5")
    assert plain.invalid_values == 0
