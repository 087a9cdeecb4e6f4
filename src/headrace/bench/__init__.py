"""Measurements: `headrace bench NAME` measures this machine. Results of record and how to repeat them: benchmarks/."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec


def add_write(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option `--write`, whose value `print_report` takes."""
    parser.add_argument("--write", type=Path, metavar="DIR", help="append the report to results.jsonl in this folder")


def print_report(text: str, report: dict[str, Any], folder: Path | None) -> None:
    """Print the text; with a folder, append the report as one line to its `results.jsonl`. Raises OSError."""
    sys.stdout.write(text + "\n")
    if folder is not None:
        with (folder / "results.jsonl").open("ab") as results:
            results.write(msgspec.json.encode(report) + b"\n")


def run_and_report(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """Read the arguments, run with them and print the report; return the exit status."""
    add_write(parser)
    args = parser.parse_args(argv)
    report = run(args)
    print_report(table(report), report, args.write)
    return 0


def at_least_one(text: str) -> int:
    """Return an argument that is a count. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1")
    return int(text)


def progress(line: str) -> None:
    """Print what is going on to stderr, so that stdout holds results only."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
