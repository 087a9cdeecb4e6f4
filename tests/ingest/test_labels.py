"""What is written on the outside of a message says what stands inside."""

import msgspec
import pytest

from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.market import MarketSettings
from headrace.market.stats import Stats
from headrace.model.states import state_key
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, TransactionUpdate
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics
from tests.data.make_demo import lap


@pytest.mark.parametrize("commitment", ["processed", "confirmed"])
def test_every_label_of_the_demo_tells_the_truth(commitment: Commitment) -> None:
    flow = Pipeline(Programs.load(), ManualClock(), Metrics(), market=Stats(MarketSettings()))
    labelled = set()
    for update in lap():
        if isinstance(update, AccountUpdate | LogsUpdate | TransactionUpdate):
            update = msgspec.structs.replace(update, commitment=commitment)
        for message in flow.apply(update):
            told = msgspec.json.decode(b"{%b}" % message.body)
            key = state_key(message.topic, told["data"]) if message.kind == "event" else None
            label = message.label
            assert (None if label is None else label.key) == key
            if label is not None:
                chain = told["chain"]
                assert (label.event_id, str(label.slot)) == (told["event_id"], chain["slot"])
                assert label.certain == (chain["commitment"] != "processed")
                labelled.add(told["data"]["type"])
    assert labelled == {"Account", "TokenCreated", "TokenPriceUpdate", "MarketData"}
