"""Endpoints are compared by the blocks that each finishes."""

from headrace.sources.yellowstone.race import SLOTS_KEPT, Place, Race
from headrace.testing.ledger import made_up_signature
from tests.sources.yellowstone.rig import LOGS, PROGRAM, rig


def race() -> Race:
    made = Race()
    made.enter("a")
    made.enter("b")
    return made


def test_first_is_first_and_the_other_is_behind() -> None:
    made = race()
    assert made.finished("a", 7, 1.0) == Place(0.0)
    assert made.finished("b", 7, 1.25) == Place(0.25)
    assert made.finished("b", 7, 2.0) is None
    assert made.finished("a", 7, 2.0) is None


def test_block_that_an_endpoint_never_finishes_is_missed() -> None:
    made = race()
    found = [made.finished("a", slot, 0.0) for slot in range(SLOTS_KEPT + 1)]
    assert found[-1] == Place(0.0, ("b",))
    assert made.finished("b", 0, 9.0) is None


def test_endpoint_that_left_misses_nothing_and_counts_for_nothing() -> None:
    made = race()
    made.finished("a", 0, 0.0)
    made.leave("b")
    assert made.finished("b", 0, 1.0) is None
    assert made.finished("b", 1, 1.0) is None
    found = [made.finished("a", slot, 0.0) for slot in range(1, SLOTS_KEPT + 2)]
    assert all(each == Place(0.0) for each in found)


async def test_endpoints_are_counted() -> None:
    async with rig(LOGS, endpoints=2) as made:
        made.nodes[1].faults.dropped = {"block_meta"}
        for number in range(SLOTS_KEPT + 8):
            made.node.emit_transaction([PROGRAM], signature=made_up_signature(number))
            made.advance()
        await made.until(lambda: made.count("source_missed_total", source="yellowstone-1") > 0, flowing=True)
        assert made.count("source_first_total", source="yellowstone-0") > SLOTS_KEPT
        assert made.count("source_missed_total", source="yellowstone-0") == 0
        made.nodes[1].faults.dropped = set()
        await made.until(
            lambda: any(made.count("source_behind_seconds", source=f"yellowstone-{number}") > 0 for number in (0, 1)),
            flowing=True,
        )
