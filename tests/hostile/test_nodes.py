"""Every mode of a hostile node: what is declared, an honest node beside it, memory, the loop, and the end."""

from collections.abc import Sequence

import pytest
from _pytest.mark import ParameterSet

from tests.hostile.attacked import Attacked, attacked_source
from tests.hostile.meter import Meter
from tests.hostile.modes import MODES, Mode
from tests.sources.rpc_pubsub.rig import missing

GROWN_MAX = 96 * 1024 * 1024
STOOD_S_MAX = 1.0
"""Of the processor's time, the nodes' own work included; what was found took several times that."""

SLOTS = 12


def by_name(modes: Sequence[Mode], turn: int) -> list[ParameterSet]:
    """Return the modes, three of four marked long: the quick form meets every other mode, once.

    A mode that the other test can't meet (not `alone`) is never long.
    """
    marked = []
    for mode in modes:
        marks = [pytest.mark.long] if mode.alone and MODES.index(mode) % 4 != turn else []
        marked.append(pytest.param(mode, id=mode.name, marks=marks))
    return marked


def test_there_are_enough_modes_and_no_two_are_one() -> None:
    names = [mode.name for mode in MODES]
    assert len(names) == len(set(names)) >= 45


async def attacked(one: Attacked, mode: Mode, slots: int) -> None:
    async with Meter() as meter:
        await mode.attack(one)
        await one.chain(slots)
    assert meter.grown_bytes < GROWN_MAX
    assert meter.stood_s < STOOD_S_MAX


@pytest.mark.parametrize("mode", by_name(MODES, 0))
async def test_an_honest_node_beside_it_brings_everything(mode: Mode) -> None:
    async with attacked_source(beside=True) as one:
        await one.patiently(lambda: one.covers(0) and one.covers(1))
        one.emitted.clear()
        await attacked(one, mode, SLOTS)
        happened = list(one.emitted)
        await one.patiently(lambda: set(happened) <= one.delivered)
        await one.patiently(lambda: not mode.unproven or set(happened) <= one.decided)
        assert one.taken_back.isdisjoint(happened)
        assert mode.phantoms or one.delivered <= {(landed.signature, landed.slot) for landed in one.landed}
        assert one.connections[1].connected


@pytest.mark.parametrize("mode", by_name([mode for mode in MODES if mode.alone], 2))
async def test_delivered_and_declared_is_all_that_happened(mode: Mode) -> None:
    async with attacked_source(beside=False) as one:
        await one.patiently(lambda: one.covers(0))
        one.emitted.clear()
        await attacked(one, mode, SLOTS)
        await one.end_attack()
        await one.patiently(lambda: one.covers(0))
        happened = list(one.emitted)
        await one.patiently(lambda: not missing(one, happened) and one.open_gaps == 0)
        assert mode.phantoms or one.delivered <= {(landed.signature, landed.slot) for landed in one.landed}
