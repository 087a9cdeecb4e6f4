"""The messages of a fixed history are the same bytes as ever: topics, kinds, bodies and order."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Literal

import msgspec

from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.model.updates import (
    AnyUpdate,
    GapUpdate,
    LandingUpdate,
    PoolUpdate,
    SlotStatus,
    SlotUpdate,
)
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.data.make_demo import lap
from tests.ingest.mainnet import PUMP, account_updates, landed, logs_view

ANSWERS: list[tuple[Literal["known", "none", "unanswered"], tuple[str, str] | None]] = [
    ("known", (WSOL_MINT, USDC_MINT)),
    ("none", None),
    ("unanswered", None),
]

RECORDED = (10_096, "ac8302d53ea973e4edecc87674f78752728ec3bcac2bdff63fe956d5b99b3e86")
"""Change this only with a change of the wire protocol that the CHANGELOG names."""


def slot_update(slot: int, status: SlotStatus, parent: int | None = None, source: str = "rpc-0") -> SlotUpdate:
    return SlotUpdate(source=source, feed="slots", received_ns=0, slot=slot, status=status, parent=parent)


def history() -> Iterator[AnyUpdate]:
    """The demo, then mainnet's transactions in every view, over slots of every fate."""
    yield from lap()
    for nth, (_, update) in enumerate([*landed()] * 4):
        slot = 600_000_000 + nth
        update = msgspec.structs.replace(update, slot=slot)
        logs = logs_view(update)
        yield slot_update(slot, "created_bank", slot - 1)
        yield msgspec.structs.replace(logs, unproven=nth % 4 == 1)
        if nth % 3:
            yield msgspec.structs.replace(update, feed="transactions:" + update.instructions[0].program_id)
        yield msgspec.structs.replace(logs, logs=(*logs.logs[: len(logs.logs) // 2], "Log truncated"), feed="logs:Vote")
        if nth % 4 == 1:
            kind = ("landed", "absent", "unknown")[nth // 4 % 3]
            given = {kind: (update.signature,)}
            yield LandingUpdate(source="rpc-1", feed=logs.feed, received_ns=0, slot=slot, **given)
        status: SlotStatus = ("confirmed", "dead", "finalized", "processed", "dead")[nth % 5]
        yield slot_update(slot, status, slot - 1)
        if status == "dead":
            yield slot_update(slot, "created_bank", slot - 1)
            yield update
        if nth % 5 == 0:
            yield GapUpdate(
                source="rpc-1", feed=logs.feed, received_ns=0, slot=slot, gap_id=f"g{nth}", from_slot=slot - 3,
                to_slot=slot, state="open", reason="cut",
            )  # fmt: skip
    yield from account_updates()


def digest(pipeline: Pipeline, asked: list[str]) -> tuple[int, str]:
    """Return how many messages the history makes, and the hash of all of them."""
    content, count = sha256(), 0
    for update in history():
        answers = [
            PoolUpdate(source="pools", feed="pools", received_ns=0, slot=0, pool=pool, state=state, mints=mints)
            for pool in asked
            for state, mints in ANSWERS[ord(pool[-1]) % 3 : ord(pool[-1]) % 3 + 1]
        ]
        del asked[: len(answers)]
        for each in (update, *answers):
            for message in pipeline.apply(each):
                count += 1
                content.update(b"%b %b %b\n" % (message.topic.encode(), message.kind.encode(), message.body))
    return count, content.hexdigest()


def test_a_fixed_history_gives_the_recorded_bytes() -> None:
    asked: list[str] = []
    flow = Pipeline(
        Programs.load(),
        ManualClock(),
        Metrics(),
        audience=lambda: [f"trades:{PUMP}", "token_updates", "market-data"],
        market=Stats(MarketSettings(interval_slots=0)),
        ask_pool=lambda pool, _: asked.append(pool),
    )
    assert digest(flow, asked) == RECORDED
