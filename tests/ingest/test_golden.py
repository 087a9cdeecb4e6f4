"""The messages of fixed histories are the same bytes as ever: topics, kinds, bodies, labels and order."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Literal

import msgspec
import pytest

from headrace.cores import installed, open_core
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

HISTORY = (10_096, "88e5f0d15d4e8f5378e1304f1cbe4051f33a47833edacc3b174688394fd96aa6")
AS_LOGS = (567, "092037bef1a1261d1d7034edba9f23db53b6aef569fb331697b28793345e6646")
AS_WHOLE = (664, "c9c52cd8fa1198f54cdd9d0083cb35a3483fc24abb895d37354673221adeeebc")
AS_ACCOUNTS = (348, "5143fed6a0a4910441655242c9c7222cacdcd92ceb62fd5993c43080e1047da4")
"""Number of messages, and their hash. Change these only with a change of the wire protocol that the CHANGELOG names."""


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


def digest(pipeline: Pipeline, updates: Iterable[AnyUpdate], asked: list[str]) -> tuple[int, str]:
    """Return how many messages the updates make, and the hash of all of them."""
    content, count = sha256(), 0
    for update in updates:
        answers = [
            PoolUpdate(source="pools", feed="pools", received_ns=0, slot=0, pool=pool, state=state, mints=mints)
            for pool in asked
            for state, mints in ANSWERS[ord(pool[-1]) % 3 : ord(pool[-1]) % 3 + 1]
        ]
        del asked[: len(answers)]
        for each in (update, *answers):
            for message in pipeline.apply(each):
                label = msgspec.json.encode(message.label)
                for topic in message.topics:
                    count += 1
                    content.update(b"%b %b %b %b\n" % (topic.name.encode(), message.kind.encode(), label, message.body))
    return count, content.hexdigest()


def new_pipeline(asked: list[str], core: str) -> Pipeline:
    programs = Programs.load()
    return Pipeline(
        programs,
        ManualClock(),
        Metrics(),
        audience=lambda: [f"trades:{PUMP}", "token_updates", "market-data"],
        market=Stats(MarketSettings(interval_slots=0)),
        ask_pool=lambda pool, _: asked.append(pool),
        core=open_core(core, programs),
    )


def as_logs() -> Iterator[AnyUpdate]:
    """All of mainnet's transactions as log lines alone, each on the feed of every program that it calls."""
    for _, update in landed():
        yield from (
            logs_view(update, f"logs:{each}") for each in dict.fromkeys(i.program_id for i in update.instructions)
        )


def as_whole() -> Iterator[AnyUpdate]:
    """The same as whole transactions, on feeds of programs with an IDL and without one."""
    for _, update in landed():
        for each in dict.fromkeys(i.program_id for i in update.instructions):
            yield msgspec.structs.replace(update, feed=f"transactions:{each}")


def as_accounts() -> Iterator[AnyUpdate]:
    """Mainnet's accounts whole, cut, longer, spoilt, and of an owner without an IDL; several versions in a slot."""
    for nth, update in enumerate(account_updates()):
        data = update.data
        yield update
        if nth % 5 == 0:
            for cut in (0, 4, 9, len(data) // 2, len(data) - 1):
                yield msgspec.structs.replace(update, data=data[:cut])
            yield msgspec.structs.replace(update, data=data + bytes(64))
            yield msgspec.structs.replace(update, data=data + b"\x01" * 7, feed="account:" + update.pubkey)
            yield msgspec.structs.replace(update, data=data[:8] + b"\xff" * (len(data) - 8), commitment="confirmed")
            yield msgspec.structs.replace(update, owner=PUMP[::-1].replace("6", "7"), lamports=2**64 - 1)
            yield msgspec.structs.replace(update, slot=update.slot + 1, signature="1" * 64, write_version=nth)


@pytest.mark.parametrize("core", installed())
@pytest.mark.parametrize(
    ("updates", "recorded"),
    [(history, HISTORY), (as_logs, AS_LOGS), (as_whole, AS_WHOLE), (as_accounts, AS_ACCOUNTS)],
)
def test_fixed_histories_give_the_recorded_bytes(
    updates: Callable[[], Iterator[AnyUpdate]], recorded: tuple[int, str], core: str
) -> None:
    asked: list[str] = []
    assert digest(new_pipeline(asked, core), updates(), asked) == recorded
