"""The guard over instruction counts: what fails, and what should be recorded anew."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

MEASURE = Path(__file__).parents[2] / "benchmarks" / "instructions" / "measure.py"


@pytest.fixture(scope="module")
def measure() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(MEASURE.parent))
        return runpy.run_path(str(MEASURE))


def test_more_than_the_percent_is_wrong_and_less_is_loose(measure: Any) -> None:
    before = {"accounts": 1_000, "trades": 1_000, "whole": 1_000, "fan_out": 1_000}
    counts = {"accounts": 1_051, "trades": 1_050, "whole": 949, "fan_out": 950, "http": 1}
    wrong, stale = measure["complaints"](counts, before, 5.0)
    assert wrong == ["more than 5 % above what was recorded for this Python: accounts"]
    assert stale == ["more than 5 % below, so that the guard is loose: whole", "not recorded for this Python: http"]


def test_the_newest_counts_of_the_same_build_are_compared(measure: Any, tmp_path: Path) -> None:
    reports = [("3.11", {"a": 1, "b": 2}), ("3.12", {"a": 9}), ("3.11", {"a": 3})]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps({"build": build, "instructions": found}) + "\n" for build, found in reports))
    assert measure["recorded"](results, "3.11") == {"a": 3, "b": 2}
    assert measure["recorded"](tmp_path / "none", "3.11") == {}


def test_the_count_of_a_dump_is_its_total(measure: Any, tmp_path: Path) -> None:
    dump = tmp_path / "accounts.1"
    dump.write_text("events: Ir\nsummary: 12\n\ntotals: 1234\n")
    assert (measure["dumped"](dump), measure["dumped"](tmp_path / "accounts.2")) == (1234, 0)
