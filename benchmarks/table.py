"""Print one table of the newest recorded results: Headrace beside each peer of the same run, with the ratio.

`table.py [FOLDER]` reads the `results.jsonl` of each folder here (or in FOLDER). A ratio above 1 means that Headrace is
ahead.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Report = dict[str, Any]


class Row(NamedTuple):
    """One number of Headrace and of a peer, measured on the same day. `less`: a smaller number is better."""

    what: str
    unit: str
    ours: float
    peer: str
    theirs: float
    at: str
    less: bool

    @property
    def ratio(self) -> float:
        """Return how many times Headrace is ahead; below 1 it is behind."""
        better, worse = (self.theirs, self.ours) if self.less else (self.ours, self.theirs)
        return better / worse if worse else 0.0


def newest(folder: Path, fits: Callable[[Report], bool] = lambda _: True) -> Report | None:
    """Return the last report of a folder that fits; None without one."""
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return next((report for report in map(json.loads, reversed(lines)) if fits(report)), None)


def decoding(report: Report) -> Iterator[Row]:
    """Compare the decoders of an event and of an account."""
    for layout, each in report["results"].items():
        for peer in ("anchor", "borsh-construct"):
            if peer in each:
                yield Row(
                    f"decode {layout}", "µs", each["headrace"]["us"], peer, each[peer]["us"], report["at"], less=True
                )


def updates(report: Report) -> Iterator[Row]:
    """Compare the pipeline with programs that read the same frames."""
    for kind in ("accounts", "trades"):
        row = report[kind]
        for peer, theirs in row.get("peers", {}).items():
            yield Row(f"pipeline, {kind}", "/s", row["per_s"], peer, theirs["per_s"], report["at"], less=False)


def fan_out(report: Report) -> Iterator[Row]:
    """Compare connections and frames at each rate."""
    units = {"accept_us": ("accept a connection", "µs CPU"), "idle_kib": ("idle connection", "KiB")}
    ours = report["results"]["headrace"]
    for key in ours:
        name, _, rate = key.rpartition("_")
        if name == "p99":
            what, unit, scale = f"{report['clients']} clients at {rate}/s: p99", "ms", 1000
        elif name == "frame_us":
            what, unit, scale = f"{report['clients']} clients at {rate}/s: a frame", "µs CPU", 1
        elif key in units:
            (what, unit), scale = units[key], 1
        else:
            continue
        for peer, theirs in report["results"].items():
            if peer != "headrace" and theirs[key] > 0:
                yield Row(what, unit, ours[key] / scale, peer, theirs[key] / scale, report["at"], less=True)


def orders(report: Report) -> Iterator[Row]:
    """Compare the engines of orders with the one in Node."""
    theirs = report["results"].get("node")
    if theirs is None:
        return
    for engine, loads in report["results"].items():
        if engine == "node":
            continue
        for load, row in loads.items():
            against = theirs.get(load, theirs["http"])
            key, unit, less = (
                ("confirm_p99_ms", "ms p99", True) if load == "steady" else ("orders_per_s", "orders/s", False)
            )
            yield Row(f"{engine}: {load}", unit, row[key], "node", against[key], report["at"], less)


def rows(folder: Path) -> Iterator[Row]:
    """Yield the rows of all newest reports."""
    sections = (
        ("pipeline", updates, lambda _: True),
        ("decode", decoding, lambda _: True),
        ("gateway", fan_out, lambda report: report.get("scenario") == "rates"),
        ("orders", orders, lambda report: report.get("bench") == "orders"),
    )
    for name, section, fits in sections:
        report = newest(folder / name, fits)
        if report is not None:
            yield from section(report)


def main() -> None:
    """Print the table; numbers of Headrace alone come first."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    pipeline = newest(folder / "pipeline")
    if pipeline is not None:
        for kind, row in pipeline.items():
            if isinstance(row, dict):
                print(f"pipeline, {kind}: {row['per_s']:,}/s, {row['cpu_us']} µs CPU each ({pipeline['at'][:10]})")
        print()
    print("| | | Headrace | peer | | ahead by | measured |")
    print("|---|---|---:|---:|---|---:|---|")
    for row in rows(folder):
        print(
            f"| {row.what} | {row.unit} | {row.ours:,.4g} | {row.theirs:,.4g} | {row.peer} "
            f"| {row.ratio:.2f} | {row.at[:10]} |"
        )


if __name__ == "__main__":
    main()
