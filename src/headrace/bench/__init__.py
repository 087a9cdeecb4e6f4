"""Measurements: `headrace bench NAME` measures this machine. Results of record and how to repeat them: benchmarks/."""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec


def append(report: dict[str, Any], folder: Path | None) -> None:
    """Add the report as one line to `results.jsonl` in the folder, if one was asked for. Raises OSError."""
    if folder is not None:
        with (folder / "results.jsonl").open("ab") as results:
            results.write(msgspec.json.encode(report) + b"\n")


def at_least_one(text: str) -> int:
    """An argument that is a count. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1")
    return int(text)


def progress(line: str) -> None:
    """Tell a person who waits what is going on: on stderr, so that stdout holds results only."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
