"""Refilling from a ledger that is long, late, partial, slow or of another mind."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from headrace.model.updates import AnyUpdate, SlotUpdate, TransactionUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.runtime.metrics import Metrics
from headrace.solana.rpc import Rpc
from headrace.sources.coverage import Hole
from headrace.sources.ledger import Ledger
from headrace.sources.metrics import SourceMetrics
from headrace.sources.refill import SLOTS_MAX, Recent, Refill
from headrace.sources.subscriptions import SLOTS, ChainSubscription
from headrace.testing.ledger import made_up_signature
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import OTHER, PROGRAM, SETTINGS

LOGS = ChainSubscription("logs", PROGRAM)


class Refilling:
    """A refill, the node whose ledger it reads, and the updates that it delivered."""

    def __init__(self, node: ScriptedNode, rpc: Rpc, changes: dict[str, Any]) -> None:
        self.node = node
        self.outlet: Channel[AnyUpdate] = Channel(100_000)
        self.recent = Recent()
        settings = msgspec.structs.replace(SETTINGS, **changes)
        self.ledger = Ledger("rpc", rpc, settings=settings, clock=SystemClock(), metrics=SourceMetrics(Metrics()))
        self.refill = Refill(self.ledger, outlet=self.outlet, recent=self.recent)

    def land(self, count: int, *, per_slot: int = 1) -> list[str]:
        """Land transactions unseen; the chain then goes on until they are confirmed."""
        landed = []
        for number in range(count):
            landed.append(self.node.ledger.land([PROGRAM]).signature)
            if number % per_slot == per_slot - 1:
                self.node.ledger.advance()
        for _ in range(3):
            self.node.ledger.advance()
        return landed

    async def delivered(self) -> list[AnyUpdate]:
        return await self.outlet.get_batch(100_000) if len(self.outlet) else []

    async def signatures(self) -> list[str]:
        return [update.signature for update in await self.delivered() if isinstance(update, TransactionUpdate)]

    @property
    def head(self) -> int:
        return self.node.ledger.head

    @property
    def confirmed(self) -> int:
        return self.node.ledger.tip("confirmed")


@asynccontextmanager
async def refilling(first_slot: int = 1000, **changes: Any) -> AsyncIterator[Refilling]:
    clock = SystemClock()
    async with ScriptedNode(first_slot=first_slot) as node:
        rpc = Rpc([node.http_url], clock=clock)
        try:
            yield Refilling(node, rpc, changes)
        finally:
            await rpc.aclose()


async def test_a_listing_of_many_pages_is_read_to_the_beginning_of_the_gap() -> None:
    async with refilling() as one:
        one.land(20)
        first = one.head
        lost = one.land(5)
        last = one.head - 1
        one.land(2300, per_slot=100)
        assert await one.refill.fill(LOGS, [Hole(first, last)]) == []
        assert await one.signatures() == lost
        listings = [r["params"][1] for r in one.node.http.requests if r["method"] == "getSignaturesForAddress"]
        assert len(listings) == 3
        newest = one.node.ledger.signatures_for(PROGRAM, "confirmed", before=None, until=None, limit=1)[0].slot
        assert [each["minContextSlot"] for each in listings] == [last, newest, newest], (
            "who lacks `before` says nothing"
        )


async def test_holes_of_one_feed_cost_one_listing_and_what_lies_between_is_left_out() -> None:
    async with refilling() as one:
        one.land(1)
        holes, lost = [], []
        for _ in range(3):
            first = one.head
            lost += one.land(3)
            holes.append(Hole(first, one.head - 1))
            one.node.ledger.advance()
            one.land(4)
            one.node.ledger.advance()
        assert await one.refill.fill(LOGS, holes) == []
        assert await one.signatures() == lost
        assert one.node.http.calls.count("getSignaturesForAddress") == 1


async def test_a_ledger_that_begins_within_the_gap_gives_what_it_has() -> None:
    async with refilling() as one:
        first = one.head
        lost = one.land(10)
        one.node.ledger.first_available = first + 6
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == [
            f"the node's ledger begins at slot {first + 6}"
        ]
        assert await one.signatures() == lost[6:]


async def test_a_ledger_whose_beginning_is_not_told_is_taken_as_whole() -> None:
    async with refilling() as one:
        first = one.head
        lost = one.land(3)
        one.node.http_faults.errors["getFirstAvailableBlock"] = (-32601, "Method not found")
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == []
        assert await one.signatures() == lost


async def test_transactions_of_a_version_that_the_node_can_not_tell_are_asked_for_once_and_counted() -> None:
    async with refilling() as one:
        first = one.head
        one.land(7)
        one.node.http_faults.errors["getTransaction"] = (-32015, "Transaction version (2) is not supported")
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == ["7 of 7 transactions not found"]
        assert one.node.http.calls.count("getTransaction") == 7


async def test_the_time_for_one_gap_holds_however_many_transactions_it_has() -> None:
    async with refilling(refill_s=0.1, refill_parallel=2) as one:
        first = one.head
        one.land(400, per_slot=50)
        one.node.http_faults.errors["getTransaction"] = (-32005, "Node is behind")
        lacks = await one.refill.fill(LOGS, [Hole(first, one.confirmed)])
        assert lacks[-1] == "400 of 400 transactions not found"  # and on a busy machine the listing took too long
        assert len({r["params"][0] for r in one.node.http.requests if r["method"] == "getTransaction"}) < 400


async def test_what_another_address_did_is_not_fetched() -> None:
    async with refilling() as one:
        first = one.head
        one.node.ledger.land([OTHER])
        lost = one.land(2)
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == []
        assert await one.signatures() == lost


async def test_what_was_delivered_in_another_slot_is_delivered_again() -> None:
    """On a fork that died a transaction may have been in another slot than on the chain."""
    async with refilling() as one:
        first = one.head
        lost = one.land(2)
        one.recent.remember(LOGS.feed, lost[0], first)
        one.recent.remember(LOGS.feed, lost[1], first)
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == []
        assert await one.signatures() == lost[1:]


async def test_a_gap_of_days_brings_the_newest_slots() -> None:
    last = 10 * SLOTS_MAX
    async with refilling(first_slot=last) as one:
        one.node.http_faults.results["getSlot"] = last
        one.node.http_faults.results["getBlocks"] = [last - 1, last]
        assert await one.refill.fill(SLOTS, [Hole(5, last)]) == [f"more than {SLOTS_MAX} slots"]
        asked = next(r["params"] for r in one.node.http.requests if r["method"] == "getBlocks")
        assert asked[:2] == [last - SLOTS_MAX + 1, last]
        slots = [update for update in await one.delivered() if isinstance(update, SlotUpdate)]
        assert [(update.slot, update.parent) for update in slots] == [(last - 1, None), (last, last - 1)]


@pytest.mark.parametrize("feed", ["program", "account"])
async def test_a_gap_of_an_account_lacks_older_states(feed: str) -> None:
    async with refilling() as one:
        one.land(5)
        subscription = (
            ChainSubscription("program", PROGRAM) if feed == "program" else ChainSubscription("account", OTHER)
        )
        reason = "nodes keep no older versions of accounts" if feed == "program" else "intermediate versions"
        assert await one.refill.fill(subscription, [Hole(1000, 1001)]) == [reason]


async def test_another_transaction_is_not_taken_for_the_one_that_was_asked_for() -> None:
    async with refilling() as one:
        first = one.head
        one.land(3)
        other = one.node.ledger.land([OTHER])
        one.node.http_faults.results["getTransaction"] = {**other.result, "slot": first}
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == ["3 of 3 transactions not found"]
        assert await one.signatures() == []


async def test_a_transaction_in_another_slot_than_listed_is_missing() -> None:
    async with refilling() as one:
        first = one.head
        lost = one.land(3)
        landed = one.node.ledger.by_signature[lost[1]]
        landed.result = {**landed.result, "slot": landed.slot + 1}
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == ["1 of 3 transactions not found"]
        assert await one.signatures() == [lost[0], lost[2]]


async def test_an_endless_listing_ends_at_the_bound_of_pages() -> None:
    async with refilling(refill_pages_max=20) as one:
        one.land(3)
        numbers = itertools.count()
        one.node.http_faults.raw = lambda request: endless(request, one.head, numbers)
        lacks = await one.refill.fill(LOGS, [Hole(1000, one.confirmed)])
        assert lacks == ["more than 20 pages of transactions"]
        assert one.node.http.calls.count("getSignaturesForAddress") == 20


async def test_pages_are_asked_for_at_a_pace() -> None:
    async with refilling(refill_pages_max=5, refill_page_s=60.0, refill_s=1000.0) as one:
        clock = ManualClock()
        one.ledger.clock = one.refill._clock = clock
        one.land(3)
        numbers = itertools.count()
        one.node.http_faults.raw = lambda request: endless(request, one.head, numbers)
        filling = asyncio.create_task(one.refill.fill(LOGS, [Hole(1000, one.confirmed)]))
        for pages in range(1, 5):
            async with asyncio.timeout(20):
                while not clock.sleepers:  # noqa: ASYNC110  (the clock has no event for it)
                    await asyncio.sleep(0.001)
            assert one.node.http.calls.count("getSignaturesForAddress") == pages
            await clock.advance(60.0)
        assert await filling == ["more than 5 pages of transactions"]


async def test_a_page_of_long_memos_comes_in_smaller_ones() -> None:
    async with refilling() as one:
        first = one.head
        lost = one.land(30, per_slot=10)
        one.node.http_faults.memo = "\0" * 100_000
        assert await one.refill.fill(LOGS, [Hole(first, one.confirmed)]) == []
        assert await one.signatures() == lost


def endless(request: dict[str, Any], slot: int, numbers: Iterator[int]) -> list[bytes]:
    """An honest beginning of the ledger, and a listing of which each page has one more transaction of one slot."""
    result: object = slot if request["method"] == "getSlot" else 0
    if request["method"] == "getSignaturesForAddress":
        result = [{"signature": made_up_signature(next(numbers)), "slot": slot, "err": None}]
    text = msgspec.json.encode({"id": request["id"], "result": result})
    return [b"HTTP/1.1 200 x\r\ncontent-length: %d\r\n\r\n" % len(text), text]
