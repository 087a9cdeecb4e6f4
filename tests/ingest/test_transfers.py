"""Transfers of tokens on the topics of their mint and owners, taken back with their slot."""

from collections import defaultdict
from typing import Any

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.model.topics import parse
from headrace.model.updates import GapUpdate, SlotUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.solana.token_transfers import token_transfers
from tests.ingest.mainnet import landed, logs_view, transaction
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
Bodies = dict[str, list[dict[str, Any]]]


def flow_with(*, transfers: bool = True, audience: tuple[str, ...] = ()) -> SpreadPipeline:
    return SpreadPipeline(PROGRAMS, ManualClock(), Metrics(), audience=lambda: audience, transfers=transfers)


def published(flow: SpreadPipeline, *updates: Any, kind: str = "event") -> Bodies:
    """The bodies on topics of transfers."""
    found: Bodies = defaultdict(list)
    for update in updates:
        for each in flow.apply(update):
            if each.topic.startswith("transfers:") and each.kind == kind:
                parse(each.topic)
                found[each.topic].append(msgspec.json.decode(b"{" + each.body + b"}"))
    return found


@pytest.mark.parametrize("update", [pytest.param(each, id=name[:6]) for name, each in landed()])
def test_each_transfer_is_published_once_for_its_mint_and_its_owners(update: TransactionUpdate) -> None:
    flow = flow_with()
    topics = published(flow, update, msgspec.structs.replace(update, source="rpc-1"), logs_view(update))
    expected: dict[str, int] = defaultdict(int)
    for each in token_transfers(update):
        for key in {each.mint, each.source_owner, each.destination_owner} - {None}:
            expected[f"transfers:{key}"] += 1
    assert {topic: len(bodies) for topic, bodies in topics.items()} == expected
    ids = {body["event_id"] for bodies in topics.values() for body in bodies}
    assert len(ids) == len(token_transfers(update))
    assert not flow.measures.bad


def test_message_has_the_shape_of_the_reference() -> None:
    update = transaction("2KBsKB")
    first = token_transfers(update)[0]
    (body, *_) = published(flow_with(), update)[f"transfers:{first.mint}"]
    dotted = ".".join(map(str, first.path))
    assert body == {
        "event_id": f"{update.slot}:{update.signature}:{dotted}:transfer.0",
        "data": {
            "type": "TokenTransfer",
            "kind": "transfer",
            "program_id": first.program_id,
            "mint": first.mint,
            "decimals": 6,
            "source": first.source,
            "source_owner": first.source_owner,
            "destination": first.destination,
            "destination_owner": first.destination_owner,
            "amount": str(first.amount),
            "fee": "0",
            "authority": first.authority,
        },
        "chain": {
            "slot": str(update.slot),
            "signature": update.signature,
            "ix": list(first.path),
            "commitment": update.commitment,
            "tx_version": update.version,
            "source": update.source,
            "truncated": False,
            "via": None,
        },
    }


def test_log_lines_that_come_first_delay_nothing() -> None:
    update = transaction("2KBsKB")
    assert published(flow_with(), logs_view(update)) == {}
    assert published(flow_with(), logs_view(update), update) == published(flow_with(), update)


def test_transfers_of_a_dead_slot_are_retracted() -> None:
    flow, update = flow_with(), msgspec.structs.replace(transaction("2KBsKB"), commitment="processed")
    sent = published(flow, update)
    dead = SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=update.slot, status="dead")
    taken = published(flow, dead, kind="retract")
    assert {topic: body["data"]["event_ids"] for topic, (body,) in taken.items()} == {
        topic: [each["event_id"] for each in bodies] for topic, bodies in sent.items()
    }
    assert published(flow, msgspec.structs.replace(update, slot=update.slot + 1)).keys() == sent.keys()


@pytest.mark.parametrize("kind", ["transactions", "logs"])
def test_gap_of_a_feed_is_declared_to_subscribers_of_transfers(kind: str) -> None:
    topic = "transfers:So11111111111111111111111111111111111111112"
    gap = GapUpdate(
        source="rpc", feed=f"{kind}:pump", received_ns=0, slot=9, gap_id="g", from_slot=5, to_slot=9, state="open",
        reason="",
    )  # fmt: skip
    assert published(flow_with(audience=(topic,)), gap, kind="gap").keys() == {topic}


def test_transfers_that_are_switched_off_are_not_published() -> None:
    assert published(flow_with(transfers=False), transaction("2KBsKB")) == {}
