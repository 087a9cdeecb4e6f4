"""Encodes a connection's subscriptions and filters as requests, and names the filters. Pure.

A request replaces the previous request, and nodes do not answer it. Therefore the filter of slots has a new name in
each request, such as `slots.2`. The first update under that name shows that the request is in force.
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
"""Answer to a node's ping. It does not change the filters."""


class Requests:
    """Requests of one connection, numbered from 1, and the subscriptions that its filter names stand for.

    A name is never used for another subscription, as updates under a former name may still be on their way.
    """

    def __init__(self, commitment: Commitment) -> None:
        self._commitment = commitment
        self._names: dict[ChainSubscription, str] = {}
        self._given: set[str] = set()
        """Names that filters have, or had."""
        self._by_name: dict[str, ChainSubscription] = {}
        """Wanted subscriptions by the names of their filters."""
        self.feeds: dict[str, str] = {}
        """Feeds of the wanted subscriptions by the names of their filters."""
        self._made = 0
        self.number = 0
        self.wanted: tuple[ChainSubscription, ...] = ()
        """Subscriptions of the newest request."""

    def make(self, wanted: Sequence[ChainSubscription], filters: Filters, from_slot: int | None = None) -> bytes:
        """Encode a request for all of `wanted`. A subscription of kind `filter` names its filter in `filters`."""
        self.number += 1
        self.wanted = tuple(wanted)
        self._names = {each: self._name_of(each) for each in wanted if each != SLOTS}
        self._by_name = {name: each for each, name in self._names.items()}
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
        """Return the subscription that a filter's name identifies; None if it is not wanted now."""
        found = self._by_name.get(name)
        return SLOTS if found is None and _SLOTS_NAME.fullmatch(name) else found

    def knows(self, name: str) -> bool:
        """Return whether this connection ever gave a filter this name."""
        return name == BLOCKS_META or name in self._given or _SLOTS_NAME.fullmatch(name) is not None

    def _name_of(self, subscription: ChainSubscription) -> str:
        name = self._names.get(subscription)
        if name is None:
            self._made += 1
            name = f"{subscription.kind}.{self._made}"
            self._given.add(name)
        return name

    def _forget_former(self) -> None:
        """Forget all names that are not in use, once more than FORMER_MAX names are known."""
        if len(self._given) > FORMER_MAX:
            self._given = set(self._names.values())


def request_number(name: str) -> int | None:
    """Return the number of the request whose filter of slots has this name."""
    found = _SLOTS_NAME.fullmatch(name)
    return int(found[1]) if found else None


def _add(request: Any, name: str, subscription: ChainSubscription, filters: Filters) -> None:
    """Add the filter of a subscription. The filter of slots is added elsewhere, as every request has it."""
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
