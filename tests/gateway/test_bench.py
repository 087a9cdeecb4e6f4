"""The gateway benchmark runs, loses nothing, and says so."""

import msgspec
import pytest

from headrace.bench import gateway


def test_a_short_run_delivers_everything(capfd: pytest.CaptureFixture[str]) -> None:
    assert gateway.main(["--alone", "--clients", "5", "--rate", "200", "--secs", "0.3", "--runs", "1"]) == 0
    *table, line = capfd.readouterr().out.splitlines()
    report = msgspec.json.decode(line)
    assert report["results"]["headrace"]["fraction"] == 1
    assert report["results"]["headrace"]["holes"] == 0
    assert any(row.startswith("headrace") for row in table)
