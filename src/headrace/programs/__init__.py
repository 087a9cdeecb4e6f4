"""Keep all that is known about each program: a folder with its IDL, and what its events and accounts mean.

A folder's name is the program's name in topics. A folder holds `idl.json`; `supplement.json`, if live transactions show
what the IDL lacks; and `facts.py`, if events or accounts mean more than their fields: trades, pools, mints, new tokens.
`facts.py` defines `FACTS`, a `ProgramFacts`. `curve.py` defines `CURVE`, which quotes swaps (`quoting`). Folders are
found automatically (`register`, `curves`). All of it is pure.
"""

from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent
"""The folder that contains the program folders."""
