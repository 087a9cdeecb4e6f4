"""The two measurements as commands: what they print, what they write, what they say when a peer is missing."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.bench import decode, pipeline


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "INPUTS", 20)
    monkeypatch.setattr(decode, "INPUTS_SLOW", 5)


def _written(folder: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]


def test_decode_appends_dated_results_and_names_the_peer_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert decode.main(["--rounds", "1", "--peer", str(tmp_path), "--write", str(tmp_path)]) == 0
    first, second = _written(tmp_path)
    assert first["bench"] == second["bench"] == "decode"
    assert first["at"] <= second["at"]
    assert first["results"]["TradeEvent"]["borsh-construct"]["times"] > 0
    told = capsys.readouterr()
    assert "| headrace, every key new |" in told.out
    assert "anchor: not measured: " in told.out
    assert "TradeEvent: round 1 of 1" in told.err


def test_no_two_inputs_are_alike_and_all_are_whole() -> None:
    for subject in decode.subjects():
        assert len(set(subject.inputs)) == len(subject.inputs) == decode.INPUTS
        fields, leftover = subject.layout.decode(subject.inputs[7], 8)
        assert leftover == 0
        assert None not in fields.values()


def test_pipeline_appends_dated_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["--count", "100", "--runs", "2", "--write", str(tmp_path)]) == 0
    (report,) = _written(tmp_path)
    assert (report["bench"], report["count"], report["runs"]) == ("pipeline", 100, 2)
    assert report["accounts"]["messages_per_update"] == 2
    told = capsys.readouterr()
    assert told.out.count("\n|") == 5
    assert "run 2 of 2" in told.err


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--count", "x"]])
def test_a_wrong_count_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        pipeline.main(arguments)
    assert stopped.value.code == 2
    assert "expected a whole number from 1" in capsys.readouterr().err
