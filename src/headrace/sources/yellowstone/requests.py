"""Makes the request of one connection of its subscriptions and filters, and names the filters in it. Pure.

A request replaces the one before it, and no node answers it. The filter of slots therefore has another name in each
request (`slots.2`): the first update under that name shows that the request is in force.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from headrace.model.keys import b58decode
from headrace.model.updates import Commitment
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.sources.yellowstone.filters import Filters
from headrace.sources.yellowstone.messages import geyser

METHOD: Final = "/geyser.Geyser/Subscribe"
BLOCKS_META: Final = "meta"
FORMER_MAX: Final = 4_096
_SLOTS_NAME: Final = re.compile(r"slots\.([0-9]{1,9})")
_LEVELS: Final = {"processed": geyser.PROCESSED, "confirmed": geyser.CONFIRMED, "finalized": geyser.FINALIZED}

PING: Final[bytes] = geyser.SubscribeRequest(ping=geyser.SubscribeRequestPing(id=1)).SerializeToString()
"""The answer to a node's ping; it leaves the filters as they are."""


class Requests:
    """Requests of one connection, numbered from 1, and what the names of filters in its updates mean.

    A name never comes to mean another subscription: updates under a former name may still be on their way.
    """

    def __init__(self, commitment: Commitment) -> None:
        self._commitment = commitment
        self._names: dict[ChainSubscription, str] = {}
        self._of_name: dict[str, ChainSubscription] = {}
        self.by_name: dict[str, ChainSubscription] = {}
        """The subscriptions that are wanted, by the names of their filters."""
        self.feeds: dict[str, str] = {}
        """The feeds of these, by the same names."""
        self._made = 0
        self.number = 0
        self.wanted: tuple[ChainSubscription, ...] = ()
        """The subscriptions of the newest request."""

    def make(self, wanted: Sequence[ChainSubscription], filters: Filters, from_slot: int | None = None) -> bytes:
        """Encode a request for all of `wanted`, those of kind `filter` by their name in `filters`."""
        self.number += 1
        self.wanted = tuple(wanted)
        self._names = {each: self._name_of(each) for each in wanted if each != SLOTS}
        self.by_name = {name: each for each, name in self._names.items()}
        self.feeds = {name: each.feed for each, name in self._names.items()}
        self._forget_former()
        request = geyser.SubscribeRequest(commitment=_LEVELS[self._commitment])
        for subscription, name in self._names.items():
            _add(request, name, subscription, filters)
        request.slots[f"slots.{self.number}"].interslot_updates = True
        request.slots[f"slots.{self.number}"].filter_by_commitment = False
        request.blocks_meta[BLOCKS_META].SetInParent()
        for offset, length in filters.slices:
            request.accounts_data_slice.add(offset=offset, length=length)
        if from_slot is not None:
            request.from_slot = from_slot
        raw: bytes = request.SerializeToString()
        return raw

    def wants(self, name: str) -> ChainSubscription | None:
        """Return the subscription that a filter's name means, if it is still wanted."""
        found = self.by_name.get(name)
        return SLOTS if found is None and _SLOTS_NAME.fullmatch(name) else found

    def knows(self, name: str) -> bool:
        """Return whether this connection ever gave a filter this name."""
        return name == BLOCKS_META or name in self._of_name or _SLOTS_NAME.fullmatch(name) is not None

    def _name_of(self, subscription: ChainSubscription) -> str:
        name = self._names.get(subscription)
        if name is None:
            self._made += 1
            name = f"{subscription.kind}.{self._made}"
            self._of_name[name] = subscription
        return name

    def _forget_former(self) -> None:
        """Forget the oldest names that are no longer in use, where there are too many."""
        if len(self._of_name) > FORMER_MAX:
            used = set(self._names.values())
            self._of_name = {name: each for name, each in self._of_name.items() if name in used}


def request_number(name: str) -> int | None:
    """Return the number of the request whose filter of slots has this name."""
    found = _SLOTS_NAME.fullmatch(name)
    return int(found[1]) if found else None


def _add(request: Any, name: str, subscription: ChainSubscription, filters: Filters) -> None:
    """Add the filter of a subscription; that of slots is in every request."""
    kind, key = subscription.kind, subscription.key
    if kind in ("logs", "transactions"):
        request.transactions[name].account_include.append(key)
        request.transactions[name].vote = False
    elif kind == "signature":
        request.transactions[name].signature = key
    elif kind == "account":
        request.accounts[name].account.append(key)
    elif kind == "program":
        request.accounts[name].owner.append(key)
        for what, value in subscription.filters:
            comparison = request.accounts[name].filters.add()
            if what == "dataSize":
                comparison.datasize = int(value)
            else:
                offset, _, wanted = value.partition(":")
                comparison.memcmp.offset = int(offset)
                comparison.memcmp.bytes = b58decode(wanted)
    elif kind == "filter":
        section, _, filter_name = key.partition(".")
        getattr(request, section)[name].CopyFrom(filters.named[section, filter_name])
