"""One topic as the hub sees it: its groups, and which of them get a message."""

from typing import NamedTuple, TypeAlias

from headrace.fanout.groups import Group, Item, Subscription
from headrace.fanout.windows import Window, Windows
from headrace.model.errors import RequestError
from headrace.model.events import Message, Position
from headrace.protocol.codes import ErrorCode
from headrace.protocol.conflation import Conflate
from headrace.protocol.filter_index import FilterIndex
from headrace.protocol.filters import Filter
from headrace.protocol.predicates import Predicate, compiled
from headrace.protocol.selection import Sieve

_Alike: TypeAlias = dict[Conflate | None, Group]
"""Groups that differ only in how they conflate."""


class _Filtered(NamedTuple):
    passes: Predicate
    groups: _Alike


class Feed:
    """All groups of a topic. Those who asked for the same are one group; a filter is asked once, whoever conflates.

    A message is decoded only if a filter or a conflation listens, once for all of them, and framed once for all groups.
    """

    def __init__(self, topic: str, windows: Windows) -> None:
        self.topic = topic
        self.holding: dict[Subscription, None] = {}
        """Those whose past is being read."""
        self._windows = windows
        self._newest: Message | None = None
        self._began: Position | None = None
        self._unfiltered: _Alike = {}
        self._filtered: FilterIndex[_Filtered] = FilterIndex()

    @property
    def top(self) -> Position | None:
        """The newest position seen here; None before the first."""
        newest = self._newest
        return self._began if newest is None else Position(newest.epoch, newest.offset)

    @property
    def subscriptions(self) -> int:
        return sum(group.subscriptions for group in self.groups())

    def groups(self) -> list[Group]:
        filtered = (group for one in self._filtered for group in one.groups.values())
        return [*self._unfiltered.values(), *filtered]

    def is_at(self, top: Position) -> None:
        """That is the newest position of the topic."""
        self._newest, self._began = None, top

    def take(self, message: Message, dirty: list[Group]) -> None:
        """Put it into the groups that get it; `dirty` gets those that have something to send now and had nothing."""
        self._newest = message
        item = Item(message)
        for group in self._unfiltered.values():
            if group.put(item):
                dirty.append(group)  # noqa: PERF401  (for the one group that it mostly is, a list costs more)
        if self._filtered:
            for one in self._filtered.match(item.view) if message.kind == "event" else self._filtered:
                dirty += [group for group in one.groups.values() if group.put(item)]

    def add(self, filter_: Filter | None, conflate: Conflate | None, nodes_max: int) -> Group:
        """The group of these wishes, with one more subscription. Raises RequestError 106 beyond `nodes_max`."""
        passes, alike = None, self._unfiltered
        if filter_ is not None:
            passes, alike = self._filtered.get(filter_) or self._begin(filter_, nodes_max)
        group = alike.get(conflate)
        if group is None:
            window = Window(conflate, self._windows) if conflate is not None else None
            group = alike[conflate] = Group(self, Sieve(filter_, passes, conflate), window)
        group.subscriptions += 1
        return group

    def remove(self, group: Group) -> None:
        """One of its subscriptions is no more; with the last goes the group, with the last group its filter."""
        group.subscriptions -= 1
        if group.subscriptions:
            return
        self._windows.forget(group)
        filter_, conflate = group.sieve.filter, group.sieve.conflate
        if filter_ is None:
            del self._unfiltered[conflate]
        elif (one := self._filtered.get(filter_)) is not None:
            del one.groups[conflate]
            if not one.groups:
                self._filtered.remove(filter_)

    def _begin(self, filter_: Filter, nodes_max: int) -> "_Filtered":
        if self._filtered.size + filter_.size > nodes_max:
            raise RequestError(ErrorCode.LIMIT, "too many filters on this topic", temporary=True)
        one = _Filtered(compiled(filter_.node), {})
        self._filtered.add(filter_, one.passes, one)
        return one
