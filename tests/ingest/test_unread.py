"""An event whose meaning can't be read costs its own trade only: counted, logged, and declared as a gap."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.decoders.registry import Programs
from headrace.ingest.gaps import UnreadSlots
from headrace.ingest.troubles import COMPLAINT_S
from headrace.model.events import Publication
from headrace.model.updates import GapState, GapUpdate, TransactionUpdate
from headrace.programs import SHIPPED
from headrace.runtime import log
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.ingest.test_known_trades import whole
from tests.pipelines import SpreadPipeline

FEED = "logs:pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
BOTH = msgspec.structs.replace(whole("reported/5_pumpswap_multihop_no_mint.json"), feed=FEED)
"""A purchase on PumpSwap and one on a curve, in one transaction."""


@pytest.fixture(scope="session")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Programs with another IDL of PumpSwap, in which the amount of a purchase is no number."""
    idl = json.loads((SHIPPED / "pump_amm" / "idl.json").read_text())
    (event,) = (each for each in idl["types"] if each["name"] == "BuyEvent")
    (amount,) = (each for each in event["type"]["fields"] if each["name"] == "base_amount_out")
    amount["type"] = {"array": ["u8", 8]}
    folder = tmp_path_factory.mktemp("idls")
    (folder / "pump_amm.json").write_text(json.dumps(idl))
    return Programs.load(folder)


@pytest.fixture
def flow(strange: Programs) -> SpreadPipeline:
    return new_flow(strange)


def new_flow(
    programs: Programs, clock: ManualClock | None = None, audience: Callable[[], Iterable[str]] = tuple
) -> SpreadPipeline:
    return SpreadPipeline(programs, clock or ManualClock(), Metrics(), audience=audience)


def bodies(publications: Iterable[Publication], topic: str, kind: str = "event") -> list[dict[str, Any]]:
    return [
        msgspec.json.decode(b"{" + p.body + b"}")["data"] for p in publications if (p.topic, p.kind) == (topic, kind)
    ]


def another(number: int, update: TransactionUpdate = BOTH) -> TransactionUpdate:
    return msgspec.structs.replace(update, signature=f"other{number}", slot=update.slot + number)


def gap(state: GapState, low: int, high: int, feed: str = FEED) -> GapUpdate:
    return GapUpdate(
        source="rpc-0",
        feed=feed,
        received_ns=0,
        slot=high,
        gap_id=f"g{low}-{high}",
        from_slot=low,
        to_slot=high,
        state=state,
    )


def test_the_event_itself_and_other_programs_trades_are_published(flow: SpreadPipeline) -> None:
    publications = flow.apply(BOTH)
    assert [each["event"] for each in bodies(publications, "events:pump_amm")] == ["BuyEvent"]
    assert not bodies(publications, "trades:pump_amm")
    assert [each["base_amount"] for each in bodies(publications, "trades:pump")] == ["347240361"]
    assert bodies(publications, "tx:pump_amm")


def test_it_is_counted(flow: SpreadPipeline) -> None:
    flow.apply(BOTH)
    assert flow.measures.unread == {("pump_amm", "BuyEvent", "TypeError"): 1}
    assert not flow.measures.bad
    (family,) = (each for each in flow.measures.collect() if each.name == "headrace_ingest_unread")
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"program": "pump_amm", "event": "BuyEvent", "reason": "TypeError"}, 1)
    ]


async def test_it_is_logged_with_the_signature_and_not_again_within_a_minute(
    strange: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", "json")
    clock = ManualClock()
    flow = new_flow(strange, clock)
    flow.apply(another(1))
    flow.apply(another(2))
    await clock.advance(COMPLAINT_S)
    flow.apply(another(3))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["event"], each["signature"], each["level"]) for each in lines] == [
        ("event_unread", "other1", "error"),
        ("event_unread", "other3", "error"),
    ]


def test_the_trade_that_is_missing_is_declared_where_it_would_be(strange: Programs) -> None:
    flow = new_flow(strange, audience=lambda: ["trades:Mint", "market-data", "slots", "user:u"])
    publications = flow.apply(BOTH)
    declared = {p.topic for p in publications if p.kind == "gap"}
    assert declared == {"trades:pump_amm", "token_updates", "trades:Mint", "market-data"}
    ((told),) = bodies(publications, "trades:pump_amm", "gap")
    assert (told["from_slot"], told["to_slot"]) == (str(BOTH.slot),) * 2
    assert (told["state"], told["reason"]) == ("unrecoverable", "unread")
    again = flow.apply(msgspec.structs.replace(BOTH, signature="s"))
    assert not bodies(again, "trades:pump_amm", "gap"), "one gap for the slot"
    assert bodies(flow.apply(another(1)), "trades:pump_amm", "gap")


@pytest.mark.parametrize(
    ("low", "high", "state"), [(0, 0, "unrecoverable"), (-5, -1, "backfilled"), (1, 9, "backfilled")]
)
def test_a_refill_that_met_it_is_not_backfilled(flow: SpreadPipeline, low: int, high: int, state: str) -> None:
    low, high = BOTH.slot + low, BOTH.slot + high
    flow.apply(gap("open", low, high))
    flow.apply(BOTH)
    (told,) = bodies(flow.apply(gap("backfilled", low, high)), "trades:pump_amm", "gap")
    assert told["state"] == state
    assert told["reason"] == ("unread" if state == "unrecoverable" else "")
    (counted,) = (each for each in flow.measures.collect() if each.name == "headrace_source_gaps")
    counts = {tuple(sample.labels.values()): sample.value for sample in counted.samples}
    assert counts == {("rpc-0", "open"): 1, ("rpc-0", state): 1}


def test_another_feeds_refill_is_backfilled(flow: SpreadPipeline) -> None:
    flow.apply(BOTH)
    other = gap("backfilled", BOTH.slot, BOTH.slot, "logs:6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P")
    (told,) = bodies(flow.apply(other), "trades:pump", "gap")
    assert told["state"] == "backfilled"


def test_fields_that_are_missing_are_counted_where_the_whole_transaction_is_known() -> None:
    """A log line of an old layout may name too little; then the whole transaction is still to come."""
    programs = Programs.load()
    update = whole("reported/2_pump_post_complete_buy.json")
    cut = [msgspec.structs.replace(each, data=cut_short(each.data)) for each in update.instructions]
    flow = new_flow(programs)
    publications = flow.apply(msgspec.structs.replace(update, instructions=tuple(cut), logs=None))
    assert [each["event"] for each in bodies(publications, "events:pump")].count("TradeEvent") == 1
    assert flow.measures.unread["pump", "TradeEvent", "incomplete"] == 1


TRADE_EVENT = bytes.fromhex("e445a52e51cb9a1dbddb7fd34ee661ee")


def cut_short(data: bytes | None) -> bytes | None:
    """A TradeEvent that ends after its mint."""
    return data[: len(TRADE_EVENT) + 32] if data is not None and data.startswith(TRADE_EVENT) else data


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 8))
def test_no_stretch_with_something_unread_is_taken_for_whole(
    noted: list[int], one: int, other: int, slots_max: int
) -> None:
    slots = UnreadSlots(slots_max)
    for slot in noted:
        slots.note("feed", slot)
    low, high = min(one, other), max(one, other)
    truth = any(low <= slot <= high for slot in noted)
    touched = slots.touched("feed", low, high)
    assert touched or not truth
    if len(set(noted)) <= slots_max:
        assert touched == truth
    assert not slots.touched("another", low, high)
