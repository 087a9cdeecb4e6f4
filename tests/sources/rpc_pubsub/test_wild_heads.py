"""A slot number that is too high, in every form and at every time: later losses are declared, and the liar is named."""

from collections.abc import Callable

import msgspec
import pytest

from headrace.model.updates import SlotUpdate
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import FEED, PROGRAM, Rig, missing, rig
from tests.sources.rpc_pubsub.test_contradictions import two_nodes, whole

AHEAD = (40, pytest.param(5_000, marks=pytest.mark.long), pytest.param(900_000, marks=pytest.mark.long), 2**61)
Lie = Callable[[Rig, ScriptedNode, int], None]


def slot_frame(node: ScriptedNode, slot: int, root: int | None = None, parent: int | None = None) -> str:
    info = {"slot": slot, "parent": slot - 1 if parent is None else parent, "root": slot - 32 if root is None else root}
    params = {"result": info, "subscription": node.subscription_id("slot")}
    return msgspec.json.encode({"method": "slotNotification", "params": params}).decode()


def logs_frame(node: ScriptedNode, slot: int) -> str:
    value: dict[str, object] = {"signature": "2" * 87, "err": None, "logs": []}
    params = {"result": {"context": {"slot": slot}, "value": value}, "subscription": node.subscription_id("logs")}
    return msgspec.json.encode({"method": "logsNotification", "params": params}).decode()


async def lose_one(rigged: Rig) -> tuple[str, int]:
    """Cut all connections, let a transaction land meanwhile; return when they are back and all gaps are closed."""
    for proxy in rigged.proxies:
        proxy.refuse = True
        proxy.cut()
    await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
    rigged.node.advance_slot()
    lost = rigged.node.emit_transaction([PROGRAM])
    rigged.node.advance_slot()
    for proxy in rigged.proxies:
        proxy.refuse = False
    await rigged.until(
        lambda: any(gap.from_slot <= lost.slot <= gap.to_slot and gap.state != "open" for gap in rigged.gaps_of(FEED)),
        flowing=True,
    )
    return lost.signature, lost.slot


async def asked_again(rigged: Rig, asked: int) -> None:
    await rigged.until(lambda: rigged.node.http.calls.count("getSlot") > asked + 1, flowing=True)


def sends(rigged: Rig, how: str, ahead: int) -> None:
    """The one connection's node says something wild in the form `how`, once or several times."""
    node, head = rigged.node, rigged.node.ledger.head
    if how == "slot":
        node.send_raw(slot_frame(node, head + ahead))
    elif how == "slot and root":
        node.send_raw(slot_frame(node, head + ahead, root=head + ahead))
    elif how == "slot on a known parent":
        node.send_raw(slot_frame(node, head + ahead, parent=head))
    elif how == "root beyond the slot":
        node.send_raw(slot_frame(node, head, root=head + ahead))
    elif how == "parent beyond the slot":
        node.send_raw(slot_frame(node, head, parent=head + ahead))
    elif how == "content":
        node.send_raw(logs_frame(node, head + ahead))
    elif how == "again and again":
        for number in range(20):
            node.send_raw(slot_frame(node, head + ahead + number))
            node.advance_slot()
    elif how == "for a while":
        for number in range(20):
            node.send_raw(slot_frame(node, head + ahead + number))
    else:
        raise AssertionError(how)


FORMS = (
    "slot", "slot and root", "slot on a known parent", "root beyond the slot", "parent beyond the slot", "content",
    "again and again", "for a while",
)  # fmt: skip


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize("time", ["long before", "right before"])
async def test_one_node_says_it_and_a_later_loss_is_declared(how: str, ahead: int, time: str) -> None:
    async with rig() as rigged:
        sends(rigged, how, ahead)
        goal = rigged.count("source_messages_total", source="rpc-0") + 1
        await rigged.until(
            lambda: rigged.count("source_messages_total", source="rpc-0") >= goal, flowing=time[0] == "l"
        )
        if time == "long before":
            await rigged.overlap()
        lost = await lose_one(rigged)
        assert missing(rigged, [lost]) == set()
        assert lost in rigged.delivered
        finals = [each.slot for each in rigged.updates if isinstance(each, SlotUpdate) and each.status == "finalized"]
        assert not finals or how == "for a while" or max(finals) <= rigged.node.ledger.head


@pytest.mark.parametrize("ahead", AHEAD)
async def test_a_wild_first_slot_hides_nothing(ahead: int) -> None:
    async with rig(start=False) as rigged:
        await rigged.until(lambda: bool(rigged.connections) and rigged.connections[0].complete)
        sends(rigged, "slot", ahead)
        await rigged.covered()
        lost = await lose_one(rigged)
        assert lost in rigged.delivered


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("times", [1, 3])
async def test_get_slot_says_it_and_a_later_loss_is_declared(ahead: int, times: int) -> None:
    async with rig() as rigged:
        node = rigged.node
        for number in range(times):
            asked = node.http.calls.count("getSlot")
            node.http_faults.results["getSlot"] = node.ledger.head + ahead + number
            await asked_again(rigged, asked)
        node.http_faults.results.clear()
        lost = await lose_one(rigged)
        assert lost in rigged.delivered
        await rigged.until(lambda: "behind" not in rigged.health.components()["source:rpc"].detail, flowing=True)


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("times", [1, 3, 50])
async def test_of_two_nodes_one_says_it_and_the_losses_of_both_are_declared(ahead: int, times: int) -> None:
    async with two_nodes() as (rigged, liar):
        await whole(rigged, rigged.node, liar)
        head = rigged.node.ledger.head
        for number in range(times):
            liar.send_raw(slot_frame(liar, head + ahead + number))
        for _ in range(5):
            rigged.node.advance_slot()
        await rigged.until(lambda: rigged.count("source_messages_total", source="rpc-1") > times, flowing=True)
        await rigged.lose(1)  # and the liar goes on, as a new connection, with the truth
        rigged.proxies[0].refuse = rigged.proxies[1].refuse = True
        for proxy in rigged.proxies:
            proxy.cut()
        await rigged.node.until(lambda: rigged.node.subscribed("slot") == 0)
        rigged.node.advance_slot()
        landed = rigged.node.emit_transaction([PROGRAM])
        rigged.node.advance_slot()
        rigged.proxies[0].refuse = rigged.proxies[1].refuse = False
        await rigged.until(lambda: (landed.signature, landed.slot) in rigged.delivered, flowing=True)
        assert any(gap.from_slot <= landed.slot <= gap.to_slot for gap in rigged.gaps_of(FEED))


async def test_the_liar_is_named_in_readiness_and_counted() -> None:
    async with rig() as rigged:
        wild = rigged.node.ledger.head + 900_000
        sends(rigged, "slot", 900_000)
        await rigged.until(lambda: rigged.count("source_wild_slots_total", source="rpc-0") == 1, flowing=True)
        await rigged.until(
            lambda: (
                f"rpc-0 told of slot {wild}, which nothing bore out" in rigged.health.components()["source:rpc"].detail
            )
        )
        assert rigged.count("source_bad_messages_total", source="rpc-0", reason="slot_jump") == 1
        assert rigged.health.ready


async def test_one_that_lies_on_against_two_others_is_named_and_its_heads_do_not_count() -> None:
    async with two_nodes() as (rigged, liar):
        await whole(rigged, rigged.node, liar)
        head = rigged.node.ledger.head
        sent = 0

        def named() -> bool:
            nonlocal sent
            sent += 1
            liar.send_raw(slot_frame(liar, head + 900_000 + sent))
            return "rpc-1 says to be 8" in rigged.health.components()["source:rpc"].detail

        await rigged.until(named, flowing=True)
        assert rigged.connections[0].watch.lag_slots < 100

        def lies() -> int:
            processed = [each for each in rigged.updates if isinstance(each, SlotUpdate) and each.status == "processed"]
            return sum(each.slot > head + 100_000 for each in processed)

        until_named = lies()
        for further in range(1, 101):
            liar.send_raw(slot_frame(liar, head + 900_000 + sent + further))
        lost = await lose_one(rigged)
        assert lost in rigged.delivered
        assert lies() <= until_named + 8  # what was on its way


async def test_content_that_is_wild_is_a_gap_where_the_node_is() -> None:
    async with rig() as rigged:
        head = rigged.node.ledger.head
        sends(rigged, "content", 900_000)
        await rigged.until(lambda: [gap.state for gap in rigged.gaps_of(FEED)] == ["open", "backfilled"], flowing=True)
        assert rigged.gaps_of(FEED)[0].from_slot <= head <= rigged.gaps_of(FEED)[0].to_slot < head + 100
        assert rigged.signatures() == []


async def test_verdicts_go_on_after_a_node_took_back_what_it_said() -> None:
    async with rig() as rigged:
        sends(rigged, "for a while", 900_000)
        since = rigged.node.ledger.head
        await rigged.until(
            lambda: any(
                isinstance(each, SlotUpdate) and each.status == "confirmed" and since + 50 < each.slot < since + 10_000
                for each in rigged.updates
            ),
            flowing=True,
        )
