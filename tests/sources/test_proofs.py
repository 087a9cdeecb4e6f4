"""A transaction that is in no block of its slot is found out; unknown is never no; nothing waits for ever."""

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from headrace.model.updates import LandingUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import rpc_pubsub
from headrace.sources.proofs import (
    AHEAD_SLOTS,
    REMEMBERED_SLOTS,
    WAIT_S,
    WAITING_MAX,
    WINDOW_SLOTS,
    Answer,
    Proofs,
    Proven,
    Status,
)
from headrace.sources.proving import BLOCKS_MAX, LATE_SLOTS, Prover
from headrace.sources.subscriptions import ChainSubscription
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.node import ScriptedNode
from tests.sources.rpc_pubsub.rig import FEED, PROGRAM, Rig, rig

LOGS = ChainSubscription("logs", made_up_key("a"))
SLOT = 1000
METHODS: Final = ("getSignatureStatuses", "getBlock")


def waiting(*signatures: str) -> Proofs:
    proofs = Proofs()
    for signature in signatures:
        proofs.delivered(SLOT, signature, True, (LOGS,), 0.0)
    proofs.reached(SLOT)
    return proofs


def told(proofs: Proofs, *answers: Answer) -> list[Proven]:
    return proofs.answered(proofs.due(256), answers)


def test_nothing_is_asked_before_the_slot_is_decided() -> None:
    proofs = Proofs()
    proofs.delivered(SLOT, "a", True, (LOGS,), 0.0)
    assert proofs.due(256) == []
    proofs.reached(SLOT)
    assert [each.signature for each in proofs.due(256)] == ["a"]


def test_a_confirmed_status_in_the_slot_is_proof() -> None:
    proofs = waiting("a")
    assert told(proofs, Answer(SLOT, [Status(SLOT, True, True)])) == [Proven(SLOT, landed=("a",))]
    assert proofs.known(SLOT, "a") is True
    assert proofs.due(256) == []


@pytest.mark.parametrize("word", [Status(SLOT + 1, True, True), Status(SLOT, False, True)])
def test_a_status_of_another_slot_or_outcome_proves_absence(word: Status) -> None:
    proofs = waiting("a")
    assert told(proofs, Answer(SLOT, [word])) == [Proven(SLOT, absent=("a",))]
    assert proofs.known(SLOT, "a") is False


@pytest.mark.parametrize(
    "answer",
    [
        Answer(SLOT + AHEAD_SLOTS - 1, [None]),
        Answer(SLOT + REMEMBERED_SLOTS + 1, [None]),
        Answer(SLOT + AHEAD_SLOTS, [""]),
        Answer(SLOT + AHEAD_SLOTS, [Status(SLOT, True, False)]),
        Answer(SLOT + AHEAD_SLOTS, [Status(SLOT + 3, True, False)]),
    ],
)
def test_null_from_a_node_that_need_not_know_proves_nothing(answer: Answer) -> None:
    proofs = waiting("a")
    for _ in range(10):
        assert told(proofs, answer) == []
    assert len(proofs) == 1


def test_null_twice_from_nodes_that_must_know_proves_absence() -> None:
    proofs = waiting("a", "b")
    answer = Answer(SLOT + AHEAD_SLOTS, [None, Status(SLOT, True, True)])
    assert told(proofs, answer) == [Proven(SLOT, landed=("b",))]
    assert told(proofs, Answer(SLOT + 10_000, [None], history=True)) == [Proven(SLOT, absent=("a",))]


def test_a_status_of_one_endpoint_is_proof() -> None:
    proofs = waiting("a")
    none = Answer(SLOT + 20, [None])
    for _ in range(5):
        assert told(proofs, none, Answer(SLOT + 20, [Status(SLOT, True, False)])) == []
    assert told(proofs, none, Answer(SLOT + 20, [Status(SLOT, True, True)])) == [Proven(SLOT, landed=("a",))]


def test_what_nobody_answers_is_given_up_past_the_window_or_after_a_while() -> None:
    proofs = waiting("a")
    assert proofs.overdue(SLOT + WINDOW_SLOTS - 1, WAIT_S) == []
    expected = [Proven(SLOT, unknown=("a",), feeds=(LOGS,))]
    assert proofs.overdue(SLOT + WINDOW_SLOTS, 0.0) == expected
    assert waiting("a").overdue(SLOT, WAIT_S + 1) == expected
    assert len(proofs) == 0


def test_signatures_of_a_dead_slot_are_forgotten() -> None:
    proofs = waiting("a")
    proofs.died(SLOT)
    assert proofs.due(256) == []
    assert len(proofs) == 0


def test_memory_is_bounded_by_giving_the_oldest_slot_up() -> None:
    proofs = waiting("a")
    given_up = [
        proven
        for number in range(WAITING_MAX)
        for proven in proofs.delivered(SLOT + 1 + number // 100, str(number), True, (LOGS,), 0.0)
    ]
    assert given_up == [Proven(SLOT, unknown=("a",), feeds=(LOGS,))]
    assert len(proofs) == WAITING_MAX


def test_a_signature_in_the_list_of_its_block_has_landed_and_one_that_lacks_twice_is_absent() -> None:
    proofs = waiting("a", "b")
    assert proofs.slots_due() == [SLOT]
    assert proofs.listed(proofs.due_in(SLOT), {"a", "c"}) == [Proven(SLOT, landed=("a",))]
    assert proofs.listed(proofs.due_in(SLOT), {"a", "c"}) == [Proven(SLOT, absent=("b",))]
    assert proofs.slots_due() == []


def landings(rigged: Rig) -> list[LandingUpdate]:
    return [update for update in rigged.updates if isinstance(update, LandingUpdate)]


def landed(rigged: Rig) -> set[str]:
    return {signature for update in landings(rigged) for signature in update.landed}


def absent(rigged: Rig) -> set[str]:
    return {signature for update in landings(rigged) for signature in update.absent}


def send_phantom(rigged: Rig, number: int) -> str:
    """Notify of a transaction that the ledger does not have."""
    phantom = rigged.node.ledger.land([PROGRAM], ["Program log: phantom"], signature=made_up_signature(number))
    rigged.node.ledger.landed[phantom.slot].remove(phantom)
    del rigged.node.ledger.by_signature[phantom.signature]
    rigged.node._notify_landed(phantom, "processed")
    return phantom.signature


async def test_a_phantom_is_absent_and_the_others_have_landed() -> None:
    async with rig() as rigged:
        true = [rigged.node.emit_transaction([PROGRAM]).signature for _ in range(3)]
        phantom = send_phantom(rigged, 7_001)
        await rigged.until(lambda: absent(rigged) == {phantom}, flowing=True)
        await rigged.until(lambda: landed(rigged) == set(true), flowing=True)
        assert rigged.count("source_proofs_total", source="rpc", result="absent") == 1
        assert rigged.gaps == []
        before = rigged.signatures().count(phantom)
        rigged.node.send_raw("pong")
        again = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: again.signature in landed(rigged), flowing=True)
        assert rigged.signatures().count(phantom) == before


async def test_a_signature_that_one_endpoint_does_not_know_is_asked_of_another() -> None:
    async with ScriptedNode() as other, rig(other_http=other.http_url) as rigged:
        other.http.ledger = rigged.node.ledger
        signature = made_up_signature(7_002)
        rigged.node.http_faults.statuses[signature] = None
        rigged.node.emit_transaction([PROGRAM], signature=signature)
        await rigged.until(lambda: signature in landed(rigged), flowing=True)
        assert absent(rigged) == set()


async def test_null_from_a_lagging_node_proves_nothing() -> None:
    async with rig() as rigged:
        signature = rigged.node.emit_transaction([PROGRAM]).signature
        lagging = {"context": {"slot": rigged.node.ledger.head}, "value": [None]}
        rigged.node.http_faults.results["getSignatureStatuses"] = lagging
        asked = rigged.node.http.calls.count("getSignatureStatuses")
        await rigged.until(lambda: rigged.node.http.calls.count("getSignatureStatuses") > asked + 5, flowing=True)
        assert absent(rigged) == set()
        rigged.node.http_faults.results.clear()
        await rigged.until(lambda: signature in landed(rigged), flowing=True)


async def test_while_nobody_answers_nothing_has_landed_and_past_the_window_there_is_a_gap() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors = dict.fromkeys(METHODS, (-32601, "Method not found"))
        sent = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: sent.signature in rigged.signatures())
        for _ in range(WINDOW_SLOTS - 100):
            rigged.node.advance_slot()
        await rigged.until(lambda: rigged.stream.head == rigged.node.ledger.head)
        assert landings(rigged) == []
        for _ in range(101):
            rigged.node.advance_slot()
        await rigged.until(lambda: len(rigged.gaps_of(FEED)) == 2, flowing=True)
        assert [(gap.state, gap.from_slot, gap.to_slot) for gap in rigged.gaps_of(FEED)] == [
            ("open", sent.slot, sent.slot),
            ("unrecoverable", sent.slot, sent.slot),
        ]
        assert [update.unknown for update in landings(rigged)] == [(sent.signature,)]


async def test_one_signature_that_is_refused_holds_up_no_other_and_is_found_in_its_block() -> None:
    async with rig() as rigged:
        sent = [rigged.node.emit_transaction([PROGRAM]) for _ in range(9)]
        signatures = [each.signature for each in sent]
        rigged.node.http_faults.poison = signatures[4]
        rigged.node.http_faults.unblocked.add(sent[4].slot)
        await rigged.until(lambda: landed(rigged) == {*signatures} - {signatures[4]}, flowing=True)
        rigged.node.http_faults.unblocked.clear()
        await rigged.until(lambda: landed(rigged) == set(signatures), flowing=True)
        assert "source:rpc:proofs" not in rigged.health.components()


@pytest.mark.parametrize("code", [-32601, -32600, 403])
async def test_where_statuses_are_refused_blocks_tell_what_landed(code: int) -> None:
    async with rig(refused_retry_s=3600.0) as rigged:
        rigged.node.http_faults.errors["getSignatureStatuses"] = (code, "not on your plan")
        asked = rigged.node.http.calls.count("getSignatureStatuses")
        true = [rigged.node.emit_transaction([PROGRAM]).signature for _ in range(300)]
        phantom = send_phantom(rigged, 7_003)
        await rigged.until(lambda: absent(rigged) == {phantom}, flowing=True)
        await rigged.until(lambda: landed(rigged) == set(true), flowing=True)
        assert rigged.gaps == []
        assert rigged.node.http.calls.count("getSignatureStatuses") <= asked + 12, "not each signature by itself"
        await rigged.until(lambda: "source:rpc:proofs" in rigged.health.components())
        line = rigged.health.components()["source:rpc:proofs"]
        assert (line.ready, line.required) == (True, False)
        assert line.detail == f"getSignatureStatuses: the node refused ({code}); blocks are searched instead"


async def test_where_statuses_and_blocks_are_refused_readiness_names_both_until_one_answers() -> None:
    async with rig() as rigged:
        errors = rigged.node.http_faults.errors = dict.fromkeys(METHODS, (-32601, "Method not found"))
        sent = rigged.node.emit_transaction([PROGRAM]).signature

        def line(ready: bool) -> bool:
            found = rigged.health.components().get("source:rpc:proofs")
            return found is not None and found.ready == ready

        await rigged.until(lambda: line(ready=False), flowing=True)
        found = rigged.health.components()["source:rpc:proofs"]
        assert found.since_ms > 1_600_000_000_000
        assert "getSignatureStatuses: the node refused (-32601)" in found.detail
        assert "getBlock: the node refused (-32601)" in found.detail
        assert rigged.health.components()["source:rpc"].ready
        del errors["getBlock"]
        await rigged.until(lambda: line(ready=True) and sent in landed(rigged), flowing=True)
        del errors["getSignatureStatuses"]
        again = rigged.node.emit_transaction([PROGRAM]).signature
        await rigged.until(lambda: again in landed(rigged), flowing=True)
        await rigged.until(lambda: "source:rpc:proofs" not in rigged.health.components())


async def test_where_statuses_are_refused_and_blocks_are_null_readiness_says_so() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors["getSignatureStatuses"] = (-32601, "Method not found")
        rigged.node.http_faults.results["getBlock"] = None
        sent = rigged.node.emit_transaction([PROGRAM]).signature

        def is_red() -> bool:
            found = rigged.health.components().get("source:rpc:proofs")
            return found is not None and not found.ready and "getBlock: no node has the block" in found.detail

        await rigged.until(is_red, flowing=True)
        assert absent(rigged) == set()
        rigged.node.http_faults.results.clear()
        await rigged.until(lambda: sent in landed(rigged), flowing=True)


async def test_blocks_that_no_node_has_hold_up_no_other_slot() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors["getSignatureStatuses"] = (-32601, "Method not found")
        lost = set()
        for _ in range(3 * BLOCKS_MAX):
            slot = rigged.node.advance_slot()
            rigged.node.http_faults.unblocked.add(slot)
            lost.add(rigged.node.emit_transaction([PROGRAM]).signature)
        rigged.node.advance_slot()
        sent = rigged.node.emit_transaction([PROGRAM]).signature
        await rigged.until(lambda: landed(rigged) == {sent}, flowing=True)
        assert absent(rigged) == set(), "a block that nobody has is no block without the transaction"


async def test_while_statuses_are_not_answered_late_transactions_are_searched_in_blocks() -> None:
    async with rig() as rigged:
        rigged.node.http_faults.errors["getSignatureStatuses"] = (-32005, "Node is behind")
        sent = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: sent.signature in landed(rigged), flowing=True)
        assert rigged.node.ledger.head >= sent.slot + LATE_SLOTS


async def test_blocks_are_asked_for_at_a_pace_and_so_many_a_round() -> None:
    clock, proofs = ManualClock(), Proofs()
    for slot in range(SLOT, SLOT + 2 * BLOCKS_MAX):
        proofs.delivered(slot, "a", True, (LOGS,), 0.0)
    proofs.reached(SLOT + 2 * BLOCKS_MAX)

    async def publish(_: Sequence[Proven]) -> None:
        pass

    async with ScriptedNode() as node, Supervisor(clock) as tasks:
        node.http_faults.errors = {"getSignatureStatuses": (-32601, "no"), "getBlock": (-32007, "skipped")}
        rpc = Rpc([node.http_url], clock=clock)
        settings = rpc_pubsub.RpcPubSubSettings(confirm_s=10.0, refill_page_s=0.25)
        prover = Prover(rpc, proofs, head=lambda: SLOT, publish=publish, settings=settings, clock=clock)
        tasks.start("test", "prover", prover.run)

        async def asked() -> int:
            await rpc.get_slot()  # what was asked for before has its answer
            return node.http.calls.count("getBlock")

        assert await asked() == 0
        await clock.advance(10.0)
        for number in range(1, BLOCKS_MAX + 1):
            async with asyncio.timeout(30):
                while await asked() < number:
                    pass
            assert await asked() == number
            await clock.advance(0.25)
        assert await asked() == BLOCKS_MAX
        tasks.cancel()
        await rpc.aclose()


async def test_a_signature_of_zeros_is_dropped_and_counted() -> None:
    async with rig() as rigged:
        value = rigged.node.ledger.land([PROGRAM], signature="1" * 64)
        rigged.node.ledger.landed[value.slot].remove(value)
        rigged.node._notify_landed(value, "processed")
        await rigged.until(
            lambda: rigged.count("source_bad_messages_total", source="rpc-0", reason="bad_signature") == 1
        )
        await rigged.still_flows()
        assert "1" * 64 not in rigged.signatures()


async def test_at_confirmed_commitment_nothing_is_asked() -> None:
    async with rig(commitment="confirmed") as rigged:
        sent = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: sent.signature in rigged.signatures(), flowing=True)
        assert rigged.node.http.calls.count("getSignatureStatuses") == 0
