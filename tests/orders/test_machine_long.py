"""Without any one row of the orders table, the tests of the stores and the engine fail too: no row is idle."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from headrace.model.orders import EventKind, OrderStatus
from headrace.orders.machine import ORDERS

ROOT: Final = Path(__file__).parents[2]
_SUITES: Final = (
    "tests/contracts/test_store.py",
    "tests/contracts/test_store_ages.py",
    "tests/orders/test_engine.py",
    "tests/orders/test_ended.py",
    "tests/orders/test_triggers.py",
)


@pytest.mark.long
@pytest.mark.parametrize("row", ORDERS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_without_any_one_row_the_suites_of_store_and_engine_fail(row: tuple[OrderStatus | None, EventKind]) -> None:
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "tests.orders.without_row")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", "not postgres", *_SUITES],
        cwd=ROOT,
        env={**os.environ, "WITHOUT_ROW": f"{row[0]}-{row[1]}", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
