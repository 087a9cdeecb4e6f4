"""Coverage-guided fuzzing of one target, or of `all` in turn: `python -m tests.fuzz.run TARGET [SECONDS]`.

Ends with status 0 after SECONDS (60) for each, otherwise with the input that failed in a file `crash-…`, `timeout-…` or
`oom-…` of the working folder. Put it, as small as it can be made, into tests/data/fuzz/TARGET with the fix.
"""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

atheris: Any = importlib.import_module("atheris")  # which has no types, and is not there on every machine

with atheris.instrument_imports(include=["headrace"], enable_loader_override=False):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

HANG_S: Final = 10
MEGABYTES_MAX: Final = 1024
INPUT_BYTES_MAX: Final = 8192


def main() -> None:
    """Fuzz until the time is over; libFuzzer ends the process."""
    name, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
    if name == "all":
        for each in TARGETS:
            subprocess.run([sys.executable, "-m", "tests.fuzz.run", each, str(seconds)], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds(name)):
            Path(folder, str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEGABYTES_MAX}"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1", folder], TARGETS[name]
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
