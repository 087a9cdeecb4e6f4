"""Notifications of live subscriptions that can't be read: read otherwise, fetched, or a gap; never silence."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace.model.updates import AccountUpdate, LogsUpdate, SlotUpdate, TransactionUpdate
from headrace.testing.ledger import made_up_key, made_up_signature
from tests.sources.rpc_pubsub.rig import FEED, OTHER, PROGRAM, Rig, rig

ACCOUNT = made_up_key("account")
Frame = dict[str, Any]
Change = Callable[[Frame], Any]


def active_id(rigged: Rig, kind: str) -> Any:
    return rigged.node.subscription_id("slot" if kind == "slots" else kind)


def send(rigged: Rig, kind: str, method: str, value: object, change: Change, slot: int) -> None:
    params = {
        "result": {"context": {"slot": slot}, "value": value},
        "subscription": active_id(rigged, kind),
    }
    frame: Any = {"jsonrpc": "2.0", "method": f"{method}Notification", "params": params}
    changed = change(frame)
    rigged.node.send_raw(msgspec.json.encode(frame if changed is None else changed).decode())


def put(*path: str | int, to: object) -> Change:
    def change(frame: Any) -> None:
        for name in path[:-1]:
            frame = frame[name]
        frame[path[-1]] = to

    return change


VALUE = ("params", "result", "value")
READ: dict[str, Change] = {
    "id as text": lambda frame: put("params", "subscription", to=str(frame["params"]["subscription"]))(frame),
    "an array of one": lambda frame: [frame],
    "slot as text": lambda frame: put("params", "result", "context", "slot", to=str(1003))(frame),
}
LOST: dict[str, Change] = {
    "logs null": put(*VALUE, "logs", to=None),
    "logs of numbers": put(*VALUE, "logs", to=[1]),
    "signature null": put(*VALUE, "signature", to=None),
    "signature of zeros": put(*VALUE, "signature", to="1" * 64),
    "err a number": put(*VALUE, "err", to=7),
    "value null": put(*VALUE, to=None),
    "context null": put("params", "result", "context", to=None),
    "slot a word": put("params", "result", "context", "slot", to="soon"),
    "slot far ahead": put("params", "result", to={"context": {"slot": 2**60}}),
    "result null": put("params", "result", to=None),
    "id null": put("params", "subscription", to=None),
    "id of nobody": put("params", "subscription", to=77),
    "id an object": put("params", "subscription", to={"id": 1}),
    "params null": put("params", to=None),
}


def lines(rigged: Rig, number: int) -> tuple[str, dict[str, object]]:
    """A transaction that the ledger has, and its notification, which nobody has sent yet."""
    landed = rigged.node.ledger.land([PROGRAM], [f"Program log: {number}"])
    return landed.signature, {"signature": landed.signature, "err": None, "logs": list(landed.logs)}


@pytest.mark.parametrize("name", READ)
async def test_logs_that_are_said_otherwise_are_read(name: str) -> None:
    async with rig() as rigged:
        while rigged.node.ledger.head < 1003:
            rigged.node.advance_slot()
        signature, value = lines(rigged, 1)
        send(rigged, "logs", "logs", value, READ[name], 1003)
        await rigged.until(lambda: signature in rigged.signatures())
        assert isinstance(rigged.updates[-1], LogsUpdate)
        assert rigged.gaps == []


async def test_each_notification_of_an_array_is_read() -> None:
    async with rig() as rigged:
        told = [lines(rigged, number) for number in range(3)]
        head, number = rigged.node.ledger.head, active_id(rigged, "logs")
        frames = [
            {"method": "logsNotification", "params": {"result": {"context": {"slot": head}, "value": value},
             "subscription": number}}
            for _, value in told
        ]  # fmt: skip
        rigged.node.send_raw(msgspec.json.encode(frames).decode())
        await rigged.until(lambda: rigged.signatures() == [signature for signature, _ in told])


@pytest.mark.parametrize("name", LOST)
async def test_logs_that_can_not_be_read_are_fetched_within_a_gap_of_their_slot(name: str) -> None:
    async with rig() as rigged:
        signature, value = lines(rigged, 1)
        slot = rigged.node.ledger.head
        send(rigged, "logs", "logs", value, LOST[name], slot)
        await rigged.until(lambda: bool(rigged.gaps_of(FEED)))
        await rigged.settled()
        opened, closed = rigged.gaps_of(FEED)
        assert (opened.state, closed.state) == ("open", "backfilled")
        assert opened.from_slot <= slot <= opened.to_slot <= rigged.node.ledger.head
        (update,) = [each for each in rigged.updates if isinstance(each, TransactionUpdate)]
        assert (update.signature, update.logs) == (signature, ("Program log: 1",))
        assert "1 notifications that can't be read" in rigged.health.components()["source:rpc"].detail
        assert rigged.health.ready
        assert rigged.count("source_unreadable_total", source="rpc-0", kind="logs") == 1
        await rigged.still_flows()


async def test_without_an_endpoint_to_ask_it_is_unrecoverable() -> None:
    async with rig(http=False) as rigged:
        _, value = lines(rigged, 1)
        slot = rigged.node.ledger.head
        send(rigged, "logs", "logs", value, LOST["logs null"], slot)
        await rigged.until(lambda: len(rigged.gaps) == 2, flowing=True)
        assert [(gap.state, gap.from_slot, gap.to_slot) for gap in rigged.gaps] == [
            ("open", slot, slot),
            ("unrecoverable", slot, slot),
        ]


async def test_what_another_endpoint_brought_is_not_fetched_again() -> None:
    async with rig(endpoints=2) as rigged:
        await rigged.overlap()
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: rigged.signatures().count(landed.signature) == 2)
        send(rigged, "logs", "logs", None, lambda frame: None, landed.slot)
        await rigged.until(lambda: bool(rigged.gaps_of(FEED)))
        await rigged.settled()
        assert rigged.gaps_of(FEED)[-1].state == "backfilled"
        assert rigged.node.http.calls.count("getTransaction") == 0


DATA: dict[str, object] = {
    "an error sentence": "error: data too large for bs58 encoding",
    "a word": "error",
    "jsonParsed": {"program": "spl-token", "parsed": {"type": "account", "info": {}}, "space": 165},
    "null": None,
    "another encoding": ["AAAA", "hex"],
    "not all of it": ["AAAA", "base64"],
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("kind", ["account", "program"])
async def test_account_data_that_can_not_be_read_is_fetched_and_declared(kind: str, name: str) -> None:
    feed = f"{kind}:{ACCOUNT if kind == 'account' else PROGRAM}"
    async with rig(subscriptions=(feed,)) as rigged:
        node = rigged.node
        node.faults.dropped.add(kind)
        node.emit_account(ACCOUNT, PROGRAM, b"after")
        slot = node.ledger.head
        account = {"lamports": 1, "data": DATA[name], "owner": PROGRAM, "executable": False, "space": 5}
        value = account if kind == "account" else {"pubkey": ACCOUNT, "account": account}
        send(rigged, kind, kind, value, lambda frame: None, slot)
        await rigged.until(
            lambda: (
                [(gap.state, gap.from_slot, gap.to_slot) for gap in rigged.gaps_of(feed)]
                == [("open", slot, slot), ("unrecoverable", slot, slot)]
            ),
            flowing=True,
        )
        (update,) = [each for each in rigged.updates if isinstance(each, AccountUpdate)]
        assert (update.pubkey, update.data, update.feed) == (ACCOUNT, b"after", feed)
        assert update.slot >= slot


async def test_many_unreadable_notifications_of_a_slot_are_one_gap() -> None:
    async with rig() as rigged:
        slot = rigged.node.ledger.head
        for _ in range(500):
            send(rigged, "logs", "logs", None, lambda frame: None, slot)
        await rigged.until(lambda: rigged.count("source_unreadable_total", source="rpc-0", kind="logs") == 500)
        await rigged.until(lambda: bool(rigged.gaps))
        await rigged.settled()
        assert [(gap.state, gap.from_slot, gap.to_slot) for gap in rigged.gaps] == [
            ("open", slot, slot),
            ("backfilled", slot, slot),
        ]


async def test_unreadable_notifications_of_every_slot_make_few_gaps() -> None:
    async with rig() as rigged:
        head = rigged.node.ledger.head
        for slot in range(head - 900, head, 2):
            send(rigged, "logs", "logs", None, lambda frame: None, slot)
        await rigged.until(lambda: rigged.count("source_unreadable_total", source="rpc-0", kind="logs") == 450)

        def undeclared() -> set[int]:
            return {
                slot
                for slot in range(head - 900, head, 2)
                if not any(gap.from_slot <= slot <= gap.to_slot for gap in rigged.gaps)
            }

        await rigged.until(lambda: not undeclared(), flowing=True)
        assert len([gap for gap in rigged.gaps if gap.state == "open"]) <= 90


async def test_a_signature_whose_notification_can_not_be_read_is_delivered() -> None:
    first, second = made_up_signature(91), made_up_signature(92)
    async with rig(subscriptions=(f"signature:{first}", f"signature:{second}")) as rigged:
        await rigged.until(lambda: rigged.node.subscribed("signature") == 2)
        rigged.node.ledger.land([PROGRAM], signature=first)
        send(rigged, "signature", "signature", {"err": None}, put("params", "subscription", to=None), 1)
        await rigged.until(lambda: bool(rigged.signatures(f"signature:{first}")), flowing=True)
        rigged.node.emit_transaction([PROGRAM], signature=second)
        await rigged.until(lambda: bool(rigged.signatures(f"signature:{second}")), flowing=True)


async def test_a_slot_notification_without_its_parent_is_a_head_all_the_same() -> None:
    async with rig() as rigged:
        slot = rigged.node.ledger.head + 1
        rigged.node.ledger.advance()
        number = active_id(rigged, "slots")
        params = {"result": {"slot": slot, "parent": None, "root": slot - 32}, "subscription": number}
        rigged.node.send_raw(msgspec.json.encode({"method": "slotNotification", "params": params}).decode())
        await rigged.until(
            lambda: any(
                isinstance(each, SlotUpdate) and (each.slot, each.status, each.parent) == (slot, "processed", None)
                for each in rigged.updates
            )
        )
        await rigged.until(
            lambda: [gap.state for gap in rigged.gaps_of("slots")] == ["open", "backfilled"], flowing=True
        )
        assert {(gap.from_slot, gap.to_slot) for gap in rigged.gaps_of("slots")} == {(slot, slot)}


async def test_a_node_that_names_subscriptions_by_text_is_used_all_the_same() -> None:
    async with rig(subscriptions=(FEED, f"logs:{OTHER}"), start=False) as rigged:
        rigged.node.faults.text_ids = "sub-{}"
        await rigged.covered()
        await rigged.still_flows()
        rigged.source.update_subscriptions([FEED])
        await rigged.until(lambda: rigged.node.subscribed("logs", OTHER) == 0)
        await rigged.still_flows()
        assert rigged.gaps == []


async def test_what_is_unreadable_when_the_source_stops_is_declared() -> None:
    async with rig(confirm_s=1000.0) as rigged:
        slot = rigged.node.ledger.head
        send(rigged, "logs", "logs", None, lambda frame: None, slot)
        await rigged.until(lambda: rigged.count("source_unreadable_total", source="rpc-0", kind="logs") == 1)
        rigged.source.stop()
        await rigged.until(lambda: rigged.ending is not None)
        await rigged.until(lambda: bool(rigged.gaps))
        assert [(gap.state, gap.from_slot, gap.to_slot) for gap in rigged.gaps] == [("unrecoverable", slot, slot)]
