"""The gateway benchmark runs, loses nothing, and says so."""

from pathlib import Path

import msgspec
import pytest

from headrace.bench import filters, gateway


def test_a_short_run_delivers_everything(capfd: pytest.CaptureFixture[str]) -> None:
    assert gateway.main(["--alone", "--clients", "5", "--rate", "200", "--secs", "0.3", "--runs", "1"]) == 0
    *table, line = capfd.readouterr().out.splitlines()
    report = msgspec.json.decode(line)
    assert report["results"]["headrace"]["fraction"] == 1
    assert report["results"]["headrace"]["holes"] == 0
    assert any(row.startswith("headrace") for row in table)


def test_the_cost_of_filters_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--filters", "10", "--count", "2000", "--runs", "1", "--write", str(tmp_path)]
    assert filters.main(words) == 0
    report = msgspec.json.decode((tmp_path / "results.jsonl").read_bytes())
    told = {name: row["told"] for name, row in report["results"].items()}
    assert told["no filter"] == 10
    assert told["mint is X"] == told["mint is X, each asked"]
    assert 0 < told["mint is X and sol from Y"] <= told["mint is X"] < told["sol from Y"] <= 10
    assert "| mint is X | " in capfd.readouterr().out
