"""The update flow on real input: what is published, exactly; nothing twice; forks and gaps told truthfully."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from headrace.bus import Batch, BusSettings
from headrace.bus.memory import MemoryBus, MemoryWriter
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import STUCK_S
from headrace.model.errors import TransientError
from headrace.model.events import Message, Position, Publication
from headrace.model.updates import (
    AccountUpdate,
    AnyUpdate,
    Commitment,
    GapState,
    GapUpdate,
    LogsUpdate,
    RewindUpdate,
    SlotStatus,
    SlotUpdate,
    TransactionUpdate,
)
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from tests.ingest.mainnet import PUMP, account_updates, index, landed, logs_view, transaction
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
COMMUNITY_COIN = "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"
SOL = "So11111111111111111111111111111111111111112"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


def pipeline(audience: Sequence[str] = ()) -> SpreadPipeline:
    return SpreadPipeline(PROGRAMS, ManualClock(), Metrics(), audience=lambda: audience)


def parsed(publication: Publication) -> dict[str, Any]:
    return dict(msgspec.json.decode(b"{" + publication.body + b"}"))


def told(publications: Iterable[Publication], prefix: str = "") -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, topic, body) of the messages on topics that begin so."""
    return [(p.kind, p.topic, parsed(p)) for p in publications if p.topic.startswith(prefix)]


def fed(flow: SpreadPipeline, *updates: AnyUpdate) -> list[Publication]:
    return [publication for update in updates for publication in flow.apply(update)]


def slot(number: int, status: SlotStatus, parent: int | None = None, source: str = "rpc-0") -> SlotUpdate:
    return SlotUpdate(source=source, feed="slots", received_ns=0, slot=number, status=status, parent=parent)


def moved(update: TransactionUpdate, number: int, commitment: Commitment = "processed") -> TransactionUpdate:
    return msgspec.structs.replace(update, slot=number, commitment=commitment)


@pytest.mark.parametrize(("name", "update"), [pytest.param(*each, id=each[0][:6]) for each in landed()])
def test_every_transaction_publishes_the_events_that_it_had_each_once(name: str, update: TransactionUpdate) -> None:
    flow = pipeline()
    messages = told(flow.apply(update))
    assert not flow.measures.bad
    published = Counter(
        f"{body['data']['program']}.{body['data']['event']}"
        for _, topic, body in messages
        if topic.startswith("events:")
    )
    expected: dict[str, int] = {}
    for named, count in index()[name]["events"].items():
        event = named.removesuffix("(log)").replace(
            "meteora_damm_v2.unknown_1b3c15d58aaabb93", "meteora_cp_amm.EvtSwap"
        )
        expected[event] = max(count, expected.get(event, 0))
    assert published == ({} if update.err else expected)
    assert all(body["chain"]["signature"] == update.signature for _, _, body in messages)
    by_topic = Counter((topic, body["event_id"]) for _, topic, body in messages)
    assert set(by_topic.values()) <= {1}, "an event came twice on a topic"
    transactions = [body["data"] for _, topic, body in messages if topic.startswith("tx:")]
    assert all(data["err"] == update.err and data["signature"] == update.signature for data in transactions)


TRADES = [
    # signature, program, base, quote, side, base amount, quote amount, sol
    ("2KBsKB", "pump", "Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump", SOL, "sell", 70135987937292, 3392434780,
     "3.39243478"),
    ("661yA5", "pump", "5qDerhe7hTPFHjjRYoWbiWKGpwyBLPM85dzQnkd3pump", SOL, "buy", 46205741539516, 1349999998,
     "1.349999998"),
    ("26EFfj", "pump", "7VNu5K2Qw82UvdNUogicGHzLtcNQzFGbfXArsjMzpump", "Xsc9qvGR1efVDFGLrVsmkzv3qi45LTBjeUKSPmx9qEh",
     "buy", 18752357626961, 61755290, None),
    ("27HoMF", "pump_amm", "6YLtFQaMzWt9aykgUYV7Uk5p7nF7yDTHHAEEWbA8pump", SOL, "sell", 141041791, 820213,
     "0.000820213"),
    ("4pCgZ2", "pump_amm", "MeU6gTPJkV8J5TwWfUArnmM4sD6X5SYmXotcJtYpump", SOL, "buy", 1205966600208, 695247549,
     "0.695247549"),
    ("2Eawkt", "raydium_cpmm", "6GmAFSYs4gk3FDao5FzzySQpPZaWsa4rUJHacpMpUNgx",
     "8RVBk8vxLiUHueLUW1f4izFVqN3nWippLhkohKg6EGkS", "buy", 28330181198, 1379035292, None),
    ("2Eawkt", "raydium_clmm", "6GmAFSYs4gk3FDao5FzzySQpPZaWsa4rUJHacpMpUNgx", USDC, "sell", 28330181198, 6539081,
     None),
    ("213kMy", "meteora_dlmm", "AqoPZcUumKUBHrnfBsNtoNuneYEjoimaiWYq8GH8gpX9", SOL, "sell", 111880000000, 239699429,
     "0.239699429"),
    ("2DfsmT", "meteora_dlmm", SOL, USDC, "buy", 521092597, 116033029, None),
    ("Q27PiY", "raydium_launchlab", "GHh2ZVQfpSMmrjhRpAUyS2ZZ6AH4WTMWJYWJBa4ATT17",
     "ABNB56TteaTZG1S3DY2W8VMncQmHMvNCGaZgAba49CLP", "buy", 16141331104791, 289747, None),
    ("54MFrV", "raydium_amm_v4", "FTScF4TvRPRFKjgVEg9G96CqPrzumLDLmV1Kr7JQzQrg", SOL, "buy", 12795559, 32508133,
     "0.032508133"),
    ("N2jtQt", "meteora_cp_amm", "DkYf3LhSyryKVKprEnQCDWZFfnBEPsDE6msaECXsJEYn", SOL, "sell", 317402632, 954234486,
     "0.954234486"),
]  # fmt: skip


@pytest.mark.parametrize("trade", TRADES, ids=lambda trade: f"{trade[0]}-{trade[1]}")
def test_trades_to_the_unit(trade: tuple[Any, ...]) -> None:
    signature, program, mint, quote_mint, side, base_amount, quote_amount, sol = trade
    publications = pipeline().apply(transaction(signature))
    ((_, _, body),) = told(publications, f"trades:{program}")
    data = body["data"]
    assert (data["type"], data["program"], data["mint"], data["quote_mint"]) == ("Trade", program, mint, quote_mint)
    assert (data["side"], data["base_amount"], data["quote_amount"]) == (side, str(base_amount), str(quote_amount))
    assert data["sol"] == sol
    assert body in [other for _, _, other in told(publications, f"trades:{mint}")], "the same body on the mint's topic"


@pytest.mark.parametrize("trade", TRADES, ids=lambda trade: f"{trade[0]}-{trade[1]}")
def test_token_balances_moved_by_what_the_trade_says(trade: tuple[Any, ...]) -> None:
    """The amounts are not only the event's word: some token account of that mint changed by exactly that much."""
    signature, _, mint, _, _, base_amount, _, _ = trade
    update = transaction(signature)
    before = {held.account: held.amount for held in update.pre_token_balances if held.mint == mint}
    after = {held.account: held.amount for held in update.post_token_balances if held.mint == mint}
    changes = {abs(after.get(account, 0) - before.get(account, 0)) for account in before | after}
    assert base_amount in changes


def test_body_and_ids_as_the_protocol_says() -> None:
    (body,) = (body for _, _, body in told(pipeline().apply(transaction("1Dnjaw")), "trades:raydium_launchlab"))
    signature = transaction("1Dnjaw").signature
    assert body["event_id"] == f"452314033:{signature}:1.0:0"
    assert body["chain"] == {
        "slot": "452314033",
        "signature": signature,
        "ix": [1, 0],
        "commitment": "confirmed",
        "tx_version": 1,
        "source": "rpc-0",
        "truncated": False,
        "via": "cpi",
    }
    assert body["data"]["fields"]["amount_in"] == "16853904100388"


def test_tokens_that_are_created() -> None:
    flow = pipeline()
    created = {
        body["data"]["mint"]: body["data"] for _, u in landed() for _, _, body in told(flow.apply(u), "token_updates")
    }
    assert created["28cfnohntvves5WTYeovTu5uJ3Dxnxia45o2jEECpump"] == {
        "type": "TokenCreated",
        "token_id": "dc37d024-4c01-52f6-bfd5-5492434f1c4c",
        "mint": "28cfnohntvves5WTYeovTu5uJ3Dxnxia45o2jEECpump",
        "name": "IRL Money",
        "symbol": "IRL",
        "creator": "455Ve7SUoyvbkaFbWq5yp5gS4uwMtK1aEEftpWC3SKhK",
    }
    assert created["54y4DV6shhwvojpRCCqwvgRTPd45UGrCEghpsa9pBj7F"]["symbol"] == "SORA LOSER", (
        "LaunchLab, by its instruction"
    )


def tellings(publications: Iterable[Publication], prefixes: tuple[str, ...]) -> Counter[tuple[str, str]]:
    """What is said on topics, without the place where it was seen."""
    return Counter(
        (topic, str(sorted(body["data"]["fields"].items())))
        for _, topic, body in told(publications)
        if topic.startswith(prefixes)
    )


@pytest.mark.parametrize("name", [name for name, update in landed() if update.err is None and update.logs])
def test_logs_and_the_whole_transaction_never_double_in_either_order(name: str) -> None:
    update = transaction(name)
    alone = tellings(fed(pipeline(), update), ("events:", "trades:"))
    both: list[AnyUpdate] = [logs_view(update), update]
    for order in (both, both[::-1], [*both, *both], [both[0], both[0], both[1], both[1]]):
        events = tellings(fed(pipeline(), *order), ("events:",))
        assert events == Counter({key: count for key, count in alone.items() if key[0].startswith("events:")})
        trades = tellings(fed(pipeline(), *order), ("trades:",))
        assert all(count <= alone[key] for key, count in trades.items())
    assert tellings(fed(pipeline(), update, logs_view(update)), ("events:", "trades:")) == alone


def test_truncated_logs_then_the_whole_transaction() -> None:
    update = transaction("2r4uXU")
    flow = pipeline()
    first = told(flow.apply(logs_view(update)), "trades:pump")
    rest = told(flow.apply(update), "trades:pump")
    assert [len(first), len(rest)] == [2, 1]
    assert all(body["chain"]["truncated"] and body["chain"]["via"] == "log" for _, _, body in first)
    assert not rest[0][2]["chain"]["truncated"]


def test_a_pool_that_was_learned_names_the_mints_of_bare_logs() -> None:
    update = transaction("27HoMF")
    bare = msgspec.structs.replace(logs_view(update), signature="another")
    flow = pipeline()
    unknown = told(flow.apply(bare), "trades:")
    assert [(topic, body["data"]["mint"]) for _, topic, body in unknown] == [("trades:pump_amm", None)]
    flow.apply(update)
    known = told(flow.apply(msgspec.structs.replace(bare, signature="later")), "trades:")
    mint = "6YLtFQaMzWt9aykgUYV7Uk5p7nF7yDTHHAEEWbA8pump"
    assert [(topic, body["data"]["mint"]) for _, topic, body in known] == [
        ("trades:pump_amm", mint),
        (f"trades:{mint}", mint),
    ]


def test_failed_transactions_have_no_events_but_are_told() -> None:
    update = transaction("3GufGV")
    messages = told(pipeline().apply(update))
    assert {topic for _, topic, _ in messages} == {"tx:pump", "tx:pump_fees"} & {topic for _, topic, _ in messages}
    assert messages[0][1] == "tx:pump"
    assert messages[0][2]["data"]["err"] == {"InstructionError": [4, {"Custom": 1}]}
    assert messages[0][2]["data"]["events"] == []
    bare = told(pipeline().apply(logs_view(update)))
    assert [(topic, body["data"]["err"]) for _, topic, body in bare] == [("tx:pump", update.err)]


def test_a_program_without_an_idl_comes_raw() -> None:
    update = transaction("54MFrV")
    instruction = msgspec.structs.replace(
        update.instructions[0], program_id=COMMUNITY_COIN, data=b"\x01\x02", path=(0,)
    )
    update = msgspec.structs.replace(
        update, feed=f"logs:{COMMUNITY_COIN}", instructions=(instruction,), logs=("Program log: hello",)
    )
    ((kind, topic, body),) = told(pipeline().apply(update))
    assert (kind, topic) == ("event", f"tx:{COMMUNITY_COIN}")
    assert body["data"]["logs"] == ["Program log: hello"]
    assert body["data"]["instructions"] == [
        {
            "program": COMMUNITY_COIN,
            "name": None,
            "path": [0],
            "accounts": list(instruction.accounts),
            "data": "5T",
        }
    ]


def test_accounts_decode_and_repeat_only_when_they_change() -> None:
    flow = pipeline()
    seen = 0
    for update in account_updates():
        messages = told(flow.apply(update))
        again = msgspec.structs.replace(update, source="rpc-1")
        assert flow.apply(again) == []
        for _, topic, body in messages:
            seen += 1
            data = body["data"]
            assert topic in (f"account:{update.pubkey}", f"accounts:{data['program']}")
            assert data["fields"] is not None
            assert "raw" not in data
            assert data["lamports"] == str(update.lamports)
    assert seen > 80
    unknown = AccountUpdate(
        source="a", feed="account:X", received_ns=0, slot=1, pubkey=PUMP, owner=COMMUNITY_COIN, lamports=5, data=b"\xff"
    )
    assert [(t, b["data"]["fields"], b["data"]["raw"]) for _, t, b in told(flow.apply(unknown))] == [
        (f"accounts:{COMMUNITY_COIN}", None, "/w=="),
        (f"account:{PUMP}", None, "/w=="),
    ]
    assert not flow.measures.bad


def test_a_fork_takes_back_once_and_the_other_slot_is_promoted() -> None:
    update = transaction("2KBsKB")
    flow = pipeline()
    first = fed(flow, slot(11, "processed", 10), moved(update, 11))
    second = fed(flow, slot(12, "processed", 10), moved(update, 12))
    assert [topic for _, topic, _ in told(first, "trades:")] == [topic for _, topic, _ in told(second, "trades:")]
    settled = told(fed(flow, slot(12, "confirmed")), "trades:pump")
    ids = [body["event_id"] for _, _, body in told(first, "trades:pump")]
    assert settled == [
        ("retract", "trades:pump", {"data": {"event_ids": ids, "reason": "fork"}}),
        ("promote", "trades:pump", {"data": {"slot": "12", "commitment": "confirmed"}}),
    ]
    assert fed(flow, slot(12, "confirmed"), slot(11, "dead"), slot(11, "confirmed")) == [] or not told(
        fed(flow, slot(12, "confirmed")), "trades:"
    )
    assert told(fed(flow, slot(12, "finalized")), "trades:") == []


def test_what_comes_for_a_dead_slot_is_no_fact_and_a_new_bank_is() -> None:
    update = transaction("2KBsKB")
    flow = pipeline()
    fed(flow, slot(11, "created_bank"), slot(11, "dead"))
    assert flow.apply(moved(update, 11)) == []
    assert flow.measures.skipped["TransactionUpdate", "dead_slot"] == 1
    fed(flow, slot(11, "created_bank"))
    assert told(flow.apply(moved(update, 11)), "trades:pump")


def test_a_wiped_slot_tells_its_events_anew() -> None:
    update = transaction("2KBsKB")
    flow = pipeline()
    first = fed(flow, slot(11, "created_bank"), moved(update, 11))
    wiped = told(fed(flow, slot(11, "created_bank")), "trades:pump")
    assert [(kind, body["data"]["reason"]) for kind, _, body in wiped] == [("retract", "equivocation")]
    assert told(fed(flow, moved(update, 11)), "trades:") == told(first, "trades:")


def test_events_that_are_confirmed_already_are_not_promoted() -> None:
    update = transaction("2KBsKB")
    flow = pipeline()
    fed(flow, slot(11, "confirmed"))
    ((_, _, body),) = told(flow.apply(moved(update, 11)), "trades:pump")
    assert body["chain"]["commitment"] == "confirmed"
    assert told(fed(flow, slot(11, "finalized")), "trades:") == []
    assert told(fed(flow, moved(update, 12, "confirmed"), slot(12, "confirmed")), "trades:pump")[-1][0] == "event"


def test_slots_are_told_once_by_however_many_nodes() -> None:
    flow = pipeline()
    updates = [slot(10, "processed", 9), slot(11, "processed", 10), slot(11, "confirmed"), slot(11, "finalized")]
    twice = [u for update in updates for u in (update, msgspec.structs.replace(update, source="rpc-1"))]
    statuses = [(body["data"]["slot"], body["data"]["status"]) for _, _, body in told(fed(flow, *twice), "slots")]
    assert statuses == [
        ("10", "processed"), ("11", "processed"), ("9", "confirmed"), ("10", "confirmed"), ("11", "confirmed"),
        ("9", "finalized"), ("10", "finalized"), ("11", "finalized"),
    ]  # fmt: skip
    assert flow.head == {"processed": 11, "confirmed": 11}


def gap(state: GapState, feed: str = f"logs:{PUMP}") -> GapUpdate:
    return GapUpdate(source="rpc-0", feed=feed, received_ns=0, slot=9, gap_id="g1", from_slot=5, to_slot=9, state=state)


def test_a_gap_is_told_where_its_feed_tells_and_where_somebody_waits() -> None:
    flow = pipeline(audience=["trades:WAITING", "slots"])
    mint = "Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump"
    fed(flow, logs_view(transaction("2KBsKB")))
    opened = told(fed(flow, gap("open"), gap("open")))
    assert [topic for _, topic, _ in opened] == [
        "events:pump", "token_updates", f"trades:{mint}", "trades:WAITING", "trades:pump", "tx:pump",
    ]  # fmt: skip
    data = {"gap_id": "g1", "from_slot": "5", "to_slot": "9", "state": "open", "reason": ""}
    assert {kind for kind, _, _ in opened} == {"gap"}
    assert opened[0][2] == {"data": data}
    closed = told(fed(flow, gap("backfilled"), gap("unrecoverable"), gap("open")))
    assert [body["data"]["state"] for _, _, body in closed] == ["backfilled"] * 6


BAD_LOGS = [
    (),
    ("Program 6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P invoke [1]", "Program data: !!!"),
    ("Program data: vdt/007mYe4=",),
    ("Program 6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P invoke [1]", "Program data: vdt/007mYe4="),
    ("Log truncated",) * 5,
    ("\ud800 \x00",),
]


@pytest.mark.parametrize("logs", BAD_LOGS)
def test_a_bad_update_is_counted_and_the_next_one_passes(logs: tuple[str, ...]) -> None:
    flow = pipeline()
    good = logs_view(transaction("2KBsKB"))
    bad = LogsUpdate(
        source="a", feed=f"logs:{COMMUNITY_COIN}", received_ns=0, slot=1, signature="s", err=None, logs=logs
    )
    messages = flow.apply(bad)
    unusable = any("\ud800" in line for line in logs)
    assert [(kind, body["data"]["state"]) for kind, _, body in told(messages, "trades:")] == (
        [("gap", "unrecoverable")] if unusable else []
    )
    assert bool(flow.measures.bad) == unusable
    assert told(flow.apply(good), "trades:pump")


@asynccontextmanager
async def clock_runs(clock: ManualClock) -> AsyncIterator[None]:
    """Time goes on by itself."""

    async def run() -> None:
        while True:
            await clock.advance(1.0)

    task = asyncio.create_task(run())
    yield
    task.cancel()


class AwayWriter(MemoryWriter):
    """A writer whose first two answers are lost: one before the batch was appended, one after."""

    lost = 0

    async def publish(self, batch: Batch) -> Sequence[Position]:
        self.lost += 1
        if self.lost == 1:
            raise TransientError("away")
        positions = await super().publish(batch)
        if self.lost == 2:
            raise TransientError("the answer was lost")
        return positions


async def test_a_bus_whose_answers_are_lost_gets_each_batch_once_in_order_and_begins_anew_at_a_rewind() -> None:
    clock, outlet = ManualClock(), Channel[AnyUpdate](100)
    bus = MemoryBus(BusSettings(), clock, "gen")
    seen: list[Message] = []
    bus.subscribe(seen.extend, kinds=None)
    flow = SpreadPipeline(PROGRAMS, clock, Metrics())
    lap: list[AnyUpdate] = [transaction("2KBsKB"), transaction("27HoMF")]
    for update in (*lap, RewindUpdate(source="r", feed="recording", received_ns=0, slot=0, lap=1), *lap):
        outlet.put_nowait(update)
    outlet.close()
    async with clock_runs(clock):
        await flow.run(outlet, AwayWriter(bus, "ingest", 0))
    half = len(seen) // 2
    assert [(m.topic, m.offset, m.body) for m in seen[:half]] == [(m.topic, m.offset, m.body) for m in seen[half:]]
    assert {m.epoch for m in seen[:half]} == {"gen"}
    assert {m.epoch for m in seen[half:]} == {"gen-1"}
    assert flow.received_at is not None


def test_what_is_counted_is_exported() -> None:
    metrics = Metrics()
    flow = SpreadPipeline(Programs.load(), ManualClock(), metrics)
    for _ in range(2):
        flow.apply(transaction("2KBsKB"))
    text = metrics.render().decode()
    assert 'headrace_ingest_received_total{kind="TransactionUpdate"} 2.0' in text
    assert 'headrace_ingest_skipped_total{kind="TransactionUpdate",reason="duplicate"} 1.0' in text
    assert 'headrace_drift_decoded_total{kind="event",program="pump"} 1.0' in text


async def test_a_pipeline_is_not_ready_while_the_bus_takes_nothing_or_a_batch_stands() -> None:
    clock, outlet = ManualClock(), Channel[AnyUpdate](10)
    flow, bus = SpreadPipeline(PROGRAMS, clock, Metrics()), MemoryBus(BusSettings(), clock, "e")
    writer = HeldWriter(bus)
    await clock.advance(1_000)

    async def fault(seconds: float) -> str:
        await clock.advance(seconds)
        for _ in range(10):
            await clock.sleep(0)
        try:
            await flow.check(thorough=False)
        except TransientError as error:
            return str(error)
        return ""

    async with Supervisor(clock) as tasks:
        await outlet.put(slot(10, "processed", 9))
        assert await fault(0) == "", "what came a moment ago does not wait since the clock began"
        tasks.start("test", "pipeline", partial(flow.run, outlet, writer))
        assert await fault(1_000) == "", "nor is a quiet source a pipeline that stands"
        writer.error = TransientError("away")
        await outlet.put(slot(11, "processed", 10))
        assert await fault(0) == "updates can't be published: away"
        writer.error = None
        assert await fault(5) == ""
        writer.free.clear()
        await outlet.put(slot(12, "processed", 11))
        assert await fault(STUCK_S) == ""
        assert await fault(1) == "a batch of updates has not been published for 11 s"
        writer.free.set()
        assert await fault(0) == ""
        assert (await bus.top("slots")).offset == 3
        tasks.cancel()


class HeldWriter(MemoryWriter):
    """A writer whose `publish` waits, or fails, as a test says."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus, "ingest", 0)
        self.error: TransientError | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def publish(self, batch: Batch) -> Sequence[Position]:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return await super().publish(batch)
