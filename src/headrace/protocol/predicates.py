"""Filters at work: a message's data decoded once for all who ask, and a filter compiled into one call."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeAlias

import msgspec

from headrace.protocol.filters import NUMBER, Leaf, Node, text_of

Number: TypeAlias = int | Decimal

_ABSENT: Final[Any] = object()


class _Body(msgspec.Struct):
    data: Any = None


_decode = msgspec.json.Decoder(_Body, float_hook=str).decode


class View:
    """The data of one event, as filters see them. Decoded when first asked for; each field is looked up once.

    `key` names a field, or with dots a field within objects. A field that is null counts as missing, so does one of a
    body that is no JSON (nobody here makes such). Numbers are compared as ints or Decimals: exactly, of any length.
    """

    __slots__ = ("_body", "_data", "_numbers", "_texts", "_values")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._data: Any = _ABSENT
        self._values: dict[str, Any] = {}
        self._texts: dict[str, str | None] = {}
        self._numbers: dict[str, Number | None] = {}

    def value(self, key: str) -> Any:
        """What stands under `key`; None if nothing does."""
        found = self._values.get(key, _ABSENT)
        if found is _ABSENT:
            found = self._root()
            for part in key.split("."):
                found = found.get(part) if type(found) is dict else None
            self._values[key] = found
        return found

    def text(self, key: str) -> str | None:
        """The value as it is written; None for a missing field, an object or a list."""
        found = self._texts.get(key, _ABSENT)
        if found is _ABSENT:
            found = self._texts[key] = text_of(self.value(key))
        return found  # type: ignore[no-any-return]

    def number(self, key: str) -> Number | None:
        """The value as a number; None if it is none."""
        found = self._numbers.get(key, _ABSENT)
        if found is _ABSENT:
            value = self.value(key)
            text = None if isinstance(value, bool) else text_of(value)
            found = self._numbers[key] = None if text is None else number_of(text)
        return found  # type: ignore[no-any-return]

    def _root(self) -> Any:
        if self._data is _ABSENT:
            try:
                self._data = _decode(b"{%b}" % self._body).data
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._data = None
        return self._data


Predicate: TypeAlias = Callable[[View], bool]


def number_of(text: str) -> Number | None:
    """Exact; None for what is no number."""
    if NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text) if "." in text else int(text)


def compiled(node: Node) -> Predicate:
    """Whether an event passes, as one call. What is decided by the first of several nodes is not asked of the rest."""
    if isinstance(node, Leaf):
        return _COMPARISONS[node.cmp](node.key, node.vals)
    parts = tuple(map(compiled, node.nodes))
    if node.op == "not":
        (part,) = parts
        return lambda view: not part(view)
    if node.op == "and":
        return _every(parts)
    return _some(parts)


def _every(parts: tuple[Predicate, ...]) -> Predicate:
    def passes(view: View) -> bool:
        for part in parts:  # noqa: SIM110  (a generator would cost more than most of its parts)
            if not part(view):
                return False
        return True

    return passes


def _some(parts: tuple[Predicate, ...]) -> Predicate:
    def passes(view: View) -> bool:
        for part in parts:  # noqa: SIM110  (as above)
            if part(view):
                return True
        return False

    return passes


_Texts: TypeAlias = tuple[str, ...]


def _eq(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: view.text(key) == val


def _in(key: str, vals: _Texts) -> Predicate:
    allowed = frozenset(vals)
    return lambda view: view.text(key) in allowed


def _ex(key: str, vals: _Texts) -> Predicate:
    return lambda view: view.value(key) is not None


def _sw(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: (text := view.text(key)) is not None and text.startswith(val)


def _ew(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: (text := view.text(key)) is not None and text.endswith(val)


def _ct(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: (text := view.text(key)) is not None and val in text


def _gt(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (number := view.number(key)) is not None and number > bound


def _gte(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (number := view.number(key)) is not None and number >= bound


def _lt(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (number := view.number(key)) is not None and number < bound


def _lte(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (number := view.number(key)) is not None and number <= bound


def _bound(vals: _Texts) -> Number:
    number = number_of(vals[0])
    assert number is not None, "checked when the filter was read"
    return number


_COMPARISONS: Final[dict[str, Callable[[str, _Texts], Predicate]]] = {
    "eq": _eq,
    "in": _in,
    "ex": _ex,
    "sw": _sw,
    "ew": _ew,
    "ct": _ct,
    "gt": _gt,
    "gte": _gte,
    "lt": _lt,
    "lte": _lte,
}
