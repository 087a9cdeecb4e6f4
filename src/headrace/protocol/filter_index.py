"""Finds which of many filters an event passes: by look-up if a filter requires a value, otherwise by one call each.

Pure.
"""

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from headrace.protocol.filters import Filter, Leaf, Node
from headrace.protocol.predicates import Predicate, View

T = TypeVar("T")


class Guard(NamedTuple):
    """A field and a value that the field must have."""

    key: str
    val: str


class _Entry(Generic[T]):
    """A filter and its value. `passes` is None if the guards alone decide."""

    __slots__ = ("guards", "passes", "what")

    def __init__(self, filter_: Filter, passes: Predicate, what: T) -> None:
        self.what = what
        self.guards = guards_of(filter_.node)
        exact = isinstance(filter_.node, Leaf) and self.guards is not None
        self.passes = None if exact else passes


class FilterIndex(Generic[T]):
    """Holds a value for each of many distinct filters. `match` returns the values of the filters that an event passes.

    A filter such as "mint is X", even with further conditions, costs nothing for events with another mint. A filter
    without such a condition costs one call per event.
    """

    def __init__(self) -> None:
        self.size = 0
        """Sum of the filters' sizes."""
        self._entries: dict[str, _Entry[T]] = {}
        self._guarded: dict[str, dict[str, dict[str, _Entry[T]]]] = {}  # key → value → text → entry
        self._others: dict[str, _Entry[T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the values of all filters."""
        return (entry.what for entry in self._entries.values())

    def get(self, filter_: Filter) -> T | None:
        """Return the value of a filter; None if the filter was not added."""
        entry = self._entries.get(filter_.text)
        return None if entry is None else entry.what

    def add(self, filter_: Filter, passes: Predicate, what: T) -> None:
        """Add a filter that is not in the index, with its value. `passes` is the compiled filter."""
        entry = self._entries[filter_.text] = _Entry(filter_, passes, what)
        self.size += filter_.size
        if entry.guards is None:
            self._others[filter_.text] = entry
            return
        for key, val in entry.guards:
            self._guarded.setdefault(key, {}).setdefault(val, {})[filter_.text] = entry

    def remove(self, filter_: Filter) -> None:
        entry = self._entries.pop(filter_.text)
        self.size -= filter_.size
        if entry.guards is None:
            del self._others[filter_.text]
            return
        for key, val in entry.guards:
            by_value = self._guarded[key]
            del by_value[val][filter_.text]
            if not by_value[val]:
                del by_value[val]
            if not by_value:
                del self._guarded[key]

    def match(self, view: View) -> list[T]:
        """Return the values of the filters that the event passes, each once, in any order."""
        found: dict[str, _Entry[T]] = {}
        for key, by_value in self._guarded.items():
            texts = view.texts(key)
            for text in texts if len(texts) <= len(by_value) else by_value.keys() & texts:
                if text in by_value:
                    found.update(by_value[text])
        matching = [entry.what for entry in found.values() if entry.passes is None or entry.passes(view)]
        for entry in self._others.values():
            passes = entry.passes
            if passes is None or passes(view):
                matching.append(entry.what)
        return matching


def guards_of(node: Node) -> frozenset[Guard] | None:
    """Return guards such that every event that passes the filter meets at least one of them. None if there are none."""
    guards: frozenset[Guard] | None = None
    if isinstance(node, Leaf):
        if node.cmp in ("eq", "in"):
            guards = frozenset(Guard(node.key, val) for val in node.vals)
    elif node.op == "and":
        guards = min(filter(None, map(guards_of, node.nodes)), key=len, default=None)
    elif node.op == "or":
        every = [guards_of(inner) for inner in node.nodes]
        known = [each for each in every if each is not None]
        if len(known) == len(every):
            guards = frozenset().union(*known)
    return guards
