"""Filters: what is refused, what is the same, and that a compiled one says what a plain reading of the rules says."""

import json
import operator
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import RequestError
from headrace.protocol import filters
from headrace.protocol.filter_index import FilterIndex, guards_of
from headrace.protocol.filters import Filter, parse_filter
from headrace.protocol.predicates import View, compiled
from tests.examples import examples


def read(tree: Any) -> Filter:
    found = parse_filter(json.dumps(tree).encode())
    assert found is not None
    return found


def view(data: Any) -> View:
    return View(b'"event_id":"e","data":%b,"chain":{}' % json.dumps(data).encode())


def passes(tree: Any, data: Any) -> bool:
    return compiled(read(tree).node)(view(data))


# A plain reading of the rules.


def plain_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return {True: "true", False: "false"}[value]
    if isinstance(value, str | int | float):
        return value if isinstance(value, str) else json.dumps(value)
    return None


def plain_number(value: Any) -> Fraction | None:
    text = None if isinstance(value, bool) else plain_text(value)
    if text is None:
        return None
    whole, dot, rest = text.removeprefix("-").partition(".")
    if not all(1 <= len(part) <= 100 and set(part) <= set("0123456789") for part in [whole] + ([rest] if dot else [])):
        return None
    return Fraction(text)


def interpret(tree: Any, data: Any) -> bool:
    op = tree.get("op")
    if op == "and":
        return all(interpret(node, data) for node in tree["nodes"])
    if op == "or":
        return any(interpret(node, data) for node in tree["nodes"])
    if op == "not":
        return not interpret(tree["nodes"][0], data)
    found = under(data, tree["key"].split("."))
    values = [value for each in found for value in leaves_of(each)]
    texts = [text for text in map(plain_text, values) if text is not None]
    numbers = [number for number in map(plain_number, values) if number is not None]
    cmp, wanted = tree["cmp"], plain_text(tree.get("val")) or ""
    match cmp:
        case "eq" | "neq":
            return any(text == wanted for text in texts) is (cmp == "eq")
        case "in" | "nin":
            among = [plain_text(val) for val in tree["vals"]]
            return any(text in among for text in texts) is (cmp == "in")
        case "ex" | "nex":
            return any(value is not None for value in found) is (cmp == "ex")
        case "sw":
            return any(text.startswith(wanted) for text in texts)
        case "ew":
            return any(text.endswith(wanted) for text in texts)
        case "ct":
            return any(wanted in text for text in texts)
    than = plain_number(tree["val"])
    assert than is not None
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}[cmp]
    return any(compare(number, than) for number in numbers)


def under(value: Any, parts: list[str]) -> list[Any]:
    """What a key's parts lead to: into objects, and into every element of a list that is not at the end."""
    if not parts:
        return [value]
    if isinstance(value, list):
        return [found for each in value for found in under(each, parts)]
    return under(value[parts[0]], parts[1:]) if isinstance(value, dict) and parts[0] in value else []


def leaves_of(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in leaves_of(each)] if isinstance(value, list) else [value]


KEYS = ("a", "b", "c.d", "c")
numbers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(
        ["1", "01", "1.0", "-0", "0.10", "18446744073709551615", "18446744073709551616", "-9.99", 2**53 + 1]
    ),
    st.sampled_from([0.5, 1.5, -0.25]),
)
texts = st.sampled_from(["", "a", "ab", "ba", "1e3", "1_0", "٣", " 1", "NaN", "Infinity", "true", "é", "x" * 256])
values = st.one_of(numbers, texts, st.booleans())
nested_lists = st.recursive(
    st.lists(st.one_of(values, st.none()), max_size=12), lambda inner: st.lists(inner, max_size=3)
)
data_values = st.one_of(values, st.none(), nested_lists)
objects = st.fixed_dictionaries({}, optional={"d": data_values})
datas = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "a": data_values,
            "b": data_values,
            "c": st.one_of(data_values, objects, st.lists(st.one_of(objects, values, st.lists(objects)), max_size=4)),
        },
    ),
    data_values,
)
leaves = st.one_of(
    st.builds(
        lambda k, c, v: {"key": k, "cmp": c, "val": v},
        st.sampled_from(KEYS),
        st.sampled_from(["eq", "neq", "sw", "ew", "ct"]),
        values,
    ),
    st.builds(
        lambda k, c, v: {"key": k, "cmp": c, "vals": v},
        st.sampled_from(KEYS),
        st.sampled_from(["in", "nin"]),
        st.lists(values, min_size=1, max_size=4),
    ),
    st.builds(lambda k, c: {"key": k, "cmp": c}, st.sampled_from(KEYS), st.sampled_from(["ex", "nex"])),
    st.builds(
        lambda k, c, v: {"key": k, "cmp": c, "val": v},
        st.sampled_from(KEYS),
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        numbers,
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda op, nodes: {"op": op, "nodes": nodes},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda node: {"op": "not", "nodes": [node]}, inner),
    ),
    max_leaves=8,
).filter(lambda tree: depth(tree) <= filters.DEPTH_MAX)


def depth(tree: Any) -> int:
    return 1 + max(map(depth, tree.get("nodes", [])), default=0)


def nodes_of(tree: Any) -> int:
    return 1 + sum(map(nodes_of, tree.get("nodes", [])))


@settings(max_examples=examples(300))
@given(trees, datas)
def test_compiled_says_what_the_rules_say(tree: Any, data: Any) -> None:
    assert passes(tree, data) == interpret(tree, data)


@settings(max_examples=examples(100))
@given(st.lists(trees, max_size=8), datas, st.randoms(use_true_random=False))
def test_the_index_finds_those_that_pass_and_forgets_those_that_leave(
    several: list[Any], data: Any, chance: random.Random
) -> None:
    index: FilterIndex[str] = FilterIndex()
    distinct = {one.text: one for one in map(read, several)}
    for one in distinct.values():
        index.add(one, compiled(one.node), one.text)
    expected = {read(tree).text for tree in several if interpret(tree, data)}
    assert sorted(index.match(view(data))) == sorted(expected)
    gone = [one for one in distinct.values() if chance.random() < 0.5]
    for one in gone:
        index.remove(one)
    assert sorted(index.match(view(data))) == sorted(expected - {one.text for one in gone})
    for one in distinct.values():
        if one not in gone:
            index.remove(one)
    assert (len(index), index.size, index._guarded, index._others, index._entries) == (0, 0, {}, {}, {})


def shuffled(tree: Any, chance: random.Random) -> Any:
    """The same in other words: nodes in another order, twice, nested or doubly negated; other spellings of numbers."""
    if "nodes" in tree and tree["op"] != "not":
        nodes = [shuffled(node, chance) for node in tree["nodes"]]
        chance.shuffle(nodes)
        if chance.random() < 0.5:
            nodes.append(nodes[0])
        if len(nodes) > 1 and chance.random() < 0.3:
            nodes = [{"op": tree["op"], "nodes": nodes[:1]}, *nodes[1:]]
        return {"op": tree["op"], "nodes": nodes}
    if "nodes" in tree:
        return {"op": "not", "nodes": [shuffled(tree["nodes"][0], chance)]}
    tree = dict(tree)
    if "vals" in tree:
        tree["vals"] = [plain_text(val) for val in tree["vals"]]
        chance.shuffle(tree["vals"])
    elif tree["cmp"] in ("gt", "gte", "lt", "lte"):
        text = plain_text(tree["val"]) or ""
        tree["val"] = f"{text}0" if "." in text else f"{text}.0"
    opposite = {"eq": "neq", "in": "nin", "ex": "nex", "neq": "eq", "nin": "in", "nex": "ex"}.get(tree["cmp"])
    if opposite and chance.random() < 0.3:
        return {"op": "not", "nodes": [{**tree, "cmp": opposite}]}
    return tree


@settings(max_examples=examples(300))
@given(trees, st.randoms(use_true_random=False))
def test_the_same_in_other_words_is_the_same_filter(tree: Any, chance: random.Random) -> None:
    other = shuffled(tree, chance)
    if depth(other) <= filters.DEPTH_MAX and nodes_of(other) <= filters.NODES_MAX:  # it may have grown beyond
        assert read(other).text == read(tree).text


@settings(max_examples=examples(100))
@given(trees, datas)
def test_the_one_form_means_the_same_and_is_its_own(tree: Any, data: Any) -> None:
    one = read(tree)
    assert interpret(json.loads(one.text), data) == interpret(tree, data)
    if depth(json.loads(one.text)) <= filters.DEPTH_MAX:
        assert read(json.loads(one.text)) == one


def test_a_malformed_filter_is_refused() -> None:
    assert parse_filter(b"null") is None


LEAF = {"key": "a", "cmp": "ex"}


def nested(levels: int) -> Any:
    tree: Any = LEAF
    for _ in range(levels - 1):
        tree = {"op": "not", "nodes": [tree]}
    return tree


REFUSED: list[tuple[Any, str]] = [
    (7, "filter: is no object"),
    ([], "filter: is no object"),
    ({}, "filter: key is no name of at most 128 characters and 8 parts"),
    ({"op": "nand", "nodes": [LEAF]}, "filter: op is none of and, or, not"),
    ({"op": ["and"], "nodes": [LEAF]}, "filter: op is none of and, or, not"),
    ({"op": "and"}, "filter: and needs nodes"),
    ({"op": "or", "nodes": []}, "filter: or needs nodes"),
    ({"op": "or", "nodes": {}}, "filter: or needs nodes"),
    ({"op": "not", "nodes": [LEAF, LEAF]}, "filter: not needs one node"),
    ({"op": "and", "nodes": [LEAF], "key": "a"}, "filter: has a field beside nodes, op"),
    ({"key": "a", "cmp": "eq", "value": "x"}, "filter: has a field beside cmp, key, val, vals"),
    ({"op": "and", "nodes": [LEAF, {"op": "not", "nodes": [3]}]}, "filter: nodes[1].nodes[0]: is no object"),
    ({"key": "a", "cmp": "like", "val": "x"}, "filter: cmp is none of ct eq ew ex gt gte in lt lte neq nex nin sw"),
    ({"key": "a", "cmp": {}, "val": "x"}, "filter: cmp is none of ct eq ew ex gt gte in lt lte neq nex nin sw"),
    ({"key": "a", "cmp": "eq"}, "filter: eq needs val and nothing else"),
    ({"key": "a", "cmp": "eq", "vals": ["x"]}, "filter: eq needs val and nothing else"),
    ({"key": "a", "cmp": "in", "val": "x"}, "filter: in needs vals and nothing else"),
    ({"key": "a", "cmp": "in", "vals": ["x"], "val": "x"}, "filter: in needs vals and nothing else"),
    ({"key": "a", "cmp": "in", "vals": []}, "filter: vals is no list with values"),
    ({"key": "a", "cmp": "in", "vals": "xyz"}, "filter: vals is no list with values"),
    ({"key": "a", "cmp": "ex", "val": "x"}, "filter: ex takes no value"),
    ({"key": "a", "cmp": "gt", "val": "x"}, "filter: gt compares numbers: val is none"),
    ({"key": "a", "cmp": "gt", "val": "1e3"}, "filter: gt compares numbers: val is none"),
    ({"key": "a", "cmp": "gt", "val": "1\n"}, "filter: gt compares numbers: val is none"),
    ({"key": "a", "cmp": "gt", "val": True}, "filter: gt compares numbers: val is none"),
    (
        {"key": "a", "cmp": "eq", "val": None},
        "filter: a value is no string, number or boolean of at most 256 characters",
    ),
    (
        {"key": "a", "cmp": "eq", "val": ["x"]},
        "filter: a value is no string, number or boolean of at most 256 characters",
    ),
    (
        {"key": "a", "cmp": "ct", "val": "x" * 257},
        "filter: a value is no string, number or boolean of at most 256 characters",
    ),
    ({"key": "", "cmp": "ex"}, "filter: key is no name of at most 128 characters and 8 parts"),
    ({"key": "a..b", "cmp": "ex"}, "filter: key is no name of at most 128 characters and 8 parts"),
    ({"key": "a" * 129, "cmp": "ex"}, "filter: key is no name of at most 128 characters and 8 parts"),
    ({"key": ".".join("a" * 9), "cmp": "ex"}, "filter: key is no name of at most 128 characters and 8 parts"),
    (nested(9), "filter: is deeper than 8"),
    ({"op": "and", "nodes": [LEAF] * 64}, "filter: has more than 64 nodes"),
    ({"key": "a", "cmp": "in", "vals": [str(n) for n in range(257)]}, "filter: has more than 256 values"),
    ({"key": "a", "cmp": "in", "vals": ["x" * 200] * 100}, "filter: is longer than 16384 bytes"),
]


@pytest.mark.parametrize(("tree", "message"), REFUSED, ids=[json.dumps(tree)[:60] for tree, _ in REFUSED])
def test_a_refusal_says_what_is_wrong_and_where(tree: Any, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_filter(json.dumps(tree).encode())
    assert (refused.value.code, refused.value.message) == (120, message)


@pytest.mark.parametrize(
    "raw", [b"{", b"", b"[" * 10_000, b'{"key":"\xff"}', b'{"key":"a","cmp":"eq","val":' + b"9" * 5000 + b"}"]
)
def test_no_json_is_refused_too(raw: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parse_filter(raw)
    assert refused.value.code == 120


@pytest.mark.parametrize(
    "tree",
    [
        nested(8),
        {"op": "and", "nodes": [LEAF] * 63},
        {"key": "a", "cmp": "in", "vals": [str(n) for n in range(256)]},
        {"key": ".".join("a" * 8), "cmp": "eq", "val": "x" * 256},
        {"op": "", "key": "a", "cmp": "ex"},
    ],
)
def test_at_the_limit_is_fine(tree: Any) -> None:
    read(tree)


@pytest.mark.parametrize("body", [b"", b'"data":{', b'"data":7', b'"data":' + b"[" * 100_000, b'"data":{"a":"\xff"}'])
def test_a_body_without_data_has_no_fields(body: bytes) -> None:
    assert not compiled(read({"key": "a", "cmp": "ex"}).node)(View(body))
    assert compiled(read({"key": "a", "cmp": "neq", "val": "x"}).node)(View(body))


SWAP = {
    "instructions": [
        {"name": "set_compute_unit_limit", "accounts": []},
        {"name": "swap", "accounts": ["pool", "alice"]},
        {"name": None, "accounts": ["bob"]},
    ]
}


@pytest.mark.parametrize(
    ("leaf", "outcome"),
    [
        ({"key": "instructions.name", "cmp": "eq", "val": "swap"}, True),
        ({"key": "instructions.name", "cmp": "neq", "val": "swap"}, False),
        ({"key": "instructions.name", "cmp": "eq", "val": "buy"}, False),
        ({"key": "instructions.name", "cmp": "neq", "val": "buy"}, True),
        ({"key": "instructions.accounts", "cmp": "eq", "val": "bob"}, True),
        ({"key": "instructions.accounts", "cmp": "in", "vals": ["carol", "alice"]}, True),
        ({"key": "instructions.accounts", "cmp": "nin", "vals": ["carol", "alice"]}, False),
        ({"key": "instructions.accounts", "cmp": "nin", "vals": ["carol"]}, True),
        ({"key": "instructions.accounts", "cmp": "ex"}, True),
        ({"key": "instructions", "cmp": "ex"}, True),
        ({"key": "instructions.path", "cmp": "nex"}, True),
        ({"key": "instructions.accounts", "cmp": "ew", "val": "ice"}, True),
        ({"key": "instructions.name", "cmp": "sw", "val": "set_"}, True),
        ({"key": "instructions.name", "cmp": "ct", "val": "compute"}, True),
        ({"key": "instructions.1.name", "cmp": "ex"}, False),
    ],
)
def test_a_list_matches_if_any_element_does(leaf: Any, outcome: bool) -> None:
    assert passes(leaf, SWAP) is outcome


def test_comparisons_of_one_list_may_be_met_by_different_elements() -> None:
    both = [{"key": "instructions.name", "cmp": "eq", "val": "swap"}]
    both.append({"key": "instructions.accounts", "cmp": "eq", "val": "bob"})
    assert passes({"op": "and", "nodes": both}, SWAP)


def test_an_empty_list_is_there_and_has_no_value() -> None:
    for leaf, outcome in (("ex", True), ("nex", False)):
        assert passes({"key": "a", "cmp": leaf}, {"a": []}) is outcome
    assert not passes({"key": "a", "cmp": "sw", "val": ""}, {"a": []})
    assert passes({"key": "a", "cmp": "neq", "val": ""}, {"a": []})


def test_ct_counts_as_sixteen_nodes() -> None:
    assert read({"key": "a", "cmp": "ct", "val": "x"}).size == filters.CT_SIZE == 16
    assert read({"op": "not", "nodes": [{"key": "a", "cmp": "ct", "val": "x"}]}).size == 17


def test_the_index_finds_filters_among_ten_thousand_values() -> None:
    shown = view({"a": [str(number) for number in range(10_000)]})
    index: FilterIndex[tuple[str, str]] = FilterIndex()
    for cmp in ("eq", "sw", "ew", "gt", "lt"):
        for val in ("9999", "10000"):
            one = read({"key": "a", "cmp": cmp, "val": val})
            index.add(one, compiled(one.node), (cmp, val))
    expected = {("eq", "9999"), ("sw", "9999"), ("ew", "9999"), ("lt", "9999"), ("lt", "10000")}
    assert set(index.match(shown)) == expected


def test_what_looks_like_a_pattern_is_text() -> None:
    assert passes({"key": "a", "cmp": "ct", "val": ".*"}, {"a": "x.*y"})
    assert not passes({"key": "a", "cmp": "ct", "val": ".*"}, {"a": "xyz"})
    assert not passes({"key": "a", "cmp": "sw", "val": "(a+)+$"}, {"a": "a" * 50_000 + "!"})


@pytest.mark.parametrize(
    ("tree", "guards"),
    [
        ({"key": "a", "cmp": "eq", "val": "x"}, {("a", "x")}),
        (
            {
                "op": "and",
                "nodes": [{"key": "a", "cmp": "in", "vals": ["x", "y"]}, {"key": "b", "cmp": "eq", "val": 1}],
            },
            {("b", "1")},
        ),
        (
            {"op": "or", "nodes": [{"key": "a", "cmp": "eq", "val": "x"}, {"key": "b", "cmp": "eq", "val": 1}]},
            {("a", "x"), ("b", "1")},
        ),
        ({"op": "or", "nodes": [{"key": "a", "cmp": "eq", "val": "x"}, {"key": "b", "cmp": "ex"}]}, None),
        ({"key": "a", "cmp": "neq", "val": "x"}, None),
        ({"key": "a", "cmp": "gte", "val": "1"}, None),
    ],
)
def test_what_a_filter_is_found_by(tree: Any, guards: set[tuple[str, str]] | None) -> None:
    assert guards_of(read(tree).node) == guards
