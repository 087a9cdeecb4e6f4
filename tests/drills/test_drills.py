"""Each drill's patch applies, touches no more files than the aim allows, and its tests pass in the patched copy."""

from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.drills import apply_patch, run_tests


class Drill(NamedTuple):
    """`files_max`: the aim, migrations and the files of the drill's own tests not counted."""

    patch: str
    files_max: int
    tests: tuple[str, ...]


DRILLS: Final[tuple[Drill, ...]] = (
    # The third file is the reference of settings, which `python -m tests.config.test_docs` writes.
    Drill("second_venue", 3, ("tests/contracts/test_venues.py", "tests/config/test_docs.py")),
    Drill("new_program", 3, ("tests/programs",)),
    Drill("trades_table", 6, ("tests/flow/test_recent_trades.py",)),
    Drill("tcp_source", 5, ("tests/contracts/test_sources.py", "-k", "line_tcp")),
    Drill(
        "trailing_stop",
        4,
        (
            "tests/contracts/test_order_types.py",
            "tests/orders/test_order_types_page.py",
            "tests/cli/test_reference.py::test_the_reference_has_every_command_and_option",
        ),
    ),
    Drill(
        "order_status",
        3,
        ("tests/orders/test_machine.py", "tests/contracts/test_store.py", "-k", "not postgres"),
    ),
    Drill(
        "client_message",
        7,
        (
            "tests/gateway/test_asyncapi.py::test_every_frame_of_the_protocol_is_described",
            "tests/gateway/test_asyncapi.py::test_every_command_is_described",
            "tests/gateway/test_reference.py",
            "tests/protocol/test_shapes.py",
            "-k",
            "topics or frame or command or javascript or python",
        ),
    ),
)


@pytest.mark.parametrize(
    "drill",
    [pytest.param(drill, id=drill.patch, marks=[pytest.mark.long] if n else []) for n, drill in enumerate(DRILLS)],
)
def test_a_drill_touches_few_files_and_passes_its_contract_suite(drill: Drill, tmp_path: Path) -> None:
    touched = apply_patch(drill.patch, tmp_path)
    counted = [path for path in (*touched.changed, *touched.added) if not path.startswith("tests/")]
    assert len([path for path in counted if not path.endswith(".sql")]) <= drill.files_max, counted
    assert "passed" in run_tests(tmp_path, *drill.tests)
