"""Where the chain is, and which slots wait for confirmation, by the slots that witnesses name."""

from headrace.model.updates import AnyUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.sources.connection import SlotNotice
from headrace.sources.health import SourceHealth
from headrace.sources.metrics import SourceMetrics
from headrace.sources.proofs import Proofs
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.slots import ChainSlots


def chain_slots() -> ChainSlots:
    clock, outlet = ManualClock(), Channel[AnyUpdate](1_000)
    health = SourceHealth("rpc", Health(clock), ("ws://a",), stall_slots=32)
    return ChainSlots(
        "rpc",
        Proofs(),
        outlet=outlet,
        settings=NodeSourceSettings(),
        clock=clock,
        metrics=SourceMetrics(Metrics()),
        health=health,
    )


async def heads(slots: ChainSlots, *numbers: int) -> None:
    """Let the connection name slots; those that count begin."""
    for slot in numbers:
        if slots.hear("rpc-0", slot):
            await slots.begun("rpc-0", SlotNotice(slot, slot - 1, 0), 0)


async def test_slots_that_a_node_took_back_do_not_wait_for_confirmation() -> None:
    slots = chain_slots()
    await heads(slots, 1000, 1001, *range(901_000, 901_004))
    for slot in range(1002, 1006):
        slots.hear("rpc-http", slot)
    assert slots.head < 2000, "the witnesses do not agree: the lower head counts"
    await heads(slots, 901_004, 901_005)  # still on their way
    await heads(slots, *range(1003, 1010))
    assert slots.head == 1009
    span = slots._confirmations.span()
    assert span is not None
    assert span[1] == 1009
