"""Measurements: `headrace bench NAME` measures this machine. Results of record and how to repeat them: benchmarks/."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec


def add_write(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The option `--write`, whose value `tell` takes."""
    parser.add_argument("--write", type=Path, metavar="DIR", help="append the report to results.jsonl in this folder")


def tell(text: str, report: dict[str, Any], folder: Path | None) -> None:
    """Print the text; with a folder, add the report as one line to its `results.jsonl`. Raises OSError."""
    sys.stdout.write(text + "\n")
    if folder is not None:
        with (folder / "results.jsonl").open("ab") as results:
            results.write(msgspec.json.encode(report) + b"\n")


def run_and_tell(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> int:
    """Read the arguments, run with them, tell the report; the exit status."""
    add_write(parser)
    args = parser.parse_args(argv)
    report = run(args)
    tell(table(report), report, args.write)
    return 0


def at_least_one(text: str) -> int:
    """An argument that is a count. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1")
    return int(text)


def progress(line: str) -> None:
    """Tell a person who waits what is going on: on stderr, so that stdout holds results only."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
