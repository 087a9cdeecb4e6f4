"""Received plus declared is what happened, for any loss, repeat, fork and order of views that a source can bring."""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.bus import BusSettings
from headrace.decoders.registry import Programs
from headrace.model.events import Message, Position
from headrace.model.updates import AnyUpdate, GapUpdate, SlotStatus, SlotUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.examples import examples
from tests.ingest.mainnet import PUMP, logs_view, transaction
from tests.local_bus import LocalBus
from tests.pipelines import SpreadPipeline

PROGRAMS = Programs.load()
TOPIC = "trades:pump"
FEED = f"logs:{PUMP}"
VIEWS = ("logs", "transaction")


class Client:
    """Folds a topic as the protocol tells clients to: events, less what is retracted; gaps, and what became of them."""

    def __init__(self) -> None:
        self.events: dict[str, tuple[int, str]] = {}  # event id → (slot, signature)
        self.retracted: list[str] = []
        self.gaps: dict[str, tuple[int, int, str]] = {}
        self.promoted: list[int] = []

    def take(self, message: Message) -> None:
        body: dict[str, Any] = msgspec.json.decode(b"{" + message.body + b"}")
        data = body["data"]
        if message.kind == "event":
            assert body["event_id"] not in self.events, "an event came twice"
            self.events[body["event_id"]] = (int(body["chain"]["slot"]), body["chain"]["signature"])
        elif message.kind == "retract":
            for event_id in data["event_ids"]:
                del self.events[event_id]  # KeyError: taken back twice, or never told
                self.retracted.append(event_id)
        elif message.kind == "gap":
            self.gaps[data["gap_id"]] = (int(data["from_slot"]), int(data["to_slot"]), data["state"])
        else:
            self.promoted.append(int(data["slot"]))


class Chain(RuleBasedStateMachine):
    """A chain that grows and forks; a source that tells of it, loses some, declares that, and repeats itself."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.pipeline = SpreadPipeline(PROGRAMS, self.clock, Metrics())
        self.bus = LocalBus(BusSettings(history_size=100_000), self.clock, "g")
        self.client = Client()
        self.parents: dict[int, int] = {1: 0}
        self.happened: dict[int, list[str]] = {1: []}  # slot → signatures
        self.told: list[tuple[int, str]] = []
        self.lost: list[tuple[int, str]] = []
        self.undeclared = 0
        self.confirmed = 0
        self.dead: set[int] = set()
        self.gap_number = 0
        self.signature = 0
        self.offset = 0

    def feed(self, update: AnyUpdate) -> None:
        for publication in self.pipeline.apply(update):
            _drive(self.bus.publish([publication]))

    def slot(self, number: int, status: SlotStatus, parent: int | None = None) -> None:
        self.feed(SlotUpdate(source="rpc-0", feed="slots", received_ns=0, slot=number, status=status, parent=parent))

    def tell(self, number: int, signature: str, view: str, source: str) -> None:
        whole = transaction("2KBsKB")
        bare = logs_view(whole, FEED) if view == "logs" else msgspec.structs.replace(whole, feed=FEED)
        self.feed(
            msgspec.structs.replace(bare, slot=number, signature=signature, source=source, commitment="processed")
        )
        self.told.append((number, signature))

    @rule(back=st.integers(0, 2), step=st.integers(1, 3))
    def grow(self, back: int, step: int) -> None:
        tips = sorted(slot for slot in self.parents if slot >= self.confirmed and slot not in self.dead)
        parent = tips[max(0, len(tips) - 1 - back)]
        number = max(self.parents) + step
        self.parents[number], self.happened[number] = parent, []
        self.slot(number, "processed", parent)

    @rule(view=st.sampled_from(VIEWS), lose=st.booleans(), again=st.booleans(), where=st.integers(0, 2))
    def execute(self, view: str, lose: bool, again: bool, where: int) -> None:
        """A transaction runs; `again`: one that ran before, in another slot, as on the other side of a fork."""
        alive = sorted(slot for slot in self.parents if slot > self.confirmed and slot not in self.dead)
        if not alive:
            return
        number = alive[max(0, len(alive) - 1 - where)]
        known = [signature for signatures in self.happened.values() for signature in signatures]
        if again and known and known[-1] not in self.happened[number]:
            signature = known[-1]
        else:
            self.signature += 1
            signature = f"s{self.signature}"
        self.happened[number].append(signature)
        if lose:
            self.lost.append((number, signature))
        else:
            self.tell(number, signature, view, "rpc-0")

    @precondition(lambda self: self.told)
    @rule(view=st.sampled_from(VIEWS), nth=st.integers(0, 5), source=st.sampled_from(["rpc-0", "rpc-1"]))
    def repeat(self, view: str, nth: int, source: str) -> None:
        self.tell(*self.told[-1 - nth % len(self.told)], view, source)

    @precondition(lambda self: self.lost)
    @rule(refill=st.booleans())
    def declare(self, refill: bool) -> None:
        """The source finds out what it missed, declares it, and gets it back or not."""
        self.gap_number += 1
        slots = [number for number, _ in self.lost]
        name = f"g{self.gap_number}"

        def gap(state: Any) -> GapUpdate:
            return GapUpdate(
                source="rpc-0", feed=FEED, received_ns=0, slot=max(slots), gap_id=name, from_slot=min(slots),
                to_slot=max(slots), state=state,
            )  # fmt: skip

        self.feed(gap("open"))
        if refill:
            for number, signature in self.lost:
                self.tell(number, signature, "transaction", "rpc-0")
        self.feed(gap("backfilled" if refill else "unrecoverable"))
        self.lost = []

    @rule(back=st.integers(0, 1), finalized=st.booleans())
    def confirm(self, back: int, finalized: bool) -> None:
        alive = sorted(slot for slot in self.parents if slot > self.confirmed and slot not in self.dead)
        if not alive:
            return
        number = alive[max(0, len(alive) - 1 - back)]
        chain, ancestor = set(), number
        while ancestor in self.parents:
            chain.add(ancestor)
            ancestor = self.parents[ancestor]
        self.confirmed = number
        kept = set(chain)
        for slot in sorted(self.parents):  # what stands on it may still be confirmed, all else is dead
            if self.parents[slot] in kept and self.parents[slot] >= number:
                kept.add(slot)
        self.dead = set(self.parents) - kept
        self.slot(number, "finalized" if finalized else "confirmed")
        for slot in sorted(self.dead):
            if slot > number:
                self.slot(slot, "dead")

    @invariant()
    def received_and_declared_is_what_happened(self) -> None:
        page = _drive(self.bus.history(TOPIC, Position("g", self.offset), 100_000))
        assert page.complete
        for message in page.messages:
            self.client.take(message)
        self.offset = page.top.offset
        client = self.client
        received = set(client.events.values())
        really = {(slot, s) for slot, signatures in self.happened.items() if slot not in self.dead for s in signatures}
        assert received <= really, "told of something that did not happen"
        declared = [(low, high) for low, high, state in client.gaps.values() if state == "unrecoverable"]
        for slot, signature in really - received - set(self.lost):
            assert any(low <= slot <= high for low, high in declared), f"{signature} in {slot} is missing, undeclared"
        assert len(client.promoted) == len(set(client.promoted))
        assert len(client.retracted) == len(set(client.retracted))


def _drive(work: Any) -> Any:
    """The result of a coroutine that never waits, as those of the memory bus."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


TestPromise = Chain.TestCase
TestPromise.settings = settings(max_examples=examples(80), stateful_step_count=40)
