"""Coverage-guided fuzzing of one target, or of `all` in turn: `python -m tests.fuzz.run TARGET [SECONDS] [--keep]`.

Begins with the seeds and the kept inputs of the target. Ends with status 0 after SECONDS (60) for each, otherwise with
the input that failed in a file `crash-…`, `timeout-…` or `oom-…` of the working folder. Put it, as small as it can be
made, into tests/data/fuzz/TARGET with the fix. `--keep` adds what reached new lines to tests/data/fuzz.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.keeping import keep
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz the targets; the status of the first that fails ends the run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run")
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("seconds", type=int, nargs="?", default=60)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    names = list(TARGETS) if arguments.target == "all" else [arguments.target]
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in names}
        for name, folder in folders.items():
            folder.mkdir()
            for number, seed in enumerate(seeds(name)):
                (folder / str(number)).write_bytes(seed)
        pairs = [f"{name}={folder}" for name, folder in folders.items()]
        command = [sys.executable, "-m", "tests.fuzz.guided", str(arguments.seconds), *pairs]
        if status := subprocess.run(command, check=False).returncode:
            return status
        for name, folder in folders.items() if arguments.keep else ():
            added = keep(name, [path.read_bytes() for path in folder.iterdir()])
            print(f"{name}: {added} inputs more are kept", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
