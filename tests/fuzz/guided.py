"""Targets under atheris, each with a folder to begin from: `python -m tests.fuzz.guided SECONDS TARGET=FOLDER…`.

A process of its own: atheris instruments Headrace's modules, and those of the targets, while they are imported, which
takes as long as a short run. So all targets are forks of one process; libFuzzer ends each.
"""

import importlib
import os
import sys
from typing import Any, Final

atheris: Any = importlib.import_module("atheris")  # which has no types, and is not there on every machine

with atheris.instrument_imports(include=["headrace", "tests.fuzz"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

HANG_S: Final = 10
MEGABYTES_MAX: Final = 1024
INPUT_BYTES_MAX: Final = 16_384


def main() -> int:
    """Fuzz each target; the status of the first that fails ends the run."""
    seconds, *pairs = sys.argv[1:]
    for name, _, folder in (pair.partition("=") for pair in pairs):
        child = os.fork()
        if child == 0:
            fuzz(name, seconds, folder)
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            return status
    return 0


def fuzz(name: str, seconds: str, folder: str) -> None:
    """Fuzz one target; libFuzzer ends the process."""
    print(f"{name}:", file=sys.stderr, flush=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEGABYTES_MAX}"]
    options = [*limits, f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, folder], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
