"""Benchmarks: `headrace bench NAME` measures on this machine.

benchmarks/ contains recorded results, and how to repeat them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec


def add_write(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option `--write`; its value is the `folder` of `print_report`."""
    parser.add_argument("--write", type=Path, metavar="DIR", help="append the report to results.jsonl in this folder")


def print_report(text: str, report: dict[str, Any], folder: Path | None) -> None:
    """Print the text. If `folder` is given, append the report as one line to its `results.jsonl`. Raises OSError."""
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
    """Parse the arguments, run with them, and print the report. Return the exit status."""
    add_write(parser)
    args = parser.parse_args(argv)
    report = run(args)
    print_report(table(report), report, args.write)
    return 0


def at_least_one(text: str) -> int:
    """Return an argument as an integer of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1")
    return int(text)


def progress(line: str) -> None:
    """Print a line of progress to stderr, so that stdout has only the results."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
