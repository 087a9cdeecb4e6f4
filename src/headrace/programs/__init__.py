"""Everything about each program on board: a folder with its IDL, and what its events and accounts mean.

A folder is named as the program is in topics. It holds `idl.json`, `supplement.json` where live transactions show what
the IDL lacks, and `facts.py` where events or accounts mean more than their fields: trades, pools, mints, new tokens.
`facts.py` defines `FACTS`, a `ProgramFacts`. `curve.py` defines `CURVE`, which quotes swaps (`quoting`). Folders are
found by themselves (`register`, `curves`). All of it is pure.
"""

from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent
"""Where the folders are."""
