"""A node that refuses, hangs, stalls, sends garbage, reorders and repeats: the stream goes on."""

import asyncio

import msgspec
import pytest

from headrace.model.updates import AccountUpdate, SlotUpdate
from tests.sources.rpc_pubsub.rig import FEED, OTHER, PROGRAM, Rig, missing, rig

DEEP = '{"jsonrpc":"2.0","method":"logsNotification","params":' + '{"a":' * 50_000
BAD: dict[str, str | bytes] = {
    "text": "garbage",
    "binary": bytes(range(256)),
    "empty": "",
    "null": "null",
    "list": "[1,2,3]",
    "number": "17",
    "other method": '{"jsonrpc":"2.0","method":"blockNotification","params":{"result":{},"subscription":1}}',
    "no id": '{"jsonrpc":"2.0","result":5}',
}
LOST: dict[str, tuple[str | bytes, set[str]]] = {
    "deep": (DEEP, {FEED}),
    "deep list": ("[" * 100_000, {FEED, "slots"}),
    "cut off": ('{"jsonrpc":"2.0","me', {FEED, "slots"}),
    "bad utf-8": (b'{"jsonrpc":"2.0","method":"logs\xff\xfe"}', {FEED, "slots"}),
    "no params": ('{"jsonrpc":"2.0","method":"logsNotification"}', {FEED}),
    "no result": ('{"jsonrpc":"2.0","method":"slotNotification","params":{"subscription":1}}', {"slots"}),
    "negative slot": ('{"method":"slotNotification","params":{"result":{"slot":-1,"parent":0,"root":0}}}', {"slots"}),
    "vast slot": (
        '{"method":"slotNotification","params":{"result":{"slot":9' + "9" * 40 + ',"parent":0,"root":0}}}',
        {"slots"},
    ),
    "bad signature": (
        '{"method":"logsNotification","params":{"result":{"context":{},"value":'
        '{"signature":"O0Il","err":null,"logs":[]}},"subscription":1}}',
        {FEED},
    ),
}
"""What may have been a notification of a subscription, and the feeds that then lack it."""


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_message_of_no_subscription_is_counted_and_skipped(name: str) -> None:
    async with rig() as rigged:
        rigged.node.send_raw(BAD[name])
        await rigged.still_flows()
        await rigged.until(lambda: "source_bad_messages_total{" in rigged.metrics.render().decode())
        assert rigged.proxy.connections == 1
        assert rigged.gaps == []


@pytest.mark.parametrize("name", LOST)
async def test_what_may_have_been_a_notification_is_a_gap_of_its_feeds(name: str) -> None:
    message, feeds = LOST[name]
    async with rig() as rigged:
        head = rigged.node.ledger.head
        rigged.node.send_raw(message)
        await rigged.until(lambda: {gap.feed for gap in rigged.gaps if gap.from_slot <= head <= gap.to_slot} == feeds)
        await rigged.settled()
        assert {gap.state for gap in rigged.gaps} == {"open", "backfilled"}
        assert rigged.proxy.connections == 1
        assert "can't be read" in rigged.health.components()["source:rpc"].detail
        kind = "logs" if FEED in feeds else "slots"
        assert rigged.count("source_unreadable_total", source="rpc-0", kind=kind) == 1
        await rigged.until(lambda: "source_bad_messages_total{" in rigged.metrics.render().decode())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (["!!!not base64", "base64"], "bad_base64"),
        (["AAAA", "base64+zstd"], "bad_zstd"),
        (["KLUv/aCAgICA", "base64+zstd"], "too_large"),
        (["AAAA", "rot13"], "bad_encoding"),
        (["0OIl", "base58"], "bad_base58"),
    ],
)
async def test_account_data_that_can_not_be_unpacked_is_a_gap(data: list[str], reason: str) -> None:
    async with rig(subscriptions=("program:pump", FEED)) as rigged:
        number = rigged.node.subscription_id("program")
        account = {"lamports": 1, "data": data, "owner": PROGRAM, "executable": False, "rentEpoch": 0}
        value = {"pubkey": OTHER, "account": account}
        context = {"slot": rigged.node.ledger.head}
        params = {"result": {"context": context, "value": value}, "subscription": number}
        frame = {"jsonrpc": "2.0", "method": "programNotification", "params": params}
        rigged.node.send_raw(msgspec.json.encode(frame).decode())
        await rigged.still_flows()
        await rigged.until(lambda: rigged.count("source_bad_messages_total", source="rpc-0", reason=reason) == 1)
        assert not any(isinstance(update, AccountUpdate) for update in rigged.updates)
        feed = f"program:{PROGRAM}"
        await rigged.until(
            lambda: [gap.state for gap in rigged.gaps_of(feed)] == ["open", "unrecoverable"], flowing=True
        )


async def test_a_huge_frame_costs_the_connection_and_is_a_gap() -> None:
    async with rig(message_bytes_max=100_000) as rigged:
        landed = rigged.node.emit_transaction([PROGRAM], ["x" * 200_000])
        await rigged.until(lambda: rigged.proxy.connections == 2, flowing=True)
        await rigged.settled()
        assert missing(rigged, [(landed.signature, landed.slot)]) == set()
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"
        assert rigged.count("source_bad_messages_total", source="rpc-0", reason="too_large") == 1


async def test_unknown_subscription_ids_are_counted() -> None:
    async with rig() as rigged:
        rigged.node.faults.wrong_ids = True
        rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: rigged.count("source_unknown_subscriptions_total", source="rpc-0") == 1)
        rigged.node.faults.wrong_ids = False
        await rigged.still_flows()


async def test_repeats_and_disorder_pass_through() -> None:
    async with rig() as rigged:
        rigged.node.faults.repeat = 3
        rigged.node.faults.reorder = True
        for _ in range(4):
            rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: len(rigged.signatures()) >= 11, flowing=True)
        assert len(set(rigged.signatures())) == 4
        assert rigged.gaps == []


async def test_a_node_that_refuses_is_tried_again_until_it_is_back() -> None:
    async with rig(start=False) as rigged:
        rigged.node.faults.refuse = True
        await rigged.until(lambda: rigged.count("source_reconnects_total", source="rpc-0", reason="refused") >= 3)
        assert not rigged.health.ready
        assert "503" in rigged.health.components()["source:rpc"].detail
        rigged.node.faults.refuse = False
        await rigged.covered()
        assert rigged.health.ready


async def test_a_node_that_hangs_in_the_handshake_is_given_up() -> None:
    async with rig(start=False, connect_timeout_s=0.05) as rigged:
        rigged.proxy.stalled = True
        await rigged.until(lambda: rigged.count("source_reconnects_total", source="rpc-0", reason="refused") >= 2)
        rigged.proxy.stalled = False


async def test_a_node_that_never_acknowledges_is_given_up() -> None:
    async with rig(start=False, ack_timeout_s=0.05) as rigged:
        rigged.node.faults.never_ack = True
        await rigged.until(lambda: rigged.count("source_reconnects_total", source="rpc-0", reason="no_ack") >= 2)
        rigged.node.faults.never_ack = False
        await rigged.until(lambda: rigged.health.ready, flowing=True)


async def test_one_refused_subscription_leaves_the_others_alone_and_is_tried_again() -> None:
    async with rig(subscriptions=(FEED, f"account:{OTHER}"), start=False) as rigged:
        rigged.node.faults.errors["accountSubscribe"] = (-32601, "Method not found")
        await rigged.until(lambda: rigged.node.requests.count("accountSubscribe") >= 3, flowing=True)
        await rigged.still_flows()
        assert rigged.health.ready
        rigged.node.faults.errors.clear()
        await rigged.account_flows_too()


async def test_without_slot_subscriptions_get_slot_takes_their_place() -> None:
    async with rig(start=False) as rigged:
        rigged.node.faults.errors["slotSubscribe"] = (-32601, "Method not found")

        def begun() -> bool:
            sessions = rigged.connections
            return bool(sessions) and sessions[0].progress.first(FEED) is not None

        await rigged.until(begun, flowing=True)
        rigged.node.advance_slot()
        rigged.proxy.refuse = True
        await rigged.lose(0)
        landed = [rigged.node.emit_transaction([PROGRAM]) for _ in range(3)]
        rigged.proxy.refuse = False
        await rigged.until(lambda: any(gap.state == "backfilled" for gap in rigged.gaps_of(FEED)), flowing=True)
        assert missing(rigged, [(each.signature, each.slot) for each in landed]) == set()
        assert not any(isinstance(u, SlotUpdate) and u.status == "processed" for u in rigged.updates)


@pytest.mark.parametrize("how", ["refused", "never told"])
async def test_without_slots_what_was_delivered_is_confirmed_or_dies_all_the_same(how: str) -> None:
    async with rig(start=False) as rigged:
        if how == "refused":
            rigged.node.faults.errors["slotSubscribe"] = (-32601, "Method not found")
        else:
            rigged.node.faults.dropped.add("slot")
        await rigged.node.until(lambda: rigged.node.subscribed("logs") > 0)
        rigged.node.advance_slot()
        base = rigged.node.ledger.head
        rigged.node.emit_transaction([PROGRAM])
        rigged.node.advance_slot()
        rigged.node.emit_transaction([PROGRAM])
        rigged.node.advance_slot(parent=base)
        rigged.node.emit_transaction([PROGRAM])

        def verdicts() -> list[tuple[int, str]]:
            return [(each.slot, each.status) for each in rigged.updates if isinstance(each, SlotUpdate)]

        expected = {(base, "confirmed"), (base + 1, "dead"), (base + 2, "confirmed")}
        await rigged.until(lambda: expected <= set(verdicts()), flowing=True)
        assert len(verdicts()) == len(set(verdicts()))


async def stalls(rigged: Rig, reason: str) -> None:
    """The stream must be found out and everything that it kept back refilled."""
    lost = []
    for _ in range(10):
        landed = rigged.node.emit_transaction([PROGRAM])
        lost.append((landed.signature, landed.slot))
        rigged.node.advance_slot()
    await rigged.until(
        lambda: rigged.count("source_reconnects_total", source="rpc-0", reason=reason) >= 1, flowing=True
    )
    rigged.node.faults.silent = False
    rigged.node.faults.dropped.clear()
    rigged.proxy.stalled = False
    await rigged.settled()
    assert missing(rigged, lost) == set()
    assert set(lost) <= rigged.delivered
    assert rigged.gaps_of(FEED)[-1].state == "backfilled"


async def test_a_silent_connection_is_given_up() -> None:
    async with rig(stall_s=0.2, stall_slots=10_000) as rigged:
        rigged.node.faults.silent = True
        await stalls(rigged, "silent")


async def test_a_stalled_connection_is_given_up() -> None:
    async with rig(stall_s=0.2, stall_slots=10_000) as rigged:
        rigged.proxy.stalled = True
        await stalls(rigged, "silent")


async def test_a_connection_left_behind_the_head_is_given_up() -> None:
    async with rig(stall_s=0.3, stall_slots=5) as rigged:
        rigged.node.faults.silent = True
        await stalls(rigged, "behind")


async def test_a_node_that_never_tells_slots_is_used_all_the_same() -> None:
    async with rig(stall_s=5.0, http=False) as rigged:
        rigged.node.faults.dropped.add("slot")
        rigged.proxy.cut()
        async with asyncio.timeout(30):
            while rigged.proxy.connections < 2 or not rigged.health.ready:
                rigged.node.advance_slot()
                rigged.node.emit_transaction([PROGRAM])
                await asyncio.sleep(0.005)
        rigged.node.advance_slot()
        landed = {rigged.node.emit_transaction([PROGRAM]).signature for _ in range(10)}
        await rigged.until(lambda: landed <= set(rigged.signatures()))


async def test_a_standing_slot_head_while_other_things_arrive() -> None:
    async with rig(stall_s=0.2, stall_slots=10_000, http=False) as rigged:
        rigged.node.faults.dropped.add("slot")
        landed = []
        async with asyncio.timeout(30):
            while not rigged.count("source_reconnects_total", source="rpc-0", reason="head_stands"):
                landed.append(rigged.node.emit_transaction([PROGRAM]))
                await asyncio.sleep(
                    0.005
                )  # a connection that a busy machine kept silent too long is followed by another
        rigged.node.faults.dropped.clear()
        await rigged.settled()
        assert missing(rigged, [(each.signature, each.slot) for each in landed]) == set()


async def test_a_dropped_feed_is_found_in_the_ledger() -> None:
    async with rig(quiet_feed_s=0.1) as rigged:
        rigged.node.faults.dropped.add("logs")
        await stalls(rigged, "feed_stands")


async def test_a_feed_whose_listing_is_refused_keeps_no_other_from_being_checked() -> None:
    async with rig(quiet_feed_s=0.1, subscriptions=(f"logs:{OTHER}", FEED)) as rigged:
        rigged.node.http_faults.unlisted.add(OTHER)
        rigged.node.faults.dropped.add("logs")
        await stalls(rigged, "feed_stands")
        await rigged.until(lambda: OTHER in rigged.health.components()["source:rpc"].detail, flowing=True)


async def test_a_dropped_feed_of_a_program_that_is_busy_in_every_slot_is_found_too() -> None:
    async with rig(quiet_feed_s=0.1) as rigged:
        rigged.node.faults.dropped.add("logs")
        landed = []
        async with asyncio.timeout(30):
            while not rigged.count("source_reconnects_total", source="rpc-0", reason="feed_stands"):
                landed.append(rigged.node.emit_transaction([PROGRAM]))
                rigged.node.advance_slot()
                await asyncio.sleep(0.005)
        rigged.node.faults.dropped.clear()
        await rigged.settled()
        assert missing(rigged, [(each.signature, each.slot) for each in landed]) == set()


async def test_without_any_network_it_stays_quiet_and_keeps_trying(capsys: pytest.CaptureFixture[str]) -> None:
    async with rig(start=False) as rigged:
        rigged.proxy.refuse = True
        rigged.node.http_faults.hang_up = True
        await rigged.until(lambda: rigged.proxy.connections >= 40)
        rigged.node.http_faults.hang_up = False
    assert capsys.readouterr().err.count("no_connection") == 1
