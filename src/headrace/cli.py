"""The `headrace` command: parses arguments and calls; it builds nothing itself."""

import argparse
import sys
from collections.abc import Sequence

from headrace import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process exit code (0 done, 1 failed, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="headrace", description="Solana streams and order execution in one service.")
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    parser.parse_args(argv)
    parser.print_help(sys.stdout)
    return 2
