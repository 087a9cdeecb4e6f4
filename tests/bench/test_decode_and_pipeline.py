"""The two measurements as commands: what they print, what they write, what they say when a peer is missing."""

import asyncio
import random
import re
import sys
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


def test_a_peer_reads_the_same_frames_and_gets_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text(
        "import json, sys\n"
        "assert json.load(open(sys.argv[1]))['types']\n"
        "frames = [json.loads(line) for line in open(sys.argv[2])]\n"
        "print(json.dumps({'per_s': 1, 'cpu_us': 9}))\n"
        "print(json.dumps({'per_s': len(frames), 'cpu_us': 2.5, 'more': 1}))\n"
    )
    command = f"mine={sys.executable} {peer} {{idl}} {{frames}}"
    assert pipeline.main(["--count", "70", "--runs", "1", "--peer", command, "--write", str(tmp_path)]) == 0
    (report,) = _written(tmp_path)
    assert report["trades"]["peers"] == report["accounts"]["peers"] == {"mine": {"per_s": 70, "cpu_us": 2.5}}
    assert "| trades, mine | 70 | | | 2.5 |" in capsys.readouterr().out


def test_a_peer_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="mine: status 3"):
        command = f"mine={sys.executable} -c 'raise SystemExit(3)' {{frames}}"
        pipeline.main(["--count", "70", "--runs", "1", "--peer", command])


def test_accounts_contents_and_mints_are_many() -> None:
    updates, chance = asyncio.run(pipeline.demo_updates()), random.Random(1)
    accounts = [msgspec.json.decode(frame) for frame in pipeline.account_frames(updates, 300, chance)]
    values = [frame["params"]["result"]["value"] for frame in accounts]
    assert len({value["pubkey"] for value in values}) == 300
    assert len({value["account"]["data"][0] for value in values}) == 300
    trades = b"".join(pipeline.trade_frames(updates, 60, chance))
    again = b"".join(pipeline.trade_frames(updates, 60, chance, mints_max=1))
    assert len(set(re.findall(rb"Program data: vdt/007mYe([^\"]{40})", trades))) >= 30
    assert len(set(re.findall(rb"Program data: vdt/007mYe([^\"]{40})", again))) == 1


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--count", "x"], ["--peer", "mine=true"]])
def test_a_wrong_count_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        pipeline.main(arguments)
    assert stopped.value.code == 2
    assert "expected " in capsys.readouterr().err
