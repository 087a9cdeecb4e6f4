"""After a loss a node sends again what was missed: nothing is lost, nothing comes twice, else there is a gap."""

import grpc
import pytest

from headrace.sources.yellowstone.replay import LATE
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.yellowstone_messages import block_meta_message
from tests.sources.yellowstone.rig import ACCOUNTS, EVERY_RECEIVER, LOGS, PROGRAM, Rig, rig

every_receiver = pytest.mark.parametrize("receiver", EVERY_RECEIVER)
KEY = made_up_key("account")


async def went_on(made: Rig, number: int = 99) -> None:
    """Return when a new transaction has come."""
    made.node.emit_transaction([PROGRAM], signature=made_up_signature(number))
    await made.until(lambda: made_up_signature(number) in made.signatures(), flowing=True)


async def flowed(made: Rig) -> None:
    """Let some slots pass, each with an account; return when all have come."""
    for number in range(6):
        made.node.emit_account(KEY, PROGRAM, b"before %d" % number)
        made.advance()
    await made.until(lambda: b"before 5" in made.accounts())
    await made.until(lambda: made.connections[0].progress.head == made.node.ledger.head - 1)


@every_receiver
async def test_what_was_missed_is_replayed_and_nothing_comes_twice(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        await flowed(made)
        made.node.emit_account(KEY, PROGRAM, b"half a slot")
        await made.until(lambda: b"half a slot" in made.accounts())
        await made.lose()
        made.node.emit_transaction([PROGRAM], signature=made_up_signature(1))
        made.node.emit_account(KEY, PROGRAM, b"missed")
        made.advance()
        made.back()
        await went_on(made)
        assert made.signatures().count(made_up_signature(1)) == 1
        assert made.accounts() == [*[b"before %d" % number for number in range(6)], b"half a slot", b"missed"]
        assert (made.gaps(LOGS), made.gaps(ACCOUNTS)) == ([], [])
        assert made.node.requests[-1].from_slot > 1000


@every_receiver
async def test_slot_with_another_hash_is_another_version_and_comes_anew(receiver: str) -> None:
    async with rig(receiver=receiver) as made:
        await flowed(made)
        slot = made.node.ledger.head - 2
        await made.lose()
        made.node.rewrite_slot(slot)
        made.back()
        await went_on(made)
        assert made.statuses(slot).count("created_bank") == 2


@pytest.mark.parametrize("code", [grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INTERNAL], ids=lambda code: code.name)
async def test_refused_replay_is_filled_from_the_ledger_or_a_gap(code: grpc.StatusCode) -> None:
    async with rig() as made:
        await flowed(made)
        made.node.faults.refuse_from_slot = code, "broadcast from_slot is not available"
        await made.lose()
        landed = made.node.emit_transaction([PROGRAM])
        for _ in range(4):
            made.advance()
        made.back()
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)
        await made.until(lambda: len(made.gaps(LOGS)) == 2 and len(made.gaps(ACCOUNTS)) == 2, flowing=True)
        assert [state for _, _, state in made.gaps(LOGS)] == ["open", "backfilled"]
        assert [state for _, _, state in made.gaps(ACCOUNTS)] == ["open", "unrecoverable"]
        low, high, _ = made.gaps(LOGS)[0]
        assert low <= landed.slot <= high


async def test_replay_begins_at_the_oldest_slot_that_the_node_names() -> None:
    async with rig(node_options={"replay_slots": 20}) as made:
        await flowed(made)
        lost_at = made.node.ledger.head
        await made.lose()
        landed = made.node.emit_transaction([PROGRAM])
        for _ in range(40):
            made.node.emit_account(KEY, PROGRAM, b"%d" % made.node.ledger.head)
            made.advance()
        made.back()
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)
        await made.until(lambda: len(made.gaps(ACCOUNTS)) == 2, flowing=True)
        low, high, _ = made.gaps(ACCOUNTS)[0]
        replayed = [b"%d" % slot for slot in range(high + 1, lost_at + 40)]  # none if the node's window has moved on
        await made.until(lambda: set(replayed) <= set(made.accounts()), flowing=True)
        had = {int(each) for each in made.accounts() if each.isdigit()}
        assert low <= lost_at <= high
        assert had == set(range(high + 1, lost_at + 40))


@pytest.mark.parametrize("skips", [1, 5, 9])
async def test_replay_that_begins_later_than_asked_is_a_gap(skips: int) -> None:
    async with rig() as made:
        await flowed(made)
        made.node.faults.replay_skips = skips
        await made.lose()
        missed = []
        for _ in range(10):
            missed.append(made.node.ledger.head)
            made.node.emit_account(KEY, PROGRAM, b"%d" % missed[-1])
            made.advance()
        made.back()
        await made.until(lambda: b"%d" % missed[-1] in made.accounts(), flowing=True)
        await went_on(made)
        had = {int(each) for each in made.accounts() if each.isdigit()}
        lost = {slot for low, high, _ in made.gaps(ACCOUNTS) for slot in range(low, high + 1)}
        assert set(missed) - had <= lost


async def test_slot_that_a_replay_leaves_out_is_a_gap() -> None:
    async with rig() as made:
        await flowed(made)
        await made.lose()
        missed = []
        for _ in range(6):
            missed.append(made.node.ledger.head)
            made.node.emit_account(KEY, PROGRAM, b"%d" % missed[-1])
            made.advance()
        made.node.faults.replay_leaves_out = {missed[2], missed[3]}
        made.back()
        await went_on(made)
        await made.until(lambda: bool(made.gaps(ACCOUNTS)), flowing=True)
        assert {int(each) for each in made.accounts() if each.isdigit()} == set(missed) - {missed[2], missed[3]}
        assert made.gaps(ACCOUNTS)[0][:2] == (missed[2], missed[3])


async def test_block_that_comes_after_its_child_is_no_loss() -> None:
    async with rig() as made:
        await flowed(made)
        slot = made.node.ledger.head
        made.node.faults.dropped = {"block_meta"}
        made.advance()
        made.node.faults.dropped = set()
        made.advance()
        made.node.send(block_meta_message(slot, made.node.blockhash(slot), slot - 1))
        for _ in range(LATE + 4):
            made.advance()
        await went_on(made)
        assert made.gaps(ACCOUNTS) == []


async def test_loss_without_a_replay_is_one_gap() -> None:
    async with rig(replay=False) as made:
        await flowed(made)
        await made.lose()
        for _ in range(4):
            made.advance()
        made.back()
        await made.covered()
        for _ in range(LATE + 4):
            made.advance()
        await went_on(made)
        await made.until(lambda: len(made.gaps(ACCOUNTS)) == 2)
        assert all(not request.HasField("from_slot") for request in made.node.requests)
        assert [state for _, _, state in made.gaps(ACCOUNTS)] == ["open", "unrecoverable"]


async def test_later_source_asks_for_all_since_the_earlier_one() -> None:
    async with rig() as first:
        await flowed(first)
        first.source.stop()
        await first.until(lambda: first.ending is not None)
        landed = first.node.emit_transaction([PROGRAM])
        first.advance()
        async with rig(nodes=first.nodes, covered=first.source.covered, start=False) as later:
            await later.until(lambda: landed.signature in later.signatures(), flowing=True)
            await later.covered()
            assert later.gaps(LOGS) == []


async def test_new_feed_gets_what_is_replayed_of_known_slots() -> None:
    async with rig(ACCOUNTS) as made:
        await flowed(made)
        landed = made.node.emit_transaction([PROGRAM])
        made.advance()
        await made.lose()
        made.source.update_subscriptions([ACCOUNTS, LOGS])
        made.advance()
        made.back()
        await made.until(lambda: landed.signature in made.signatures(), flowing=True)
        assert made.accounts() == [b"before %d" % number for number in range(6)]
