"""An event whose transaction is in no block of its confirmed slot: no promote covers it, and it is taken back."""

import itertools

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.ingest.gaps import FeedTopics
from headrace.ingest.messages import MessageBuilder
from headrace.ingest.slots import Forks
from headrace.model.facts import Confirmed, Dead, Decision, Finalized, Proof
from headrace.model.undecided import NOT_IN_BLOCK, Undecided
from headrace.model.updates import AnyUpdate, LandingUpdate, SlotStatus, SlotUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.facts import traded
from tests.ingest.mainnet import PUMP, logs_view, transaction
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
FEED = f"logs:{PUMP}"
SLOT = 100


def slot(number: int, status: SlotStatus, parent: int | None = None) -> SlotUpdate:
    return SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=number, status=status, parent=parent)


def event(signature: str, *, unproven: bool = True) -> AnyUpdate:
    bare = logs_view(transaction("2KBsKB"), FEED)
    return msgspec.structs.replace(bare, slot=SLOT, signature=signature, commitment="processed", unproven=unproven)


def landing(*, landed: tuple[str, ...] = (), absent: tuple[str, ...] = (), unknown: tuple[str, ...] = ()) -> AnyUpdate:
    return LandingUpdate(
        source="rpc", feed="slots", received_ns=0, slot=SLOT, landed=landed, absent=absent, unknown=unknown
    )


def trades(*updates: AnyUpdate) -> list[tuple[str, object]]:
    """What `trades:pump` got: (kind, signature of the event, slot of the promote, reason of the retract)."""
    pipeline = SpreadPipeline(PROGRAMS, ManualClock(), Metrics())
    found: list[tuple[str, object]] = []
    for update in updates:
        for publication in pipeline.apply(update):
            if publication.topic == "trades:pump":
                body = msgspec.json.decode(b"{" + publication.body + b"}")
                data = body["data"]
                about = (
                    body["chain"]["signature"] if publication.kind == "event" else data.get("reason", data.get("slot"))
                )
                found.append((publication.kind, about))
    return found


def test_the_promote_waits_for_proof() -> None:
    begun = slot(SLOT, "processed", SLOT - 1), event("a"), slot(SLOT, "confirmed")
    assert trades(*begun) == [("event", "a")]
    assert trades(*begun, landing(landed=("a",))) == [("event", "a"), ("promote", "100")]


def test_proof_before_the_verdict_promotes_with_it() -> None:
    told = trades(slot(SLOT, "processed"), event("a"), landing(landed=("a",)), slot(SLOT, "confirmed"))
    assert told == [("event", "a"), ("promote", "100")]


def test_what_is_absent_is_retracted_and_the_rest_promoted() -> None:
    told = trades(event("a"), event("b"), slot(SLOT, "confirmed"), landing(landed=("a",), absent=("b",)))
    assert told == [("event", "a"), ("event", "b"), ("retract", NOT_IN_BLOCK), ("promote", "100")]


def test_what_nobody_knows_is_never_promoted_nor_its_neighbours_on_the_topic() -> None:
    told = trades(
        event("a"), event("b"), slot(SLOT, "confirmed"), landing(unknown=("b",)), landing(landed=("a",)),
        slot(SLOT, "finalized"),
    )  # fmt: skip
    assert told == [("event", "a"), ("event", "b")]


def test_one_that_comes_late_for_a_certain_slot_is_promoted_when_proven() -> None:
    told = trades(slot(SLOT, "finalized"), event("a"), landing(landed=("a",)))
    assert told == [("event", "a"), ("promote", "100")]
    assert trades(slot(SLOT, "finalized"), event("a"), landing(absent=("a",)))[1] == ("retract", NOT_IN_BLOCK)


def test_a_dead_slot_takes_back_what_is_unproven_too() -> None:
    told = trades(slot(SLOT, "processed"), event("a"), slot(SLOT, "dead"), landing(absent=("a",)))
    assert told == [("event", "a"), ("retract", "dead_slot")]


def test_what_was_taken_back_is_new_if_it_comes_again() -> None:
    told = trades(event("a"), landing(absent=("a",)), event("a", unproven=False), slot(SLOT, "confirmed"))
    assert [kind for kind, _ in told] == ["event", "retract", "event", "promote"]


def test_a_source_that_proves_nothing_is_promoted_with_its_slot() -> None:
    assert trades(event("a", unproven=False), slot(SLOT, "confirmed")) == [("event", "a"), ("promote", "100")]


DECISIONS: dict[str, Decision] = {
    "confirmed": Confirmed(SLOT),
    "finalized": Finalized(SLOT),
    "dead": Dead(SLOT, "fork"),
    "landed": Proof(SLOT, landed=("s",)),
    "absent": Proof(SLOT, absent=("s",)),
    "unknown": Proof(SLOT, unknown=("s",)),
}
PROOFS = ("landed", "absent", "unknown")


@pytest.mark.parametrize("order", [o for n in range(1, 5) for o in itertools.permutations(DECISIONS, n)], ids="-".join)
def test_an_item_is_confirmed_or_retracted_by_its_slot_and_its_proof_in_any_order(order: tuple[str, ...]) -> None:
    undecided = Undecided[str]()
    undecided.add(SLOT, ["known"])
    undecided.add(SLOT, ["doubtful"], "s")
    outcomes = [undecided.decide(DECISIONS[step]) for step in order]
    confirmed = [item for outcome in outcomes for item in outcome.confirmed]
    retracted = [item for outcome in outcomes for group in outcome.retracted for item in group]
    final = [item for outcome in outcomes for item in outcome.final]
    ends = [step for step in order if step in ("finalized", "dead")][:1]
    proof = next((step for step in order if step in (*PROOFS, "dead")), "")
    assert len(confirmed) == len(set(confirmed))
    assert len({*retracted}) == len(retracted)
    assert not {*retracted} & {*final}
    if proof != "landed":
        assert "doubtful" not in confirmed
    if proof == "absent":
        assert retracted.count("doubtful") == 1
    if ends == ["dead"]:
        assert {"known", "doubtful"} <= {*retracted}
    if "confirmed" in order[: order.index("dead") if "dead" in order else None]:
        assert "known" in confirmed
    if "dead" in order or ("finalized" in order and proof in PROOFS):
        assert len(undecided) == 0
        assert len(retracted) + len(final) == 2


def test_what_nobody_knows_is_retracted_with_its_slot() -> None:
    kinds = trades(event("a"), landing(unknown=("a",)), slot(SLOT, "dead"))
    assert kinds == [("event", "a"), ("retract", "dead_slot")]


def test_a_slot_that_was_given_up_is_never_promoted() -> None:
    builder = MessageBuilder(PROGRAMS, Forks(), FeedTopics(PROGRAMS.name_of))
    builder._sent = Undecided(slots_max=1)
    certain, doubtful = traded("M", "Q", 1, 1), traded("M", "Q", 1, 1, event_id="e2", unproven=True)
    assert [each.kind for each in builder.of([certain])] == ["event"]
    assert [each.kind for each in builder.of([doubtful])] == ["event"]
    assert builder.of([Confirmed(1)]) == [], "the promote waits for the proof"
    builder.of([traded("M", "Q", 1, 1, slot=2, event_id="e3")])
    assert builder.of([Finalized(1)]) == []
