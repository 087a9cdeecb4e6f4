"""What is written on the outside of a message says what stands inside."""

from collections import Counter

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.events import AnyLabel, Label, Promotion, Retraction
from headrace.model.states import state_key
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.data.make_demo import lap
from tests.ingest.test_golden import history
from tests.pipelines import SpreadPipeline


@pytest.mark.parametrize("commitment", ["processed", "confirmed"])
def test_every_label_of_the_demo_tells_the_truth(commitment: Commitment) -> None:
    flow = SpreadPipeline(Programs.load(), ManualClock(), Metrics(), market=Stats(MarketSettings()))
    labelled = set()
    for update in lap():
        if isinstance(update, AccountUpdate | LogsUpdate | TransactionUpdate):
            update = msgspec.structs.replace(update, commitment=commitment)
        for message in flow.apply(update):
            body = msgspec.json.decode(b"{%b}" % message.body)
            label = message.label
            if isinstance(label, Label):
                chain = body["chain"]
                assert label.key == state_key(message.topic, body["data"])
                assert (label.event_id, str(label.slot)) == (body["event_id"], chain["slot"])
                assert label.certain == (chain["commitment"] != "processed")
                labelled.add(body["data"]["type"])
            elif message.kind == "event":
                assert label is None
                assert state_key(message.topic, body["data"]) is None
    assert labelled == {"Account", "TokenCreated", "TokenPriceUpdate", "MarketData"}


def test_every_record_is_labelled_with_what_it_settles() -> None:
    flow = SpreadPipeline(Programs.load(), ManualClock(), Metrics(), market=Stats(MarketSettings()))
    kinds: Counter[str] = Counter()
    for update in history():
        for message in flow.apply(update):
            body, label = msgspec.json.decode(b"{%b}" % message.body), message.label
            match message.kind:
                case "promote":
                    assert label == Promotion(int(body["data"]["slot"]))
                case "retract":
                    assert label == Retraction(tuple(body["data"]["event_ids"]))
                case "gap":
                    assert label is None
            kinds[message.kind] += 1
    assert set(kinds) == {"event", "promote", "retract", "gap"}


@pytest.mark.parametrize("label", [Label("k", "e", None, True), Promotion(7), Retraction(("a", "b")), None])
def test_a_label_survives_a_wire(label: AnyLabel | None) -> None:
    assert msgspec.json.decode(msgspec.json.encode(label), type=AnyLabel | None) == label
