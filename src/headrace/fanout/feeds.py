"""One topic in the hub: its groups, and which of them get a message."""

from typing import NamedTuple, TypeAlias

from headrace.fanout.groups import Group, Item, Topic
from headrace.fanout.windows import Windows
from headrace.model.errors import RequestError
from headrace.model.events import Message
from headrace.protocol.codes import ErrorCode
from headrace.protocol.filter_index import FilterIndex
from headrace.protocol.filters import Filter
from headrace.protocol.predicates import Predicate, compiled
from headrace.protocol.selection import Conflate, Selection

_Alike: TypeAlias = dict[Conflate | None, Group]
"""Groups that differ only in their conflation."""


class _Filtered(NamedTuple):
    passes: Predicate
    groups: _Alike


class Feed(Topic):
    """A topic with all its groups. Subscriptions with equal options share a group. Each filter runs once per message.

    A message is decoded only if a filter or a conflation needs its data. It is decoded once, and framed once, for all
    groups.
    """

    def __init__(self, name: str, windows: Windows[Group]) -> None:
        super().__init__(name)
        self._windows = windows
        self._unfiltered: _Alike = {}
        self._filtered: FilterIndex[_Filtered] = FilterIndex()

    @property
    def subscriptions(self) -> int:
        """Return the number of subscriptions in all groups."""
        return sum(group.subscriptions for group in self.groups())

    def groups(self) -> list[Group]:
        """Return all groups."""
        filtered = (group for one in self._filtered for group in one.groups.values())
        return [*self._unfiltered.values(), *filtered]

    def take(self, message: Message, dirty: list[Group]) -> None:
        """Add the message to each group whose filter it passes.

        Groups that now have something to send, and had nothing before, are appended to `dirty`.
        """
        self.newest = message
        item = Item(message)
        for group in self._unfiltered.values():
            if group.put(item):
                dirty.append(group)  # noqa: PERF401  (mostly it is one group, for which a list costs more)
        if self._filtered:
            for one in self._filtered.match(item.view) if message.kind == "event" else self._filtered:
                dirty += [group for group in one.groups.values() if group.put(item)]

    def add(self, filter_: Filter | None, conflate: Conflate | None, nodes_max: int) -> Group:
        """Return the group with these options, and count one more subscription to it.

        Raises RequestError 106 if the filters would exceed `nodes_max`.
        """
        passes, alike = None, self._unfiltered
        if filter_ is not None:
            passes, alike = self._filtered.get(filter_) or self._add_filter(filter_, nodes_max)
        group = alike.get(conflate)
        if group is None:
            group = alike[conflate] = Group(self, Selection(filter_, passes, conflate), self._windows)
        group.subscriptions += 1
        return group

    def remove(self, group: Group) -> None:
        """Count one subscription less. A group without subscriptions is removed, and so is a filter without groups."""
        group.subscriptions -= 1
        if group.subscriptions:
            return
        group.dissolve()
        filter_, conflate = group.selection.filter, group.selection.conflate
        if filter_ is None:
            del self._unfiltered[conflate]
        elif (one := self._filtered.get(filter_)) is not None:
            del one.groups[conflate]
            if not one.groups:
                self._filtered.remove(filter_)

    def _add_filter(self, filter_: Filter, nodes_max: int) -> _Filtered:
        if self._filtered.size + filter_.size > nodes_max:
            raise RequestError(ErrorCode.LIMIT, "too many filters on this topic", temporary=True)
        one = _Filtered(compiled(filter_.node), {})
        self._filtered.add(filter_, one.passes, one)
        return one
