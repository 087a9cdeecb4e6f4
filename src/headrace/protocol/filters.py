"""Filters of a subscription: limited in size before any work, and normalised so that equal filters have equal text.

A filter is a tree. `and`, `or` and `not` have `nodes`. A leaf compares the values under `key` in an event's data. If
there are several values, because the path leads through lists, the leaf is true if it is true for one of them.
docs/how-to/filter.md lists the comparisons, and the result of each for a missing field.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from headrace.model.errors import RequestError
from headrace.protocol.codes import ErrorCode

FILTER_BYTES_MAX: Final = 16_384
DEPTH_MAX: Final = 8
NODES_MAX: Final = 64
VALUES_MAX: Final = 256
"""Maximum number of values in all leaves of a filter together."""
CT_SIZE: Final = 16
"""Size of a `ct`, in nodes. It searches every value under its key, while other comparisons need one look-up."""
KEY_LENGTH_MAX: Final = 128
KEY_PARTS_MAX: Final = 8
VALUE_LENGTH_MAX: Final = 256

NUMBER: Final = re.compile(r"-?[0-9]{1,100}(?:\.[0-9]{1,100})?")
"""A number in JSON or in a string: ASCII digits, with an optional leading minus and an optional point, without plus or
exponent."""

NEGATIONS: Final[Mapping[str, str]] = MappingProxyType({"neq": "eq", "nin": "in", "nex": "ex"})
"""Comparison → its exact opposite, even for a missing field."""

_ONE_VALUE: Final = frozenset({"eq", "neq", "sw", "ew", "ct"})
_MANY_VALUES: Final = frozenset({"in", "nin"})
_NO_VALUE: Final = frozenset({"ex", "nex"})
_NUMERIC: Final = frozenset({"gt", "gte", "lt", "lte"})
COMPARISONS: Final = _ONE_VALUE | _MANY_VALUES | _NO_VALUE | _NUMERIC
_FIELDS: Final = {"op": {"op", "nodes"}, "cmp": {"key", "cmp", "val", "vals"}}


class Leaf(msgspec.Struct, frozen=True):
    """One comparison. `vals` are texts: none for `ex`, one or more for `in`, otherwise one."""

    key: str
    cmp: str
    vals: tuple[str, ...]


class Branch(msgspec.Struct, frozen=True):
    """Inner node. `op` is `and`, `or` or `not`; a `not` has one node."""

    op: str
    nodes: "tuple[Node, ...]"


Node: TypeAlias = Leaf | Branch


class Filter(msgspec.Struct, frozen=True):
    """A checked filter. Filters with the same `text` pass the same events.

    `size` is the number of nodes, where a node with several values counts once for each value and a `ct` as CT_SIZE.
    Each counted node takes about half a kilobyte.
    """

    text: str
    node: Node
    size: int


def parse_filter(raw: bytes | msgspec.Raw) -> Filter | None:
    """Parse the filter of a `subscribe`; None for `null`. Raises RequestError 120 with the fault and its place."""
    if len(raw := bytes(raw)) > FILTER_BYTES_MAX:
        raise _bad("", f"is longer than {FILTER_BYTES_MAX} bytes")
    try:
        given = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad("", "is no JSON") from error
    if given is None:
        return None
    node = _Reader().node(given, "", 1)
    return Filter(_text(node), node, _size(node))


def checked_key(key: object) -> str | None:
    """Return a valid key: a name, or names joined by dots. None if `key` is malformed, too long or too deep."""
    if isinstance(key, str) and 0 < len(key) <= KEY_LENGTH_MAX:
        parts = key.split(".")
        if all(parts) and len(parts) <= KEY_PARTS_MAX:
            return key
    return None


class _Reader:
    """Parses one filter from JSON values and counts its nodes. `where` is the path to a node, for errors."""

    def __init__(self) -> None:
        self._nodes = self._values = 0

    def node(self, given: Any, where: str, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _bad("", f"has more than {NODES_MAX} nodes")
        if depth > DEPTH_MAX:
            raise _bad("", f"is deeper than {DEPTH_MAX}")
        if not isinstance(given, dict):
            raise _bad(where, "is no object")
        kind = "op" if given.get("op", "") != "" else "cmp"
        if not given.keys() <= _FIELDS[kind] | {"op"}:
            raise _bad(where, f"has a field beside {', '.join(sorted(_FIELDS[kind]))}")
        return self._branch(given, where, depth) if kind == "op" else self._leaf(given, where)

    def _branch(self, given: dict[str, Any], where: str, depth: int) -> Node:
        op, nodes = given["op"], given.get("nodes")
        if op not in ("and", "or", "not"):
            raise _bad(where, "op is none of and, or, not")
        if not isinstance(nodes, list) or not nodes:
            raise _bad(where, f"{op} needs nodes")
        if op == "not" and len(nodes) != 1:
            raise _bad(where, "not needs one node")
        read = [self.node(node, f"{where}nodes[{n}].", depth + 1) for n, node in enumerate(nodes)]
        return _negated(read[0]) if op == "not" else _joined(op, read)

    def _leaf(self, given: dict[str, Any], where: str) -> Node:
        cmp = given.get("cmp")
        key = checked_key(given.get("key"))
        if key is None:
            raise _bad(where, f"key is no name of at most {KEY_LENGTH_MAX} characters and {KEY_PARTS_MAX} parts")
        if not isinstance(cmp, str) or cmp not in COMPARISONS:
            raise _bad(where, f"cmp is none of {' '.join(sorted(COMPARISONS))}")
        wanted = "vals" if cmp in _MANY_VALUES else "val"
        if cmp in _NO_VALUE and ("val" in given or "vals" in given):
            raise _bad(where, f"{cmp} takes no value")
        if cmp not in _NO_VALUE and (wanted not in given or len(given.keys() & {"val", "vals"}) > 1):
            raise _bad(where, f"{cmp} needs {wanted} and nothing else")
        vals = self._texts(given, cmp, where)
        if cmp in _NUMERIC:
            if NUMBER.fullmatch(vals[0]) is None:
                raise _bad(where, f"{cmp} compares numbers: val is none")
            vals = (_plain_number(vals[0]),)
        leaf = Leaf(key, NEGATIONS.get(cmp, cmp), vals)
        if leaf.cmp == "in" and len(vals) == 1:
            leaf = Leaf(key, "eq", vals)
        return _negated(leaf) if cmp in NEGATIONS else leaf

    def _texts(self, given: dict[str, Any], cmp: str, where: str) -> tuple[str, ...]:
        if cmp in _NO_VALUE:
            return ()
        vals = given["vals"] if cmp in _MANY_VALUES else [given["val"]]
        if not isinstance(vals, list) or not vals:
            raise _bad(where, "vals is no list with values")
        self._values += len(vals)
        if self._values > VALUES_MAX:
            raise _bad("", f"has more than {VALUES_MAX} values")
        texts = {text_of(val) for val in vals}
        if not all(text is not None and len(text) <= VALUE_LENGTH_MAX for text in texts):
            raise _bad(where, f"a value is no string, number or boolean of at most {VALUE_LENGTH_MAX} characters")
        return tuple(sorted(text for text in texts if text is not None))


def text_of(value: object) -> str | None:
    """Return a value as filters compare it: strings and numbers as written, booleans as `true` or `false`.

    None for any other value.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else None


def _joined(op: str, nodes: Iterable[Node]) -> Node:
    """Combine nodes into one node.

    Nested branches of the same `op` are merged, duplicates are removed, and the nodes are sorted by their text.
    """
    flat: dict[str, Node] = {}
    for node in nodes:
        inner = node.nodes if isinstance(node, Branch) and node.op == op else (node,)
        flat.update((_text(part), part) for part in inner)
    ordered = tuple(flat[text] for text in sorted(flat))
    return ordered[0] if len(ordered) == 1 else Branch(op, ordered)


def _negated(node: Node) -> Node:
    return node.nodes[0] if isinstance(node, Branch) and node.op == "not" else Branch("not", (node,))


def _plain_number(text: str) -> str:
    """Return a number without leading or trailing zeros, and without a minus before zero."""
    number = Decimal(text)
    whole, _, rest = f"{number:f}".partition(".")
    sign = "-" if number < 0 else ""
    rest = rest.rstrip("0")
    return f"{sign}{whole.lstrip('-').lstrip('0') or '0'}{'.' if rest else ''}{rest}"


def _text(node: Node) -> str:
    return msgspec.json.encode(_wire(node)).decode()


def _wire(node: Node) -> dict[str, Any]:
    """Return the node as a client would write it in JSON."""
    if isinstance(node, Branch):
        return {"op": node.op, "nodes": [_wire(inner) for inner in node.nodes]}
    values: dict[str, Any] = {}
    if node.vals:
        values = {"vals": node.vals} if node.cmp == "in" else {"val": node.vals[0]}
    return {"key": node.key, "cmp": node.cmp, **values}


def _size(node: Node) -> int:
    if isinstance(node, Leaf):
        return CT_SIZE if node.cmp == "ct" else max(1, len(node.vals))
    return 1 + sum(map(_size, node.nodes))


def _bad(where: str, message: str) -> RequestError:
    place = where.rstrip(".")
    return RequestError(ErrorCode.BAD_FILTER, f"filter: {place}{': ' if place else ''}{message}")


_decode = msgspec.json.Decoder(float_hook=str).decode
