"""Applies filters: decodes the data of a message once for all filters, and compiles a filter into one function.

Pure.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
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
    """The data of one event, as filters read it. It is decoded at first use, and each field is looked up once.

    `key` names a field or, with dots, a field within objects. A list on the path, or at its end, is replaced by its
    elements, so one key may have many values. A null is not a value. A body that is not JSON has no fields. Numbers are
    compared as ints or Decimals: exactly, and of any length.
    """

    __slots__ = ("_backward", "_body", "_data", "_forward", "_found", "_numbers", "_texts")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._data: Any = _ABSENT
        self._found: dict[str, list[Any]] = {}
        self._texts: dict[str, Collection[str]] = {}
        self._forward: dict[str, list[str]] = {}
        self._backward: dict[str, list[str]] = {}
        self._numbers: dict[str, tuple[Number, Number] | None] = {}

    def found(self, key: str) -> Sequence[Any]:
        """Return the values under `key` without nulls. A list at the end is one value, even if it is empty."""
        found = self._found.get(key)
        if found is None:
            found = [self._root()]
            for part in key.split("."):
                found = [
                    inner
                    for each in found
                    for node in ((each,) if type(each) is not list else _elements(each))
                    if type(node) is dict and (inner := node.get(part)) is not None
                ]
            self._found[key] = found
        return found

    def texts(self, key: str) -> Collection[str]:
        """Return the values as text, including those in lists. Objects have no text."""
        texts = self._texts.get(key)
        if texts is None:
            found = self.found(key)
            if len(found) == 1 and type(found[0]) is not list:
                only = text_of(found[0])
                texts = () if only is None else (only,)
            else:
                texts = frozenset(text for value in _elements(found) if (text := text_of(value)) is not None)
            self._texts[key] = texts
        return texts

    def text(self, key: str) -> str | None:
        """Return the single value as text; None for a missing field, an object, or a value in a list."""
        value = self._root()
        for part in key.split("."):
            value = value.get(part) if type(value) is dict else None
        return text_of(value)

    def extremes(self, key: str) -> tuple[Number, Number] | None:
        """Return the lowest and the highest number among the values; None if no value is a number."""
        found = self._numbers.get(key, _ABSENT)
        if found is _ABSENT:
            values = (value for value in _elements(self.found(key)) if not isinstance(value, bool))
            texts = (text for value in values if (text := text_of(value)) is not None)
            numbers = [number for text in texts if (number := number_of(text)) is not None]
            found = self._numbers[key] = (min(numbers), max(numbers)) if numbers else None
        return found  # type: ignore[no-any-return]

    def starts(self, key: str, prefix: str) -> bool:
        """Return whether a value starts with `prefix`. Takes one search, however many values there are."""
        ordered = self._forward.get(key)
        if ordered is None:
            ordered = self._forward[key] = sorted(self.texts(key))
        return _any_starts(ordered, prefix)

    def ends(self, key: str, reversed_suffix: str) -> bool:
        """Return whether a value, reversed, starts with `reversed_suffix`."""
        ordered = self._backward.get(key)
        if ordered is None:
            ordered = self._backward[key] = sorted(text[::-1] for text in self.texts(key))
        return _any_starts(ordered, reversed_suffix)

    def _root(self) -> Any:
        if self._data is _ABSENT:
            try:
                self._data = _decode(b"{%b}" % self._body).data
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._data = None
        return self._data


def _elements(values: Sequence[Any]) -> Iterator[Any]:
    """Yield the values; a list is replaced by its elements, at any depth."""
    waiting = [iter(values)]
    while waiting:
        for value in waiting[-1]:
            if type(value) is list:
                waiting.append(iter(value))
                break
            yield value
        else:
            waiting.pop()


def _any_starts(ordered: list[str], prefix: str) -> bool:
    """Return whether a text in the sorted list starts with `prefix`.

    Such texts follow the place at which `prefix` would be inserted.
    """
    place = bisect_left(ordered, prefix)
    return place < len(ordered) and ordered[place].startswith(prefix)


Predicate: TypeAlias = Callable[[View], bool]


def number_of(text: str) -> Number | None:
    """Return the exact number that a text represents; None if the text is not a number."""
    if NUMBER.fullmatch(text) is None:
        return None
    return Decimal(text) if "." in text else int(text)


def compiled(node: Node) -> Predicate:
    """Return the filter as one function. It evaluates nodes only until the result is certain."""
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
    return lambda view: val in view.texts(key)


def _in(key: str, vals: _Texts) -> Predicate:
    allowed = frozenset(vals)
    return lambda view: not allowed.isdisjoint(view.texts(key))


def _ex(key: str, vals: _Texts) -> Predicate:
    return lambda view: bool(view.found(key))


def _sw(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: view.starts(key, val)


def _ew(key: str, vals: _Texts) -> Predicate:
    backwards = vals[0][::-1]
    return lambda view: view.ends(key, backwards)


def _ct(key: str, vals: _Texts) -> Predicate:
    (val,) = vals
    return lambda view: any(val in text for text in view.texts(key))


def _gt(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (ends := view.extremes(key)) is not None and ends[1] > bound


def _gte(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (ends := view.extremes(key)) is not None and ends[1] >= bound


def _lt(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (ends := view.extremes(key)) is not None and ends[0] < bound


def _lte(key: str, vals: _Texts) -> Predicate:
    bound = _bound(vals)
    return lambda view: (ends := view.extremes(key)) is not None and ends[0] <= bound


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
