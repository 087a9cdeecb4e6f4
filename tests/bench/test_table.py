"""The table of the newest results."""

import json
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).parents[2] / "benchmarks" / "table.py"


def test_the_newest_results_are_compared_and_a_row_that_is_lost_says_so(tmp_path: Path) -> None:
    def rates(day: str, ours: float) -> str:
        results = {name: {"p99_100": p99, "accept_us": 60.0} for name, p99 in (("headrace", ours), ("C, joined", 6000))}
        return json.dumps({"at": f"{day}T10:00", "scenario": "rates", "clients": 1000, "results": results})

    folder = tmp_path / "gateway"
    folder.mkdir()
    other = json.dumps({"at": "2026-01-03T10:00", "scenario": "idle", "results": {}})
    (folder / "results.jsonl").write_text(f"{rates('2026-01-01', 3000)}\n{rates('2026-01-02', 12000)}\n{other}\n")
    done = subprocess.run([sys.executable, TABLE, tmp_path], capture_output=True, text=True, check=True)
    assert "| 1000 clients at 100/s: p99 | ms | 12 | 6 | C, joined | 0.50 | 2026-01-02 |" in done.stdout
    assert "| accept a connection | µs CPU | 60 | 60 | C, joined | 1.00 | 2026-01-02 |" in done.stdout
