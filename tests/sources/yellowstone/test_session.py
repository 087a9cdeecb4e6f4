"""A session before a node that behaves, refuses, lags, stalls, sends too much, or wants answers."""

from functools import partial

import grpc
import msgspec
import pytest

from headrace.model.keys import b58decode
from headrace.sources.yellowstone import YellowstoneSettings
from headrace.sources.yellowstone.messages import geyser
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.yellowstone_messages import status_message
from tests.sources.yellowstone.rig import ACCOUNTS, EVERY_RECEIVER, LOGS, OTHER, PROGRAM, Rig, rig

every_receiver = pytest.mark.parametrize("receiver", EVERY_RECEIVER)
STATUSES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
OVERLAP = YellowstoneSettings().gap_margin_slots + 2  # slots after which the end of one of two leaves no hole
DENIED = {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"}


async def still_flows(made: Rig) -> None:
    """Return when something comes that lands now."""
    landed: set[str] = set()

    def came() -> bool:
        landed.add(made.node.emit_transaction([PROGRAM]).signature)
        return not landed.isdisjoint(made.signatures())

    await made.until(came, flowing=True)


@every_receiver
async def test_accounts_transactions_and_statuses_are_delivered(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        landed = made.node.emit_transaction([PROGRAM], ["Program log: hello"])
        written = made.node.emit_account(made_up_key("one"), PROGRAM, b"data", signature=made_up_signature(5))
        made.node.emit_account(made_up_key("other"), OTHER, b"not wanted")
        await made.until(lambda: bool(made.accounts()) and bool(made.signatures()))
        assert made.signatures() == [landed.signature]
        (account,) = [each for each in made.updates if each.feed == ACCOUNTS]
        assert account == msgspec.structs.replace(
            written, source="yellowstone-0", feed=ACCOUNTS, received_ns=account.received_ns
        )
        await made.until(lambda: "finalized" in made.statuses(landed.slot), flowing=True)
        distinct = list(dict.fromkeys(made.statuses(landed.slot)))  # the ledger is asked for confirmed slots as well
        assert distinct == ["created_bank", "processed", "confirmed", "finalized"]


@every_receiver
async def test_dead_slots_and_banks_created_again_are_delivered(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        slot = made.advance()
        made.node.create_bank_again()
        made.node.kill_slot(slot)
        await made.until(lambda: "dead" in made.statuses(slot))
        assert made.statuses(slot) == ["created_bank", "created_bank", "dead"]


@every_receiver
@pytest.mark.parametrize("commitment", ["confirmed", "finalized"])
async def test_later_commitment_brings_updates_when_their_slot_reached_it(receiver: str, commitment: str) -> None:
    async with rig(receiver=receiver, commitment=commitment, node_options={"root_lag": 4}) as made:
        landed = made.node.emit_transaction([PROGRAM])
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)
        (update,) = [each for each in made.updates if each.feed == LOGS]
        assert landed.slot in made.node.ledger.chain("confirmed" if commitment == "confirmed" else "finalized")
        assert msgspec.structs.asdict(update)["commitment"] == commitment


@every_receiver
@pytest.mark.parametrize("code", STATUSES, ids=lambda code: code.name)
async def test_after_every_status_the_source_comes_back(receiver: str, code: grpc.StatusCode) -> None:
    async with rig(receiver=receiver, start=False) as made:
        made.node.faults.refuse = code, "not now"
        reason = "denied" if code.name in DENIED else "refused"
        await made.until(lambda: made.count("source_reconnects_total", source="yellowstone-0", reason=reason) > 0)
        made.node.faults.refuse = None
        await still_flows(made)
        made.node.end(code, "ended")
        await still_flows(made)
        lost = "denied" if code.name in DENIED else "closed"
        assert made.count("source_reconnects_total", source="yellowstone-0", reason=lost) > 0


@every_receiver
async def test_transactions_of_statuses_are_fetched_whole(receiver: str) -> None:
    async with rig(LOGS, receiver=receiver, filters="[transactions_status.all]") as made:
        landed = made.node.ledger.land([PROGRAM])
        message = geyser.SubscribeUpdate()
        message.transaction_status.slot = landed.slot
        message.transaction_status.signature = b58decode(landed.signature)
        made.node.send(message)
        feed = "filter:transactions_status.all"
        await made.until(lambda: made.signatures(feed) == [landed.signature], flowing=True)
        assert made.signatures(LOGS) == []


@every_receiver
async def test_client_that_lags_is_resumed_without_a_loss(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        for number in range(20):
            made.node.emit_account(made_up_key("one"), PROGRAM, b"%d" % number)
            if number % 5 == 4:
                made.advance()
            if number == 12:
                made.node.lag()
        await still_flows(made)
        assert made.count("source_reconnects_total", source="yellowstone-0", reason="lagged") == 1
        assert made.accounts() == [b"%d" % number for number in range(20)]
        assert made.gaps(ACCOUNTS) == []


@every_receiver
async def test_subscriptions_and_filters_change_without_a_reconnect(receiver: str) -> None:
    async with rig(LOGS, receiver=receiver) as made:
        key = made_up_key("watched")
        filters = f'[accounts.watched]\naccount = ["{key}"]\n[[accounts_data_slice]]\noffset = 1\nlength = 2\n'
        settings = YellowstoneSettings(subscriptions=(LOGS, f"account:{OTHER}"), filters=filters)
        made.source.update_settings(settings)
        await made.until(lambda: len(made.node.requests) == 2)
        await made.covered()
        made.node.emit_account(OTHER, PROGRAM, b"abcd")
        made.node.emit_account(key, PROGRAM, b"abcd")
        await made.until(lambda: bool(made.accounts("filter:accounts.watched")))
        assert made.accounts(f"account:{OTHER}") == [b"bc"]
        assert made.accounts("filter:accounts.watched") == [b"bc"]
        assert made.proxy.connections == 1
        made.source.update_subscriptions([f"account:{OTHER}"])
        await made.until(lambda: len(made.node.requests) == 3)
        made.node.emit_transaction([PROGRAM])
        made.node.emit_account(OTHER, PROGRAM, b"wxyz")
        await made.until(lambda: len(made.accounts(f"account:{OTHER}")) == 2)
        assert made.signatures() == []


@every_receiver
async def test_pings_are_answered_and_leave_the_filters(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        made.node.ping()
        await made.until(lambda: made.node.pings_answered == 1)
        await still_flows(made)
        assert made.proxy.connections == 1


@every_receiver
async def test_message_that_is_too_long_ends_the_connection_and_is_a_gap(receiver: str) -> None:
    async with rig(receiver=receiver, message_bytes_max=100_000, replay=False) as made:
        made.node.emit_account(made_up_key("large"), PROGRAM, bytes(200_000))
        await made.until(lambda: made.count("source_reconnects_total", source="yellowstone-0", reason="too_large") > 0)
        await still_flows(made)
        await made.until(lambda: bool(made.gaps(ACCOUNTS)), flowing=True)


@every_receiver
async def test_large_messages_pass(receiver: str) -> None:
    async with rig(receiver=receiver, waiting_bytes_max=64 * 1024) as made:
        large = bytes(range(256)) * 4 * 1024 * 8
        for _ in range(3):
            made.node.emit_account(made_up_key("large"), PROGRAM, large)
        await made.until(lambda: len(made.accounts()) == 3)
        assert set(made.accounts()) == {large}


@every_receiver
async def test_silent_node_is_given_up(receiver: str) -> None:
    async with rig(receiver=receiver, stall_s=0.3) as made:
        made.node.faults.silent = True
        lost = ("silent", "head_stands")
        await made.until(
            lambda: any(made.count("source_reconnects_total", source="yellowstone-0", reason=each) for each in lost)
        )
        made.node.faults.silent = False
        await still_flows(made)


@every_receiver
async def test_request_that_nothing_follows_is_given_up(receiver: str) -> None:
    async with rig(receiver=receiver, ack_timeout_s=0.1, start=False) as made:
        made.node.faults.silent = True
        await made.until(lambda: made.count("source_reconnects_total", source="yellowstone-0", reason="no_ack") > 0)
        made.node.faults.silent = False
        await still_flows(made)


@every_receiver
async def test_slow_pipeline_holds_the_node_up_and_loses_nothing(receiver: str) -> None:
    async with rig(receiver=receiver, capacity=100, waiting_bytes_max=64 * 1024) as made:
        made.reading.clear()
        for number in range(600):
            made.node.emit_account(made_up_key("one"), PROGRAM, b"%d" % number + bytes(1500))
        await made.until(lambda: made.connections[0].handing_in)
        made.reading.set()
        await made.until(lambda: len(made.accounts()) == 600)
        assert [each.rstrip(b"\0") for each in made.accounts()] == [b"%d" % number for number in range(600)]


@every_receiver
async def test_wrong_token_is_denied_and_not_shown(receiver: str) -> None:
    async with rig(receiver=receiver, x_token="a-wrong-secret", node_options={"token": "right"}, start=False) as made:
        await made.until(lambda: made.count("source_reconnects_total", source="yellowstone-0", reason="denied") > 0)
        board = made.health.components()["source:yellowstone"]
        assert "UNAUTHENTICATED" in board.detail
        assert "a-wrong-secret" not in board.detail
    async with rig(receiver=receiver, x_token="right", node_options={"token": "right"}) as made:
        await still_flows(made)


@every_receiver
async def test_gzip_is_read(receiver: str) -> None:
    options = {"compression": grpc.Compression.Gzip}
    async with rig(receiver=receiver, compression="gzip", node_options=options) as made:
        made.node.emit_account(made_up_key("one"), PROGRAM, bytes(10_000))
        await made.until(lambda: made.accounts() == [bytes(10_000)])


@every_receiver
async def test_unreadable_and_unknown_updates_are_gaps_of_their_feeds(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        (name,) = made.node.requests[-1].accounts
        made.node.send_raw(geyser.SubscribeUpdate(filters=[name]).SerializeToString() + bytes([15 << 3 | 2, 0]))
        made.node.send_raw(geyser.SubscribeUpdate(filters=[name]).SerializeToString() + b"\x12\xff\x01")
        await made.until(lambda: bool(made.gaps(ACCOUNTS)), flowing=True)
        await still_flows(made)
        assert made.gaps(LOGS) == []
        for reason in ("unknown_kind", "not_protobuf"):  # counted with the next tick of the session
            bad = partial(made.count, "source_bad_messages_total", source="yellowstone-0", reason=reason)
            await made.until(lambda bad=bad: bad() > 0)  # type: ignore[misc]
            assert bad() == 1


@every_receiver
async def test_wild_slot_is_not_believed(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        made.node.send(status_message(10**12, "processed", 10**12 - 1))
        await still_flows(made)
        assert made.source.stream is not None
        assert made.source.stream.head < 10**6
        await made.lose()
        landed = made.node.emit_transaction([PROGRAM])
        made.back()
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)


@every_receiver
async def test_one_of_two_nodes_is_lost_without_a_gap(receiver: str) -> None:
    async with rig(LOGS, endpoints=2, receiver=receiver) as made:
        for _ in range(OVERLAP):
            made.advance()
        made.node.emit_transaction([PROGRAM], signature=made_up_signature(1))
        await made.until(lambda: len(made.signatures()) == 2)
        assert {each.source for each in made.updates if each.feed == LOGS} == {"yellowstone-0", "yellowstone-1"}
        made.proxies[0].refuse = True
        made.proxies[0].cut()
        await made.until(lambda: not made.node.subscribers)
        for number in range(2, 8):
            made.node.emit_transaction([PROGRAM], signature=made_up_signature(number))
            made.advance()
        made.proxies[0].refuse = False
        await made.covered()
        await made.until(lambda: made_up_signature(7) in made.signatures())
        assert set(made.signatures()) == {made_up_signature(number) for number in range(1, 8)}
        assert made.gaps(LOGS) == []
