"""Endpoints that are behind, on another fork or of another cluster; wants that change; promises kept from the first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from headrace.model.updates import AnyUpdate, LogsUpdate, SlotUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources.rpc_pubsub import RpcPubSub
from headrace.testing.node import ScriptedNode
from headrace.testing.proxy import TcpProxy
from tests.sources.rpc_pubsub.rig import FEED, OTHER, PROGRAM, SETTINGS, Rig, missing, rig


@asynccontextmanager
async def two_nodes(**changes: Any) -> AsyncIterator[tuple[Rig, ScriptedNode]]:
    """A source before two nodes, each with a chain of its own; HTTP, and the rig's `node`, is the first."""
    clock = SystemClock()
    async with (
        ScriptedNode() as first,
        ScriptedNode() as second,
        TcpProxy("127.0.0.1", first.ws_port) as to_first,
        TcpProxy("127.0.0.1", second.ws_port) as to_second,
        Supervisor(clock) as tasks,
    ):
        rpc = Rpc([first.http_url], clock=clock)
        proxies = [to_first, to_second]
        urls = tuple(f"ws://127.0.0.1:{proxy.port}" for proxy in proxies)
        settings = msgspec.structs.replace(SETTINGS, ws_urls=urls, **changes)
        metrics, health = Metrics(), Health()
        source = RpcPubSub(settings, clock=clock, metrics=metrics, health=health, rpc=rpc)
        rigged = Rig(first, proxies, source, tasks)
        rigged.metrics, rigged.health = metrics, health
        outlet: Channel[AnyUpdate] = Channel(1000)
        collecting = tasks.start("test", "collect", partial(rigged.collect, outlet))
        tasks.start("test", "source", partial(rigged.drive, outlet))
        await rigged.until(lambda: first.subscribed("logs") + second.subscribed("logs") == 2)
        try:
            yield rigged, second
        finally:
            source.stop()
            await rigged.until(lambda: rigged.ending is not None)
            collecting.cancel()
            await rpc.aclose()


async def whole(rigged: Rig, *nodes: ScriptedNode) -> None:
    """Return when all endpoints are whole, while the chain of each node goes on."""

    def done() -> bool:
        for node in nodes:
            node.advance_slot()
        return "2 of 2" in rigged.health.components()["source:rpc"].detail

    await rigged.until(done)


async def test_a_node_that_is_behind_is_kept_shown_and_trusted_only_as_far_as_it_came() -> None:
    async with two_nodes(stall_slots=20) as (rigged, behind):
        await whole(rigged, rigged.node, behind)
        for _ in range(200):
            rigged.node.advance_slot()
        await rigged.until(lambda: "rpc-1 is " in rigged.health.components()["source:rpc"].detail)
        behind.advance_slot()
        assert rigged.health.ready
        early = rigged.node.ledger.head
        late = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: late.signature in rigged.signatures())
        for proxy in rigged.proxies:  # the one that is behind goes last: what it covered ends far below
            proxy.refuse = True
            proxy.cut()
        await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
        lost = rigged.node.emit_transaction([PROGRAM])
        rigged.proxies[0].refuse = False
        await rigged.until(lambda: any(gap.state == "backfilled" for gap in rigged.gaps_of(FEED)), flowing=True)
        assert missing(rigged, [(late.signature, early), (lost.signature, lost.slot)]) == set()
        assert (lost.signature, lost.slot) in rigged.delivered


async def test_nodes_on_two_forks_are_both_heard_and_one_verdict_is_given() -> None:
    async with two_nodes() as (rigged, other):
        await whole(rigged, rigged.node, other)
        base = max(rigged.node.ledger.head, other.ledger.head)
        while rigged.node.ledger.head < base:
            rigged.node.advance_slot()
        while other.ledger.head < base:
            other.advance_slot()
        ours, theirs = rigged.node.advance_slot(skip=1), other.advance_slot()
        told = {}
        for node in (rigged.node, other):
            landed = node.emit_transaction([PROGRAM], signature=None)
            told[landed.slot] = landed
        await rigged.until(
            lambda: {ours, theirs} <= {update.slot for update in rigged.updates if isinstance(update, LogsUpdate)}
        )
        for _ in range(5):
            rigged.node.advance_slot()

        def verdicts(slot: int) -> list[str]:
            told = [u.status for u in rigged.updates if isinstance(u, SlotUpdate) and u.slot == slot]
            return [status for status in told if status != "processed"]

        await rigged.until(lambda: bool(verdicts(ours)) and bool(verdicts(theirs)))
        assert verdicts(ours) == ["confirmed"]
        assert verdicts(theirs) == ["dead"]


def slot_frame(rigged: Rig, slot: int) -> str:
    number = rigged.node.subscription_id("slot")
    params = {"result": {"slot": slot, "parent": slot - 1, "root": slot - 32}, "subscription": number}
    return msgspec.json.encode({"method": "slotNotification", "params": params}).decode()


async def test_one_wild_slot_does_not_hide_later_losses() -> None:
    async with rig() as rigged:
        rigged.node.send_raw(slot_frame(rigged, 2**62))
        await rigged.until(
            lambda: rigged.count("source_bad_messages_total", source="rpc-0", reason="slot_jump") == 1, flowing=True
        )
        rigged.proxy.refuse = True
        rigged.proxy.cut()
        await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
        lost = rigged.node.emit_transaction([PROGRAM])
        rigged.proxy.refuse = False
        await rigged.settled()
        assert (lost.signature, lost.slot) in rigged.delivered
        assert max(gap.to_slot for gap in rigged.gaps) <= rigged.node.ledger.head
        confirmed = [u for u in rigged.updates if isinstance(u, SlotUpdate) and u.status == "confirmed"]
        assert confirmed, "verdicts go on"


async def test_a_wild_get_slot_is_not_believed_either() -> None:
    async with rig(stall_s=0.2) as rigged:
        rigged.node.http_faults.results["getSlot"] = 2**62
        before = len(rigged.node.http.calls)
        await rigged.until(lambda: rigged.node.http.calls[before:].count("getSlot") > 5, flowing=True)
        assert rigged.proxy.connections == 1


@pytest.mark.parametrize("http", [True, False])
async def test_what_is_lost_between_the_acknowledgement_and_the_first_cover_is_declared(http: bool) -> None:
    async with rig(start=False, http=http) as rigged:
        await rigged.node.until(lambda: rigged.node.subscribed("logs") == 1)
        await rigged.until(lambda: bool(rigged.connections) and rigged.connections[0].complete)
        slot = rigged.node.advance_slot()
        await rigged.until(lambda: rigged.connections[0].progress.surely().get(FEED) == slot)
        assert not rigged.health.ready
        rigged.proxy.refuse = True
        rigged.proxy.cut()
        await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
        rigged.node.advance_slot()
        lost = rigged.node.emit_transaction([PROGRAM])
        rigged.proxy.refuse = False
        await rigged.settled()
        assert missing(rigged, [(lost.signature, lost.slot)]) == set()
        assert rigged.gaps_of(FEED)[-1].state == ("backfilled" if http else "unrecoverable")


async def test_what_was_read_but_not_handed_over_when_the_connection_ended_is_refilled() -> None:
    async with rig(capacity=1) as rigged:
        await rigged.still_flows()  # else slots may fill the outlet before the feed has brought anything
        rigged.reading.clear()
        landed = [rigged.node.emit_transaction([PROGRAM]) for _ in range(10)]
        session = rigged.connections[0]
        await rigged.until(lambda: session.handing_in and session.progress.last.get(FEED, 0) > 0)
        session.part("closed", "test")
        rigged.reading.set()
        await rigged.until(lambda: rigged.connections.get(0) is not session)
        await rigged.settled()
        assert {(each.signature, each.slot) for each in landed} <= rigged.delivered


async def test_a_pipeline_that_stands_for_longer_than_a_ping_loses_no_connection() -> None:
    async with rig(capacity=1, ping_interval_s=0.02) as rigged:
        rigged.reading.clear()
        landed = [rigged.node.emit_transaction([PROGRAM], ["x" * 5000]) for _ in range(100)]
        session = rigged.connections[0]
        calls = len(rigged.node.http.calls)
        await rigged.until(lambda: session.handing_in and len(rigged.node.http.calls) > calls + 8)
        rigged.reading.set()
        await rigged.until(lambda: len(set(rigged.signatures())) == len(landed), flowing=True)
        assert rigged.proxy.connections == 1


async def test_subscriptions_changed_without_a_connection_are_in_force_afterwards() -> None:
    async with rig(subscriptions=(FEED, f"account:{OTHER}")) as rigged:
        rigged.proxy.refuse = True
        await rigged.lose(0)
        rigged.source.update_subscriptions([FEED, f"logs:{OTHER}"])
        lost = rigged.node.emit_transaction([PROGRAM])
        rigged.proxy.refuse = False
        await rigged.settled()
        assert rigged.node.subscribed("account") == 0
        assert (lost.signature, lost.slot) in rigged.delivered
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"
        assert rigged.gaps_of(f"logs:{OTHER}") == [], "of what is new nothing was promised"
        assert rigged.gaps_of(f"account:{OTHER}") == [], "what is not wanted any more is not missed"


async def test_a_new_want_does_not_make_a_ready_source_unready() -> None:
    async with rig() as rigged:
        await rigged.until(lambda: rigged.health.ready, flowing=True)
        rigged.source.update_subscriptions([FEED, f"logs:{OTHER}"])
        await rigged.node.until(lambda: rigged.node.subscribed("logs", OTHER) == 1)
        calls = len(rigged.node.http.calls)
        await rigged.until(lambda: len(rigged.node.http.calls) > calls + 4)  # no slot goes by, health is reported anew
        assert rigged.health.ready


async def test_an_http_side_that_fails_is_named_and_the_stream_flows() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.status = 403
        await rigged.until(lambda: "HTTP: 403" in rigged.health.components()["source:rpc"].detail, flowing=True)
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: landed.signature in rigged.signatures())
        assert rigged.health.ready
        rigged.node.http_faults.status = 200
        await rigged.until(lambda: "HTTP" not in rigged.health.components()["source:rpc"].detail, flowing=True)


async def test_a_node_that_refuses_to_list_blocks_once_is_asked_again() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors["getBlocks"] = (-32602, "Invalid params")
        asked = rigged.node.http.calls.count("getBlocks")
        await rigged.until(lambda: rigged.node.http.calls.count("getBlocks") > asked + 1, flowing=True)
        rigged.node.http_faults.errors.clear()
        since = rigged.node.advance_slot()
        await rigged.until(
            lambda: any(
                isinstance(u, SlotUpdate) and u.status == "confirmed" and u.slot > since for u in rigged.updates
            ),
            flowing=True,
        )
