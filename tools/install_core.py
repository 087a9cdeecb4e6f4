"""Install the built core where this Python finds it: `install_core.py FOLDER`, with the folder of cargo's library."""

import shutil
import sys
import sysconfig
from pathlib import Path

NAMES = ("libheadrace_native.so", "libheadrace_native.dylib")


def main(folder: Path) -> None:
    """Copy the library into this Python's packages, under the name that every Python 3.11 or later imports."""
    for name in NAMES:
        if (folder / name).is_file():
            target = Path(sysconfig.get_path("platlib")) / "headrace_native.abi3.so"
            unfinished = target.with_suffix(".part")
            shutil.copyfile(folder / name, unfinished)  # a running server keeps its file, as the new one replaces it
            unfinished.replace(target)
            print(f"installed {target}")
            return
    sys.exit(f"{folder}: expected {' or '.join(NAMES)}; cargo build --release makes it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
