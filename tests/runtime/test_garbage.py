"""The collector leaves alone what lives as long as the process."""

import gc
from collections.abc import Iterator

import pytest

from headrace.runtime import garbage


@pytest.fixture
def collector() -> Iterator[None]:
    """Python's own settings afterwards: they are the whole process's."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_what_is_there_is_not_looked_at_again_and_new_cycles_are() -> None:
    garbage.settle()
    assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
