"""Every part is asked: it turns red when it fails, stands still or breaks, and green when it works again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from headrace.model.errors import ConfigError, TransientError
from headrace.runtime.clock import ManualClock
from headrace.runtime.disk import Disk
from headrace.runtime.health import Health
from headrace.runtime.probes import Probes


def is_ready(health: Health) -> bool:
    return health.ready


class Part:
    """A part whose answer a test sets; it notes whether thorough proof was asked for."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.frozen = asyncio.Event()
        self.frozen.set()
        self.asked: list[bool] = []

    async def check(self, *, thorough: bool) -> None:
        self.asked.append(thorough)
        await self.frozen.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def probes(health: Health) -> AsyncIterator[Probes]:
    probes = Probes(health, ManualClock(), patience_s=0.05)
    running = asyncio.ensure_future(probes.run())
    yield probes
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("error", [TransientError("away"), ConfigError("A", "b", "c"), ValueError("a defect")])
async def test_a_part_that_fails_is_red_until_it_works(health: Health, probes: Probes, error: Exception) -> None:
    part, other = Part(), Part()
    probes.add("part", part.check)
    probes.add("other", other.check, required=False)
    assert not health.components()["part"].ready, "nobody has asked it yet"
    await probes.ask_all()
    assert is_ready(health)
    part.error = error
    await probes.ask_all()
    assert not health.components()["part"].ready
    assert not is_ready(health)
    assert "defect" not in health.components()["part"].detail
    assert health.components()["other"].ready
    part.error = None
    await probes.ask_all()
    assert is_ready(health)
    assert part.asked == [True, False, True]


async def test_the_host_of_an_error_is_in_the_log_and_not_in_the_detail(health: Health, probes: Probes) -> None:
    part = Part()
    probes.add("part", part.check)
    await probes.ask_all()
    part.error = TransientError("connecting to redis.internal:6379 failed")
    with structlog.testing.capture_logs() as logs:
        await probes.ask_all()
    assert health.components()["part"].last_error == "connecting to *** failed"
    assert [line["error"] for line in logs] == ["connecting to redis.internal:6379 failed"]


async def test_a_first_check_that_passes_leaves_no_error(health: Health, probes: Probes) -> None:
    part = Part()
    probes.add("part", part.check)
    assert health.components()["part"].last_error is None
    await probes.ask_all()
    assert health.components()["part"].last_error is None
    assert health.components()["part"].last_error_ms is None


async def test_a_part_that_does_not_answer_is_red_and_holds_up_no_other(health: Health, probes: Probes) -> None:
    part, other = Part(), Part()
    probes.add("part", part.check)
    probes.add("other", other.check)
    part.frozen.clear()
    for _ in range(3):
        await probes.ask_all()
    assert health.components()["part"].detail == "does not answer"
    assert health.components()["other"].ready
    assert (len(part.asked), len(other.asked)) == (1, 3), "who owes an answer is not asked again"
    part.frozen.set()
    await probes.ask_all()
    await probes.ask_all()
    assert health.ready


async def test_a_part_that_is_not_required_is_red_alone(health: Health, probes: Probes) -> None:
    part = Part()
    part.error = TransientError("away")
    probes.add("part", part.check, required=False)
    await probes.ask_all()
    assert not health.components()["part"].ready
    assert health.ready


async def test_a_part_turns_red_by_what_it_finds_out_itself_and_green_by_a_check_alone(
    health: Health, probes: Probes
) -> None:
    part = Part()
    probes.add("part", part.check)
    await probes.ask_all()
    probes.trouble("part")(TransientError("the disk is full"))
    assert health.components()["part"].detail == "the disk is full"
    await probes.ask_all()
    assert health.ready
    assert part.asked[-1], "what failed must prove itself"


async def test_a_disk_without_room_or_folder_is_red(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.getbasetemp())
    assert "free" in await Disk([f"{folder}/a"]).check(thorough=False)
    assert await Disk([]).check(thorough=False) == "not used"
    with pytest.raises(TransientError, match="are free"):
        await Disk([f"{folder}/a"], free_min=2**62).check(thorough=False)
    with pytest.raises(TransientError, match="can't be read"):
        await Disk([f"{folder}/gone/a"]).check(thorough=False)
